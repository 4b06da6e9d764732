#include "agent/daemon/memory.h"

#include <errno.h>
#include <inttypes.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/resource.h>

#include "agent/daemon/paths.h"
#include "agent/daemon/state.h"
#include "core/bytes.h"

/* A tapdisk with its buffers and those of a few connections; and a volume's map and log (P5). */
#define TAPDISK_BYTES (UINT64_C(32) << 20)
#define VOLUME_BYTES (UINT64_C(64) << 20)

enum { FILE_MAX = 64 << 10 };

/* A small file of the kernel's; malloc'd, NULL if it isn't there. */
static char *slurp(const char *directory, const char *name)
{
	char path[PATHS_MAX], *text;
	size_t length;
	if ((size_t)snprintf(path, sizeof path, "%s/%s", directory, name) >= sizeof path || state_file_read(path, FILE_MAX, &text, &length) < 0)
		return NULL;
	return text;
}

/* The number after "\nKEY " (or at the beginning); 0 if there is none. */
static uint64_t number_of(const char *text, const char *key)
{
	size_t n = strlen(key);
	for (const char *line = text; line; line = strchr(line, '\n') ? strchr(line, '\n') + 1 : NULL)
		if (strncmp(line, key, n) == 0)
			return strtoull(line + n, NULL, 10);
	return 0;
}

static uint64_t host_room(const char *proc)
{
	char *text = slurp(proc, "meminfo");
	uint64_t kib = text ? number_of(text, "MemAvailable:") : 0;
	free(text);
	return kib ? kib << 10 : UINT64_MAX;
}

/* ---- cgroups ---- */

struct kind {
	const char *limit, *usage, *cached; /* two files; a line of memory.stat, with a blank */
};
static const struct kind version1 = { "memory.limit_in_bytes", "memory.usage_in_bytes", "total_inactive_file " };
static const struct kind version2 = { "memory.max", "memory.current", "inactive_file " };

/* Of one directory. Page cache that nobody has used for a while goes before anybody is killed. */
static uint64_t group_room(const char *directory, const struct kind *k)
{
	char *limit = slurp(directory, k->limit), *usage = slurp(directory, k->usage), *stat = slurp(directory, "memory.stat");
	uint64_t room = UINT64_MAX;
	if (limit && usage && limit[0] >= '0' && limit[0] <= '9') { /* or "max" */
		uint64_t max = strtoull(limit, NULL, 10), used = strtoull(usage, NULL, 10);
		uint64_t cached = stat ? MIN(number_of(stat, k->cached), used) : 0;
		room = max > used - cached ? max - (used - cached) : 0;
	}
	free(limit);
	free(usage);
	free(stat);
	return room;
}

/* Of `path` below `mount`, and of all above it. In a container the path may be one of the host's: then only the mount's root counts. */
static uint64_t groups_room(const char *mount, const char *path, const struct kind *k)
{
	char directory[PATHS_MAX];
	size_t root = strlen(mount);
	uint64_t room = UINT64_MAX;
	if ((size_t)snprintf(directory, sizeof directory, "%s%s", mount, path) >= sizeof directory)
		return room;
	for (;;) {
		uint64_t here = group_room(directory, k);
		room = MIN(room, here);
		char *slash = strrchr(directory, '/');
		if (!slash || (size_t)(slash - directory) < root)
			return room;
		*slash = '\0';
	}
}

/* A line of /proc/self/cgroup: "0::/PATH" of version 2, "N:memory:/PATH" of version 1. */
static uint64_t line_room(char *line, const char *cgroup)
{
	char mount[PATHS_MAX];
	char *controllers = strchr(line, ':'), *path = controllers ? strchr(++controllers, ':') : NULL;
	if (!path)
		return UINT64_MAX;
	*path++ = '\0';
	if (strcmp(controllers, "memory") == 0) {
		if ((size_t)snprintf(mount, sizeof mount, "%s/memory", cgroup) >= sizeof mount)
			return UINT64_MAX;
		return groups_room(mount, path, &version1);
	}
	return controllers[0] ? UINT64_MAX : groups_room(cgroup, path, &version2);
}

static uint64_t cgroup_room(const char *proc, const char *cgroup)
{
	char *text = slurp(proc, "self/cgroup"), *next;
	uint64_t room = UINT64_MAX;
	for (char *line = text; line && *line; line = next) {
		next = strchr(line, '\n');
		if (next)
			*next++ = '\0';
		uint64_t here = line_room(line, cgroup);
		room = MIN(room, here);
	}
	free(text);
	return room;
}

/* ---- all ---- */

uint64_t memory_room(const char *proc, const char *cgroup)
{
	struct rlimit l;
	uint64_t mapped = getrlimit(RLIMIT_AS, &l) == 0 && l.rlim_cur != RLIM_INFINITY ? l.rlim_cur : UINT64_MAX;
	uint64_t host = host_room(proc), groups = cgroup_room(proc, cgroup);
	return MIN(mapped, MIN(host, groups));
}

uint64_t memory_need(const struct graph *g)
{
	uint64_t need = TAPDISK_BYTES;
	for (unsigned i = 0; i < g->node_count; i++)
		if (g->nodes[i].blk && strcmp(g->nodes[i].blk->name, "volume") == 0)
			need += VOLUME_BYTES;
	return need;
}
