/* Files for new copies, and what becomes of deleted ones. `recycle/N` are files without a
 * segment: overwriting blocks that are allocated and written makes a sync cheaper than extending.
 * A file is made or overwritten here and enters segments/ by a rename. */
#include <errno.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>

#include "core/bytes.h"
#include "parallax/segment_dir.h"

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
	if (d->pool_count < POOL_FILES_MAX)
		d->pool[d->pool_count++] = (uint32_t)n;
	dir_late_start(d);
	return 0;
}

int pool_open(struct segment_dir *d)
{
	char path[DIR_PATH_MAX];
	fiber_mutex_init(&d->pool_mutex);
	d->pool_ns = env_now_ns(d->env);
	dir_path(d, path, "recycle");
	int r = env_mkdir(d->env, path);
	return r < 0 ? r : env_list_dir(d->env, path, pool_entry, d);
}

int pool_take(struct segment_dir *d, char ret_path[DIR_PATH_MAX], bool *ret_recycled)
{
	*ret_recycled = d->pool_count > 0;
	d->pool_ns = env_now_ns(d->env);
	uint32_t n = d->pool_count ? d->pool[--d->pool_count] : (uint32_t)++d->pool_next;
	dir_path(d, ret_path, "recycle/%u", n);
	return 0;
}

void pool_drain(struct segment_dir *d)
{
	char path[DIR_PATH_MAX];
	while (d->pool_count > 0) {
		dir_path(d, path, "recycle/%u", d->pool[--d->pool_count]);
		env_unlink(d->env, path);
	}
}

int pool_give(struct segment_dir *d, const char *path, bool whole)
{
	char to[DIR_PATH_MAX], parent[DIR_PATH_MAX];
	int r;
	uint32_t n = 0;
	if (whole && d->pool_count < pool_limit(d)) {
		n = (uint32_t)++d->pool_next;
		dir_path(d, to, "recycle/%u", n);
		r = env_rename(d->env, path, to);
	} else {
		r = env_unlink(d->env, path);
	}
	if (r < 0)
		return r == -ENOENT ? 0 : r;
	snprintf(parent, sizeof parent, "%s", path);
	*strrchr(parent, '/') = '\0';
	r = env_sync_dir(d->env, parent);
	if (r == 0 && n) { /* durable there too, or it could turn up in neither */
		dir_path(d, parent, "recycle");
		r = env_sync_dir(d->env, parent);
	}
	if (n && d->pool_count < POOL_FILES_MAX) {
		d->pool[d->pool_count++] = n;
		d->pool_ns = env_now_ns(d->env);
		dir_late_start(d);
	}
	return r;
}
