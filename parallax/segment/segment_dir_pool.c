/* Files for new copies, and what becomes of deleted ones. `recycle/N` are files without a
 * segment: overwriting blocks that are allocated and written makes a sync cheaper than extending.
 * A file is made or overwritten here and enters segments/ by a rename. */
#include <errno.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>

#include "core/array.h"
#include "core/bytes.h"
#include "parallax/segment/segment_dir.h"

enum { POOL_PART = 256, POOL_FILES_EMBEDDED = 4 }; /* of the file system, in files of the usual size; and at least */

/* A volume's own directory is held to what it may take (P6); a server has some files for whoever writes there. */
static unsigned pool_limit(const struct segment_dir *d)
{
	uint64_t part = d->server.total_bytes / POOL_PART / (64 << 20);
	return d->embedded ? POOL_FILES_EMBEDDED : (unsigned)MIN(MAX(part, (uint64_t)POOL_FILES_EMBEDDED), (uint64_t)POOL_FILES_MAX);
}

static int pool_entry(void *arg, const char *name)
{
	struct segment_dir *d = arg;
	char *end;
	unsigned long n = strtoul(name, &end, 10);
	if (*end || n == 0 || n > UINT32_MAX)
		return 0;
	d->pool_next = MAX(d->pool_next, n);
	if (array_reserve(&d->pool, &d->pool_room, d->pool_count + 1) < 0)
		return -ENOMEM;
	d->pool[d->pool_count++] = (uint32_t)n; /* also if they are too many: somebody has to take them away */
	dir_late_start(d);
	return 0;
}

int pool_open(struct segment_dir *d)
{
	char path[DIR_PATH_MAX];
	d->pool_ns = env_now_ns(d->env);
	dir_path(d, path, "recycle");
	int r = env_mkdir(d->env, path);
	return r < 0 ? r : env_list_dir(d->env, path, pool_entry, d);
}

int pool_open_file(struct segment_dir *d, char ret_path[DIR_PATH_MAX], struct file **ret_file)
{
	uint32_t n = d->pool_count ? d->pool[--d->pool_count] : (uint32_t)++d->pool_next;
	d->pool_ns = env_now_ns(d->env);
	dir_path(d, ret_path, "recycle/%u", n);
	int r = file_open(d->env, ret_path, FILE_OPEN_WRITE | FILE_OPEN_CREATE | FILE_OPEN_DIRECT, ret_file);
	if (r < 0)
		env_unlink(d->env, ret_path); /* nobody knows of it any more */
	return r;
}

void pool_drain(struct segment_dir *d)
{
	char path[DIR_PATH_MAX];
	while (d->pool_count > 0) {
		dir_path(d, path, "recycle/%u", d->pool[--d->pool_count]);
		env_unlink(d->env, path);
	}
}

void pool_free(struct segment_dir *d) { free(d->pool); }

/* Several may be given at the same time: those under way count, or there would be more than the limit, and some that nobody remembers. */
static bool pool_wants(struct segment_dir *d)
{
	unsigned count = d->pool_count + d->pool_coming + 1;
	return count <= pool_limit(d) && array_reserve(&d->pool, &d->pool_room, count) == 0;
}

static int sync_parent(struct segment_dir *d, const char *path)
{
	char parent[DIR_PATH_MAX];
	snprintf(parent, sizeof parent, "%s", path);
	*strrchr(parent, '/') = '\0';
	return env_sync_dir(d->env, parent);
}

int pool_give(struct segment_dir *d, const char *path, bool whole)
{
	char to[DIR_PATH_MAX];
	if (!whole || !pool_wants(d)) {
		int r = env_unlink(d->env, path);
		return r == 0 ? sync_parent(d, path) : r == -ENOENT ? 0 : r;
	}
	uint32_t n = (uint32_t)++d->pool_next;
	d->pool_coming++;
	dir_path(d, to, "recycle/%u", n);
	int r = env_rename(d->env, path, to);
	if (r == 0)
		r = sync_parent(d, path);
	if (r == 0) /* durable there too, or it could turn up in neither */
		r = sync_parent(d, to);
	d->pool_coming--;
	if (r == 0) { /* otherwise it may turn up under its old name, and be deleted once more: nothing may be written to it */
		d->pool[d->pool_count++] = n;
		d->pool_ns = env_now_ns(d->env);
		dir_late_start(d);
	}
	return r == -ENOENT ? 0 : r;
}
