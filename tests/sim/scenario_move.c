/* Scenario `move`: a volume moves between two hosts, as agents have it done (parallax/volume/volume_move.h).
 *
 * Two processes, each with a device of one volume on one to three servers. Round by round the one that serves hands over to the other: the
 * target is made, or told to expect the volume again, the source offers it, the target is told to look, and when something fails the source is asked to take
 * it back and the target to give up. Whoever says all that may stop at any step, and what he said may come once more, late; either process may be killed
 * at any step, the catalog may be away for a while, and so may a server. Clients write, read and flush at both devices all the time.
 *
 * Checked: at no step do both serve; every read is right, wherever; each request ends; without a kill one of them serves in the end, of
 * itself; with one, whoever attaches the volume then finds all that was acknowledged. */
#include <errno.h>
#include <stdlib.h>
#include <string.h>

#include "core/bytes.h"
#include "core/fiber.h"
#include "parallax/volume/volume_move.h"
#include "parallax/volume/volume_private.h"
#include "tests/sim/oracle.h"
#include "tests/sim/owner.h"

enum { CLIENTS = 3, STRAYS = 4, SAID = 12, BLOCKS = 64, STEPS_MAX = 2000000, EXPECT_MS = 10000, ACTIVATE_MS = 5000, BACK_MS = 15000, SERVERS_MAX = 3 };
#define SETTLE_NS (120 * NS_PER_S)

struct side;

struct client {
	struct side *side;
	struct scenario_task task;
	unsigned ops;
};

/* What is said to a side. */
struct message {
	struct side *to;
	const char *verb, *args[6];
	char text[3][24];
	struct scenario_task task;
};

struct side {
	struct move_world *w;
	const char *name;
	struct sim_host *host;
	struct owner o;
	struct volume_move move;
	struct client clients[CLIENTS];
	bool running, stop; /* it has a process, and a device; its clients end */
	struct message message; /* under way */
};

/* What was said once, to be said again. */
struct said {
	struct side *to;
	const struct side *other;
	const char *verb;
	uint64_t offer, ms;
};

struct event { /* once, at a step of the round; UINT64_MAX: never */
	uint64_t at, until;
	struct side *side;
};

struct move_world {
	struct scenario_run *run;
	struct sim *sim;
	struct catalog_sim *catalogs;
	struct block_server servers[SERVERS_MAX], *absent; /* absent: which is, of this round */
	unsigned server_count;
	struct keeper_options keeps;
	struct oracle *oracle;
	struct volume_limits limits;
	struct side sides[2];
	uint64_t volume, offer;
	unsigned round;
	/* of this round */
	uint64_t step;
	struct event kill, outage, away;
	bool killed;
	uint64_t haste_ms; /* so long at most, so that the target has been asking the catalog for a while */
	bool hasty; /* of all rounds: whoever leads the moves has little patience, and the catalog is slow */
	bool echoes; /* of all rounds: messages come once more, late */
	uint64_t echo_at;
	struct said said[SAID]; /* the last ones */
	unsigned said_count;
	struct message strays[STRAYS];
};

#define FAIL(w, ...) scenario_fail((w)->run, __VA_ARGS__)

static uint64_t draw(struct move_world *w, uint64_t below) { return sim_random(w->sim) % below; }
static struct volume_node *node_of(struct side *s) { return container_of(s->o.node, struct volume_node, node); }
static bool serves(struct side *s) { return s->running && node_of(s)->volume && !node_of(s)->volume->failed; }

/* ---- clients ---- */

static int client_write(struct side *s)
{
	struct move_world *w = s->w;
	uint32_t count = 1 + (uint32_t)draw(w, 16), first = (uint32_t)draw(w, BLOCKS * 8 - count);
	uint8_t *b = env_alloc_aligned((size_t)count * ORACLE_SECTOR);
	uint64_t id = oracle_write_begin(w->oracle, first, count, false, b);
	int r = blk_write_wait(s->o.node, b, (uint64_t)count * ORACLE_SECTOR, (uint64_t)first * ORACLE_SECTOR, 0);
	if (!s->o.env->dead)
		oracle_write_end(w->oracle, id, r == 0, false);
	free(b);
	return r;
}

