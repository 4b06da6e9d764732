/* SQLite does its own I/O, so every call runs on a worker thread, one at a time (a mutex).
 * Table kv(key, value, revision); the revision is a counter of the whole database, as etcd's is.
 *
 * What can go wrong: another process holds the write lock (busy timeout, then -EBUSY: certainly
 * not applied); the disk is full (-ENOSPC, rolled back) or became read only (-EROFS, likewise); an I/O error at COMMIT (the outcome is
 * unknown: -ETIMEDOUT); the file is damaged (-EUCLEAN) or newer than this program. */
#include "parallax/catalog/catalog_sqlite.h"

#include <errno.h>
#include <sqlite3.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>

#include "core/array.h"
#include "core/fiber.h"

#define SCHEMA_VERSION 1
#define APPLICATION_ID 0x41515543 /* "AQUC" */
#define BUSY_MS 10000

struct catalog_sqlite {
	struct catalog catalog;
	sqlite3 *db;
	struct fiber_mutex mutex;
	char path[512];
};

static struct catalog_sqlite *self(struct catalog *c) { return container_of(c, struct catalog_sqlite, catalog); }

static int errno_of(int rc)
{
	switch (rc & 0xff) {
	case SQLITE_OK: case SQLITE_DONE: case SQLITE_ROW: return 0;
	case SQLITE_BUSY: case SQLITE_LOCKED: return -EBUSY;
	case SQLITE_FULL: return -ENOSPC;
	case SQLITE_CORRUPT: case SQLITE_NOTADB: return -EUCLEAN;
	case SQLITE_READONLY: return -EROFS;
	case SQLITE_PERM: case SQLITE_AUTH: return -EACCES;
	case SQLITE_NOMEM: return -ENOMEM;
	default: return -EIO;
	}
}

static int run_sql(sqlite3 *db, const char *sql) { return errno_of(sqlite3_exec(db, sql, NULL, NULL, NULL)); }

/* Runs `call` alone, on a worker where the loop serves others. */
static int exclusively(struct catalog_sqlite *s, int (*call)(void *arg), void *arg)
{
	fiber_mutex_lock(&s->catalog.env->loop, &s->mutex);
	int r = env_brief_wait(s->catalog.env, call, arg);
	fiber_mutex_unlock(&s->mutex);
	return r;
}

/* ---- transactions ---- */

struct txn_call {
	sqlite3 *db;
	const struct catalog_txn *txn;
	uint64_t revision;
};

static int read_revision(sqlite3 *db, const char *key, uint64_t *ret_revision)
{
	sqlite3_stmt *q;
	int rc = sqlite3_prepare_v2(db, "SELECT revision FROM kv WHERE key = ?1", -1, &q, NULL);
	if (rc != SQLITE_OK)
		return errno_of(rc);
	sqlite3_bind_text(q, 1, key, -1, SQLITE_STATIC);
	rc = sqlite3_step(q);
	*ret_revision = rc == SQLITE_ROW ? (uint64_t)sqlite3_column_int64(q, 0) : 0;
	sqlite3_finalize(q);
	return errno_of(rc);
}

static int compares_hold(const struct txn_call *c)
{
	for (unsigned i = 0; i < c->txn->compare_count; i++) {
		uint64_t revision;
		int r = read_revision(c->db, c->txn->compare[i].key, &revision);
		if (r < 0)
			return r;
		if (revision != c->txn->compare[i].revision)
			return -EAGAIN;
	}
	return 0;
}

static int apply_change(sqlite3 *db, const struct catalog_change *change, uint64_t revision)
{
	sqlite3_stmt *q;
	int rc = sqlite3_prepare_v2(db, change->bytes ? "INSERT INTO kv VALUES (?1, ?2, ?3) ON CONFLICT (key) DO UPDATE SET value = ?2, revision = ?3"
						      : "DELETE FROM kv WHERE key = ?1", -1, &q, NULL);
	if (rc != SQLITE_OK)
		return errno_of(rc);
	sqlite3_bind_text(q, 1, change->key, -1, SQLITE_STATIC);
	if (change->bytes) {
		sqlite3_bind_blob64(q, 2, change->bytes, change->length, SQLITE_STATIC);
		sqlite3_bind_int64(q, 3, (sqlite3_int64)revision);
	}
	rc = sqlite3_step(q);
	sqlite3_finalize(q);
	return errno_of(rc);
}

static int txn_apply(struct txn_call *c)
{
	int r = compares_hold(c);
	if (r < 0)
		return r;
	/* the counter is a row like the others, under a name that no key can have */
	r = read_revision(c->db, "", &c->revision);
	c->revision++;
	struct catalog_change counter = { .key = "", .bytes = "" };
	if (r == 0)
		r = apply_change(c->db, &counter, c->revision);
	for (unsigned i = 0; r == 0 && i < c->txn->change_count; i++)
		r = apply_change(c->db, &c->txn->change[i], c->revision);
	return r;
}

