/* Scenario `takeover`: one writer (P2).
 *
 * A volume on one to three servers, of which one may be killed, stop, or not be heard by one of the hosts, for some seconds. An owner works, is paused (SIGSTOP) or cut off from them, or from some, at any moment, or isn't, and another host
 * takes the volume by force. The first one is let go on afterwards, or just when the second has fenced it, chosen the log's end or recorded it;
 * there the second one may also die, and begin anew, or be cut off itself. Checked: the second one finds everything the first had
 * acknowledged; nothing the first does afterwards shows; a write that it acknowledges late is one the second had found;
 * its other requests fail, and all of them end. Over and over, the roles changing.
 *
 * Or the volume is handed over: prepared, deactivated, activated, or taken back, or both are tried at once, while either side may be killed.
 * Checked: one of them serves, with all that was acknowledged. */
#include <errno.h>
#include <stdlib.h>
#include <string.h>

#include "core/bytes.h"
#include "core/fiber.h"
#include "parallax/volume/volume_handover.h"
#include "tests/sim/oracle.h"
#include "tests/sim/owner.h"

enum { CLIENTS = 4, BLOCKS = 96, STEPS_MAX = 3000000, SERVERS_MAX = 3 };

struct side;

struct client {
	struct side *side;
	struct scenario_task task;
	unsigned ops;
};

struct side {
	struct takeover *t;
	struct sim_host *host;
	struct owner o;
	struct client clients[CLIENTS];
	bool handing;       /* it is being handed over, to or from this side: no other commands */
	unsigned commands;
	struct scenario_task taking;
	bool fenced;        /* somebody else has recovered the volume since */
	bool running;
};

/* Of one server, and one at a time. */
struct trouble {
	enum { TROUBLE_KILLED, TROUBLE_PAUSED, TROUBLE_DEAF, TROUBLE_MUTE, TROUBLES } kind;
	bool is;
	struct block_server *server;
	struct side *side;  /* that it doesn't hear, or that doesn't hear it */
	uint64_t from, until_ns; /* a step; a time */
};

struct takeover {
	struct scenario_run *run;
	struct sim *sim;
	struct catalog_sim *catalogs;
	struct block_server servers[SERVERS_MAX];
	unsigned server_count;
	struct keeper_options keeps;
	struct trouble trouble;
	struct oracle *oracle;
	struct volume_limits limits;
	struct side sides[2];
	struct side *opening, *owner;
	unsigned round;
	uint64_t offer, volume; /* of the round: its number */
};

#define FAIL(t, ...) scenario_fail((t)->run, __VA_ARGS__)

static uint64_t draw(struct takeover *t, uint64_t below) { return sim_random(t->sim) % below; }

/* ---- servers ---- */

static void trouble_begins(struct takeover *t)
{
	static const char *const what[] = { "is killed", "is paused", "doesn't hear", "isn't heard by" };
	struct trouble *one = &t->trouble;
	*one = (struct trouble){ .kind = draw(t, TROUBLES), .is = true, .server = &t->servers[draw(t, t->server_count)], .side = &t->sides[draw(t, 2)],
				 .until_ns = sim_now_ns(t->sim) + draw(t, 4 * NS_PER_S) };
	sim_note(t->sim, "%s %s %s", one->server->domain, what[one->kind], one->kind < TROUBLE_DEAF ? "" : one->side == &t->sides[0] ? "a" : "b");
	switch (one->kind) {
	case TROUBLE_KILLED: block_server_end(one->server, false); break;
	case TROUBLE_PAUSED: sim_pause(one->server->env); break;
	case TROUBLE_DEAF: sim_partition(t->sim, one->side->host, one->server->host, true); break;
	case TROUBLE_MUTE: case TROUBLES: sim_partition(t->sim, one->server->host, one->side->host, true); break;
	}
}

static void trouble_ends(struct takeover *t)
{
	struct trouble one = t->trouble;
	t->trouble = (struct trouble){ .from = sim_steps(t->sim) + draw(t, 20000) };
	if (!one.is)
		return;
	sim_note(t->sim, "%s is well again", one.server->domain);
	switch (one.kind) {
	case TROUBLE_KILLED: block_server_begin(one.server, t->run, t->sim, t->catalogs); break;
	case TROUBLE_PAUSED: sim_resume(one.server->env); break;
	case TROUBLE_DEAF: sim_partition(t->sim, one.side->host, one.server->host, false); break;
	case TROUBLE_MUTE: case TROUBLES: sim_partition(t->sim, one.server->host, one.side->host, false); break;
	}
}

