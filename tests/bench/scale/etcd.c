/* How many small requests a second an etcd answers here, many of them at once, by the catalog's own code. */
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <time.h>

#include "core/env_linux.h"
#include "core/fiber.h"
#include "parallax/catalog/catalog_etcd_call.h"
#include "tests/bench/scale/scale.h"

enum { AT_ONCE = 64, SECONDS = 3, VALUE = 300 };

struct measuring {
	struct env *env;
	struct scale *s;
	struct catalog *catalog;
	uint64_t until_ns, done, revision, lease;
	int (*one)(struct measuring *m, unsigned worker);
	int result;
};

static void key_of(unsigned worker, char ret[32]) { snprintf(ret, 32, "bench/%u", worker); }

static int one_put(struct measuring *m, unsigned worker)
{
	char key[32];
	uint8_t value[VALUE] = { 1 };
	struct catalog_txn *t = malloc(sizeof *t);
	key_of(worker, key);
	catalog_txn_init(t);
	catalog_txn_put(t, key, value, sizeof value);
	int r = catalog_txn(m->catalog, t, &m->revision);
	free(t);
	return r;
}

static int one_get(struct measuring *m, unsigned worker)
{
	char key[32];
	struct catalog_value v;
	key_of(worker, key);
	int r = catalog_get(m->catalog, key, &v);
	catalog_value_free(&v);
	return r;
}

static int one_compare(struct measuring *m, unsigned worker)
{
	char key[32];
	key_of(worker, key);
	int r = catalog_same(m->catalog, key, m->revision);
	return r < 0 ? r : 0;
}

static int one_beat(struct measuring *m, unsigned worker)
{
	struct etcd *e = etcd_of(m->catalog);
	(void)worker;
	struct etcd_call call = { .path = "/v3/lease/keepalive", .request = etcd_lease_request(m->lease, 0), .answer_max = 16 << 10 };
	int r = etcd_call(e, &call);
	free(call.answer);
	return r;
}

struct worker {
	struct measuring *m;
	unsigned number;
};

static int work(void *arg)
{
	struct worker *w = arg;
	struct measuring *m = w->m;
	int r = 0;
	while (r == 0 && env_now_ns(m->env) < m->until_ns) {
		r = m->one(m, w->number);
		m->done += r == 0;
	}
	return r;
}

static double measure(struct measuring *m, const char *what, int (*one)(struct measuring *m, unsigned worker))
{
	struct worker workers[AT_ONCE];
	struct job all;
	m->one = one;
	m->done = 0;
	m->until_ns = env_now_ns(m->env) + SECONDS * NS_PER_S;
	job_init(&all, &m->env->loop);
	for (unsigned i = 0; i < AT_ONCE; i++) {
		workers[i] = (struct worker){ m, i };
		job_hold(&all);
		if (fiber_start(&m->env->loop, work, &workers[i], &all) < 0)
			scale_fail("no memory");
	}
	int r = fiber_wait(&all);
	if (r < 0)
		scale_fail("etcd: %s: %s", what, catalog_text(m->catalog, r));
	printf("%-40s %10.0f a second\n", what, (double)m->done / SECONDS);
	return (double)m->done / SECONDS;
}

/* Of etcd's file. */
static double file_bytes(struct measuring *m)
{
	struct etcd_call call = { .path = "/v3/maintenance/status", .request = strdup("{}"), .answer_max = 16 << 10 };
	int r = etcd_call(etcd_of(m->catalog), &call);
	char *text = r == 0 ? strndup((char *)call.answer, call.answer_length) : NULL, *size = text ? strstr(text, "\"dbSize\":\"") : NULL;
	double bytes = size ? strtod(size + strlen("\"dbSize\":\""), NULL) : 0;
	free(text);
	free(call.answer);
	if (bytes == 0)
		scale_fail("etcd doesn't say how large it is");
	return bytes;
}

static int grant(struct measuring *m)
{
	struct etcd_call call = { .path = "/v3/lease/grant", .request = etcd_lease_request(0, 60), .answer_max = 16 << 10 };
	uint64_t ttl_s;
	int r = etcd_call(etcd_of(m->catalog), &call);
	if (r == 0)
		r = etcd_lease_answer(call.answer, call.answer_length, &m->lease, &ttl_s);
	free(call.answer);
	return r;
}

static int run(void *arg)
{
	struct measuring *m = arg;
	struct report report = { "" };
	int r = catalog_open(m->env, m->s->etcd, NULL, /* create= */ false, &m->catalog, &report);
	if (r < 0)
		scale_fail("%s: %s", m->s->etcd, report_text(&report, r));
	double before = file_bytes(m);
	m->s->bears.put = measure(m, "transactions that put 300 bytes", one_put);
	m->s->bears.put_bytes = (file_bytes(m) - before) / (double)m->done;
	printf("%-40s %10.0f bytes of etcd's file each, until it is compacted\n", "", m->s->bears.put_bytes);
	m->s->bears.read = measure(m, "gets of 300 bytes", one_get);
	m->s->bears.compare = measure(m, "compares", one_compare);
	if (grant(m) < 0)
		scale_fail("etcd grants no lease");
	m->s->bears.lease = measure(m, "heartbeats of leases", one_beat);
	printf("   %d at once, by one process beside the etcd, on as many processors as there are for both\n", AT_ONCE);
	catalog_close(m->catalog);
	return 0;
}

void scale_etcd(struct scale *s)
{
	struct measuring m = { .s = s };
	if (env_linux_create(0, &m.env) < 0)
		scale_fail("no loop");
	env_linux_run_fiber(m.env, run, &m);
	env_linux_destroy(m.env);
}
