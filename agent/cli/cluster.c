/* cluster init, move-catalog, backup, restore: the catalog as a whole. */
#include <errno.h>
#include <stdlib.h>
#include <string.h>
#include <unistd.h>

#include "agent/cli/cli.h"
#include "agent/cli/store_cli.h"
#include "agent/cli/transfer.h"
#include "core/bytes.h"
#include "core/config.h"
#include "core/option.h"
#include "core/textfile.h"
#include "parallax/access/access.h"
#include "parallax/catalog/catalog_access.h"
#include "parallax/catalog/catalog_copy.h"
#include "parallax/volume/places.h"
#include "proto/tls.h"

#define PROBE_NS NS_PER_S
#define BACKUP_BYTES_MAX ((uint64_t)512 << 20)

/* FIBER. Opens a catalog whatever its marks say. */
static int open_any(struct cli *c, const char *url, bool create, struct catalog **ret_catalog)
{
	struct catalog_access access;
	int r = catalog_access_load(c->env, c->root, url, &access, &c->report);
	if (r == 0)
		r = catalog_open_any(c->env, url, &access, create, ret_catalog, &c->report);
	catalog_access_free(&access);
	return r;
}

/* Of a catalog's file; "" for etcd. */
static void directory_of(const char *url, char ret_dir[CONFIG_VALUE_BYTES])
{
	const char *path = catalog_is_file(url) ? url + strlen("sqlite:") : "", *slash = strrchr(path, '/');
	snprintf(ret_dir, CONFIG_VALUE_BYTES, "%.*s", slash ? (int)(slash - path) : 0, path);
}

int cli_catalog(struct cli *c, const char *url)
{
	struct report why = { "" };
	int r = catalog_url_check(url, &why);
	if (r < 0)
		return r == -EINVAL ? cli_usage(c, "%s", why.text) : r;
	if (strlen(url) >= CONFIG_VALUE_BYTES || strpbrk(url, "#\n\r"))
		return cli_usage(c, "'%.100s' can't stand in the configuration", url);
	if (catalog_is_file(url) && url[strlen("sqlite:")] != '/')
		return cli_usage(c, "'%s': the path of a catalog is absolute (sqlite:/...)", url);
	return 0;
}

/* FIBER. A new catalog; -EEXIST if there is one. */
static int make_catalog(struct cli *c, const char *url, struct catalog **ret_catalog)
{
	struct report why = { "" };
	struct catalog_access access;
	struct catalog *there;
	char dir[CONFIG_VALUE_BYTES];
	int r = catalog_access_load(c->env, c->root, url, &access, &c->report);
	if (r == 0) {
		r = catalog_open_any(c->env, url, &access, /* create= */ false, &there, &why);
		if (r == 0) {
			catalog_close(there);
			r = cli_option(c, CLI_CATALOG)
				    ? report_set(&c->report, -EEXIST, "there is a store already in %s (put `catalog = %s' into etc/aquifer/aquifer.conf to use it, or name another place)", url, url)
				    : report_set(&c->report, -EEXIST, "there is a store already in %s, and this host uses it (nothing has to be done)", url);
		} else if (r != -ENOENT && r != -ENODATA) {
			report_set(&c->report, r, "%s", report_text(&why, r));
		} else {
			r = 0;
		}
	}
	directory_of(url, dir);
	if (r == 0 && dir[0] && (r = places_make_dirs(c->env, dir)) < 0)
		report_path(&c->report, r, "make", dir);
	if (r == 0)
		r = catalog_open_any(c->env, url, &access, /* create= */ true, ret_catalog, &c->report);
	catalog_access_free(&access);
	return r;
}

static int say(struct cli *c, const char *url, size_t keys, const char *line)
{
	if (cli_flag(c, CLI_JSON))
		return cli_print_json(json_pack("{s:s, s:I}", "catalog", url, "keys", (json_int_t)keys));
	printf("%s\n", line);
	return 0;
}

