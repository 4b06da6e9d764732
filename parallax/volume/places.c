#include "parallax/volume/places.h"

#include <errno.h>
#include <fcntl.h>
#include <inttypes.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <unistd.h>

#include "core/bytes.h"
#include "core/config.h"
#include "core/fiber.h"
#include "core/plant.h"
#include "parallax/access/access.h"
#include "parallax/catalog/catalog_access.h"
#include "parallax/segment/segment_reader.h"
#include "parallax/volume/volume.h"

enum { PATH_BYTES = 640, READER_S = 30 };

static struct places *self(void *arg) { return arg; }

static void volume_path(const struct places *p, uint64_t volume, char *ret_path)
{
	snprintf(ret_path, PATH_BYTES, "%s/volumes/%016" PRIx64, p->dir, volume);
}

/* ---- what a volume asks for ---- */

static int open_embedded(void *arg, uint64_t volume, bool create, struct segment_server **ret, struct report *report)
{
	struct places *p = self(arg);
	char path[PATH_BYTES];
	snprintf(path, sizeof path, "%s/volumes", p->dir);
	int r = create ? env_mkdir(p->env, path) : 0;
	if (r == 0 && create)
		r = env_sync_dir(p->env, p->dir);
	volume_path(p, volume, path);
	struct segment_dir_options options = { .create = create };
	return r < 0 ? report_set(report, r, "%s/volumes: %s", p->dir, errno_text(r))
		     : segment_dir_open(p->env, path, p->catalog, &options, ret, report);
}

static int open_embedded_reader(void *arg, uint64_t volume, struct segment_server **ret, struct report *report)
{
	struct places *p = self(arg);
	char path[PATH_BYTES];
	(void)report;
	volume_path(p, volume, path);
	return segment_reader_open(p->env, path, ret);
}

static int open_lock(struct places *p, const char *name, bool create, bool exclusive, struct file **ret)
{
	char path[PATH_BYTES + 64];
	snprintf(path, sizeof path, "%s/locks", p->dir);
	int r = create ? env_mkdir(p->env, path) : 0;
	snprintf(path, sizeof path, "%s/locks/%s", p->dir, name);
	if (r == 0)
		r = file_open(p->env, path, FILE_OPEN_WRITE | (create ? FILE_OPEN_CREATE : 0), ret);
	if (r < 0)
		return r;
	r = file_lock(*ret, exclusive);
	if (r < 0) {
		file_close(p->env, *ret);
		*ret = NULL;
	}
	return r == -EAGAIN ? -EBUSY : r;
}

static int lock_volume(void *arg, uint64_t volume, struct file **ret, struct report *report)
{
	char name[32];
	snprintf(name, sizeof name, "%016" PRIx64, volume);
	int r = open_lock(self(arg), name, /* create= */ true, /* exclusive= */ true, ret);
	return r < 0 ? report_set(report, r, "%s/locks/%s: %s", self(arg)->dir, name, errno_text(r)) : 0;
}

int places_hold_snapshot(struct places *p, uint64_t volume, uint64_t mark_seq, struct snapshot_hold *ret_hold)
{
	char name[48], key[META_KEY_BYTES];
	snprintf(name, sizeof name, "%016" PRIx64 "-%016" PRIx64, volume, mark_seq);
	int r = open_lock(p, name, /* create= */ true, /* exclusive= */ false, &ret_hold->file);
	if (r < 0)
		return r;
	meta_key_reader(volume, mark_seq, env_random(p->env), key);
	r = catalog_lease(p->catalog, READER_S, key, &ret_hold->lease);
	return r == -ENOTSUP ? 0 : r;
}

void places_let_go(struct places *p, struct snapshot_hold *h)
{
	catalog_lease_end(h->lease);
	file_close(p->env, h->file);
	*h = (struct snapshot_hold){ 0 };
}

static int snapshot_idle(void *arg, uint64_t volume, uint64_t mark_seq)
{
	struct places *p = self(arg);
	char name[48], path[PATH_BYTES + 64];
	struct file *f = NULL;
	snprintf(name, sizeof name, "%016" PRIx64 "-%016" PRIx64, volume, mark_seq);
	int r = open_lock(p, name, /* create= */ false, /* exclusive= */ true, &f);
	if (r == -ENOENT)
		return 0; /* nobody ever did; making the file would need space */
	if (r == 0) {
		snprintf(path, sizeof path, "%s/locks/%s", p->dir, name);
		env_unlink(p->env, path);
	}
	file_close(p->env, f);
	return r;
}

/* ---- who holds a volume ---- */

/* Where there are no leases, there is one host, whatever it was called. */
static bool is_elsewhere(const struct places *p, const struct meta_owner *owner)
{
	return p->catalog->ops->lease && owner->state != OWNER_FREE && owner->host[0] && strcmp(owner->host, p->host) != 0;
}

/* On another machine, or in another container, that is called as this one is; or this one has started anew since: then the lease soon runs out. */
static bool is_namesake(const struct places *p, const struct meta_owner *owner)
{
	return p->catalog->ops->lease && owner->state != OWNER_FREE && places_pids_foreign(p->env, owner->boot, owner->pids) && !PLANTED(namesake_robbed);
}