static int client_read(struct side *s)
{
	struct move_world *w = s->w;
	uint32_t count = 1 + (uint32_t)draw(w, 16), first = (uint32_t)draw(w, BLOCKS * 8 - count);
	uint8_t *b = env_alloc_aligned((size_t)count * ORACLE_SECTOR);
	uint64_t began = oracle_now(w->oracle);
	int r = blk_read_wait(s->o.node, b, (uint64_t)count * ORACLE_SECTOR, (uint64_t)first * ORACLE_SECTOR);
	const char *why = r == 0 && !s->o.env->dead ? oracle_read(w->oracle, first, count, b, began) : NULL;
	if (why)
		FAIL(w, "round %u: at %s: %s", w->round, s->name, why);
	free(b);
	return r;
}

/* One that waits at a device without a volume covers nothing. */
static int client_flush(struct side *s)
{
	uint64_t began = oracle_now(s->w->oracle);
	struct volume *v = node_of(s)->volume;
	int r = blk_op_wait(s->o.node, BLK_FLUSH, 0, 0, 0);
	if (r == 0 && !s->o.env->dead && v && node_of(s)->volume == v)
		oracle_flushed(s->w->oracle, began);
	return r;
}

static int client_run(void *arg)
{
	struct client *c = arg;
	struct side *s = c->side;
	for (int r = 0; r == 0 && c->ops-- > 0 && !s->stop && !s->w->run->failed && !s->o.env->dead;) {
		uint64_t what = draw(s->w, 8);
		r = what == 0 ? client_flush(s) : what < 4 ? client_read(s) : client_write(s);
		if (draw(s->w, 2) == 0)
			fiber_sleep(&s->o.env->loop, draw(s->w, 3 * NS_PER_MS));
	}
	return 0;
}

static void clients_begin(struct side *s)
{
	s->stop = false;
	for (unsigned i = 0; i < CLIENTS; i++) {
		s->clients[i] = (struct client){ .side = s, .ops = 20 + (unsigned)draw(s->w, 200) };
		scenario_task_start(&s->clients[i].task, s->o.env, client_run, &s->clients[i]);
	}
}

static bool clients_ended(const struct side *s)
{
	for (unsigned i = 0; i < CLIENTS; i++)
		if (!s->clients[i].task.ended)
			return false;
	return true;
}

/* ---- processes ---- */

static void side_begin(struct side *s)
{
	owner_begin(&s->o, s->w->sim, s->host, s->w->catalogs, /* locks= */ false);
	snprintf(s->o.places.host, sizeof s->o.places.host, "%s", s->name);
	for (unsigned i = 0; i < CLIENTS; i++)
		s->clients[i].task.ended = true;
}

static struct volume_open how_to_open(struct side *s)
{
	return (struct volume_open){ .catalog = s->o.catalog, .places = &s->o.places.ops, .volume = s->w->volume, .holder = s->name, .host = s->name,
				     .limits = s->w->limits };
}

/* A device that waits for the volume. */
static int incoming_run(void *arg)
{
	struct side *s = arg;
	struct report report = { "" };
	struct volume_open how = how_to_open(s);
	int r = owner_node(&s->o, &s->o.driver, NULL, &s->o.node, &report);
	if (r < 0)
		return r;
	volume_move_init(&s->move, node_of(s), &s->o.places, &how);
	s->running = true;
	r = volume_move_begin(&s->move, EXPECT_MS * NS_PER_MS, &report);
	if (r < 0) { /* the catalog is away: the device isn't made after all */
		volume_handover_leave(node_of(s), -EIO);
		s->move.state = MOVE_GIVEN_UP;
	}
	return r;
}

/* What an operator does when nobody serves: attach, by force. All that was acknowledged must be there. */
static int attach_run(void *arg)
{
	struct side *s = arg;
	struct move_world *w = s->w;
	struct report report = { "" };
	int r = owner_seize(&s->o, "v", &w->limits, &report);
	if (r < 0) {
		FAIL(w, "round %u: attaching at %s: %s", w->round, s->name, report_text(&report, r));
		return r;
	}
	struct volume_open how = how_to_open(s);
	volume_move_init(&s->move, node_of(s), &s->o.places, &how);
	uint8_t *b = env_alloc_aligned((size_t)BLOCKS * BLOCK_BYTES);
	r = blk_read_wait(s->o.node, b, (uint64_t)BLOCKS * BLOCK_BYTES, 0);
	oracle_crash(w->oracle, /* power= */ false);
	const char *why = r == 0 ? oracle_recovered(w->oracle, b) : "it can't be read";
	if (why)
		FAIL(w, "round %u: attached at %s: %s", w->round, s->name, why);
	free(b);
	s->running = true;
	return r;
}