int cli_cluster_init(struct cli *c)
{
	const char *given = cli_option(c, CLI_CATALOG);
	char url[CONFIG_VALUE_BYTES], configured[CONFIG_VALUE_BYTES], line[CONFIG_VALUE_BYTES + 64];
	struct catalog *catalog;
	int r = given ? cli_catalog(c, given) : 0;
	if (r == 0 && given) {
		r = config_get(c->env, c->root, "catalog", configured, &c->report);
		if (r == 0 && strcmp(configured, given) != 0)
			return report_set(&c->report, -EEXIST, "etc/aquifer/aquifer.conf says `catalog = %s' already (move it: aquifer cluster move-catalog %s)",
					  configured, given);
		r = r == -ENOENT && !c->report.text[0] ? 0 : r;
	}
	if (r == 0)
		r = config_catalog_url(c->env, c->root, given, url, &c->report);
	if (r == 0)
		r = cli_flag(c, CLI_AUTHORITY_ONLY) ? catalog_open_configured(c->env, c->root, given, &catalog, &c->report) : make_catalog(c, url, &catalog);
	if (r < 0)
		return r;
	r = access_authority_make(catalog, c->root, &c->report);
	catalog_close(catalog);
	if (r < 0)
		return r;
	if (given)
		r = config_set(c->env, c->root, "catalog", url, &c->report);
	snprintf(line, sizeof line, cli_flag(c, CLI_AUTHORITY_ONLY) ? "the authority of the store in %s is on this host" : "the store's catalog is %s", url);
	return r < 0 ? r : say(c, url, 0, line);
}

/* ---- is anybody there? ---- */

struct user_search {
	struct cli *c;
	struct catalog *catalog; /* NULL: who has a lease isn't to be looked up */
	char host[64];
	bool embedded;  /* there are volumes in this host's directory */
	bool past;      /* the records are a backup's: who had what on other hosts then says nothing */
};

/* FIBER. A process of another machine that is called as this one is, or of this one before it started anew: then the lease soon runs out. */
static bool is_namesake_alive(struct user_search *s, const struct meta_owner *o)
{
	char key[META_KEY_BYTES];
	struct catalog_value v;
	if (!s->catalog || !s->catalog->ops->lease || !o->host[0] || (o->boot[0] && !places_pids_foreign(s->c->env, o->boot, o->pids)))
		return false;
	meta_key_alive(o->stamp, key);
	int r = catalog_get(s->catalog, key, &v);
	catalog_value_free(&v);
	return r != -ENOENT;
}

static int look_at_owner(struct user_search *s, const char *key, const struct catalog_value *value)
{
	struct meta_owner o;
	int r = meta_owner_decode(value->bytes, value->length, &o);
	if (r < 0)
		return report_set(&s->c->report, r, "its %s can't be read: %s", key, errno_text(r));
	bool ours = !o.host[0] || strcmp(o.host, s->host) == 0;
	if (o.state == OWNER_FREE || (s->past && !ours))
		return 0;
	if (ours && !places_owner_alive(s->c->env, &o))
		return is_namesake_alive(s, &o) ? report_set(&s->c->report, -EBUSY, "a volume is attached as %s on another machine that is called %s too (detach it there "
							     "first; if this one has just started anew, try again in some seconds)", o.holder, s->host) : 0;
	return report_set(&s->c->report, -EBUSY, "a volume is attached as %s on host %s (detach it first)", o.holder, o.host[0] ? o.host : s->host);
}

static int look_at_server(struct user_search *s, const struct catalog_value *value)
{
	struct meta_server m;
	struct stream *stream;
	char below[META_TEXT_MAX];
	if (meta_server_decode(value->bytes, value->length, &m) < 0 || !m.address[0])
		return 0;
	tls_stream_address(m.address, below);
	if (stream_connect(s->c->env, below, PROBE_NS, &stream) < 0)
		return 0;
	stream_close(stream);
	return report_set(&s->c->report, -EBUSY, "the server at %s runs (stop it first)", m.address);
}