bool places_held_elsewhere(struct places *p, const struct meta_owner *owner)
{
	char key[META_KEY_BYTES];
	struct catalog_value v;
	if (!is_elsewhere(p, owner) && !is_namesake(p, owner))
		return false;
	meta_key_alive(owner->stamp, key); /* of an offer: its target's, see volume_move.c */
	int r = catalog_get(p->catalog, key, &v);
	catalog_value_free(&v);
	return r != -ENOENT;
}

bool places_attached_elsewhere(const struct places *p, const struct meta_owner *owner)
{
	return is_elsewhere(p, owner) && strcmp(owner->holder, VOLUME_MAINTENANCE) != 0 && !PLANTED(lapsed_robbed);
}

static bool is_locked(struct places *p, const char *where, uint64_t volume, const char *file)
{
	char path[PATH_BYTES + 64];
	struct file *f;
	snprintf(path, sizeof path, "%s/%s/%016" PRIx64 "%s", p->dir, where, volume, file);
	if (file_open(p->env, path, FILE_OPEN_WRITE, &f) < 0)
		return false;
	int r = file_lock(f, /* exclusive= */ true);
	file_close(p->env, f);
	return r == -EAGAIN;
}

bool places_held_contained(struct places *p, uint64_t volume, const struct meta_owner *owner)
{
	return !p->catalog->ops->lease && owner->state != OWNER_FREE && strcmp(owner->holder, VOLUME_MAINTENANCE) != 0 &&
	       places_pids_foreign(p->env, owner->boot, owner->pids) && (is_locked(p, "volumes", volume, "/lock") || is_locked(p, "locks", volume, ""));
}

static bool held_elsewhere(void *arg, const struct meta_owner *owner) { return places_held_elsewhere(self(arg), owner); }
static bool attached_elsewhere(void *arg, const struct meta_owner *owner) { return places_attached_elsewhere(self(arg), owner); }

static bool holder_alive(void *arg, const struct meta_owner *owner)
{
	return is_elsewhere(self(arg), owner) || is_namesake(self(arg), owner) ? held_elsewhere(arg, owner) : places_owner_alive(self(arg)->env, owner);
}

bool places_holder_alive(struct places *p, const struct meta_owner *owner)
{
	return p->ops.holder_alive && p->ops.holder_alive(p->ops.arg, owner);
}

static int evict(void *arg, const struct meta_owner *owner, struct report *report)
{
	struct places *p = self(arg);
	if (owner->pid == (uint64_t)getpid() && !places_pids_foreign(p->env, owner->boot, owner->pids))
		return report_set(report, -EBUSY, "this tapdisk has it already (use one node for both: name it in a graph file)");
	int r = places_owner_kill(p->env, owner);
	if (r == -ESRCH)
		return report_set(report, -EBUSY, "its directory is in use by a process that the catalog doesn't know, or that is another container's (see: fuser %s/volumes)", p->dir);
	return r < 0 ? report_set(report, r, "its holder, process %" PRIu64 ", can't be ended: %s", owner->pid, errno_text(r)) : 0;
}

/* ---- removing ---- */

static int remove_tree(struct env *env, const char *path, unsigned depth);

struct removal {
	struct env *env;
	const char *path;
	unsigned depth;
};

static int remove_entry(void *arg, const char *name)
{
	struct removal *d = arg;
	char *path;
	if (asprintf(&path, "%s/%s", d->path, name) < 0)
		return -ENOMEM;
	int r = env_unlink(d->env, path);
	if (r == -EISDIR || r == -EPERM)
		r = d->depth < 4 ? remove_tree(d->env, path, d->depth + 1) : -ELOOP;
	free(path);
	return r == -ENOENT ? 0 : r;
}

static int remove_tree(struct env *env, const char *path, unsigned depth)
{
	struct removal d = { env, path, depth };
	int r = env_list_dir(env, path, remove_entry, &d);
	if (r == 0)
		r = env_rmdir(env, path);
	return r == -ENOENT ? 0 : r;
}

int places_remove_embedded(struct places *p, uint64_t volume, struct report *report)
{
	char path[PATH_BYTES], key[META_KEY_BYTES];
	struct segment_server *s;
	struct segment_dir_options options = { 0 };
	volume_path(p, volume, path);
	int r = segment_dir_open(p->env, path, p->catalog, &options, &s, report);
	if (r == 0) {
		meta_key_server(&s->id, key);
		segment_server_close(s);
		struct catalog_value v;
		if (catalog_get(p->catalog, key, &v) == 0)
			catalog_delete_at(p->catalog, key, v.revision); /* a name of nothing; at worst it stays */
		catalog_value_free(&v);
	} else if (r == -EBUSY) {
		return r;
	}
	r = remove_tree(p->env, path, 0); /* also a damaged one, and what an interrupted removal left */
	return r < 0 ? report_set(report, r, "%s can't be removed: %s", path, errno_text(r)) : 0;
}

/* ---- looking ---- */

void places_embedded_path(const struct places *p, uint64_t volume, char *ret_path, size_t bytes)
{
	snprintf(ret_path, bytes, "%s/volumes/%016" PRIx64, p->dir, volume);
}