static bool step(struct takeover *t)
{
	bool more = sim_step(t->sim);
	if (t->server_count == 1 || t->run->failed)
		return more;
	if (t->trouble.is && (!more || sim_now_ns(t->sim) >= t->trouble.until_ns)) {
		trouble_ends(t);
		return true;
	}
	if (!t->trouble.is && more && sim_steps(t->sim) >= t->trouble.from)
		trouble_begins(t);
	return more;
}

/* ---- clients ---- */

static void client_write(struct side *s)
{
	struct takeover *t = s->t;
	uint32_t count = 1 + (uint32_t)draw(t, 24), first = (uint32_t)draw(t, BLOCKS * 8 - count);
	uint8_t *b = env_alloc_aligned((size_t)count * ORACLE_SECTOR);
	uint64_t id = oracle_write_begin(t->oracle, first, count, false, b);
	bool never = s->fenced;
	if (never)
		oracle_write_never(t->oracle, id);
	int r = blk_write_wait(s->o.node, b, (uint64_t)count * ORACLE_SECTOR, (uint64_t)first * ORACLE_SECTOR, 0);
	free(b);
	if (s->o.env->dead)
		return;
	if (!s->fenced)
		oracle_write_end(t->oracle, id, r == 0, false);
	else if (r == 0 && never)
		FAIL(t, "round %u: a fenced owner acknowledged a write that it began when its successor had recovered", t->round);
	else if (r == 0 && !oracle_late_ack(t->oracle, id))
		FAIL(t, "round %u: a fenced owner acknowledged a write that its successor didn't find", t->round);
}

static void client_read(struct side *s)
{
	struct takeover *t = s->t;
	uint32_t count = 1 + (uint32_t)draw(t, 16), first = (uint32_t)draw(t, BLOCKS * 8 - count);
	uint8_t *b = env_alloc_aligned((size_t)count * ORACLE_SECTOR);
	uint64_t began = oracle_now(t->oracle);
	bool fenced = s->fenced;
	int r = blk_read_wait(s->o.node, b, (uint64_t)count * ORACLE_SECTOR, (uint64_t)first * ORACLE_SECTOR);
	/* one that is fenced may read its past until it notices */
	const char *why = r == 0 && !fenced && !s->fenced && !s->o.env->dead ? oracle_read(t->oracle, first, count, b, began) : NULL;
	if (why)
		FAIL(t, "round %u: %s", t->round, why);
	free(b);
}

static void client_flush(struct side *s)
{
	struct takeover *t = s->t;
	uint64_t began = oracle_now(t->oracle);
	if (blk_op_wait(s->o.node, BLK_FLUSH, 0, 0, 0) == 0 && !s->fenced && !s->o.env->dead)
		oracle_flushed(t->oracle, began);
}

static int client_run(void *arg)
{
	struct client *c = arg;
	struct side *s = c->side;
	while (c->ops-- > 0 && !s->t->run->failed && !s->o.env->dead) {
		switch (draw(s->t, 8)) {
		case 0: client_flush(s); break;
		case 1: case 2: client_read(s); break;
		case 3:
			if (s->handing)
				break;
			s->commands++;
			volume_checkpoint(s->o.volume);
			s->commands--;
			break;
		default: client_write(s); break;
		}
		if (draw(s->t, 4) == 0)
			fiber_sleep(&s->o.env->loop, draw(s->t, 1000000));
	}
	return 0;
}

static bool clients_ended(const struct side *s)
{
	for (unsigned i = 0; i < CLIENTS; i++)
		if (!s->clients[i].task.ended)
			return false;
	return true;
}

/* ---- taking over ---- */

/* The whole disk as the new owner sees it, before anybody uses it. */
static int found(struct takeover *t, struct side *s)
{
	uint8_t *b = env_alloc_aligned((size_t)BLOCKS * BLOCK_BYTES);
	int r = blk_read_wait(s->o.node, b, (uint64_t)BLOCKS * BLOCK_BYTES, 0);
	if (s->o.env->dead) { /* it hasn't served anything */
		free(b);
		return -ESHUTDOWN;
	}
	if (r < 0)
		FAIL(t, "round %u: after taking over, reading: %d", t->round, r);
	for (unsigned i = 0; i < 2; i++)
		t->sides[i].fenced |= &t->sides[i] != s;
	oracle_crash(t->oracle, /* power= */ false);
	const char *why = r == 0 ? oracle_recovered(t->oracle, b) : NULL;
	if (why)
		FAIL(t, "round %u: after taking over: %s", t->round, why);
	free(b);
	return r;
}