static int look_at_key(struct user_search *s, const struct catalog_image_key *k)
{
	struct catalog_value value = { k->bytes, k->length, 1 };
	const char *end = strrchr(k->key, '/');
	if (strncmp(k->key, "server/", 7) == 0)
		return look_at_server(s, &value);
	if (strncmp(k->key, "volume/", 7) != 0 || !end)
		return 0;
	if (strcmp(end, "/owner") == 0)
		return look_at_owner(s, k->key, &value);
	struct meta_log *log = malloc(sizeof *log);
	int r = log ? 0 : -ENOMEM;
	if (log && strcmp(end, "/log") == 0 && meta_log_decode(k->bytes, k->length, log) == 0)
		s->embedded |= log->embedded;
	free(log);
	return r;
}

/* FIBER. -EBUSY, naming him. */
static int find_users(struct user_search *s, const struct catalog_image *i)
{
	int r = config_host(s->c->env, s->c->root, s->host, &s->c->report);
	for (size_t n = 0; r == 0 && n < i->count; n++)
		r = look_at_key(s, &i->keys[n]);
	return r;
}

/* ---- moving ---- */

struct move {
	struct cli *c;
	char from_url[CONFIG_VALUE_BYTES];
	const char *to_url;
	struct catalog *from, *to;
	struct catalog_image image;
	struct user_search users;
	char mark[CONFIG_VALUE_BYTES + 16]; /* STORE_MOVED of the original */
	bool interrupted; /* an attempt to move it to the same place was */
	bool settled; /* the original says, or may say, that it has moved */
};

/* Embedded volumes are found beside the catalog's file, or in var/lib/aquifer. */
static int check_embedded(struct move *m)
{
	char usual[CONFIG_VALUE_BYTES], from[CONFIG_VALUE_BYTES], to[CONFIG_VALUE_BYTES];
	if (!m->users.embedded)
		return 0;
	snprintf(usual, sizeof usual, "%.512s/var/lib/aquifer", m->c->root);
	directory_of(m->from_url, from);
	directory_of(m->to_url, to);
	const char *is = from[0] ? from : usual, *will = to[0] ? to : usual;
	return strcmp(is, will) == 0 ? 0 : report_set(&m->c->report, -EXDEV, "there are volumes in %s/volumes, and they would be looked for in %s/volumes "
						      "(no data is moved: choose a catalog that leaves them where they are)", is, will);
}

/* FIBER. The copy: what an interrupted attempt left goes, then all is written, read back, and compared with what the original
 * has at the end. */
static int copy(struct move *m)
{
	struct catalog_image there = { 0 }, now = { 0 };
	struct report *report = &m->c->report;
	int r = catalog_mark(m->to, STORE_INCOMING, m->from_url, report);
	if (r == 0)
		r = catalog_image_erase(m->to, report);
	if (r == 0)
		r = catalog_image_write(m->to, &m->image, report);
	if (r == 0)
		r = catalog_image_read(m->to, &there, report);
	if (r == 0)
		r = catalog_image_read(m->from, &now, report);
	if (r == 0 && (!catalog_image_equal(&there, &now) || !catalog_image_equal(&m->image, &now)))
		r = report_set(report, -EBUSY, "somebody used the store meanwhile: nothing was moved (try again)");
	catalog_image_free(&there);
	catalog_image_free(&now);
	return r;
}

/* FIBER. May the target be filled? `*ret_done`: an interrupted attempt had filled it. */
static int check_target(struct move *m, bool interrupted, bool *ret_done)
{
	char incoming[CONFIG_VALUE_BYTES];
	struct catalog_image there;
	struct report *report = &m->c->report;
	int r = catalog_mark_read(m->to, STORE_INCOMING, incoming, sizeof incoming, report);
	if (r == 0)
		r = catalog_image_read(m->to, &there, report);
	if (r < 0)
		return r;
	*ret_done = interrupted && catalog_image_equal(&there, &m->image);
	bool free_to_fill = there.count == 0 || *ret_done || strcmp(incoming, m->from_url) == 0;
	catalog_image_free(&there);
	return free_to_fill ? 0 : report_set(report, -EEXIST, "there is a store already in %s (only an empty place can be moved to)", m->to_url);
}

