/* The embedded catalog on a real disk: transactions, several processes at once, files that are damaged, newer or somebody else's,
 * directories that can't be written, disks that are full. */
#include "parallax/catalog/catalog.h"

#include <criterion/criterion.h>
#include <errno.h>
#include <fcntl.h>
#include <pthread.h>
#include <signal.h>
#include <sqlite3.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/resource.h>
#include <sys/stat.h>
#include <sys/wait.h>
#include <unistd.h>

#include "core/bytes.h"
#include "core/fiber.h"
#include "tests/tools/lib/catalog_conformance.h"
#include "tests/unit/tempdir.h"

struct rig {
	struct env *env;
	char dir[64], path[96], url[128];
	struct report report;
	int (*body)(struct rig *r, struct catalog *c);
	bool create;
};

static struct rig rig_make(void)
{
	struct rig r = { .create = true, .dir = "/tmp/aqcat.XXXXXX" };
	cr_assert(mkdtemp(r.dir));
	snprintf(r.path, sizeof r.path, "%s/catalog.db", r.dir);
	snprintf(r.url, sizeof r.url, "sqlite:%s", r.path);
	cr_assert_eq(env_linux_create(0, &r.env), 0);
	return r;
}

static void rig_free(struct rig *r)
{
	env_linux_destroy(r->env);
	tempdir_remove(r->dir);
}

static int rig_run(void *arg)
{
	struct rig *r = arg;
	struct catalog *c = NULL;
	r->report.text[0] = '\0';
	int e = catalog_open(r->env, r->url, NULL, r->create, &c, &r->report);
	if (e < 0)
		return e;
	e = r->body ? r->body(r, c) : 0;
	catalog_close(c);
	return e;
}

static int rig_do(struct rig *r, int (*body)(struct rig *r, struct catalog *c))
{
	r->body = body;
	return env_linux_run_fiber(r->env, rig_run, r);
}

/* It fails so, with one line that says why. */
static void rig_refused(struct rig *r, int status, const char *why)
{
	int e = rig_do(r, NULL);
	cr_assert_eq(e, status, "%d instead of %d: %s", e, status, r->report.text);
	cr_assert(strstr(r->report.text, why) && strstr(r->report.text, "catalog") && !strchr(r->report.text, '\n'), "%s", r->report.text);
}

static int put(struct catalog *c, const char *key, const char *value, uint64_t compare, uint64_t *ret_revision)
{
	struct catalog_txn t;
	catalog_txn_init(&t);
	catalog_txn_compare(&t, key, compare);
	catalog_txn_put(&t, key, value, strlen(value));
	return catalog_txn(c, &t, ret_revision);
}

/* ---- transactions ---- */

static int body_transactions(struct rig *r, struct catalog *c)
{
	struct catalog_value v;
	uint64_t first, second;
	(void)r;
	cr_assert_eq(catalog_get(c, "a", &v), -ENOENT);
	cr_assert(v.bytes == NULL && v.revision == 0);
	cr_assert_eq(put(c, "a", "one", 0, &first), 0);
	cr_assert_eq(put(c, "a", "two", 0, NULL), -EAGAIN); /* it is there now */
	cr_assert_eq(put(c, "a", "two", first, &second), 0);
	cr_assert_gt(second, first);
	cr_assert_eq(put(c, "a", "three", first, NULL), -EAGAIN);
	cr_assert_eq(catalog_get(c, "a", &v), 0);
	cr_assert(v.length == 3 && memcmp(v.bytes, "two", 3) == 0 && v.revision == second);
	catalog_value_free(&v);
	/* all or nothing */
	struct catalog_txn t;
	catalog_txn_init(&t);
	catalog_txn_compare(&t, "a", second);
	catalog_txn_compare(&t, "b", 7);
	catalog_txn_put(&t, "b", "x", 1);
	catalog_txn_delete(&t, "a");
	cr_assert_eq(catalog_txn(c, &t, NULL), -EAGAIN);
	cr_assert_eq(catalog_get(c, "b", &v), -ENOENT);
	catalog_txn_init(&t);
	catalog_txn_compare(&t, "a", second);
	catalog_txn_put(&t, "b", "", 0);
	catalog_txn_delete(&t, "a");
	catalog_txn_delete(&t, "never was");
	cr_assert_eq(catalog_txn(c, &t, NULL), 0);
	cr_assert_eq(catalog_get(c, "a", &v), -ENOENT);
	cr_assert_eq(catalog_get(c, "b", &v), 0);
	cr_assert_eq(v.length, 0);
	catalog_value_free(&v);
	/* a key that is made again has a new revision */
	uint64_t again;
	cr_assert_eq(put(c, "a", "one", 0, &again), 0);
	cr_assert_gt(again, second);
	return 0;
}

