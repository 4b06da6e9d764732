/* What breaks first: what is needed at the size that was asked for, beside what the code, or etcd, allows. */
#include <math.h>
#include <stdio.h>
#include <stdlib.h>

#include "core/bytes.h"
#include "parallax/access/access.h"
#include "parallax/catalog/catalog_etcd_wire.h"
#include "server/keeper.h"
#include "tests/bench/scale/scale.h"

/* etcd's own, by default: --quota-backend-bytes, --max-request-bytes, --max-txn-ops. */
#define ETCD_QUOTA_BYTES ((double)(UINT64_C(2) << 30))
#define ETCD_REQUEST_BYTES (1.5 * (1 << 20))
#define ETCD_TXN_OPS 128.0
#define AS_JSON (4.0 / 3.0) /* base64 */

struct limit {
	const char *what, *unit, *grows; /* grows: with what, and `at` is how many of those there can be, all else being as asked for; "": it doesn't */
	double need, allowed, at;        /* allowed 0: not measured */
};

struct limits {
	struct limit of[24];
	unsigned count;
};

static void add(struct limits *l, const char *what, const char *unit, double need, double allowed, const char *grows, double fixed, double each)
{
	struct limit *n = &l->of[l->count++];
	*n = (struct limit){ what, unit, grows, need, allowed, each > 0 ? floor((allowed - fixed) / each) : 0 };
}

static int tightest_first(const void *a, const void *b)
{
	const struct limit *x = a, *y = b;
	double p = x->allowed > 0 ? x->need / x->allowed : 0, q = y->allowed > 0 ? y->need / y->allowed : 0;
	return p < q ? 1 : p > q ? -1 : 0;
}

static double reads(const struct traffic *t) { return t->gets + t->compares + t->pages; }

static void print(const struct limit *l)
{
	char allowed[32] = "not measured", part[32] = "-", at[64] = "";
	if (l->allowed > 0) {
		snprintf(allowed, sizeof allowed, "%.6g", l->allowed);
		snprintf(part, sizeof part, "%.3g", l->need / l->allowed);
	}
	if (l->grows[0] && l->allowed > 0 && l->at >= 0)
		snprintf(at, sizeof at, "%.0f %s", l->at, l->grows);
	else if (l->grows[0] && l->allowed > 0)
		snprintf(at, sizeof at, "without any %s", l->grows);
	printf("%-66s %12.6g %12s %-10s %8s  %s\n", l->what, l->need, allowed, l->unit, part, at);
}

void scale_limits(const struct scale *s)
{
	struct limits l = { .count = 0 };
	double n = s->servers, a = s->attached, v = s->volumes, seconds = (double)KEEPER_MANAGER_NS / (double)NS_PER_S, looks = (double)NS_PER_S / ACCESS_KEEP_NS;
	double servers_read = n * reads(&s->keeper) + reads(&s->manager) + n * reads(&s->gc);
	double hour = a * s->writing.puts * s->bears.put_bytes * 3600; /* deploy/example has etcd compact what is older */
	add(&l, "connections of a server, if all attached read all of their volumes", "", s->reach_keeper + a * s->reach / n, SERVER_CONNECTIONS_DEFAULT, "attached",
	    s->reach_keeper, s->reach / n);
	add(&l, "connections of a server, all attached idle", "", s->reach_keeper + a * s->reach_idle / n, SERVER_CONNECTIONS_DEFAULT, "attached", s->reach_keeper, s->reach_idle / n);
	add(&l, "connections of a server: with four servers", "", 3 + a, SERVER_CONNECTIONS_DEFAULT, "attached", 3, 1);
	add(&l, "etcd: reads, all attached idle", "1/s", a * reads(&s->idle) + servers_read, s->bears.read, "attached", servers_read, reads(&s->idle));
	add(&l, "etcd: reads by servers, with gc each hour", "1/s", servers_read, s->bears.read, "servers", reads(&s->manager), reads(&s->keeper) + reads(&s->gc));
	add(&l, "etcd: transactions, all attached writing 1 MiB/s each", "1/s", a * s->writing.puts, s->bears.put, "attached", 0, s->writing.puts);
	add(&l, "etcd: looks at what is revoked, with TLS", "1/s", (a + n) * looks, s->bears.read, "attached", n * looks, looks);
	add(&l, "etcd: heartbeats of leases", "1/s", a * s->idle.beats + n * s->keeper.beats, s->bears.lease, "attached", n * s->keeper.beats, s->idle.beats);
	add(&l, "etcd's network: servers' reads, with gc each hour", "bytes/s", AS_JSON * n * (s->keeper.bytes_read + s->gc.bytes_read), (double)s->link_bytes_per_s, "servers", 0,
	    AS_JSON * (s->keeper.bytes_read + s->gc.bytes_read));
	add(&l, "etcd's network: a change of the map, read by each attached", "bytes", AS_JSON * a * (double)s->map_bytes, seconds * (double)s->link_bytes_per_s, "attached", 0,
	    AS_JSON * (double)s->map_bytes);
	add(&l, "etcd: its quota, what is there", "bytes", (double)s->catalog_bytes, ETCD_QUOTA_BYTES, "volumes", 0, (double)s->catalog_bytes / v);
	if (hour > 0)
		add(&l, "etcd: its quota, with an hour's history, all writing", "bytes", (double)s->catalog_bytes + hour, ETCD_QUOTA_BYTES, "attached",
		    (double)s->catalog_bytes, hour / a);
	add(&l, "a list of all volumes: keys", "", (double)s->volume_list_keys, ETCD_LIST_ITEMS_MAX, "volumes", 0, (double)s->volume_list_keys / v);
	add(&l, "a list of all volumes: values", "bytes", (double)s->volume_list_bytes, (double)ETCD_LIST_BYTES_MAX, "volumes", 0, (double)s->volume_list_bytes / v);
	add(&l, "the map: a value of the catalog's", "bytes", (double)s->map_bytes, CATALOG_VALUE_MAX, "", 0, 0);
	add(&l, "the map: servers", "", n, PLACEMENT_SERVERS_MAX, "servers", 0, 1);
	add(&l, "etcd: the largest request, the map", "bytes", AS_JSON * (double)s->map_bytes, ETCD_REQUEST_BYTES, "", 0, 0);
	add(&l, "etcd: operations in a transaction", "", CATALOG_TXN_MAX, ETCD_TXN_OPS, "", 0, 0);
	add(&l, "etcd: watches", "", a * s->idle.watches + n * s->keeper.watches, 0, "", 0, 0);
	qsort(l.of, l.count, sizeof *l.of, tightest_first);
	printf("%-66s %12s %12s %-10s %8s  %s\n", "", "need", "allowed", "", "of it", "enough for");
	for (unsigned i = 0; i < l.count; i++)
		print(&l.of[i]);
}