/* FIBER. From the mark that keeps everybody out to the one that sends them to the new place. */
static int move_marked(struct move *m, bool done)
{
	struct report *report = &m->c->report;
	char moved[CONFIG_VALUE_BYTES + 16];
	int r = find_users(&m->users, &m->image); /* who opened it before the mark */
	if (r == 0 && !done)
		r = copy(m);
	if (r < 0)
		return r;
	/* never both at once: in between, nobody opens either */
	m->settled = true;
	snprintf(moved, sizeof moved, "moved %s", m->to_url);
	r = catalog_mark(m->from, STORE_MOVED, moved, report);
	return r < 0 ? r : catalog_mark(m->to, STORE_INCOMING, NULL, report);
}

/* FIBER. May it go there? As far as that can be said before anything is made there. */
static int check_source(struct move *m)
{
	struct report *report = &m->c->report;
	int r = catalog_mark_read(m->from, STORE_MOVED, m->mark, sizeof m->mark, report);
	const char *to = strchr(m->mark, ' ');
	m->interrupted = to && strcmp(to + 1, m->to_url) == 0;
	m->settled = strncmp(m->mark, "moved ", 6) == 0;
	if (r == 0 && !m->settled) { /* marks aren't copied: there, all would be opened as it was in the backup, and what the catalog doesn't know be deleted */
		char restored[64];
		r = catalog_mark_read(m->from, STORE_RESTORED, restored, sizeof restored, report);
		if (r == 0 && restored[0])
			return report_set(report, -EPERM, "it was restored from a backup, and that isn't confirmed (aquifer cluster recover, then cluster restore --confirm)");
	}
	if (r == 0 && m->mark[0] && !m->interrupted)
		return report_set(report, -EREMCHG, m->settled ? "it moved already: %s" : "it is being moved somewhere else: %s (finish that)", m->mark);
	if (r == 0)
		r = catalog_image_read(m->from, &m->image, report);
	if (r == 0)
		r = find_users(&m->users, &m->image);
	return r < 0 ? r : check_embedded(m);
}

/* FIBER. Agents have it open, of all hosts, and take snapshots of volumes in it. */
static int set_aside(struct move *m, const char *mark, struct report *report)
{
	if (!m->from->ops->set_aside)
		return catalog_mark(m->from, STORE_MOVED, mark, report);
	int r = m->from->ops->set_aside(m->from, STORE_MOVED, mark);
	return r < 0 ? report_set(report, r, "the mark %s can't be set: %s", STORE_MOVED, catalog_text(m->from, r)) : 0;
}

/* FIBER. */
static int move(struct move *m)
{
	struct report *report = &m->c->report;
	char moving[CONFIG_VALUE_BYTES + 16];
	bool done = false;
	int r = check_target(m, m->interrupted, &done);
	snprintf(moving, sizeof moving, "moving %s", m->to_url);
	if (r == 0 && m->settled && !done)
		r = report_set(report, -EREMCHG, "it moved already: %s (set `catalog = ' in etc/aquifer/aquifer.conf)", m->mark);
	if (r == 0 && !m->settled)
		r = m->interrupted ? catalog_mark(m->from, STORE_MOVED, moving, report) : set_aside(m, moving, report);
	if (r < 0)
		return r;
	catalog_image_free(&m->image);
	r = catalog_image_read(m->from, &m->image, report); /* nobody comes in any more */
	if (r == 0)
		r = move_marked(m, done);
	if (r < 0 && !m->settled)
		set_aside(m, NULL, NULL); /* else the old one would be lost to everybody; it is as it was */
	return r;
}

/* FIBER. */
static int make_target(struct move *m)
{
	char dir[CONFIG_VALUE_BYTES];
	directory_of(m->to_url, dir);
	int r = dir[0] ? places_make_dirs(m->c->env, dir) : 0;
	return r < 0 ? report_path(&m->c->report, r, "make", dir) : open_any(m->c, m->to_url, true, &m->to);
}