bool places_embedded_here(struct places *p, uint64_t volume)
{
	char path[PATH_BYTES];
	struct file *f;
	volume_path(p, volume, path);
	snprintf(path + strlen(path), sizeof path - strlen(path), "/lock");
	if (file_open(p->env, path, 0, &f) < 0)
		return false;
	file_close(p->env, f);
	return true;
}

int places_embedded_ids(struct places *p, uint64_t volume, int (*entry)(void *arg, uint64_t segment), void *arg)
{
	char path[PATH_BYTES];
	volume_path(p, volume, path);
	return segment_path_ids(p->env, path, entry, arg);
}

/* ---- opening ---- */

int places_make_dirs(struct env *env, const char *dir)
{
	char part[512];
	int r = 0;
	for (const char *s = dir + 1; r == 0 && s; s = strchr(s, '/') ? strchr(s, '/') + 1 : NULL) {
		const char *end = strchr(s, '/');
		snprintf(part, sizeof part, "%.*s", (int)(end ? end - dir : (long)strlen(dir)), dir);
		r = env_mkdir(env, part);
	}
	return r;
}

static int entry_seen(void *arg, const char *name)
{
	(void)name;
	*(bool *)arg = true;
	return 0;
}

/* Volumes without a catalog: the file was lost. A new one would begin to write over them. */
static int check_orphans(struct places *p, const char *url, struct report *report)
{
	char path[PATH_BYTES];
	bool volumes = false;
	struct file *f;
	struct file_info info = { 0 };
	snprintf(path, sizeof path, "%s/volumes", p->dir);
	/* Volumes first: whoever makes a store at this moment makes its catalog before. */
	if (strncmp(url, "sqlite:", 7) != 0 || env_list_dir(p->env, path, entry_seen, &volumes) < 0 || !volumes)
		return 0;
	int r = file_open(p->env, url + 7, 0, &f);
	if (r == 0) {
		r = file_stat(f, &info);
		file_close(p->env, f);
	}
	if (r == -ENOENT || (r == 0 && info.size == 0))
		return report_set(report, -EUCLEAN, "the catalog %s is missing, but there are volumes in %s (restore it from a backup, or move them away)",
				  url + 7, path);
	return 0;
}

static int set_dir(struct places *p, const char *root, const char *url, struct report *report)
{
	const char *path = strncmp(url, "sqlite:", 7) == 0 ? url + 7 : NULL;
	const char *slash = path ? strrchr(path, '/') : NULL;
	int n = slash ? snprintf(p->dir, sizeof p->dir, "%.*s", (int)(slash - path), path)
		      : snprintf(p->dir, sizeof p->dir, "%s/var/lib/aquifer", root);
	return n >= (int)sizeof p->dir ? report_set(report, -ENAMETOOLONG, "the store's path is too long (at most %zu bytes)", sizeof p->dir - 1) : 0;
}

int places_open(struct env *env, const char *root, const char *catalog_url, bool create, struct places **ret_places,
		struct report *report)
{
	char url[CONFIG_VALUE_BYTES];
	struct places *p = calloc(1, sizeof *p);
	if (!p)
		return -ENOMEM;
	p->env = env;
	p->ops = (struct volume_places){ .open_embedded = open_embedded, .open_embedded_reader = open_embedded_reader,
					 .lock = lock_volume, .snapshot_idle = snapshot_idle, .evict = evict,
					 .holder_alive = holder_alive, .held_elsewhere = held_elsewhere, .attached_elsewhere = attached_elsewhere,
					 .boot = p->boot, .domain = p->domain, .arg = p };
	env_boot_id(env, p->boot);
	p->ops.pids = env_pids(env);
	if (p->ops.pids) /* not in a simulated world */
		process_start_ticks(getpid(), &p->ops.began_ticks);
	int r = config_host(env, root, p->host, report);
	if (r == 0)
		r = config_domain(env, root, p->domain, report);
	if (r == 0)
		r = config_catalog_url(env, root, catalog_url, url, report);
	if (r == 0)
		r = set_dir(p, root, url, report);
	if (r == 0)
		r = check_orphans(p, url, report);
	if (r == 0 && (create || !catalog_is_file(url))) { /* locks are beside it, wherever the catalog is */
		r = places_make_dirs(env, p->dir);
		if (r < 0)
			report_path(report, r, "make", p->dir);
	}
	struct catalog_access access = { 0 };
	if (r == 0)
		r = catalog_access_load(env, root, url, &access, report);
	if (r == 0)
		r = catalog_open(env, url, &access, create && catalog_is_file(url), &p->catalog, report);
	catalog_access_free(&access);
	if (r == 0 && !(p->keeper = access_keeper_start(p->catalog, root, ROLE_AGENT, NULL, NULL)))
		r = -ENOMEM;
	if (r < 0) {
		catalog_close(p->catalog);
		free(p);
		return r;
	}
	*ret_places = p;
	return 0;
}

void places_close(struct places *p)
{
	if (!p)
		return;
	access_keeper_stop(p->keeper);
	catalog_close(p->catalog);
	free(p);
}