static int open_run(void *arg)
{
	struct takeover *t = arg;
	struct side *s = t->opening;
	struct report report = { "" };
	int r = owner_seize(&s->o, "v", &t->limits, &report);
	if (r < 0 && !s->o.env->dead)
		FAIL(t, "round %u: taking over: %s", t->round, report_text(&report, r));
	return r < 0 ? r : found(t, s);
}

static void clients_begin(struct takeover *t, struct side *s)
{
	for (unsigned i = 0; i < CLIENTS; i++) {
		s->clients[i] = (struct client){ .side = s, .ops = 10 + (unsigned)draw(t, 60) };
		if (!t->run->failed)
			scenario_task_start(&s->clients[i].task, s->o.env, client_run, &s->clients[i]);
		else
			s->clients[i].task.ended = true;
	}
}

static void side_process(struct takeover *t, struct side *s)
{
	owner_begin(&s->o, t->sim, s->host, t->catalogs, /* locks= */ false);
	s->o.idle_ns = owner_idle_ns(t->run);
	s->fenced = s->handing = false;
	s->running = true;
	s->commands = 0;
	for (unsigned i = 0; i < CLIENTS; i++)
		s->clients[i].task.ended = true;
}

static void side_begin(struct takeover *t, struct side *s)
{
	struct scenario_task task;
	side_process(t, s);
	t->opening = s;
	scenario_task_start(&task, s->o.env, open_run, t);
	trouble_ends(t);
	if (!scenario_step_until(t->run, t->sim, &task.ended, STEPS_MAX))
		FAIL(t, "round %u: taking over does not end", t->round);
	clients_begin(t, s);
}

/* ---- handing over ---- */

static struct volume_node *node_of(struct side *s) { return container_of(s->o.node, struct volume_node, node); }

static int prepare_run(void *arg)
{
	struct side *s = arg;
	struct report report = { "" };
	int r = owner_node(&s->o, &s->o.driver, NULL, &s->o.node, &report);
	if (r == 0)
		volume_handover_prepare(node_of(s), (uint64_t)BLOCKS * BLOCK_BYTES, 0);
	return r;
}

static int deactivate_run(void *arg)
{
	struct side *s = arg;
	struct report report = { "" };
	struct volume_offer to = { .id = s->t->offer, .holder = "sim" };
	while (s->commands > 0)
		fiber_sleep(&s->o.env->loop, NS_PER_MS);
	int r = volume_handover_deactivate(node_of(s), &to, &report);
	s->o.volume = node_of(s)->volume;
	return r;
}

/* Until it serves, or the other one does. */
static int take_run(void *arg)
{
	struct side *s = arg;
	struct takeover *t = s->t;
	struct volume_open how = { .catalog = s->o.catalog, .places = &s->o.places.ops, .volume = t->volume, .holder = "sim", .offer = t->offer,
				   .limits = t->limits };
	int r = -EAGAIN;
	for (unsigned attempt = 0; r < 0 && r != -ESTALE && attempt < 200 && !s->o.env->dead; attempt++) {
		struct report report = { "" };
		struct volume_seen seen;
		if (attempt)
			fiber_sleep(&s->o.env->loop, 100 * NS_PER_MS);
		bool offered = draw(t, 3) > 0 && volume_look(s->o.env, s->o.catalog, t->volume, &seen) == 0 && seen.owner.state == OWNER_OFFERED &&
			       seen.owner.stamp == t->offer;
		how.seen = offered ? &seen : NULL;
		r = volume_handover_take(node_of(s), &how, &report);
	}
	s->o.volume = node_of(s)->volume;
	if (r < 0)
		volume_handover_leave(node_of(s), -EIO);
	return r;
}

static int found_run(void *arg)
{
	struct side *s = arg;
	return found(s->t, s);
}