static int end_run(void *arg)
{
	struct side *s = arg;
	volume_move_end(&s->move);
	s->o.volume = node_of(s)->volume;
	return owner_close(&s->o);
}

static void side_kill(struct side *s)
{
	struct move_world *w = s->w;
	if (!s->running)
		return;
	sim_note(w->sim, "round %u: %s is killed", w->round, s->name);
	w->killed = true;
	sim_kill(s->o.env);
	sim_drain_dead(s->o.env);
	volume_handover_leave(node_of(s), -EIO); /* what waited */
	sim_drain_dead(s->o.env);
	sim_run_fiber(s->o.env, end_run, s);
	owner_end(&s->o);
	s->running = false;
}

/* ---- messages ---- */

static int message_run(void *arg)
{
	struct message *m = arg;
	struct report report = { "" };
	char *json = NULL;
	int r = volume_move_control(&m->to->move, m->verb, m->args, &json, &report);
	int serving = json && strstr(json, "\"serves\":true") ? 1 : 0;
	free(json);
	return r < 0 ? r : serving;
}

static void message_start(struct message *m, const struct said *s)
{
	m->to = s->to;
	m->verb = s->verb;
	memset(m->args, 0, sizeof m->args);
	snprintf(m->text[0], sizeof m->text[0], "%llx", (unsigned long long)s->offer);
	snprintf(m->text[1], sizeof m->text[1], "%llu", (unsigned long long)s->ms);
	unsigned n = 0;
	m->args[n++] = m->text[0];
	if (strcmp(s->verb, "handover-offer") == 0) {
		m->args[n++] = s->other->name;
		m->args[n++] = s->other->name;
		m->args[n++] = "";
		m->args[n++] = "0";
	} else if (strcmp(s->verb, "handover-cancel") != 0) {
		m->args[n++] = m->text[1];
		if (strcmp(s->verb, "handover-expect") == 0)
			m->args[n++] = s->other->name;
	}
	scenario_task_start(&m->task, s->to->o.env, message_run, m);
}

/* One that was said, once more; or what somebody else makes of what he knew of it. */
static void stray(struct move_world *w)
{
	static const char *const verbs[] = { "handover-expect", "handover-offer", "handover-activate", "handover-back", "handover-moved", "handover-cancel" };
	struct said s = w->said[draw(w, MIN(w->said_count, (unsigned)SAID))];
	if (draw(w, 3) == 0) {
		s.to = &w->sides[draw(w, 2)];
		s.other = &w->sides[s.to == w->sides];
		s.verb = verbs[draw(w, ARRAY_COUNT(verbs))];
		s.ms = draw(w, EXPECT_MS);
	}
	for (unsigned i = 0; i < STRAYS && s.to->running; i++) {
		if (!w->strays[i].task.ended)
			continue;
		sim_note(w->sim, "round %u: %s once more: %s %llx", w->round, s.to->name, s.verb, (unsigned long long)s.offer);
		message_start(&w->strays[i], &s);
		return;
	}
}

static bool strays_ended(const struct move_world *w, const struct side *s)
{
	for (unsigned i = 0; i < STRAYS; i++)
		if (!w->strays[i].task.ended && (!s || w->strays[i].to == s))
			return false;
	return true;
}

/* ---- time goes on ---- */

static void events(struct move_world *w)
{
	if (w->step == w->echo_at)
		stray(w);
	if (w->step == w->kill.at)
		side_kill(w->kill.side);
	if (w->step == w->outage.at || w->step == w->outage.until)
		catalog_sim_outage(w->catalogs, w->step == w->outage.at);
	if (w->step == w->away.at)
		block_server_end(w->absent, false);
	if (w->step == w->away.until) { /* it needs the catalog to start */
		catalog_sim_outage(w->catalogs, false);
		block_server_begin(w->absent, w->run, w->sim, w->catalogs);
	}
}

static bool step(struct move_world *w)
{
	w->step++;
	if (!sim_step(w->sim)) /* nobody is left, or all wait for what won't happen: who waits here says so */
		return false;
	if (serves(&w->sides[0]) && serves(&w->sides[1]))
		FAIL(w, "round %u: both serve the volume", w->round);
	events(w);
	return !w->run->failed;
}

