/* scale [--servers N] [--volumes N] [--attached N] [--volume-size MIB] [--snapshots N] [--link MIB] [--etcd URL] */
#include <getopt.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>

#include "tests/bench/scale/scale.h"

static uint64_t number(const char *text)
{
	char *end;
	uint64_t n = strtoull(text, &end, 10);
	if (*end || end == text || n == 0)
		scale_fail("'%s' is not a number above 0", text);
	return n;
}

static void part(const char *title, void (*run)(struct scale *s), struct scale *s)
{
	double begin = cpu_now();
	printf("\n== %s\n", title);
	run(s);
	printf("   (%.1f s)\n", cpu_now() - begin);
	fflush(stdout);
}

int main(int argc, char **argv)
{
	static const struct option names[] = { { "servers", 1, NULL, 's' }, { "volumes", 1, NULL, 'v' }, { "attached", 1, NULL, 'a' }, { "volume-size", 1, NULL, 'b' },
					       { "snapshots", 1, NULL, 'n' }, { "link", 1, NULL, 'l' }, { "etcd", 1, NULL, 'e' }, { 0 } };
	struct scale s = { .servers = 1000, .volumes = 100000, .attached = 10000, .volume_bytes = UINT64_C(10) << 30, .snapshots = 10,
			   .link_bytes_per_s = UINT64_C(1250) << 20 };
	for (int c; (c = getopt_long(argc, argv, "", names, NULL)) != -1;)
		switch (c) {
		case 's': s.servers = (unsigned)number(optarg); break;
		case 'v': s.volumes = (unsigned)number(optarg); break;
		case 'a': s.attached = (unsigned)number(optarg); break;
		case 'b': s.volume_bytes = number(optarg) << 20; break;
		case 'n': s.snapshots = (unsigned)number(optarg); break;
		case 'l': s.link_bytes_per_s = number(optarg) << 20; break;
		case 'e': s.etcd = optarg; break;
		default: return 2;
		}
	if (s.servers > PLACEMENT_SERVERS_MAX || s.servers < 4)
		scale_fail("from 4 to %d servers", PLACEMENT_SERVERS_MAX);
	printf("%u servers, %u volumes of %.0f GiB with %u snapshots each, %u attached\n", s.servers, s.volumes, (double)s.volume_bytes / (double)(1 << 30), s.snapshots,
	       s.attached);
	part("connections", scale_connections, &s);
	part("the map of servers", scale_placement, &s);
	part("a server is lost", scale_loss, &s);
	part("a tapdisk", scale_tapdisk, &s);
	part("whom a tapdisk is connected with", scale_reach, &s);
	part("the catalog", scale_catalog, &s);
	part("servers, and the manager", scale_keepers, &s);
	if (s.etcd)
		part("what etcd bears here", scale_etcd, &s);
	printf("\n== what breaks first\n");
	scale_limits(&s);
	free(s.log);
	free(s.owner);
	return 0;
}