static void run_on(struct takeover *t, struct side *s, int (*run)(void *arg), struct scenario_task *task, uint64_t at_most)
{
	scenario_task_start(task, s->o.env, run, s);
	for (uint64_t n = 0; !task->ended && n < at_most && !t->run->failed && step(t); n++)
		;
	if (!task->ended && at_most == STEPS_MAX && !t->run->failed)
		FAIL(t, "round %u: handing over does not end", t->round);
}

static void side_end(struct takeover *t, struct side *s)
{
	if (!s->running)
		return;
	for (uint64_t n = 0; !clients_ended(s) && n < STEPS_MAX && !t->run->failed; n++)
		if (!step(t))
			break;
	if (!clients_ended(s) && !t->run->failed)
		FAIL(t, "round %u: requests of a fenced owner do not end", t->round);
	if (t->run->failed || draw(t, 2)) {
		sim_kill(s->o.env);
		sim_drain_dead(s->o.env);
	}
	sim_run_fiber(s->o.env, owner_close, &s->o);
	owner_end(&s->o);
	s->running = false;
}

static void steps(struct takeover *t, uint64_t count)
{
	for (; count > 0 && !t->run->failed && step(t); count--)
		;
}

/* While it is opening. */
static void side_die(struct takeover *t, struct side *s, struct scenario_task *opening)
{
	sim_note(t->sim, "round %u: the taker dies", t->round);
	sim_kill(s->o.env);
	while (!opening->ended)
		sim_drain_dead(s->o.env);
	sim_run_fiber(s->o.env, owner_close, &s->o);
	owner_end(&s->o);
	s->running = false;
}

static void side_kill(struct takeover *t, struct side *s)
{
	sim_note(t->sim, "round %u: %s is killed", t->round, s == &t->sides[0] ? "a" : "b");
	sim_kill(s->o.env);
	sim_drain_dead(s->o.env);
	volume_handover_leave(node_of(s), -EIO); /* what waited */
	sim_drain_dead(s->o.env);
	sim_run_fiber(s->o.env, owner_close, &s->o);
	owner_end(&s->o);
	s->running = false;
}

/* From `old` to `taker`. Afterwards one of them serves. */
static void hand_over(struct takeover *t, struct side *old, struct side *taker)
{
	struct scenario_task task, deactivating;
	unsigned fault = (unsigned)draw(t, 4);
	t->offer = sim_random(t->sim) | 1;
	side_process(t, taker);
	old->handing = taker->handing = true;
	run_on(t, taker, prepare_run, &task, STEPS_MAX);
	sim_note(t->sim, "round %u: is handed over", t->round);
	run_on(t, old, deactivate_run, &deactivating, fault == 1 ? draw(t, 3000) : STEPS_MAX);
	if (fault == 1 && !t->run->failed) { /* before the offer, or after it */
		side_kill(t, old);
		side_end(t, taker);
		side_begin(t, taker);
		return;
	}
	if (t->run->failed)
		return;
	bool kept = old->o.volume != NULL; /* it serves on */
	bool back = !kept && (deactivating.status < 0 || fault == 2 || draw(t, 4) == 0), on = deactivating.status == 0 && !kept && (!back || draw(t, 2));
	old->taking = taker->taking = (struct scenario_task){ .ended = true, .status = -ESTALE };
	if (on)
		scenario_task_start(&taker->taking, taker->o.env, take_run, taker);
	if (back)
		scenario_task_start(&old->taking, old->o.env, take_run, old);
	if (fault == 2 && on) {
		steps(t, draw(t, 2000));
		side_kill(t, taker);
		on = false;
		if (!back) /* its target is gone */
			scenario_task_start(&old->taking, old->o.env, take_run, old);
	}
	for (uint64_t n = 0; !(old->taking.ended && (!on || taker->taking.ended)) && n < STEPS_MAX && !t->run->failed; n++)
		step(t);
	if (t->run->failed)
		return;
	bool taker_serves = on && taker->taking.ended && taker->taking.status == 0, old_serves = kept || (old->taking.ended && old->taking.status == 0);
	if (taker_serves && old_serves)
		FAIL(t, "round %u: both have the volume", t->round);
	old->handing = !old_serves;
	taker->handing = !taker_serves;
	if (taker_serves) {
		run_on(t, taker, found_run, &task, STEPS_MAX);
		volume_handover_leave(node_of(old), -EIO);
		clients_begin(t, taker);
		side_end(t, old);
		return;
	}
	if (taker->running)
		side_end(t, taker);
	if (!old_serves && fault == 2) { /* killed after it had got it */
		side_end(t, old);
		side_begin(t, old);
	} else if (!old_serves) {
		FAIL(t, "round %u: nobody has the volume: %d %d", t->round, old->taking.status, taker->taking.status);
	}
}