static int txn_run(void *arg)
{
	struct txn_call *c = arg;
	int r = run_sql(c->db, "BEGIN IMMEDIATE");
	if (r < 0)
		return r;
	r = txn_apply(c);
	if (r < 0) {
		run_sql(c->db, "ROLLBACK");
		return r;
	}
	r = run_sql(c->db, "COMMIT");
	if (r == 0)
		return 0;
	/* the log's last frame wasn't written, and no frame counts without it */
	bool readonly = sqlite3_extended_errcode(c->db) == SQLITE_IOERR_WRITE && sqlite3_system_errno(c->db) == EROFS;
	if (readonly)
		r = -EROFS;
	run_sql(c->db, "ROLLBACK");
	return r == -EIO ? -ETIMEDOUT : r;
}

static int sqlite_txn(struct catalog *catalog, const struct catalog_txn *t, uint64_t *ret_revision)
{
	struct catalog_sqlite *s = self(catalog);
	struct txn_call c = { .db = s->db, .txn = t };
	int r = exclusively(s, txn_run, &c);
	if (r == 0 && ret_revision)
		*ret_revision = c.revision;
	return r;
}

/* ---- reading ---- */

#define ROW_SQL "SELECT key, value, revision FROM kv WHERE key = ?1"

struct row {
	char *key;
	struct catalog_value value;
};

struct rows_call {
	sqlite3 *db;
	const char *sql, *key;
	struct row *rows;
	size_t count;
};

static int rows_add(struct rows_call *c, sqlite3_stmt *q)
{
	if (array_more(&c->rows, c->count) < 0)
		return -ENOMEM;
	size_t length = (size_t)sqlite3_column_bytes(q, 1);
	struct row row = { .key = strdup((const char *)sqlite3_column_text(q, 0)),
			   .value = { malloc(length ? length : 1), length, (uint64_t)sqlite3_column_int64(q, 2) } };
	if (!row.key || !row.value.bytes) {
		free(row.key);
		free(row.value.bytes);
		return -ENOMEM;
	}
	if (length)
		memcpy(row.value.bytes, sqlite3_column_blob(q, 1), length);
	c->rows[c->count++] = row;
	return 0;
}

static int rows_run(void *arg)
{
	struct rows_call *c = arg;
	sqlite3_stmt *q;
	int rc = sqlite3_prepare_v2(c->db, c->sql, -1, &q, NULL);
	if (rc != SQLITE_OK)
		return errno_of(rc);
	sqlite3_bind_text(q, 1, c->key, -1, SQLITE_STATIC);
	int r = 0;
	while (r == 0 && (rc = sqlite3_step(q)) == SQLITE_ROW)
		r = rows_add(c, q);
	sqlite3_finalize(q);
	return r ? r : errno_of(rc);
}

static void rows_free(struct rows_call *c)
{
	for (size_t i = 0; i < c->count; i++) {
		free(c->rows[i].key);
		catalog_value_free(&c->rows[i].value);
	}
	free(c->rows);
}

static int sqlite_get(struct catalog *catalog, const char *key, struct catalog_value *ret_value)
{
	struct catalog_sqlite *s = self(catalog);
	struct rows_call c = { .db = s->db, .key = key, .sql = ROW_SQL };
	*ret_value = (struct catalog_value){ 0 };
	int r = exclusively(s, rows_run, &c);
	if (r == 0 && c.count == 0)
		r = -ENOENT;
	if (r == 0) {
		*ret_value = c.rows[0].value;
		c.rows[0].value.bytes = NULL;
	}
	rows_free(&c);
	return r;
}

struct wants_call {
	sqlite3 *db;
	struct catalog_want *wants;
	unsigned count;
};

static int want_fill(sqlite3 *db, struct catalog_want *w)
{
	struct rows_call c = { .db = db, .key = w->key, .sql = ROW_SQL };
	int r = rows_run(&c);
	if (r == 0 && c.count) {
		w->value = c.rows[0].value;
		c.rows[0].value.bytes = NULL;
	}
	rows_free(&c);
	return r;
}

/* A transaction that reads sees one state. */
static int wants_run(void *arg)
{
	struct wants_call *c = arg;
	int r = run_sql(c->db, "BEGIN");
	if (r < 0)
		return r;
	for (unsigned i = 0; r == 0 && i < c->count; i++)
		r = want_fill(c->db, &c->wants[i]);
	run_sql(c->db, "ROLLBACK");
	return r;
}