int cli_cluster_move_catalog(struct cli *c)
{
	struct move m = { .c = c, .to_url = c->arg[0], .users.c = c };
	char line[CONFIG_VALUE_BYTES + 128];
	int r = cli_catalog(c, m.to_url);
	if (r == 0)
		r = config_catalog_url(c->env, c->root, NULL, m.from_url, &c->report);
	if (r == 0 && strcmp(m.from_url, m.to_url) == 0)
		r = report_set(&c->report, -EEXIST, "the catalog is there already (nothing has to be moved)");
	if (r == 0)
		r = open_any(c, m.from_url, false, &m.from);
	if (r < 0)
		return r;
	m.users.catalog = m.from;
	r = check_source(&m);
	if (r == 0)
		r = make_target(&m);
	if (r == 0) {
		r = move(&m);
		catalog_close(m.to);
	}
	catalog_close(m.from);
	size_t keys = m.image.count;
	catalog_image_free(&m.image);
	if (r == 0)
		r = config_set(c->env, c->root, "catalog", m.to_url, &c->report);
	snprintf(line, sizeof line, "the catalog is in %s now, %zu keys (set `catalog = ' on other hosts too, and start agents again; then start the servers)", m.to_url, keys);
	return r < 0 ? r : say(c, m.to_url, keys, line);
}

/* ---- backup and restore ---- */

#define BACKUP_BEGINS "{\"aquifer-catalog\":" /* catalog_image_encode() */
#define PART ".part-"

enum { PART_DIGITS = 8, PART_TRIES = 10 };

struct left_parts {
	struct cli *c;
	const char *dir, *base; /* "", or all up to the last slash, and what is behind it */
};

/* A backup, or the beginning of one. */
static bool is_backup(struct file *f)
{
	char begins[sizeof BACKUP_BEGINS - 1];
	size_t done = 0;
	return file_read_wait(f, begins, sizeof begins, 0, &done) == 0 && memcmp(begins, BACKUP_BEGINS, done) == 0;
}

/* BASE.part-XXXXXXXX that a backup left that was killed: no other holds it locked. Anything else of such a name is somebody's. */
static int remove_part(void *arg, const char *name)
{
	struct left_parts *l = arg;
	size_t base = strlen(l->base), digits = base + strlen(PART);
	char path[PATHS_MAX];
	struct file *f;
	if (strlen(name) != digits + PART_DIGITS || memcmp(name, l->base, base) != 0 || memcmp(name + base, PART, strlen(PART)) != 0 ||
	    strspn(name + digits, "0123456789abcdef") != PART_DIGITS || (size_t)snprintf(path, sizeof path, "%s%s", l->dir, name) >= sizeof path)
		return 0;
	if (file_open(l->c->env, path, FILE_OPEN_WRITE, &f) < 0)
		return 0;
	if (file_lock(f, /* exclusive= */ true) == 0 && is_backup(f))
		env_unlink(l->c->env, path);
	file_close(l->c->env, f);
	return 0;
}

/* -EAGAIN: another backup, which removed what such left, was faster than the lock. */
static int write_part(struct cli *c, const char *path, const char *text, size_t length)
{
	char part[PATHS_MAX];
	struct file *f;
	/* what is there is somebody's, or another's who is at it */
	if ((size_t)snprintf(part, sizeof part, "%s" PART "%08x", path, (unsigned)env_random(c->env)) >= sizeof part)
		return report_set(&c->report, -ENAMETOOLONG, "%s: the name is too long", path);
	int r = file_open(c->env, part, FILE_OPEN_WRITE | FILE_OPEN_CREATE | FILE_OPEN_NEW, &f);
	if (r < 0)
		return r;
	transfer_inherit(path, part, 0);
	r = file_lock(f, /* exclusive= */ true);
	if (r == -ENOTSUP || r == -EOPNOTSUPP || r == -ENOSYS || r == -ENOLCK || r == -EINVAL) /* a file system without: then nobody removes it either */
		r = 0;
	if (r == 0)
		r = file_write_wait(f, text, length, 0);
	if (r == 0)
		r = file_sync_wait(f);
	if (r == 0 && (r = env_rename(c->env, part, path)) == -ENOENT)
		r = -EAGAIN;
	if (r < 0 && r != -EAGAIN)
		env_unlink(c->env, part);
	file_close(c->env, f);
	return r;
}