/* ---- by force ---- */

/* Of the owner, while another one takes its volume. */
enum absence { WRITES_ON, PAUSED, CUT_OFF, ABSENCES };

/* From all servers, or from some, both ways or one. */
static void partition(struct takeover *t, struct side *s, bool off)
{
	bool all = !off || t->server_count == 1 || draw(t, 2);
	for (unsigned i = 0; i < t->server_count; i++) {
		if (all || draw(t, 2))
			sim_partition(t->sim, s->host, t->servers[i].host, off);
		if (all || draw(t, 2))
			sim_partition(t->sim, t->servers[i].host, s->host, off);
	}
}

static void goes(struct takeover *t, struct side *s, enum absence how)
{
	static const char *const what[] = { "goes on", "is paused", "is cut off" };
	sim_note(t->sim, "round %u: the owner %s", t->round, what[how]);
	if (how == PAUSED)
		sim_pause(s->o.env);
	else if (how == CUT_OFF)
		partition(t, s, true);
}

static void comes_back(struct takeover *t, struct side *s, enum absence *how)
{
	if (*how != WRITES_ON)
		sim_note(t->sim, "round %u: the former owner goes on", t->round);
	if (*how == PAUSED)
		sim_resume(s->o.env);
	else if (*how == CUT_OFF)
		partition(t, s, false);
	*how = WRITES_ON;
}

/* Happens some steps after the catalog has changed so often: the first time the taker is the owner, and fences; then it has recorded cuts, and seals. */
struct hitch {
	enum { HITCH_NONE, HITCH_BACK, HITCH_DIES, HITCH_CUT_OFF, HITCHES } kind; /* HITCH_BACK: only the other one comes back */
	uint64_t revision, then, until_ns;
	bool with_other; /* it comes back at the same time */
};

static struct hitch hitch_draw(struct takeover *t)
{
	struct hitch h = { .kind = draw(t, HITCHES), .revision = catalog_sim_revision(t->catalogs) + 1 + draw(t, 3), .with_other = draw(t, 2) };
	h.then = draw(t, draw(t, 3) ? 15 : 200);
	return h;
}

static bool hitch_now(const struct takeover *t, struct hitch *h)
{
	return h->kind != HITCH_NONE && catalog_sim_revision(t->catalogs) >= h->revision && h->then-- == 0;
}

/* False: the taker died, or all failed. */
static bool take(struct takeover *t, struct side *old, enum absence *how, struct side *s)
{
	struct scenario_task task;
	struct hitch h = hitch_draw(t);
	side_process(t, s);
	t->opening = s;
	scenario_task_start(&task, s->o.env, open_run, t);
	for (uint64_t n = 0; s->running && !task.ended && !t->run->failed; n++) {
		if (n == STEPS_MAX || !step(t))
			FAIL(t, "round %u: taking over does not end", t->round);
		if (h.until_ns && sim_now_ns(t->sim) >= h.until_ns)
			partition(t, s, false);
		if (task.ended || t->run->failed || !hitch_now(t, &h))
			continue;
		if (h.kind == HITCH_BACK || h.with_other)
			comes_back(t, old, how);
		if (h.kind == HITCH_DIES) {
			side_die(t, s, &task);
		} else if (h.kind == HITCH_CUT_OFF) {
			sim_note(t->sim, "round %u: the taker is cut off", t->round);
			partition(t, s, true);
			h.until_ns = sim_now_ns(t->sim) + draw(t, 5 * NS_PER_S);
		}
		h.kind = HITCH_NONE;
	}
	if (h.until_ns)
		partition(t, s, false);
	if (s->running && !task.ended) /* all failed */
		side_die(t, s, &task);
	return s->running;
}

static void take_by_force(struct takeover *t, struct side *old, struct side *taker)
{
	enum absence how = draw(t, ABSENCES);
	if (clients_ended(old))
		clients_begin(t, old);
	goes(t, old, how);
	steps(t, draw(t, 2) ? draw(t, 50) : 0);
	while (!take(t, old, &how, taker) && !t->run->failed) {
		if (draw(t, 3) == 0)
			comes_back(t, old, &how);
		steps(t, draw(t, 500));
	}
	if (taker->running)
		clients_begin(t, taker);
	steps(t, draw(t, 3000));
	comes_back(t, old, &how);
	side_end(t, old);
}

