#include <errno.h>
#include <stdlib.h>
#include <string.h>

#include "core/fiber.h"
#include "parallax/access/access.h"

struct access_keeper {
	struct env *env;
	struct catalog *catalog;
	char *root;
	enum identity_role role;
	void (*changed)(void *arg);
	void *arg;
	bool stopping, running, ticking;
	struct catalog_watch *watch; /* of the revoked; NULL: only the clock tells */
	struct fiber_cond due, over;
	struct timer timer;
	struct job timer_job;
};

/* FIBER. What can't be read leaves things as they are. */
static void look(struct access_keeper *k)
{
	struct identity_revoked *list;
	size_t count;
	access_load(k->env, k->root, k->role, NULL);
	if (!k->env->identity || access_revoked_known(k->catalog, k->root, /* keep= */ k->changed != NULL, &list, &count) < 0)
		return;
	int r = k->env->identity ? identity_revoke(k->env->identity, list, count) : 0;
	free(list);
	if (r == 0 && k->changed)
		k->changed(k->arg);
}

static void ticked(struct job *j)
{
	struct access_keeper *k = container_of(j, struct access_keeper, timer_job);
	k->ticking = false;
	fiber_cond_wake(&k->due);
}

static void tick(struct access_keeper *k)
{
	k->ticking = true;
	job_init(&k->timer_job, &k->env->loop);
	timer_start(k->env, &k->timer, ACCESS_KEEP_NS, &k->timer_job);
	job_then(&k->timer_job, ticked);
}

static int keep(void *arg)
{
	struct access_keeper *k = arg;
	while (!k->stopping && !k->env->dead) {
		if (!k->ticking)
			tick(k);
		fiber_cond_wait(&k->env->loop, &k->due);
		if (!k->stopping)
			look(k);
		if (!k->watch && k->changed && !k->stopping)
			catalog_watch(k->catalog, ACCESS_REVOKED, &k->due, &k->watch);
	}
	timer_cancel(k->env, &k->timer);
	while (k->ticking)
		fiber_cond_wait(&k->env->loop, &k->due);
	catalog_watch_end(k->watch);
	k->running = false;
	fiber_cond_wake(&k->over);
	return 0;
}

struct access_keeper *access_keeper_start(struct catalog *c, const char *root, enum identity_role role, void (*changed)(void *arg), void *arg)
{
	struct access_keeper *k = calloc(1, sizeof *k);
	if (!k)
		return NULL;
	*k = (struct access_keeper){ .env = c->env, .catalog = c, .root = strdup(root), .role = role, .changed = changed, .arg = arg };
	timer_init(&k->timer);
	fiber_cond_init(&k->due);
	fiber_cond_init(&k->over);
	if (k->root) {
		look(k);
		if (changed && catalog_watch(c, ACCESS_REVOKED, &k->due, &k->watch) < 0)
			k->watch = NULL; /* later */
		k->running = true;
		if (fiber_start(&k->env->loop, keep, k, NULL) == 0)
			return k;
	}
	catalog_watch_end(k->watch);
	free(k->root);
	free(k);
	return NULL;
}

void access_keeper_stop(struct access_keeper *k)
{
	if (!k)
		return;
	k->stopping = true;
	fiber_cond_wake(&k->due);
	while (k->running)
		fiber_cond_wait(&k->env->loop, &k->over);
	free(k->root);
	free(k);
}