static struct event draw_event(struct move_world *w, unsigned one_in, uint64_t lasts)
{
	struct event e = { .at = UINT64_MAX, .until = UINT64_MAX, .side = &w->sides[draw(w, 2)] };
	if (draw(w, one_in) == 0) {
		e.at = 1 + draw(w, draw(w, 2) ? 1500 : 8000);
		e.until = e.at + 1 + draw(w, lasts);
	}
	return e;
}

/* Those that don't run. */
static void servers_begin(struct move_world *w)
{
	for (unsigned i = 0; i < w->server_count; i++)
		if (!w->servers[i].env)
			block_server_begin(&w->servers[i], w->run, w->sim, w->catalogs);
}

/* All that was to happen has. The world may have come to rest at the very step at which something was to end. */
static void heal(struct move_world *w)
{
	w->kill.at = UINT64_MAX;
	catalog_sim_outage(w->catalogs, false);
	servers_begin(w);
	w->outage = w->away = (struct event){ .at = UINT64_MAX, .until = UINT64_MAX };
	w->echo_at = UINT64_MAX;
}

/* ---- what agents say ---- */

/* An answer, or -ENOTCONN: it died. */
static int say(struct side *s, const char *verb, uint64_t ms, const struct side *other)
{
	struct move_world *w = s->w;
	struct scenario_task *t = &s->message.task;
	if (!s->running)
		return -ENOTCONN;
	struct said *said = &w->said[w->said_count++ % SAID];
	*said = (struct said){ .to = s, .other = other, .verb = verb, .offer = w->offer, .ms = ms };
	if (w->echoes && draw(w, 2))
		w->echo_at = w->step + 1 + draw(w, draw(w, 2) ? 100 : 3000);
	sim_note(w->sim, "round %u: %s: %s", w->round, s->name, verb);
	message_start(&s->message, said);
	for (uint64_t i = 0; !t->ended && i < STEPS_MAX && step(w); i++)
		;
	if (!t->ended && !w->run->failed)
		FAIL(w, "round %u: %s doesn't end at %s", w->round, verb, s->name);
	while (!t->ended) { /* the run has failed */
		sim_kill(s->o.env);
		sim_drain_dead(s->o.env);
	}
	return s->running ? t->status : -ENOTCONN;
}

/* As agent/daemon/migrate.c; true: it goes on. */
static bool goes_on(struct move_world *w) { return !w->run->failed && draw(w, 16) != 0; }

/* Soon the catalog is away, or takes longer than anybody waits: while it is being learnt who has the volume. */
static void amid(struct move_world *w)
{
	if ((w->outage.at != UINT64_MAX && w->step < w->outage.until) || draw(w, 3))
		return;
	w->outage.at = w->step + 1 + draw(w, draw(w, 2) ? 40 : 400);
	w->outage.until = w->outage.at + 1 + draw(w, draw(w, 2) ? 300 : 6000);
}

static void migrate(struct move_world *w, struct side *from, struct side *to)
{
	struct scenario_task t;
	if (!to->running) {
		side_begin(to);
		scenario_task_start(&t, to->o.env, incoming_run, to);
		while (!t.ended && step(w))
			;
		while (!t.ended) {
			sim_kill(to->o.env);
			sim_drain_dead(to->o.env);
		}
		if (!to->running) { /* killed, or there was no node */
			if (to->o.env)
				owner_end(&to->o);
			return;
		}
		if (t.status == 0)
			clients_begin(to);
	} else {
		clients_begin(to);
	}
	if (!goes_on(w))
		return;
	amid(w);
	int r = say(to, "handover-expect", EXPECT_MS, from);
	if (r == 0 && goes_on(w))
		r = say(from, "handover-offer", 0, to);
	if (r == 0)
		amid(w);
	if (r == 0 && goes_on(w)) /* now and then it has hardly begun to take it when it is called back */
		r = say(to, "handover-activate", w->hasty && draw(w, 8) ? 1 + draw(w, w->haste_ms) : ACTIVATE_MS, from);
	if (!goes_on(w))
		return;
	if (r == 0) {
		say(from, "handover-moved", BACK_MS, to);
		return;
	}
	if (say(from, "handover-back", BACK_MS, to) != 0 && goes_on(w))
		say(to, "handover-cancel", 0, from);
}

/* ---- rounds ---- */