static int sqlite_get_many(struct catalog *catalog, struct catalog_want *wants, unsigned count)
{
	struct catalog_sqlite *s = self(catalog);
	struct wants_call c = { s->db, wants, count };
	for (unsigned i = 0; i < count; i++)
		wants[i].value = (struct catalog_value){ 0 };
	int r = exclusively(s, wants_run, &c);
	if (r < 0)
		catalog_wants_free(wants, count);
	return r;
}

#define BELOW_SQL "FROM kv WHERE key >= ?1 AND key < ?1 || x'ff' AND key <> ''"

struct tallies_call {
	sqlite3 *db;
	struct catalog_tally *tallies;
	unsigned count;
};

static int tallies_count(sqlite3_stmt *q, struct tallies_call *c)
{
	int rc = SQLITE_ROW;
	for (unsigned i = 0; rc == SQLITE_ROW && i < c->count; i++) {
		sqlite3_bind_text(q, 1, c->tallies[i].prefix, -1, SQLITE_STATIC);
		rc = sqlite3_step(q);
		c->tallies[i].count = rc == SQLITE_ROW ? (uint64_t)sqlite3_column_int64(q, 0) : 0;
		sqlite3_reset(q);
	}
	return errno_of(rc);
}

static int tallies_run(void *arg)
{
	struct tallies_call *c = arg;
	sqlite3_stmt *q = NULL;
	int r = run_sql(c->db, "BEGIN"); /* one state */
	if (r < 0)
		return r;
	r = errno_of(sqlite3_prepare_v2(c->db, "SELECT count(*) " BELOW_SQL, -1, &q, NULL));
	if (r == 0)
		r = tallies_count(q, c);
	sqlite3_finalize(q);
	run_sql(c->db, "ROLLBACK");
	return r;
}

static int sqlite_count(struct catalog *catalog, struct catalog_tally *tallies, unsigned count)
{
	struct catalog_sqlite *s = self(catalog);
	struct tallies_call c = { s->db, tallies, count };
	return exclusively(s, tallies_run, &c);
}

static int sqlite_list(struct catalog *catalog, const char *prefix,
		       int (*entry)(void *arg, const char *key, const struct catalog_value *value), void *arg)
{
	struct catalog_sqlite *s = self(catalog);
	struct rows_call c = { .db = s->db, .key = prefix, .sql = "SELECT key, value, revision " BELOW_SQL " ORDER BY key" };
	int r = exclusively(s, rows_run, &c);
	for (size_t i = 0; r == 0 && i < c.count; i++)
		r = entry(arg, c.rows[i].key, &c.rows[i].value);
	rows_free(&c);
	return r;
}

static int close_run(void *arg)
{
	sqlite3_close(arg);
	return 0;
}

static void sqlite_close(struct catalog *catalog)
{
	struct catalog_sqlite *s = self(catalog);
	exclusively(s, close_run, s->db);
	free(s);
}

static const struct catalog_ops sqlite_ops = {
	.txn = sqlite_txn, .get = sqlite_get, .get_many = sqlite_get_many, .count = sqlite_count, .list = sqlite_list, .close = sqlite_close,
};

/* ---- opening ---- */

struct open_call {
	struct catalog_sqlite *s;
	bool create;
	struct report *report;
};

static int read_pragma(sqlite3 *db, const char *sql, int *ret)
{
	sqlite3_stmt *q;
	int rc = sqlite3_prepare_v2(db, sql, -1, &q, NULL);
	if (rc != SQLITE_OK)
		return errno_of(rc);
	rc = sqlite3_step(q);
	*ret = rc == SQLITE_ROW ? sqlite3_column_int(q, 0) : 0;
	sqlite3_finalize(q);
	return errno_of(rc);
}

/* Deleting must work on a full disk (P7), and a delete writes. So the log file is grown once to what it may need between two of
 * SQLite's checkpoints, and used from its beginning again; the database gets as much in free pages; and both files stay when
 * everybody closes. */
#define GROW "INSERT INTO kv VALUES ('!', zeroblob(2200000), 0); DELETE FROM kv WHERE key = '!'" /* 530 pages */
#define RESTART "PRAGMA wal_checkpoint(RESTART); INSERT OR IGNORE INTO kv VALUES ('', '', 1)"
#define MODES "PRAGMA synchronous = FULL; PRAGMA wal_autocheckpoint = 300"

static int newer(const char *path, int version, struct report *report)
{
	char what[600];
	snprintf(what, sizeof what, "catalog %.500s", path);
	return report_newer(report, what, (unsigned)version, SCHEMA_VERSION);
}

