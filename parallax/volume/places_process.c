/* Processes that records in the catalog name: is it that one still? And its end. */
#include <errno.h>
#include <fcntl.h>
#include <inttypes.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <unistd.h>

#include "core/bytes.h"
#include "core/evict.h"
#include "parallax/volume/places.h"

struct process {
	uint64_t pid, began_ticks; /* 0: not known, as where an older program wrote */
	char directory[META_TEXT_MAX]; /* one of its arguments; "": not known */
};

/* The beginning of /proc/PID/`what`, and a NUL behind it. How many bytes; 0: there is none. */
static size_t read_proc(uint64_t pid, const char *what, char *ret_text, size_t room)
{
	char path[64];
	snprintf(path, sizeof path, "/proc/%" PRIu64 "/%s", pid, what);
	int fd = open(path, O_RDONLY | O_CLOEXEC);
	ssize_t n = fd < 0 ? 0 : read(fd, ret_text, room - 1);
	if (fd >= 0)
		close(fd);
	ret_text[MAX(n, 0)] = '\0';
	return (size_t)MAX(n, 0);
}

/* "PID (aquifer-tapdisk) S …" */
static bool is_ours(uint64_t pid)
{
	char stat[128];
	read_proc(pid, "stat", stat, sizeof stat);
	const char *name = strchr(stat, '('), *end = strrchr(stat, ')');
	return name && end && strncmp(name, "(aquifer", 8) == 0 && !strchr("ZX", end[1] ? end[2] : 'X');
}

int process_start_ticks(pid_t pid, uint64_t *ret_ticks)
{
	char text[1024];
	read_proc((uint64_t)pid, "stat", text, sizeof text);
	/* The second field is the program's name in brackets and may hold anything; count from its end. */
	char *at = strrchr(text, ')');
	for (int field = 2; at && field < 22; field++)
		at = strchr(at + 1, ' ');
	if (at)
		*ret_ticks = strtoull(at + 1, NULL, 10);
	return at ? 0 : -ESRCH;
}

/* The agent names it before the graph, so it isn't far. */
static bool has_argument(uint64_t pid, const char *argument)
{
	char line[4096];
	bool found = false;
	size_t n = read_proc(pid, "cmdline", line, sizeof line);
	for (const char *at = line; at < line + n; at += strlen(at) + 1)
		found |= strcmp(at, argument) == 0;
	return found;
}

static int look_at_process(void *arg)
{
	const struct process *p = arg;
	uint64_t ticks;
	bool another = p->began_ticks && (process_start_ticks((pid_t)p->pid, &ticks) < 0 || ticks != p->began_ticks);
	return is_ours(p->pid) && !another && (!p->directory[0] || has_argument(p->pid, p->directory));
}

bool places_pids_foreign(struct env *env, const char *boot, uint64_t pids)
{
	char our_boot[META_BOOT_BYTES];
	env_boot_id(env, our_boot);
	return meta_pids_foreign(boot, pids, our_boot, env_pids(env));
}

/* A process of ours, not whoever got its pid later (that began later); nor one that is dead and only not waited for yet. After the machine has started anew, another
 * tapdisk may well have that pid. If the record is an older program's, one that an agent started is known by its directory all the same. */
static bool is_tapdisk(struct env *env, const struct meta_owner *owner)
{
	static const char before[] = "unix:", behind[] = "/control.sock";
	struct process p = { .pid = owner->pid, .began_ticks = owner->began_ticks };
	size_t n = strlen(owner->control), around = strlen(before) + strlen(behind);
	if (n > around && strncmp(owner->control, before, strlen(before)) == 0 && strcmp(owner->control + n - strlen(behind), behind) == 0)
		snprintf(p.directory, sizeof p.directory, "%.*s", (int)(n - around), owner->control + strlen(before));
	return owner->pid != 0 && !places_pids_foreign(env, owner->boot, owner->pids) && env_brief_wait(env, look_at_process, &p) == 1;
}

bool places_owner_alive(struct env *env, const struct meta_owner *owner)
{
	return owner->state != OWNER_FREE && is_tapdisk(env, owner);
}

int places_owner_kill(struct env *env, const struct meta_owner *owner)
{
	int pidfd, r = evict_open(env, owner->pid, NULL, &pidfd);
	if (r < 0)
		return -ESRCH;
	if (!is_tapdisk(env, owner)) {
		evict_cancel(pidfd);
		return -ESRCH;
	}
	return evict_kill(env, pidfd);
}