static int body_kept(struct rig *r, struct catalog *c)
{
	struct catalog_value v;
	(void)r;
	cr_assert_eq(catalog_get(c, "a", &v), 0);
	cr_assert(v.length == 3 && memcmp(v.bytes, "one", 3) == 0);
	catalog_value_free(&v);
	return 0;
}

Test(catalog, transactions)
{
	struct rig r = rig_make();
	cr_assert_eq(rig_do(&r, body_transactions), 0, "%s", r.report.text);
	r.create = false;
	cr_assert_eq(rig_do(&r, body_kept), 0, "%s", r.report.text);
	rig_free(&r);
}

static int body_largest(struct rig *r, struct catalog *c)
{
	struct catalog_txn *t = malloc(sizeof *t);
	uint8_t *big = malloc(CATALOG_VALUE_MAX);
	char keys[CATALOG_TXN_MAX][16];
	struct catalog_value v;
	(void)r;
	memset(big, 0xa5, CATALOG_VALUE_MAX);
	catalog_txn_init(t);
	for (unsigned i = 0; i < CATALOG_TXN_MAX; i++) {
		snprintf(keys[i], sizeof keys[i], "k/%03u", i);
		catalog_txn_compare(t, keys[i], 0);
		catalog_txn_put(t, keys[i], big, i ? 10 : CATALOG_VALUE_MAX);
	}
	cr_assert_eq(catalog_txn(c, t, NULL), 0);
	cr_assert_eq(catalog_get(c, "k/000", &v), 0);
	cr_assert(v.length == CATALOG_VALUE_MAX && memcmp(v.bytes, big, v.length) == 0);
	catalog_value_free(&v);
	free(big);
	free(t);
	return 0;
}

Test(catalog, largest_transaction)
{
	struct rig r = rig_make();
	cr_assert_eq(rig_do(&r, body_largest), 0);
	rig_free(&r);
}

struct seen {
	char keys[16][32];
	unsigned count, stop_at;
};

static int note(void *arg, const char *key, const struct catalog_value *value)
{
	struct seen *s = arg;
	cr_assert(value->revision > 0);
	snprintf(s->keys[s->count++], sizeof s->keys[0], "%s", key);
	return s->count == s->stop_at ? -ECANCELED : 0;
}

static int body_list(struct rig *r, struct catalog *c)
{
	static const char *const keys[] = { "v/10", "v/2", "w", "v", "v/", "v0", "u/1" };
	struct seen s = { .count = 0 };
	(void)r;
	for (unsigned i = 0; i < ARRAY_COUNT(keys); i++)
		cr_assert_eq(put(c, keys[i], "x", 0, NULL), 0);
	cr_assert_eq(catalog_list(c, "v/", note, &s), 0);
	cr_assert(s.count == 3 && !strcmp(s.keys[0], "v/") && !strcmp(s.keys[1], "v/10") && !strcmp(s.keys[2], "v/2"));
	s = (struct seen){ .stop_at = 2 };
	cr_assert_eq(catalog_list(c, "v/", note, &s), -ECANCELED);
	cr_assert_eq(s.count, 2);
	s = (struct seen){ 0 };
	cr_assert_eq(catalog_list(c, "", note, &s), 0);
	cr_assert_eq(s.count, ARRAY_COUNT(keys)); /* nothing of the catalog's own */
	return 0;
}

Test(catalog, lists_in_order)
{
	struct rig r = rig_make();
	cr_assert_eq(rig_do(&r, body_list), 0);
	rig_free(&r);
}

/* ---- what all engines do alike ---- */

static int body_conformance(struct rig *r, struct catalog *c)
{
	char why[256] = "";
	(void)r;
	int e = catalog_conformance(c, why, sizeof why);
	cr_assert_eq(e, 0, "%s", why);
	return e;
}

Test(catalog, conformance)
{
	struct rig r = rig_make();
	cr_assert_eq(rig_do(&r, body_conformance), 0, "%s", r.report.text);
	rig_free(&r);
}

/* ---- counters ---- */

