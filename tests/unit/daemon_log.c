/* The log of a daemon has an end (agent/daemon/log.h). */
#include "agent/daemon/log.h"

#include <criterion/criterion.h>
#include <fcntl.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/resource.h>
#include <sys/stat.h>
#include <unistd.h>

#include "tests/unit/tempdir.h"

enum { LINES = 30000, LINE = 100 };

static char dir[64], path[96], before[96];

static void setup(void)
{
	snprintf(dir, sizeof dir, "/tmp/aquifer-unit-XXXXXX");
	cr_assert(mkdtemp(dir));
	snprintf(path, sizeof path, "%s/log", dir);
	snprintf(before, sizeof before, "%s.1", path);
}

static void teardown(void) { tempdir_remove(dir); }

TestSuite(daemon_log, .init = setup, .fini = teardown);

/* As an agent starts a daemon, with `to` in the place of stdout and stderr; which says more than 2 MiB. */
static void say_much(const char *to)
{
	int saved[2] = { dup(STDOUT_FILENO), dup(STDERR_FILENO) }, fd = open(to, O_WRONLY | O_CREAT | O_APPEND, 0600);
	cr_assert_geq(fd, 0);
	fflush(stderr);
	dup2(fd, STDOUT_FILENO);
	dup2(fd, STDERR_FILENO);
	close(fd);
	for (unsigned i = 0; i < LINES; i++)
		log_line("%0*u", LINE, i);
	dprintf(STDOUT_FILENO, "the end\n");
	dup2(saved[0], STDOUT_FILENO);
	dup2(saved[1], STDERR_FILENO);
	close(saved[0]);
	close(saved[1]);
}

static off_t size_of(const char *name)
{
	struct stat st;
	return stat(name, &st) == 0 ? st.st_size : -1;
}

/* The numbers in it follow one another; returns the last one. */
static unsigned check_lines(const char *name, unsigned next, bool *ret_end)
{
	char line[2 * LINE];
	FILE *f = fopen(name, "r");
	cr_assert(f);
	*ret_end = false;
	for (bool first = next == 0; fgets(line, sizeof line, f); first = false) {
		const char *colon = strrchr(line, ' ');
		unsigned n = colon ? (unsigned)strtoul(colon + 1, NULL, 10) : 0;
		if (strcmp(line, "the end\n") == 0) {
			*ret_end = true;
			break;
		}
		cr_assert(first || n == next, "%u, and not %u", n, next);
		next = n + 1;
	}
	fclose(f);
	return next;
}

Test(daemon_log, a_log_that_is_full_begins_anew_and_the_one_before_is_kept)
{
	bool end;
	log_limit(path);
	say_much(path);
	off_t now = size_of(path), then = size_of(before);
	cr_assert(now > 0 && now < LOG_BYTES_MAX + 2 * LINE, "%lld", (long long)now);
	cr_assert(then >= LOG_BYTES_MAX && then < LOG_BYTES_MAX + 2 * LINE, "%lld", (long long)then);
	unsigned next = check_lines(before, 0, &end);
	cr_assert_eq(check_lines(path, next, &end), (unsigned)LINES, "lines are lost");
	cr_assert(end, "what doesn't come by log_line() goes elsewhere");
}

/* A tapdisk that somebody starts by hand says it where he wants. */
Test(daemon_log, what_isnt_that_file_is_left_alone)
{
	char other[96];
	bool end;
	snprintf(other, sizeof other, "%s/other", dir);
	log_limit(path);
	say_much(other);
	cr_assert_eq(check_lines(other, 0, &end), (unsigned)LINES);
	cr_assert_eq(size_of(path), -1);
	cr_assert_eq(size_of(before), -1);
}

/* No descriptor is left: what there is stays, for now is when somebody will want to read it. */
Test(daemon_log, where_no_file_can_be_opened_nothing_is_lost)
{
	int saved = dup(STDERR_FILENO), older = open(before, O_WRONLY | O_CREAT, 0600), fd = open(path, O_WRONLY | O_CREAT | O_APPEND, 0600);
	struct rlimit limit, none;
	cr_assert(older >= 0 && write(older, "older", 5) == 5 && ftruncate(fd, LOG_BYTES_MAX) == 0);
	cr_assert(getrlimit(RLIMIT_NOFILE, &limit) == 0);
	none = (struct rlimit){ 0, limit.rlim_max };
	log_limit(path);
	fflush(stderr);
	dup2(fd, STDERR_FILENO);
	setrlimit(RLIMIT_NOFILE, &none);
	log_line("no descriptor");
	setrlimit(RLIMIT_NOFILE, &limit);
	off_t full = size_of(path), kept = size_of(before);
	log_line("again there are");
	dup2(saved, STDERR_FILENO);
	cr_assert_gt(full, LOG_BYTES_MAX);
	cr_assert_eq(kept, 5);
	cr_assert_eq(size_of(before), full);
	cr_assert(size_of(path) > 0 && size_of(path) < LINE);
	close(saved);
	close(older);
	close(fd);
}
