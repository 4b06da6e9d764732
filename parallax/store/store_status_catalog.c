/* The catalog's engine, member by member: with one of three etcds dead all goes on, and somebody should know. */
#include <errno.h>
#include <stdlib.h>
#include <string.h>

#include "core/array.h"
#include "core/bytes.h"
#include "core/config.h"
#include "core/fiber.h"
#include "parallax/catalog/catalog_access.h"
#include "parallax/catalog/catalog_copy.h"
#include "parallax/store/store_private.h"
#include "parallax/store/store_status.h"

struct probe {
	struct env *env;
	const struct catalog_access *access;
	struct store_status_member *member;
};

/* A linearizable read by way of that member alone: it must have a leader to ask. */
static int probe_one(void *arg)
{
	struct probe *p = arg;
	struct store_status_member *m = p->member;
	struct env *env = p->env;
	struct report why = { "" };
	struct catalog *c;
	char url[sizeof m->url + 8];
	uint64_t began = env_now_ns(env);
	snprintf(url, sizeof url, "etcd:%s", m->url);
	int r = catalog_open_any(env, url, p->access, /* create= */ false, &c, &why);
	if (r == 0) {
		struct catalog_value v;
		r = catalog_get(c, STORE_RESTORED, &v);
		catalog_value_free(&v);
		r = r == -ENOENT ? 0 : r;
		if (r < 0)
			report_set(&why, r, "%s", catalog_text(c, r));
		catalog_close(c);
	}
	m->answer_ns = env_now_ns(env) - began;
	m->answers = r == 0;
	if (r < 0)
		snprintf(m->why, sizeof m->why, "%s", report_text(&why, r));
	return 0;
}

/* "http://A:1,B:2" → one URL each. */
static int split(const char *endpoints, struct store_status *t)
{
	const char *host = strstr(endpoints, "://");
	int scheme = host ? (int)(host - endpoints + 3) : 0;
	for (const char *p = endpoints + scheme; *p;) {
		size_t n = strcspn(p, ",");
		if (array_more(&t->members, t->member_count) < 0)
			return -ENOMEM;
		struct store_status_member *m = &t->members[t->member_count++];
		*m = (struct store_status_member){ 0 };
		snprintf(m->url, sizeof m->url, "%.*s%.*s", scheme, endpoints, (int)n, p);
		p += n + (p[n] == ',');
	}
	return 0;
}

int store_status_members(struct env *env, const char *root, const char *catalog_url, struct store_status *t, struct report *report)
{
	struct catalog_access access = { 0 };
	struct job j;
	if (strncmp(catalog_url, "etcd:", 5) != 0)
		return 0;
	int r = split(catalog_url + 5, t);
	if (r == 0)
		r = catalog_access_load(env, root, catalog_url, &access, report);
	struct probe *probes = r == 0 ? calloc(t->member_count + 1, sizeof *probes) : NULL;
	r = r == 0 && !probes ? -ENOMEM : r;
	job_init(&j, &env->loop);
	for (size_t i = 0; r == 0 && i < t->member_count; i++) {
		probes[i] = (struct probe){ env, &access, &t->members[i] };
		job_hold(&j);
		r = fiber_start(&env->loop, probe_one, &probes[i], &j);
		if (r < 0)
			job_put(&j, 0);
	}
	fiber_wait(&j);
	free(probes);
	catalog_access_free(&access);
	return r;
}

int store_status_unreachable(struct env *env, const char *root, const char *why, struct store_status **ret, struct report *report)
{
	struct store_status *t = *ret = calloc(1, sizeof *t);
	if (!t)
		return -ENOMEM;
	char url[CONFIG_VALUE_BYTES];
	int r = config_catalog_url(env, root, NULL, url, report);
	if (r == 0) {
		snprintf(t->catalog_url, sizeof t->catalog_url, "%.500s", url);
		r = store_status_members(env, root, url, t, report);
	}
	if (r == 0)
		r = store_status_problem(t, "the catalog can't be used, so nothing else is known: %s", why);
	for (size_t i = 0; r == 0 && i < t->member_count; i++)
		if (!t->members[i].answers)
			r = store_status_problem(t, "the catalog's member %s doesn't answer: %s", t->members[i].url, t->members[i].why);
	return r;
}