static bool is_settled(struct move_world *w)
{
	bool settled = true;
	for (unsigned i = 0; i < 2; i++) {
		enum move_state state = w->sides[i].move.state;
		settled &= !w->sides[i].running || state == MOVE_SERVES || state == MOVE_MOVED || state == MOVE_GIVEN_UP;
	}
	return settled;
}

static void clients_stop(struct move_world *w)
{
	for (unsigned i = 0; i < 2; i++)
		w->sides[i].stop = true;
	for (uint64_t n = 0; n < STEPS_MAX && !(clients_ended(&w->sides[0]) && clients_ended(&w->sides[1])) && step(w); n++)
		;
	for (unsigned i = 0; i < 2 && !w->run->failed; i++)
		if (!clients_ended(&w->sides[i]))
			FAIL(w, "round %u: requests at %s don't end", w->round, w->sides[i].name);
}

static void side_end(struct side *s)
{
	if (!s->running)
		return;
	struct move_world *w = s->w;
	if (w->run->failed) {
		side_kill(s);
		return;
	}
	for (uint64_t i = 0; !strays_ended(w, s) && i < STEPS_MAX && step(w); i++) /* nothing is closed under a command */
		;
	if (!s->running || w->run->failed || !strays_ended(w, s)) {
		if (s->running && !w->run->failed)
			FAIL(w, "round %u: what was said once more doesn't end at %s", w->round, s->name);
		side_kill(s);
		return;
	}
	bool served = serves(s);
	int r = sim_run_fiber(s->o.env, end_run, s);
	if (r < 0 && served)
		FAIL(w, "round %u: closing at %s: %d", w->round, s->name, r);
	owner_end(&s->o);
	s->running = false;
}

static void attach(struct move_world *w, struct side *s)
{
	struct scenario_task t;
	side_end(s);
	sim_note(w->sim, "round %u: is attached at %s", w->round, s->name);
	side_begin(s);
	scenario_task_start(&t, s->o.env, attach_run, s);
	if (!scenario_step_until(w->run, w->sim, &t.ended, STEPS_MAX))
		FAIL(w, "round %u: attaching doesn't end", w->round);
	while (!t.ended) {
		sim_kill(s->o.env);
		sim_drain_dead(s->o.env);
	}
	if (s->running)
		return;
	sim_run_fiber(s->o.env, owner_close, &s->o); /* it failed, which is told in the end */
	owner_end(&s->o);
}

static struct side *serving(struct move_world *w)
{
	return serves(&w->sides[0]) ? &w->sides[0] : serves(&w->sides[1]) ? &w->sides[1] : NULL;
}

static void round_run(struct move_world *w)
{
	struct side *from = serving(w);
	if (!from) {
		for (unsigned i = 0; i < 2; i++) /* nothing waits for it there any more */
			side_end(&w->sides[i]);
		attach(w, &w->sides[draw(w, 2)]);
		from = serving(w);
	}
	if (!from || w->run->failed)
		return;
	struct side *to = from == &w->sides[0] ? &w->sides[1] : &w->sides[0];
	if (to->running && (to->move.state == MOVE_GIVEN_UP || draw(w, 2)))
		side_end(to);
	w->step = 0;
	w->killed = false;
	w->kill = draw_event(w, 2, 1);
	w->outage = draw_event(w, 3, 6000);
	w->away = draw_event(w, w->server_count > 1 ? 2 : 4, 4000);
	w->absent = &w->servers[draw(w, w->server_count)];
	w->offer = sim_random(w->sim) | 1;
	clients_begin(from);
	for (uint64_t n = draw(w, 2000); n > 0 && step(w); n--)
		;
	if (from->running)
		migrate(w, from, to);
	heal(w);
	uint64_t until = sim_now_ns(w->sim) + SETTLE_NS;
	while (!(is_settled(w) && strays_ended(w, NULL)) && sim_now_ns(w->sim) < until && step(w))
		;
	if (!is_settled(w) && !w->run->failed)
		FAIL(w, "round %u: nobody knows who has the volume: %d at a, %d at b", w->round, w->sides[0].move.state, w->sides[1].move.state);
	if (!w->killed && !serving(w) && !w->run->failed)
		FAIL(w, "round %u: nobody serves the volume, and nobody was killed", w->round);
	clients_stop(w);
}