static int body_counters(struct rig *r, struct catalog *c)
{
	uint64_t first;
	(void)r;
	cr_assert(catalog_counter_take(c, "n", 0, 1, &first) == 0 && first == 1);
	cr_assert(catalog_counter_take(c, "n", 0, 10, &first) == 0 && first == 2);
	cr_assert(catalog_counter_take(c, "n", 5, 1, &first) == 0 && first == 12);
	cr_assert(catalog_counter_take(c, "n", 100, 1, &first) == 0 && first == 101);
	cr_assert_eq(put(c, "broken", "abc", 0, NULL), 0);
	cr_assert_eq(catalog_counter_take(c, "broken", 0, 1, &first), -EUCLEAN); /* not: begin again */
	return 0;
}

Test(catalog, counters)
{
	struct rig r = rig_make();
	cr_assert_eq(rig_do(&r, body_counters), 0);
	rig_free(&r);
}

/* ---- several at once ---- */

enum { EACH = 20, PROCESSES = 3 };

static int body_count_up(struct rig *r, struct catalog *c)
{
	(void)r;
	for (unsigned i = 0; i < EACH; i++) {
		uint64_t n;
		int e = catalog_counter_take(c, "shared", 0, 1, &n);
		char key[32];
		snprintf(key, sizeof key, "taken/%llu", (unsigned long long)n);
		if (e == 0)
			e = put(c, key, "x", 0, NULL); /* fails if a number was given twice */
		if (e < 0)
			return e;
	}
	return 0;
}

static int body_counted(struct rig *r, struct catalog *c)
{
	uint64_t n;
	(void)r;
	cr_assert_eq(catalog_counter_take(c, "shared", 0, 1, &n), 0);
	cr_assert_eq(n, PROCESSES * EACH + 1);
	return 0;
}

/* They make the store together, too. */
Test(catalog, several_processes)
{
	struct rig r = rig_make();
	pid_t child[PROCESSES];
	for (unsigned i = 0; i < PROCESSES; i++) {
		child[i] = fork();
		if (child[i] == 0) {
			struct rig mine = r;
			if (env_linux_create(0, &mine.env) < 0)
				_exit(2);
			int e = rig_do(&mine, body_count_up);
			if (e)
				fprintf(stderr, "child: %d %s\n", e, mine.report.text);
			_exit(e != 0);
		}
	}
	for (unsigned i = 0; i < PROCESSES; i++) {
		int status;
		cr_assert_eq(waitpid(child[i], &status, 0), child[i]);
		cr_assert(WIFEXITED(status) && WEXITSTATUS(status) == 0);
	}
	cr_assert_eq(rig_do(&r, body_counted), 0);
	rig_free(&r);
}

/* Somebody reads for long: nobody waits for that. Somebody's write is waited for. */
static int body_behind_a_reader(struct rig *r, struct catalog *c)
{
	sqlite3 *db;
	cr_assert_eq(put(c, "a", "one", 0, NULL), 0);
	cr_assert_eq(sqlite3_open(r->path, &db), SQLITE_OK);
	cr_assert_eq(sqlite3_exec(db, "BEGIN; SELECT * FROM kv", NULL, NULL, NULL), SQLITE_OK);
	cr_assert_eq(put(c, "b", "two", 0, NULL), 0);
	cr_assert_eq(sqlite3_exec(db, "COMMIT", NULL, NULL, NULL), SQLITE_OK);
	sqlite3_close(db);
	return 0;
}

Test(catalog, readers_hold_up_nobody)
{
	struct rig r = rig_make();
	cr_assert_eq(rig_do(&r, body_behind_a_reader), 0);
	rig_free(&r);
}

/* A process that dies in the middle of a transaction: as if it had not begun one. */
Test(catalog, killed_while_writing)
{
	struct rig r = rig_make();
	cr_assert_eq(rig_do(&r, body_transactions), 0);
	pid_t child = fork();
	if (child == 0) {
		sqlite3 *db;
		if (sqlite3_open(r.path, &db) == SQLITE_OK && sqlite3_exec(db, "BEGIN IMMEDIATE; DELETE FROM kv", NULL, NULL, NULL) == SQLITE_OK)
			raise(SIGKILL);
		_exit(1);
	}
	int status;
	cr_assert_eq(waitpid(child, &status, 0), child);
	cr_assert(WIFSIGNALED(status));
	cr_assert_eq(rig_do(&r, body_kept), 0);
	rig_free(&r);
}