/* FIBER. Appears under its name when it is whole and durable. */
static int write_backup(struct cli *c, const char *name, const char *text, size_t length)
{
	char path[PATHS_MAX], dir[PATHS_MAX];
	int r = transfer_target(c, name, "choose another name, or give --force", path);
	if (r < 0)
		return r;
	const char *slash = strrchr(path, '/'), *base = slash ? slash + 1 : path;
	struct left_parts left = { c, dir, base };
	snprintf(dir, sizeof dir, "%.*s", (int)(base - path), path);
	env_list_dir(c->env, dir[0] ? dir : ".", remove_part, &left);
	r = -EAGAIN;
	for (unsigned i = 0; r == -EAGAIN && i < PART_TRIES; i++)
		r = write_part(c, path, text, length);
	if (r == 0)
		r = env_sync_dir(c->env, dir[0] ? dir : ".");
	return r < 0 ? report_path(&c->report, r, "write", path) : 0;
}

int cli_cluster_backup(struct cli *c)
{
	char url[CONFIG_VALUE_BYTES], line[PATHS_MAX + 64];
	struct catalog *catalog;
	struct catalog_image i = { 0 };
	size_t length = 0;
	char *text = NULL;
	if (strcmp(c->arg[0], "-") == 0)
		return cli_usage(c, "a backup goes into a file, not to standard output (./- is a file of that name)");
	int r = config_catalog_url(c->env, c->root, NULL, url, &c->report);
	if (r == 0)
		r = open_any(c, url, false, &catalog);
	if (r < 0)
		return r;
	r = catalog_marks_allow(catalog, url, &c->report);
	if (r == 0)
		r = catalog_image_read(catalog, &i, &c->report);
	catalog_close(catalog);
	if (r == 0) {
		text = catalog_image_encode(&i, env_wall_ns(c->env), &length);
		r = text ? write_backup(c, c->arg[0], text, length) : -ENOMEM;
	}
	free(text);
	size_t keys = i.count;
	catalog_image_free(&i);
	snprintf(line, sizeof line, "%s: %zu keys, %zu bytes", c->arg[0], keys, length);
	return r < 0 ? r : say(c, url, keys, line);
}

static int read_backup(struct cli *c, const char *path, struct catalog_image *ret)
{
	char *text = NULL;
	size_t length = 0;
	int r = textfile_read(c->env, path, BACKUP_BYTES_MAX, &text, &length);
	if (r < 0)
		report_path(&c->report, r, "open", path);
	else if ((r = catalog_image_decode(text, length, ret, &c->report)) < 0)
		report_prefix(&c->report, r, "%s", path);
	free(text);
	return r;
}

/* FIBER. Into what is there, which must be empty, or left by an attempt that was interrupted; made if there is nothing. */
static int fill(struct cli *c, const char *url, const char *file, const struct catalog_image *i)
{
	struct report *report = &c->report;
	struct catalog *catalog;
	struct catalog_image there = { 0 };
	char dir[CONFIG_VALUE_BYTES], incoming[CONFIG_VALUE_BYTES], when[32];
	directory_of(url, dir);
	int r = dir[0] ? places_make_dirs(c->env, dir) : 0;
	if (r < 0)
		return report_path(report, r, "make", dir);
	r = open_any(c, url, true, &catalog);
	if (r < 0)
		return r;
	r = catalog_mark_read(catalog, STORE_INCOMING, incoming, sizeof incoming, report);
	if (r == 0)
		r = catalog_image_read(catalog, &there, report);
	if (r == 0 && there.count && !incoming[0])
		r = report_set(report, -EEXIST, "there is a store already in %s, or entries of agents or servers that run (stop them; only an empty one can be filled)", url);
	catalog_image_free(&there);
	if (r == 0)
		r = catalog_mark(catalog, STORE_INCOMING, file, report);
	if (r == 0)
		r = catalog_image_erase(catalog, report);
	if (r == 0)
		r = catalog_image_write(catalog, i, report);
	if (r == 0)
		r = catalog_image_read(catalog, &there, report);
	if (r == 0 && !catalog_image_equal(&there, i))
		r = report_set(report, -EIO, "what was written reads back differently");
	catalog_image_free(&there);
	if (r == 0)
		r = catalog_mark_restored(catalog, i, cli_time(env_wall_ns(c->env), when), report);
	if (r == 0)
		r = catalog_mark(catalog, STORE_INCOMING, NULL, report);
	catalog_close(catalog);
	return r;
}