static int create_run(void *arg)
{
	struct move_world *w = arg;
	struct store_volume_options o = { .size_bytes = (uint64_t)BLOCKS * BLOCK_BYTES, .replicas = w->server_count, .min_replicas = 1 + (unsigned)draw(w, w->server_count) };
	struct report report = { "" };
	int r = store_volume_create(&w->sides[0].o.store, "v", &o, &report);
	return r ? r : store_find_volume(&w->sides[0].o.places, "v", &w->volume, &report);
}

static void move_run(struct scenario_run *run)
{
	struct move_world *w = calloc(1, sizeof *w);
	w->run = run;
	w->sim = scenario_sim(run, NULL);
	sim_doses(w->sim)->slow = draw(w, 2) ? 20000 : 0;
	sim_doses(w->sim)->drop = draw(w, 3) == 0 ? 300 : 0;
	w->server_count = draw(w, 2) ? 1 + (unsigned)draw(w, SERVERS_MAX) : 1;
	w->keeps = (struct keeper_options){ .round_ns = (1 + draw(w, 20)) * 100 * NS_PER_MS, .gc_ns = 10 * NS_PER_S, .gc_first_ns = NS_PER_S,
					    .manager_ns = 500 * NS_PER_MS, .lost_ns = 600 * NS_PER_S };
	bool keeps = w->server_count > 1 && draw(w, 2);
	for (unsigned i = 0; i < w->server_count; i++) {
		block_server_init(&w->servers[i], w->sim, i, 256 << 20);
		w->servers[i].keeps = keeps ? &w->keeps : NULL;
	}
	w->catalogs = catalog_sim_create(w->sim);
	catalog_sim_doses(w->catalogs)->leases = draw(w, 2);
	w->oracle = oracle_create(BLOCKS * 8);
	w->limits = (struct volume_limits){ .cache_bytes = 64 * BLOCK_BYTES, .segment_blocks = 96 + (uint32_t)draw(w, 200),
		.replay_bytes = 400 * BLOCK_BYTES, .checkpoint_ns = (1 + draw(w, 50)) * 20 * NS_PER_MS, .window = 1 + (uint32_t)draw(w, 4) };
	owner_limit_indexes(run, &w->limits);
	for (unsigned i = 0; i < 2; i++) {
		w->sides[i].w = w;
		w->sides[i].name = i ? "b" : "a";
		w->sides[i].host = sim_host_create(w->sim, w->sides[i].name, 64 << 20, 512);
		for (unsigned k = 0; k < CLIENTS; k++)
			w->sides[i].clients[k].task.ended = true;
	}
	w->kill = w->outage = w->away = (struct event){ .at = UINT64_MAX, .until = UINT64_MAX };
	servers_begin(w);
	owner_begin(&w->sides[0].o, w->sim, w->sides[0].host, w->catalogs, false);
	sim_run_fiber(w->sides[0].o.env, create_run, w);
	owner_end(&w->sides[0].o);
	catalog_sim_doses(w->catalogs)->timeout = draw(w, 2) ? 50000 : 0;
	w->hasty = draw(w, 4);
	w->echoes = draw(w, 2);
	w->echo_at = UINT64_MAX;
	for (unsigned i = 0; i < STRAYS; i++)
		w->strays[i].task.ended = true;
	catalog_sim_doses(w->catalogs)->latency_ns = w->hasty ? draw(w, 6 * NS_PER_MS) : 0;
	w->haste_ms = 2 + 8 * catalog_sim_doses(w->catalogs)->latency_ns / NS_PER_MS;
	catalog_sim_doses(w->catalogs)->watches = draw(w, 3);
	catalog_sim_doses(w->catalogs)->deaf = draw(w, 2) ? 100000 : 0;
	unsigned rounds = 3 + (unsigned)draw(w, 6);
	for (w->round = 1; w->round <= rounds && !run->failed; w->round++)
		round_run(w);
	servers_begin(w);
	for (unsigned i = 0; i < 2; i++)
		side_end(&w->sides[i]);
	for (unsigned i = 0; i < w->server_count; i++)
		block_server_end(&w->servers[i], false);
	catalog_sim_destroy(w->catalogs);
	oracle_destroy(w->oracle);
	scenario_end(run, w->sim);
	free(w);
}

const struct scenario scenario_move = {
	.name = "move",
	.summary = "a volume moves between two hosts, whoever dies meanwhile",
	.run = move_run,
};