static int create_schema(sqlite3 *db, const char *path, struct report *report)
{
	int r = run_sql(db, "BEGIN IMMEDIATE");
	int version = 0;
	if (r == 0)
		r = read_pragma(db, "PRAGMA user_version", &version);
	if (r == 0 && version == 0)
		r = run_sql(db, "CREATE TABLE kv (key TEXT PRIMARY KEY, value BLOB NOT NULL, revision INTEGER NOT NULL) WITHOUT ROWID;"
				"PRAGMA application_id = 1095849283; PRAGMA user_version = 1;" GROW);
	if (r == 0)
		r = run_sql(db, "COMMIT");
	else
		run_sql(db, "ROLLBACK");
	if (r == 0 && version == 0)
		run_sql(db, RESTART); /* as well as can be */
	return r == 0 && version > SCHEMA_VERSION ? newer(path, version, report) : r; /* somebody else was faster */
}

/* Before anything of the file is changed: is it ours, or nobody's yet? */
static int check_schema(sqlite3 *db, const char *path, int *ret_version, struct report *report)
{
	int application = 0, tables = 0, r = read_pragma(db, "PRAGMA user_version", ret_version);
	if (r == 0)
		r = read_pragma(db, "PRAGMA application_id", &application);
	if (r == 0)
		r = read_pragma(db, "SELECT count(*) FROM sqlite_master", &tables);
	if (r < 0)
		return r;
	if (application != APPLICATION_ID && (*ret_version || application || tables))
		return report_set(report, -EUCLEAN, "%s is some other program's SQLite file", path);
	if (*ret_version > SCHEMA_VERSION)
		return newer(path, *ret_version, report);
	return 0;
}

/* Two that make the store at the same time get in one another's way here, and SQLite doesn't wait. */
static int set_modes(sqlite3 *db)
{
	int r;
	for (unsigned attempt = 0; (r = run_sql(db, "PRAGMA journal_mode = WAL")) == -EBUSY && attempt < BUSY_MS / 10; attempt++)
		sqlite3_sleep(10);
	return r < 0 ? r : run_sql(db, MODES);
}

/* Only a file that isn't there is -ENOENT: anything else must not look like an empty store. */
static int open_db(const struct open_call *c, sqlite3 **ret_db)
{
	int rc = sqlite3_open_v2(c->s->path, ret_db, SQLITE_OPEN_READWRITE | SQLITE_OPEN_FULLMUTEX | (c->create ? SQLITE_OPEN_CREATE : 0), NULL);
	int system = *ret_db ? sqlite3_system_errno(*ret_db) : 0;
	if ((rc & 0xff) != SQLITE_CANTOPEN || !system)
		return errno_of(rc);
	if (system == ENOENT && !c->create)
		return report_set(c->report, -ENOENT, "there is no store yet: no %s (the first `aquifer volume create` makes it; a FILE needs a slash)",
				  c->s->path);
	if (system == ENOENT)
		return report_set(c->report, -EIO, "catalog %s can't be made: what it should be in isn't there (make that first)", c->s->path);
	return report_set(c->report, -system, "catalog %s: %s", c->s->path, strerror(system));
}

static int open_run(void *arg)
{
	struct open_call *c = arg;
	sqlite3 *db = NULL;
	int version = 0, keep = 1, r = open_db(c, &db);
	if (r == 0) {
		sqlite3_busy_timeout(db, BUSY_MS);
		sqlite3_file_control(db, NULL, SQLITE_FCNTL_PERSIST_WAL, &keep);
		r = check_schema(db, c->s->path, &version, c->report);
	}
	if (r == 0)
		r = set_modes(db);
	if (r == 0 && version == 0)
		r = create_schema(db, c->s->path, c->report);
	if (r == 0 && sqlite3_db_readonly(db, NULL))
		r = report_set(c->report, -EROFS, "catalog %s can't be written (read-only file system, or no permission)", c->s->path);
	if (r < 0) {
		report_set(c->report, r, r == -EUCLEAN ? "catalog %s is damaged (restore it from a backup): %s" : "catalog %s: %s",
			   c->s->path, db ? sqlite3_errmsg(db) : "out of memory");
		sqlite3_close(db);
		return r;
	}
	c->s->db = db;
	return 0;
}

int catalog_sqlite_open(struct env *env, const char *path, bool create, struct catalog **ret_catalog, struct report *report)
{
	struct catalog_sqlite *s = calloc(1, sizeof *s);
	if (!s)
		return -ENOMEM;
	s->catalog = (struct catalog){ .ops = &sqlite_ops, .env = env };
	fiber_mutex_init(&s->mutex);
	if ((size_t)snprintf(s->path, sizeof s->path, "%s", path) >= sizeof s->path) {
		free(s);
		return report_set(report, -ENAMETOOLONG, "catalog path is too long (at most %zu bytes): %s", sizeof s->path - 1, path);
	}
	struct open_call c = { s, create, report };
	int r = env_offload_wait(env, open_run, &c);
	if (r < 0) {
		free(s);
		return r;
	}
	*ret_catalog = &s->catalog;
	return 0;
}