static int create_run(void *arg)
{
	struct takeover *t = arg;
	struct store_volume_options o = { .size_bytes = (uint64_t)BLOCKS * BLOCK_BYTES, .replicas = t->server_count,
					  .min_replicas = t->server_count == 1 ? 1 : 1 + (unsigned)draw(t, t->server_count) };
	struct report report = { "" };
	int r = store_volume_create(&t->sides[0].o.store, "v", &o, &report);
	return r ? r : store_find_volume(&t->sides[0].o.places, "v", &t->volume, &report);
}

static void takeover_run(struct scenario_run *run)
{
	struct takeover *t = calloc(1, sizeof *t);
	t->run = run;
	t->sim = scenario_sim(run, NULL);
	sim_doses(t->sim)->slow = draw(t, 2) ? 20000 : 0;
	sim_doses(t->sim)->drop = draw(t, 3) == 0 ? 300 : 0;
	t->server_count = draw(t, 3) ? 1 + (unsigned)draw(t, SERVERS_MAX) : 1;
	t->keeps = (struct keeper_options){ .round_ns = (1 + draw(t, 20)) * 100 * NS_PER_MS, .gc_ns = 10 * NS_PER_S, .gc_first_ns = NS_PER_S,
					    .manager_ns = 500 * NS_PER_MS, .lost_ns = 600 * NS_PER_S };
	bool keeps = draw(t, 2);
	for (unsigned i = 0; i < t->server_count; i++) {
		block_server_init(&t->servers[i], t->sim, i, 512 << 20);
		t->servers[i].keeps = keeps ? &t->keeps : NULL;
	}
	t->catalogs = catalog_sim_create(t->sim);
	t->oracle = oracle_create(BLOCKS * 8);
	t->limits = (struct volume_limits){ .cache_bytes = 64 * BLOCK_BYTES, .segment_blocks = 96 + (uint32_t)draw(t, 200),
		.replay_bytes = 400 * BLOCK_BYTES, .checkpoint_ns = (1 + draw(t, 50)) * 20 * NS_PER_MS, .window = 1 + (uint32_t)draw(t, 4) };
	owner_limit_indexes(run, &t->limits);
	for (unsigned i = 0; i < 2; i++) {
		t->sides[i].t = t;
		t->sides[i].host = sim_host_create(t->sim, i ? "b" : "a", 64 << 20, 512);
	}
	for (unsigned i = 0; i < t->server_count; i++)
		block_server_begin(&t->servers[i], run, t->sim, t->catalogs);
	owner_begin(&t->sides[0].o, t->sim, t->sides[0].host, t->catalogs, false);
	sim_run_fiber(t->sides[0].o.env, create_run, t);
	owner_end(&t->sides[0].o);
	catalog_sim_doses(t->catalogs)->timeout = draw(t, 2) ? 50000 : 0;
	side_begin(t, &t->sides[0]);
	t->owner = &t->sides[0];
	unsigned rounds = 2 + (unsigned)draw(t, 5);
	for (t->round = 1; t->round <= rounds && !run->failed; t->round++) {
		struct side *old = t->owner, *taker = old == &t->sides[0] ? &t->sides[1] : &t->sides[0];
		steps(t, draw(t, 6000));
		if (draw(t, 2)) {
			hand_over(t, old, taker);
			t->owner = taker->running ? taker : old;
		} else {
			take_by_force(t, old, taker);
			t->owner = taker;
		}
	}
	for (unsigned i = 0; i < 2; i++)
		side_end(t, &t->sides[i]);
	if (t->trouble.is && t->trouble.kind == TROUBLE_PAUSED)
		sim_resume(t->trouble.server->env);
	for (unsigned i = 0; i < t->server_count; i++)
		if (t->servers[i].env)
			block_server_end(&t->servers[i], false);
	catalog_sim_destroy(t->catalogs);
	oracle_destroy(t->oracle);
	scenario_end(run, t->sim);
	free(t);
}

const struct scenario scenario_takeover = {
	.name = "takeover",
	.summary = "two owners, one volume: the former is paused or cut off, fenced, and goes on; or hands it over",
	.run = takeover_run,
};