/* ---- what can be wrong with the file ---- */

static void write_file(const char *path, const void *bytes, size_t n, off_t at)
{
	int fd = open(path, O_CREAT | O_WRONLY, 0600);
	cr_assert(fd >= 0 && pwrite(fd, bytes, n, at) == (ssize_t)n);
	close(fd);
}

static void sql(const char *path, const char *text)
{
	sqlite3 *db;
	cr_assert_eq(sqlite3_open(path, &db), SQLITE_OK);
	cr_assert_eq(sqlite3_exec(db, text, NULL, NULL, NULL), SQLITE_OK, "%s", sqlite3_errmsg(db));
	sqlite3_close(db);
}

Test(catalog, there_is_none)
{
	struct rig r = rig_make();
	r.create = false;
	int e = rig_do(&r, NULL);
	cr_assert_eq(e, -ENOENT);
	cr_assert(r.report.text[0] && access(r.path, F_OK) < 0, "%s", r.report.text);
	rig_free(&r);
}

Test(catalog, not_a_database)
{
	struct rig r = rig_make();
	char text[8192];
	memset(text, 'x', sizeof text);
	write_file(r.path, text, sizeof text, 0);
	rig_refused(&r, -EUCLEAN, "damaged");
	rig_free(&r);
}

Test(catalog, damaged)
{
	struct rig r = rig_make();
	char junk[4000];
	cr_assert_eq(rig_do(&r, body_transactions), 0);
	char wal[128];
	snprintf(wal, sizeof wal, "%s-wal", r.path);
	unlink(wal); /* all is in the file */
	memset(junk, 0x5a, sizeof junk);
	write_file(r.path, junk, sizeof junk, 0);
	rig_refused(&r, -EUCLEAN, "damaged");
	rig_free(&r);
}

Test(catalog, newer)
{
	struct rig r = rig_make();
	cr_assert_eq(rig_do(&r, body_transactions), 0);
	sql(r.path, "PRAGMA user_version = 99");
	rig_refused(&r, -EPROTONOSUPPORT, "newer");
	rig_free(&r);
}

/* It isn't touched, whatever version it thinks it has. */
Test(catalog, some_other_programs)
{
	static const char *const versions[] = { "PRAGMA user_version = 0", "PRAGMA user_version = 1", "PRAGMA user_version = 99" };
	struct rig r = rig_make();
	sql(r.path, "CREATE TABLE bookmarks (url TEXT)");
	for (unsigned i = 0; i < ARRAY_COUNT(versions); i++) {
		struct stat before, after;
		sql(r.path, versions[i]);
		cr_assert_eq(stat(r.path, &before), 0);
		int e = rig_do(&r, NULL);
		cr_assert_eq(e, -EUCLEAN);
		cr_assert(strstr(r.report.text, "other program"), "%s", r.report.text);
		cr_assert_eq(stat(r.path, &after), 0);
		cr_assert(before.st_mtim.tv_nsec == after.st_mtim.tv_nsec && before.st_size == after.st_size);
	}
	rig_free(&r);
}

Test(catalog, urls)
{
	struct rig r = rig_make();
	snprintf(r.url, sizeof r.url, "mysql:x");
	rig_refused(&r, -EINVAL, "mysql:x");
	snprintf(r.url, sizeof r.url, "sqlite:");
	rig_refused(&r, -EINVAL, "sqlite:");
	snprintf(r.url, sizeof r.url, "etcd:h:1");
	rig_refused(&r, -EINVAL, "http://");
	snprintf(r.url, sizeof r.url, "etcd:http://127.0.0.1:1"); /* nobody listens there */
	rig_refused(&r, -ENOTCONN, "127.0.0.1:1");
	snprintf(r.url, sizeof r.url, "sqlite:%s/no/such/dir/c.db", r.dir);
	cr_assert_lt(rig_do(&r, NULL), 0);
	cr_assert(strstr(r.report.text, "what it should be in isn't there") && !strchr(r.report.text, '\n'), "%s", r.report.text);
	rig_free(&r);
}

/* ---- it can't be written ---- */