/* FIBER. What waited for it is freed where nobody has the volume; whoever has one looks himself (checkpoint_drop.c). It is confirmed, whatever
 * comes of this. */
static void free_what_waited(struct cli *c)
{
	struct report report = c->report;
	struct store *s;
	if (cli_store_open(c, false, &s) == 0) {
		store_reap(s);
		store_close(s);
	}
	c->report = report;
}

/* FIBER. R5's confirmation. */
static int confirm(struct cli *c, const char *url)
{
	struct catalog *catalog;
	char restored[128] = "";
	int r = open_any(c, url, false, &catalog);
	if (r < 0)
		return r;
	r = catalog_marks_allow(catalog, url, &c->report);
	if (r == 0)
		r = catalog_mark_read(catalog, STORE_RESTORED, restored, sizeof restored, &c->report);
	if (r == 0 && !cli_flag(c, CLI_FORCE) && catalog_recover_wanted(catalog, NULL) == 1)
		r = report_set(&c->report, -EPERM, "what was written since the backup hasn't been looked for, and would be deleted (aquifer cluster recover; or give it up: --confirm --force)");
	if (r == 0 && !cli_flag(c, CLI_FORCE) && catalog_any(catalog, STORE_RECOVER "/") == 1)
		r = report_set(&c->report, -EPERM, "there are volumes that could not be recovered, whose segments would be deleted (aquifer cluster recover; or give them up: --confirm --force)");
	if (r == 0)
		r = catalog_mark_confirmed(catalog, &c->report);
	catalog_close(catalog);
	if (r == 0 && restored[0])
		free_what_waited(c);
	return r < 0 ? r : say(c, url, 0, restored[0] ? "what the catalog doesn't know may be deleted from now on"
						       : "nothing is to be confirmed: the catalog wasn't restored from a backup, or that was confirmed");
}

int cli_cluster_restore(struct cli *c)
{
	char url[CONFIG_VALUE_BYTES], line[CONFIG_VALUE_BYTES + 128];
	struct catalog_image i = { 0 };
	struct user_search users = { .c = c, .past = true };
	if (cli_flag(c, CLI_CONFIRM) == (c->arg_count == 1))
		return cli_usage(c, "give FILE, or --confirm");
	if (cli_flag(c, CLI_FORCE) && !cli_flag(c, CLI_CONFIRM))
		return cli_usage(c, "--force goes with --confirm (only an empty catalog is filled)");
	int r = config_catalog_url(c->env, c->root, NULL, url, &c->report);
	if (r == 0 && cli_flag(c, CLI_CONFIRM))
		return confirm(c, url);
	if (r == 0)
		r = read_backup(c, c->arg[0], &i);
	if (r == 0)
		r = find_users(&users, &i);
	if (r == 0)
		r = catalog_image_raise(&i, &c->report);
	if (r == 0)
		r = fill(c, url, c->arg[0], &i);
	size_t keys = i.count;
	catalog_image_free(&i);
	snprintf(line, sizeof line, "%s has the %zu keys of the backup (start the servers; what was written since is found by: aquifer cluster recover)", url, keys);
	return r < 0 ? r : say(c, url, keys, line);
}
