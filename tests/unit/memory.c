/* Memory that is left, from files like the kernel's. */
#include "agent/daemon/memory.h"
#include "tests/unit/tempdir.h"

#include <criterion/criterion.h>
#include <stdarg.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/stat.h>

struct place {
	char dir[64], proc[96], cgroup[96];
};

static void put(const struct place *p, const char *name, const char *text)
{
	char path[256];
	snprintf(path, sizeof path, "%s/%s", p->dir, name);
	for (char *s = path + strlen(p->dir) + 1; (s = strchr(s, '/')); s++) {
		*s = '\0';
		mkdir(path, 0700);
		*s = '/';
	}
	FILE *f = fopen(path, "w");
	cr_assert(f, "%s", path);
	fputs(text, f);
	fclose(f);
}

static struct place make(void)
{
	struct place p = { .dir = "/tmp/aqmemory.XXXXXX" };
	cr_assert(mkdtemp(p.dir));
	snprintf(p.proc, sizeof p.proc, "%s/proc", p.dir);
	snprintf(p.cgroup, sizeof p.cgroup, "%s/cgroup", p.dir);
	return p;
}

static void expect(const struct place *p, uint64_t want)
{
	uint64_t got = memory_room(p->proc, p->cgroup);
	cr_assert_eq(got, want, "%llu instead of %llu", (unsigned long long)got, (unsigned long long)want);
}

static void drop(struct place *p)
{
	tempdir_remove(p->dir);
}

Test(memory, room_is_the_least_of_host_and_groups)
{
	struct place p = make();
	expect(&p, UINT64_MAX); /* nothing to be seen */
	put(&p, "proc/meminfo", "MemTotal:        8000000 kB\nMemFree:         100 kB\nMemAvailable:    1000000 kB\n");
	expect(&p, UINT64_C(1000000) << 10);
	/* version 1, limits at two levels; page cache doesn't count */
	put(&p, "proc/self/cgroup", "9:pids:/\n4:memory:/a/b\n0::/\n");
	put(&p, "cgroup/memory/a/b/memory.limit_in_bytes", "9223372036854771712\n");
	put(&p, "cgroup/memory/a/b/memory.usage_in_bytes", "1000\n");
	put(&p, "cgroup/memory/a/memory.limit_in_bytes", "5000000\n");
	put(&p, "cgroup/memory/a/memory.usage_in_bytes", "4000000\n");
	put(&p, "cgroup/memory/a/memory.stat", "cache 9\ninactive_file 7\ntotal_inactive_file 500000\n");
	expect(&p, 1500000);
	put(&p, "cgroup/memory/a/memory.usage_in_bytes", "5600000\n");
	expect(&p, 0); /* more than allowed */
	/* version 2 */
	put(&p, "proc/self/cgroup", "0::/system.slice/aquifer.service\n");
	put(&p, "cgroup/system.slice/aquifer.service/memory.max", "max\n");
	put(&p, "cgroup/system.slice/aquifer.service/memory.current", "123\n");
	expect(&p, UINT64_C(1000000) << 10);
	put(&p, "cgroup/system.slice/aquifer.service/memory.max", "3000000\n");
	expect(&p, 2999877);
	put(&p, "cgroup/memory.max", "2000000\n");
	put(&p, "cgroup/memory.current", "1000000\n");
	put(&p, "cgroup/memory.stat", "inactive_file 1\n");
	expect(&p, 1000001);
	put(&p, "proc/self/cgroup", "0::/../../elsewhere\n"); /* a container's path, as its host has it */
	expect(&p, 1000001);
	drop(&p);
}

static uint64_t need(const char *text)
{
	struct graph *g;
	cr_assert_eq(graph_parse(text, strlen(text), &g, NULL), 0);
	cr_assert_eq(graph_check(g, NULL, NULL), 0);
	uint64_t bytes = memory_need(g);
	graph_free(g);
	return bytes;
}

Test(memory, each_volume_of_a_graph_needs_its_own)
{
	uint64_t image = need("raw(/a)"), volume = need("volume(a)");
	cr_assert_gt(image, 0u);
	cr_assert_eq(volume - image, UINT64_C(64) << 20);
	cr_assert_eq(need("verify(volume(a), volume(b))") - image, UINT64_C(128) << 20);
}