/* As somebody who may only read; root may always. */
Test(catalog, read_only_directory)
{
	if (getuid() != 0)
		return;
	struct rig r = rig_make();
	cr_assert_eq(rig_do(&r, body_transactions), 0);
	cr_assert(chmod(r.path, 0444) == 0 && chmod(r.dir, 0555) == 0);
	pid_t child = fork();
	if (child == 0) {
		struct rig mine = r;
		if (setgid(65534) < 0 || setuid(65534) < 0 || env_linux_create(0, &mine.env) < 0)
			_exit(2);
		int e = rig_do(&mine, NULL);
		bool line = strstr(mine.report.text, "catalog") && !strchr(mine.report.text, '\n');
		if (e >= 0 || !line)
			fprintf(stderr, "%d %s\n", e, mine.report.text);
		_exit(e == -EROFS || e == -EACCES || e == -ENOENT || e == -EIO ? !line : 3);
	}
	int status;
	cr_assert_eq(waitpid(child, &status, 0), child);
	cr_assert(WIFEXITED(status) && WEXITSTATUS(status) == 0, "%d", status);
	cr_assert_eq(chmod(r.dir, 0755), 0);
	rig_free(&r);
}

/* A limit on file sizes stands in for a full disk. */
static off_t size_of(const char *path, const char *suffix)
{
	char name[128];
	struct stat st;
	snprintf(name, sizeof name, "%s%s", path, suffix);
	return stat(name, &st) == 0 ? st.st_size : 0;
}

static struct rlimit limit_files(off_t bytes)
{
	struct rlimit was, tight;
	signal(SIGXFSZ, SIG_IGN);
	getrlimit(RLIMIT_FSIZE, &was);
	tight = (struct rlimit){ (rlim_t)bytes, was.rlim_max };
	cr_assert_eq(setrlimit(RLIMIT_FSIZE, &tight), 0);
	return was;
}

/* What is refused is not there, what was is; with space again it goes on. */
static int body_until_full(struct rig *r, struct catalog *c)
{
	uint8_t *big = calloc(1, CATALOG_VALUE_MAX);
	struct catalog_value v;
	struct catalog_txn t;
	char key[32];
	unsigned n = 0;
	int e = 0;
	(void)r;
	struct rlimit was = limit_files(16 << 20);
	for (; e == 0 && n < 500; n++) {
		snprintf(key, sizeof key, "big/%u", n);
		catalog_txn_init(&t);
		catalog_txn_put(&t, key, big, CATALOG_VALUE_MAX);
		e = catalog_txn(c, &t, NULL);
	}
	cr_assert(n > 1 && (e == -ENOSPC || e == -ETIMEDOUT || e == -EIO), "%d after %u", e, n);
	cr_assert_eq(catalog_get(c, "big/0", &v), 0);
	catalog_value_free(&v);
	setrlimit(RLIMIT_FSIZE, &was);
	for (unsigned i = 0; i + 1 < n; i++) {
		snprintf(key, sizeof key, "big/%u", i);
		catalog_txn_init(&t);
		catalog_txn_delete(&t, key);
		cr_assert_eq(catalog_txn(c, &t, NULL), 0);
	}
	free(big);
	return put(c, "after", "x", 0, NULL);
}

Test(catalog, no_more_space)
{
	struct rig r = rig_make();
	cr_assert_eq(rig_do(&r, body_until_full), 0);
	rig_free(&r);
}

/* P7: when the files can't grow by a byte, what deletes still goes through, however often. */
static int body_deletes(struct rig *r, struct catalog *c)
{
	struct rlimit was = limit_files(MAX(size_of(r->path, ""), size_of(r->path, "-wal")));
	char value[2000];
	memset(value, 'v', sizeof value - 1);
	value[sizeof value - 1] = '\0';
	for (unsigned i = 0; i < 600; i++) {
		struct catalog_txn t;
		uint64_t revision;
		cr_assert_eq(put(c, "volume/1/log", value, 0, &revision), 0, "%u", i);
		catalog_txn_init(&t);
		catalog_txn_compare(&t, "volume/1/log", revision);
		catalog_txn_delete(&t, "volume/1/log");
		catalog_txn_put(&t, "reap/1", "", 0);
		cr_assert_eq(catalog_txn(c, &t, NULL), 0, "%u", i);
	}
	setrlimit(RLIMIT_FSIZE, &was);
	return 0;
}

Test(catalog, deleting_needs_no_space)
{
	struct rig r = rig_make();
	cr_assert_eq(rig_do(&r, NULL), 0);
	cr_assert_eq(rig_do(&r, body_deletes), 0);
	rig_free(&r);
}
