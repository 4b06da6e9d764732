/* make bench-scale: what a cluster of a thousand servers and a hundred thousand volumes costs, by the real code: maps of servers are changed, a keeper and
 * a manager run beside as many peers, a tapdisk writes, and a catalog in memory counts what they ask of it. What they have in common. */
#ifndef AQ_BENCH_SCALE_H
#define AQ_BENCH_SCALE_H
#include "parallax/segment/placement.h"
#include "tests/sim/catalog_sim.h"

struct scale {
	/* how large; all settable */
	unsigned servers, volumes, attached;
	uint64_t volume_bytes;     /* live in each */
	unsigned snapshots;        /* of each */
	uint64_t link_bytes_per_s; /* of a server's network, each way */
	const char *etcd;          /* a catalog's URL, to measure what one bears; NULL: not measured */
	/* what the parts found out, for limits.c */
	struct {
		double read, compare, put, lease; /* of small ones, a second, many at once; 0: not measured */
		double put_bytes;                 /* by how much a put makes its file larger */
	} bears;
	struct traffic {
		double gets, compares, puts, pages;   /* a second; pages: of lists */
		double bytes_read, bytes_put;         /* a second, of values */
		double beats;                         /* of leases, a second */
		unsigned watches;
	} idle, writing, keeper, manager, gc; /* of a tapdisk, and of one that writes 1 MiB a second; of a server; of that which is the manager; gc alone */
	double reach, reach_idle, reach_keeper; /* servers that are connected with on average: a tapdisk that reads all of its volume, an idle one, a server */
	size_t map_bytes;          /* at that size */
	uint64_t catalog_keys, catalog_bytes, volume_list_keys, volume_list_bytes; /* all; those below "volume/" */
	uint64_t loss_map_changes; /* of the map, from a server's loss to the end of its rebuilding, at least */
	uint8_t *log, *owner;      /* a volume's records, as a tapdisk that had written left them */
	size_t log_length, owner_length;
};

/* ---- a catalog that counts, before another one ---- */

struct meter {
	uint64_t gets, compares, puts, lists, keys, bytes_read, bytes_put, pages;
	double beats;      /* a second */
	unsigned leases, watches;
	uint8_t *log, *owner; /* the largest record of a volume, and the last of its owner, that were put */
	size_t log_length, owner_length;
	size_t heap_most;  /* as far as was seen while lists were gone through */
};
/* Takes `below` over; has leases, which never end, and watches, which never wake. `m` is borrowed. */
struct catalog *meter_open(struct meter *m, struct catalog *below);
/* From then to now, in so many seconds. */
struct traffic meter_since(const struct meter *then, const struct meter *now, double seconds);

double cpu_now(void);      /* seconds that this process has run */
size_t heap_now(void);     /* bytes in use */
/* FIBER-less: steps the world until so much later. */
void step_for(struct sim *sim, uint64_t ns);
/* A cluster of `count` servers in racks of 25 (at least four racks), 4, 8 or 16 TB each; the ids are drawn from `seed`. */
void scale_servers(struct placed_server *list, unsigned count, uint64_t seed);
/* Puts a value there, whoever is watching. */
void scale_put(struct catalog *c, const char *key, const void *bytes, size_t length); /* FIBER */
__attribute__((noreturn, format(printf, 1, 2))) void scale_fail(const char *format, ...);

void scale_connections(struct scale *s);
void scale_reach(struct scale *s);
void scale_placement(struct scale *s);
void scale_loss(struct scale *s);
void scale_tapdisk(struct scale *s);
void scale_catalog(struct scale *s);
void scale_keepers(struct scale *s);
void scale_etcd(struct scale *s);
void scale_limits(const struct scale *s);
#endif
