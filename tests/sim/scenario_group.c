/* Scenario `group`: snapshots of several volumes at one instant (R22, I11).
 *
 * Two to four volumes, each with an owner of its own (embedded on one host, or on one to three servers and each on its own host), one catalog.
 * Writers write 1, 2, 3, … round robin over the volumes, each number when the one before has been acknowledged. One or two
 * commands take snapshots of some or all volumes, over connections that are slow, lose calls and bring some twice, while a command or an owner is killed,
 * one of them is stopped, a host loses power, a server or the catalog goes away; now and then a volume is idle. Checked: a group's snapshots show
 * no number without all earlier ones, and everything that was acknowledged before the command began; they stay so; all
 * or none; a command that succeeded has them; commands end, writes go on, and no key of a group is left. */
#include <errno.h>
#include <stdlib.h>
#include <string.h>
#include <unistd.h>

#include "core/bytes.h"
#include "core/fiber.h"
#include "parallax/volume/volume_private.h"
#include "tests/sim/owner.h"

enum { PLACES_MAX = 4, WRITERS = 3, BLOCKS = 64, GROUPS_MAX = 40, COMMANDS = 2, SERVERS_MAX = 3, STEPS_MAX = 6000000 };

struct place {
	struct group_world *w;
	char name[8], control[16];
	struct sim_host *host;
	struct owner o;
	bool running, open;         /* it has a process; that has the volume open */
};

struct writer {
	struct group_world *w;
	struct scenario_task task;
	unsigned block;
	uint64_t next, acked;
};

struct group {
	unsigned places;            /* a bit for each */
	bool acked, known;          /* the command said so; it is there */
	char name[16];
	uint64_t acked_before[WRITERS];
	uint64_t seen[PLACES_MAX][WRITERS];
};

struct command {
	struct group_world *w;
	struct owner o;
	struct scenario_task task;
	bool running;
	unsigned groups;            /* to take */
};

/* A call into another process. It may outlive who made it. */
struct call {
	struct link link;
	struct place *place;
	struct scenario_task task;
	int (*run)(struct call *c);
	char verb[32], args[2][64];
	char *json;
	struct report report;
	uint64_t block, value;
};

struct group_world {
	struct scenario_run *run;
	struct sim *sim;
	struct catalog_sim *catalogs;
	struct block_server servers[SERVERS_MAX];
	unsigned server_count;      /* 0: embedded */
	struct keeper_options keeps;
	struct sim_host *client_host, *command_host;
	struct env *client;
	struct volume_limits limits;
	bool remote, durable, stopping;
	uint32_t lossy, echoes;
	unsigned place_count, group_count, round;
	struct place places[PLACES_MAX];
	struct writer writers[WRITERS];
	struct command commands[COMMANDS];
	struct owner checker;
	struct group groups[GROUPS_MAX];
	struct link calls;
};

#define FAIL(w, ...) scenario_fail((w)->run, __VA_ARGS__)

static uint64_t draw(struct group_world *w, uint64_t below) { return sim_random(w->sim) % below; }

/* ---- calls ---- */

static int call_run(void *arg)
{
	struct call *c = arg;
	return c->place->o.env->dead ? -ESHUTDOWN : c->run(c);
}

static struct call *call_new(struct group_world *w, struct place *p, int (*run)(struct call *c))
{
	struct call *c = calloc(1, sizeof *c);
	c->place = p;
	c->run = run;
	link_push(&w->calls, &c->link);
	return c;
}

/* It comes once more, late. */
static int echo_run(void *arg)
{
	struct call *c = arg;
	int r = fiber_sleep(&c->place->o.env->loop, draw(c->place->w, (draw(c->place->w, 2) ? 4000 : 50) * NS_PER_MS));
	return r < 0 || !c->place->open ? -ESHUTDOWN : c->run(c);
}

static void echo(struct group_world *w, const struct call *c)
{
	struct call *again = call_new(w, c->place, c->run);
	memcpy(again->verb, c->verb, sizeof again->verb);
	memcpy(again->args, c->args, sizeof again->args);
	scenario_task_start(&again->task, c->place->o.env, echo_run, again);
}

/* FIBER of `from`. */
static int call_wait(struct group_world *w, struct env *from, struct call *c, uint64_t deadline_ns)
{
	uint64_t until = env_now_ns(from) + deadline_ns, look_ns = 50000;
	int r = fiber_sleep(&from->loop, draw(w, 1 + draw(w, 4) * NS_PER_MS));
	bool lost = c->verb[0] && sim_chance(w->sim, w->lossy), deaf = c->verb[0] && sim_chance(w->sim, w->lossy);
	if (r == 0 && !c->place->open)
		return -ECONNREFUSED;
	if (r == 0 && c->verb[0] && sim_chance(w->sim, w->echoes))
		echo(w, c);
	if (r == 0 && !lost)
		scenario_task_start(&c->task, c->place->o.env, call_run, c);
	/* who was stopped looks before he judges */
	for (unsigned looks = 0; r == 0 && (env_now_ns(from) < until || looks < 20); looks++) {
		if (!lost && !deaf && c->task.ended)
			return c->task.status;
		if (!c->place->open)
			return -ECONNRESET;
		r = fiber_sleep(&from->loop, look_ns);
		look_ns = MIN(look_ns * 2, 2 * NS_PER_MS);
	}
	return r < 0 ? r : -ETIMEDOUT;
}

/* ---- writers ---- */

static int write_run(struct call *c)
{
	struct group_world *w = c->place->w;
	uint64_t *b = env_alloc_aligned(BLOCK_BYTES);
	for (unsigned i = 0; i < BLOCK_BYTES / sizeof *b; i++)
		b[i] = c->value;
	int r = blk_write_wait(c->place->o.node, b, BLOCK_BYTES, c->block * BLOCK_BYTES, w->durable ? BLK_FUA : 0);
	free(b);
	return r;
}

/* Once a write's outcome isn't known it is written again, until it is acknowledged. */
static int writer_run(void *arg)
{
	struct writer *x = arg;
	struct group_world *w = x->w;
	while (!w->stopping && !w->run->failed) {
		struct call *c = call_new(w, &w->places[x->next % w->place_count], write_run);
		c->block = x->block;
		c->value = x->next;
		if (call_wait(w, w->client, c, 600 * NS_PER_S) == 0)
			x->acked = x->next++;
		else
			fiber_sleep(&w->client->loop, NS_PER_MS);
	}
	return 0;
}

/* ---- commands ---- */

static int control_run(struct call *c)
{
	const char *args[] = { c->args[0], c->args[1][0] ? c->args[1] : NULL, NULL };
	return volume_node_control(c->place->o.node, c->verb, args, &c->json, &c->report);
}

static int sim_forward(void *arg, const struct store_holder *holder, const char *verb, const char *const *args, uint64_t deadline_ns,
		       char **ret_json, struct report *report)
{
	struct command *m = arg;
	struct group_world *w = m->w;
	struct place *p = NULL;
	for (unsigned i = 0; i < w->place_count; i++)
		if (strcmp(w->places[i].control, holder->control) == 0)
			p = &w->places[i];
	struct call *c = call_new(w, p, control_run);
	snprintf(c->verb, sizeof c->verb, "%s", verb);
	for (unsigned i = 0; i < 2 && args[i]; i++)
		snprintf(c->args[i], sizeof c->args[i], "%s", args[i]);
	int r = call_wait(w, m->o.env, c, deadline_ns ? deadline_ns : 60 * NS_PER_S);
	if (r < 0 && c->task.ended)
		*report = c->report;
	else if (r == 0 && c->json) {
		*ret_json = c->json;
		c->json = NULL;
	}
	return r;
}

/* As places.c does it: whom the record names, if that is alive. A command that has a volume doesn't count: it opens it for moments. */
static bool holder_alive(void *arg, const struct meta_owner *owner)
{
	struct owner *o = arg;
	struct command *m = container_of(o, struct command, o);
	for (unsigned i = 0; owner->state != OWNER_FREE && i < m->w->place_count; i++)
		if (strcmp(m->w->places[i].control, owner->control) == 0)
			return m->w->places[i].running;
	return false;
}

static bool checker_holder_alive(void *arg, const struct meta_owner *owner)
{
	struct owner *o = arg;
	struct group_world *w = container_of(o, struct group_world, checker);
	for (unsigned i = 0; owner->state != OWNER_FREE && i < w->place_count; i++)
		if (strcmp(w->places[i].control, owner->control) == 0)
			return w->places[i].running;
	return false;
}

static void take_group(struct command *m, unsigned places)
{
	struct group_world *w = m->w;
	struct group *g = &w->groups[w->group_count++];
	char names[PLACES_MAX][STORE_SNAPSHOT_NAME_BYTES];
	const char *list[PLACES_MAX];
	struct report report = { "" };
	unsigned count = 0;
	*g = (struct group){ .places = places };
	snprintf(g->name, sizeof g->name, "g%u", w->group_count);
	for (unsigned i = 0; i < WRITERS; i++)
		g->acked_before[i] = w->writers[i].acked;
	for (unsigned i = 0; i < w->place_count; i++) {
		if (!(places & (1u << i)))
			continue;
		snprintf(names[count], sizeof names[count], "%s@%s", w->places[i].name, g->name);
		list[count] = names[count];
		count++;
	}
	int r = store_snapshot_create(&m->o.store, list, count, &report);
	sim_note(w->sim, "group %s: %d %s", g->name, r, report.text);
	g->acked = r == 0 && !m->o.env->dead;
	if (r < 0 && !report.text[0] && !m->o.env->dead)
		FAIL(w, "round %u: group %s: %d without a word", w->round, g->name, r);
}

static unsigned all_places(const struct group_world *w) { return (1u << w->place_count) - 1; }

/* At least two of them. */
static unsigned draw_places(struct group_world *w)
{
	unsigned places = draw(w, 2) ? all_places(w) : (unsigned)draw(w, all_places(w) + 1);
	return places & (places - 1) ? places : all_places(w);
}

static int command_run(void *arg)
{
	struct command *m = arg;
	struct group_world *w = m->w;
	while (m->groups-- > 0 && !w->run->failed && !m->o.env->dead && w->group_count < GROUPS_MAX - 1) {
		fiber_sleep(&m->o.env->loop, draw(w, 30 * NS_PER_MS));
		take_group(m, draw_places(w));
		if (draw(w, 3) == 0) { /* something else that waits for marks */
			struct call *c = call_new(w, &w->places[draw(w, w->place_count)], control_run);
			snprintf(c->verb, sizeof c->verb, "checkpoint");
			call_wait(w, m->o.env, c, draw(w, 2) * NS_PER_S);
		}
	}
	return 0;
}

static void command_begin(struct group_world *w, struct command *m)
{
	owner_begin(&m->o, w->sim, w->command_host, w->catalogs, /* locks= */ !w->remote);
	m->w = w;
	m->o.places.ops.holder_alive = holder_alive;
	m->o.store.forward = sim_forward;
	m->o.store.forward_arg = m;
	m->running = true;
	m->groups = 1 + (unsigned)draw(w, 3);
	scenario_task_start(&m->task, m->o.env, command_run, m);
}

static void command_end(struct command *m, bool kill)
{
	if (!m->running)
		return;
	if (kill) {
		sim_note(m->w->sim, "a command is killed");
		sim_kill(m->o.env);
	}
	while (!m->task.ended && m->o.env->dead)
		sim_drain_dead(m->o.env);
	owner_end(&m->o);
	m->running = false;
}

/* ---- owners ---- */

static int place_open(void *arg)
{
	struct place *p = arg;
	struct report report = { "" };
	int r = -EAGAIN;
	for (unsigned attempt = 0; r < 0 && attempt < 600 && !p->o.env->dead && !p->w->run->failed; attempt++) {
		if (attempt)
			fiber_sleep(&p->o.env->loop, 100 * NS_PER_MS);
		report.text[0] = '\0';
		r = owner_open(&p->o, p->name, &p->w->limits, /* force= */ false, &report);
	}
	if (r < 0 && !p->o.env->dead)
		FAIL(p->w, "round %u: opening %s: %s", p->w->round, p->name, report_text(&report, r));
	p->open = r == 0;
	return r;
}

static void place_begin(struct place *p)
{
	struct group_world *w = p->w;
	struct scenario_task task;
	owner_begin(&p->o, w->sim, p->host, w->catalogs, /* locks= */ !w->remote);
	p->o.control = p->control;
	p->running = true;
	scenario_task_start(&task, p->o.env, place_open, p);
	if (!scenario_step_until(w->run, w->sim, &task.ended, STEPS_MAX))
		FAIL(w, "round %u: opening %s does not end", w->round, p->name);
}

static void place_gone(struct place *p)
{
	sim_drain_dead(p->o.env);
	sim_run_fiber(p->o.env, owner_close, &p->o);
	owner_end(&p->o);
	p->running = false;
}

static void place_kill(struct place *p)
{
	if (!p->running)
		return;
	sim_note(p->w->sim, "the owner of %s is killed", p->name);
	p->open = false;
	sim_kill(p->o.env);
	place_gone(p);
}

/* In order: nobody asks it for anything any more. */
static void place_close(struct place *p)
{
	if (!p->running)
		return;
	p->open = false;
	for (unsigned busy = 1, n = 0; busy && sim_step(p->w->sim);) {
		if (++n % 64) /* they are many */
			continue;
		busy = 0;
		link_for(l, &p->w->calls) {
			const struct call *c = container_of(l, struct call, link);
			busy += c->place == p && c->task.job.loop && !c->task.ended;
		}
	}
	struct volume_counters c;
	volume_count(p->o.volume, &c);
	if (p->w->remote && c.failed == -EPERM) { /* see replace_robbed() */
		place_kill(p);
		return;
	}
	sim_note(p->w->sim, "the owner of %s closes it", p->name);
	int r = sim_run_fiber(p->o.env, owner_close, &p->o);
	if (r < 0 && r != -ETIMEDOUT) /* then the next opener replays */
		FAIL(p->w, "round %u: closing %s failed: %d", p->w->round, p->name, r);
	owner_end(&p->o);
	p->running = false;
}

/* ---- checking ---- */

static int read_snapshot(struct group_world *w, const struct place *p, const char *name, uint64_t *ret_values)
{
	uint64_t volume, mark;
	int r = store_find_snapshot(&w->checker.places, p->name, name, &volume, &mark, NULL);
	if (r == 0)
		r = store_want_root(&w->checker.places, volume, mark, NULL, NULL);
	struct volume_reader_open how = { .catalog = w->checker.catalog, .places = &w->checker.places.ops, .volume = volume, .mark_seq = mark,
					  .cache_bytes = 1 << 20 };
	struct volume_reader *d;
	if (r == 0)
		r = volume_reader_open(w->checker.env, &how, &d, NULL);
	if (r < 0)
		return r;
	uint64_t *page = env_alloc_aligned(BLOCK_BYTES);
	for (unsigned i = 0; r == 0 && i < WRITERS; i++) {
		struct pointer at;
		struct job j;
		do {
			job_init(&j, &w->checker.env->loop);
			r = volume_reader_lookup(d, w->writers[i].block, 1, &at, &j);
		} while (r == -EAGAIN && (r = fiber_wait(&j)) == 0 && (r = -EAGAIN));
		ret_values[i] = 0;
		if (r == 0 && at.position) {
			r = sources_read_wait(volume_reader_sources(d), &at, page);
			ret_values[i] = page[0];
		}
	}
	free(page);
	volume_reader_close(d);
	return r;
}

/* The greatest number up to `most` that goes to the place. */
static uint64_t newest_of(const struct group_world *w, unsigned place, uint64_t most)
{
	uint64_t count = w->place_count, back = (most + count - place) % count;
	return back > most ? 0 : most - back;
}

/* I11: who sees a number sees all before it. */
static void check_values(struct group_world *w, const struct group *g)
{
	for (unsigned i = 0; i < WRITERS; i++) {
		uint64_t most = 0;
		for (unsigned p = 0; p < w->place_count; p++)
			most = g->places & (1u << p) ? MAX(most, g->seen[p][i]) : most;
		for (unsigned p = 0; p < w->place_count; p++) {
			if (!(g->places & (1u << p)))
				continue;
			if (g->seen[p][i] != newest_of(w, p, most))
				FAIL(w, "round %u: group %s shows %llu, but %llu in %s", w->round, g->name, (unsigned long long)most,
				     (unsigned long long)g->seen[p][i], w->places[p].name);
			if (g->seen[p][i] < newest_of(w, p, g->acked_before[i]))
				FAIL(w, "round %u: group %s shows %llu in %s; %llu had been acknowledged before", w->round, g->name,
				     (unsigned long long)g->seen[p][i], w->places[p].name, (unsigned long long)g->acked_before[i]);
		}
	}
}

/* Of which volumes the group has snapshots. */
static unsigned read_group(struct group_world *w, const struct group *g, uint64_t seen[PLACES_MAX][WRITERS])
{
	unsigned there = 0;
	for (unsigned p = 0; p < w->place_count && !w->run->failed; p++) {
		if (!(g->places & (1u << p)))
			continue;
		int r = read_snapshot(w, &w->places[p], g->name, seen[p]);
		if (r < 0 && r != -ENOENT)
			FAIL(w, "round %u: %s@%s can't be read: %d", w->round, w->places[p].name, g->name, r);
		there |= r == 0 ? 1u << p : 0;
	}
	return there;
}

static void check_group(struct group_world *w, struct group *g)
{
	uint64_t seen[PLACES_MAX][WRITERS] = { 0 };
	unsigned there = read_group(w, g, seen);
	if (there && there != g->places && !w->run->failed) { /* a transaction that arrived late may have come between two looks */
		fiber_sleep(&w->checker.env->loop, 15 * NS_PER_S);
		there = read_group(w, g, seen);
	}
	if (w->run->failed)
		return;
	if (there != g->places && (there || g->acked || g->known))
		FAIL(w, "round %u: group %s is of %x, there is %x%s", w->round, g->name, g->places, there, g->acked ? ", and it was acknowledged" : "");
	if (there != g->places)
		return;
	if (g->known && memcmp(seen, g->seen, sizeof seen))
		FAIL(w, "round %u: group %s has changed", w->round, g->name);
	memcpy(g->seen, seen, sizeof seen);
	g->known = true;
	check_values(w, g);
}

static int check_run(void *arg)
{
	struct group_world *w = arg;
	for (unsigned i = 0; i < w->group_count && !w->run->failed; i++)
		check_group(w, &w->groups[i]);
	return 0;
}

static void check(struct group_world *w)
{
	struct scenario_task task;
	uint32_t timeout = catalog_sim_doses(w->catalogs)->timeout, drop = sim_doses(w->sim)->drop;
	catalog_sim_doses(w->catalogs)->timeout = sim_doses(w->sim)->drop = 0;
	owner_begin(&w->checker, w->sim, w->command_host, w->catalogs, /* locks= */ !w->remote);
	w->checker.places.ops.holder_alive = checker_holder_alive;
	scenario_task_start(&task, w->checker.env, check_run, w);
	if (!scenario_step_until(w->run, w->sim, &task.ended, STEPS_MAX))
		FAIL(w, "round %u: checking does not end", w->round);
	if (!task.ended) {
		sim_kill(w->checker.env);
		while (!task.ended)
			sim_drain_dead(w->checker.env);
	}
	owner_end(&w->checker);
	catalog_sim_doses(w->catalogs)->timeout = timeout;
	sim_doses(w->sim)->drop = drop;
}

/* ---- a round ---- */

static void steps(struct group_world *w, uint64_t count)
{
	for (; count > 0 && !w->run->failed && sim_step(w->sim); count--)
		;
}

static void outage(struct group_world *w)
{
	sim_note(w->sim, "the catalog is away");
	catalog_sim_outage(w->catalogs, true);
	steps(w, draw(w, 4000));
	catalog_sim_outage(w->catalogs, false);
}

static void stop_one(struct group_world *w, struct place *p)
{
	if (!p->running)
		return;
	sim_note(w->sim, "the owner of %s is stopped", p->name);
	sim_pause(p->o.env);
	steps(w, draw(w, 6000));
	sim_note(w->sim, "the owner of %s goes on", p->name);
	sim_resume(p->o.env);
}

static struct command *command_in_a_group(struct group_world *w)
{
	for (unsigned i = 0; i < w->place_count; i++)
		if (w->places[i].open && w->places[i].o.volume->group.id)
			for (unsigned m = 0; m < COMMANDS; m++)
				if (w->commands[m].running && !w->commands[m].task.ended)
					return &w->commands[m];
	return NULL;
}

/* One that waits for the group's end; NULL: none does. */
static struct place *place_in_a_group(struct group_world *w)
{
	for (unsigned i = 0, first = (unsigned)draw(w, w->place_count); i < w->place_count; i++) {
		struct place *p = &w->places[(first + i) % w->place_count];
		if (p->open && p->o.volume->group.id)
			return p;
	}
	return NULL;
}

/* A command is stopped amid a group, for longer than volumes hold, or while one of them changes hands. */
static void stop_command(struct group_world *w)
{
	struct command *m = NULL;
	for (unsigned n = 0; n < 4000 && !m && !w->run->failed && sim_step(w->sim); n++)
		m = command_in_a_group(w);
	steps(w, draw(w, 40));
	if (!m || w->run->failed)
		return;
	sim_note(w->sim, "a command is stopped");
	sim_pause(m->o.env);
	struct place *p = place_in_a_group(w);
	if (p && draw(w, 3)) { /* it is running: else the command may have the volume's lock */
		place_kill(p);
		place_begin(p);
	} else {
		uint64_t until = sim_now_ns(w->sim) + 2 * NS_PER_S + draw(w, 5 * NS_PER_S);
		while (sim_now_ns(w->sim) < until && !w->run->failed && sim_step(w->sim))
			;
	}
	sim_note(w->sim, "the command goes on");
	sim_resume(m->o.env);
}

static void power(struct group_world *w, struct place *p)
{
	sim_note(w->sim, "the host of %s loses power", p->name);
	for (unsigned i = 0; i < COMMANDS; i++)
		if (w->command_host == p->host && w->commands[i].running) {
			sim_kill(w->commands[i].o.env);
			command_end(&w->commands[i], false);
		}
	for (unsigned i = 0; i < w->place_count; i++)
		w->places[i].open &= w->places[i].host != p->host;
	sim_power_loss(p->host);
	for (unsigned i = 0; i < w->place_count; i++)
		if (w->places[i].host == p->host && w->places[i].running)
			place_gone(&w->places[i]);
}

static void trouble(struct group_world *w)
{
	struct place *p = &w->places[draw(w, w->place_count)];
	switch (draw(w, 11)) {
	case 8: case 9: case 10: stop_command(w); break;
	case 0: case 1: command_end(&w->commands[draw(w, COMMANDS)], true); break;
	case 2:
		place_kill(p);
		if (draw(w, 2) && !w->run->failed) /* taken over at once, whatever the group does */
			place_begin(p);
		break;
	case 3: stop_one(w, p); break;
	case 4: outage(w); break;
	case 5:
		if (w->remote) {
			struct block_server *s = &w->servers[draw(w, w->server_count)];
			sim_note(w->sim, "%s is killed", s->domain);
			block_server_end(s, false);
			steps(w, draw(w, draw(w, 2) ? 3000 : 20000));
			block_server_begin(s, w->run, w->sim, w->catalogs);
		}
		break;
	case 6: if (w->durable) power(w, p); break;
	default: break;
	}
}

static bool commands_ended(const struct group_world *w)
{
	for (unsigned i = 0; i < COMMANDS; i++)
		if (w->commands[i].running && !w->commands[i].task.ended)
			return false;
	return true;
}

/* Nothing waits for what was killed: every writer gets on. */
static void check_writers(struct group_world *w)
{
	uint64_t begun[WRITERS];
	for (unsigned i = 0; i < WRITERS; i++)
		begun[i] = w->writers[i].acked;
	for (uint64_t n = 0; n < STEPS_MAX && !w->run->failed; n++) {
		bool all = true;
		for (unsigned i = 0; i < WRITERS; i++)
			all &= w->writers[i].acked >= begun[i] + w->place_count;
		if (all)
			return;
		sim_step(w->sim);
	}
	FAIL(w, "round %u: writes do not end", w->round);
}

/* On hosts of their own nothing but the epoch keeps two from opening a volume at once: a command that found it idle may
 * have taken it away from an owner that was just opening it. */
static void replace_robbed(struct group_world *w)
{
	for (unsigned i = 0; i < w->place_count && !w->run->failed; i++) {
		struct place *p = &w->places[i];
		struct volume_counters c = { 0 };
		if (p->open)
			volume_count(p->o.volume, &c);
		if (c.failed == -EPERM && !w->remote)
			FAIL(w, "round %u: %s was taken away from its owner", w->round, p->name);
		if (c.failed == -EPERM)
			place_kill(p);
	}
}

static void world_round(struct group_world *w)
{
	sim_note(w->sim, "round %u", w->round);
	for (unsigned i = 0; i < w->place_count && !w->run->failed; i++)
		if (!w->places[i].running && draw(w, 6))
			place_begin(&w->places[i]);
	unsigned commands = draw(w, 3) ? 1 : COMMANDS;
	for (unsigned i = 0; i < commands; i++)
		command_begin(w, &w->commands[i]);
	for (unsigned n = (unsigned)draw(w, 3); n > 0 && !w->run->failed && !commands_ended(w); n--) {
		steps(w, draw(w, draw(w, 2) ? 1500 : 8000));
		trouble(w);
	}
	for (uint64_t n = 0; !commands_ended(w) && n < STEPS_MAX && !w->run->failed; n++)
		sim_step(w->sim);
	if (!commands_ended(w))
		FAIL(w, "round %u: a command does not end", w->round);
	for (unsigned i = 0; i < COMMANDS; i++)
		command_end(&w->commands[i], w->run->failed);
	if (w->run->failed)
		return;
	if (draw(w, 2))
		check(w); /* also of volumes that nobody has */
	replace_robbed(w);
	for (unsigned i = 0; i < w->place_count && !w->run->failed; i++)
		if (!w->places[i].running)
			place_begin(&w->places[i]);
	check_writers(w);
	if (!w->run->failed && draw(w, 3) == 0)
		place_close(&w->places[draw(w, w->place_count)]);
}

/* ---- the end ---- */

static int last_run(void *arg)
{
	struct command *m = arg;
	struct group_world *w = m->w;
	fiber_sleep(&m->o.env->loop, 700 * NS_PER_S); /* what is left is old enough */
	take_group(m, all_places(w));
	if (!w->groups[w->group_count - 1].acked)
		FAIL(w, "at the end: nothing is broken, and no group can be taken");
	return 0;
}

static void left_over(void *arg, const char *key, const struct catalog_value *value)
{
	(void)value;
	FAIL((struct group_world *)arg, "at the end there is %s", key);
}

static bool writers_ended(const struct group_world *w)
{
	for (unsigned i = 0; i < WRITERS; i++)
		if (!w->writers[i].task.ended)
			return false;
	return true;
}

static void world_heal(struct group_world *w)
{
	struct command *m = &w->commands[0];
	catalog_sim_doses(w->catalogs)->timeout = 0;
	w->lossy = w->echoes = 0;
	w->stopping = true;
	for (uint64_t n = 0; !writers_ended(w) && n < STEPS_MAX; n++)
		sim_step(w->sim);
	command_begin(w, m);
	m->groups = 0;
	if (!scenario_step_until(w->run, w->sim, &m->task.ended, STEPS_MAX))
		return;
	scenario_task_start(&m->task, m->o.env, last_run, m);
	if (!scenario_step_until(w->run, w->sim, &m->task.ended, STEPS_MAX))
		FAIL(w, "at the end: a command does not end");
	command_end(m, w->run->failed);
	if (w->run->failed)
		return;
	catalog_sim_each(w->catalogs, "group/", left_over, w);
	check(w);
}

static void world_end(struct group_world *w)
{
	w->stopping = true;
	for (unsigned i = 0; i < w->place_count; i++)
		if (w->run->failed)
			place_kill(&w->places[i]);
	for (uint64_t n = 0; !writers_ended(w) && n < STEPS_MAX; n++)
		sim_step(w->sim);
	for (unsigned i = 0; i < w->place_count; i++)
		w->run->failed ? place_kill(&w->places[i]) : place_close(&w->places[i]);
	sim_kill(w->client);
	sim_drain_dead(w->client);
	sim_process_destroy(w->client);
	for (unsigned i = 0; i < w->server_count; i++)
		block_server_end(&w->servers[i], false);
	for (struct link *l; (l = link_pop(&w->calls));) {
		struct call *c = container_of(l, struct call, link);
		free(c->json);
		free(c);
	}
}

/* ---- all of it ---- */

static int create_run(void *arg)
{
	struct group_world *w = arg;
	struct store_volume_options o = { .size_bytes = (uint64_t)BLOCKS * BLOCK_BYTES, .replicas = w->server_count,
					  .min_replicas = w->server_count ? 1 + (unsigned)draw(w, w->server_count) : 0 };
	struct report report = { "" };
	int r = 0;
	for (unsigned i = 0; r == 0 && i < w->place_count; i++)
		r = store_volume_create(&w->checker.store, w->places[i].name, &o, &report);
	if (r < 0)
		FAIL(w, "creating volumes: %s", report_text(&report, r));
	return r;
}

static void world_begin(struct group_world *w)
{
	sim_doses(w->sim)->slow = draw(w, 2) ? 20000 : 0;
	w->remote = draw(w, 2);
	sim_doses(w->sim)->drop = draw(w, 3) == 0 ? 300 : 0;
	w->durable = draw(w, 3) == 0;
	w->lossy = draw(w, 3) == 0 ? 30000 : 0;
	w->echoes = draw(w, 3) == 0 ? 200000 : 0;
	w->place_count = 2 + (unsigned)draw(w, PLACES_MAX - 1);
	w->client_host = sim_host_create(w->sim, "client", 1 << 20, 512);
	w->command_host = sim_host_create(w->sim, "host", 512 << 20, 4096);
	w->server_count = !w->remote ? 0 : draw(w, 2) ? 1 + (unsigned)draw(w, SERVERS_MAX) : 1;
	w->keeps = (struct keeper_options){ .round_ns = (1 + draw(w, 20)) * 100 * NS_PER_MS, .gc_ns = 10 * NS_PER_S, .gc_first_ns = NS_PER_S,
					    .manager_ns = 500 * NS_PER_MS, .lost_ns = 600 * NS_PER_S };
	bool keeps = w->server_count > 1 && draw(w, 2);
	for (unsigned i = 0; i < w->server_count; i++) {
		block_server_init(&w->servers[i], w->sim, i, 512 << 20);
		w->servers[i].keeps = keeps ? &w->keeps : NULL;
	}
	w->catalogs = catalog_sim_create(w->sim);
	w->client = sim_process_create(w->sim, w->client_host);
	w->limits = (struct volume_limits){ .cache_bytes = 64 * BLOCK_BYTES, .segment_blocks = 96 + (uint32_t)draw(w, 200),
		.replay_bytes = 400 * BLOCK_BYTES, .checkpoint_ns = (1 + draw(w, 50)) * 20 * NS_PER_MS, .window = 1 + (uint32_t)draw(w, 4) };
	owner_limit_indexes(w->run, &w->limits);
	link_init(&w->calls);
	for (unsigned i = 0; i < w->place_count; i++) {
		struct place *p = &w->places[i];
		p->w = w;
		snprintf(p->name, sizeof p->name, "v%u", i);
		snprintf(p->control, sizeof p->control, "place:%u", i);
		p->host = w->remote ? sim_host_create(w->sim, p->name, 64 << 20, 512) : w->command_host;
	}
	for (unsigned i = 0; i < w->server_count; i++)
		block_server_begin(&w->servers[i], w->run, w->sim, w->catalogs);
	owner_begin(&w->checker, w->sim, w->command_host, w->catalogs, false);
	sim_run_fiber(w->checker.env, create_run, w);
	owner_end(&w->checker);
	catalog_sim_doses(w->catalogs)->timeout = draw(w, 2) ? 50000 : 0;
	for (unsigned i = 0; i < w->place_count && !w->run->failed; i++)
		place_begin(&w->places[i]);
	for (unsigned i = 0; i < WRITERS; i++) {
		w->writers[i] = (struct writer){ .w = w, .block = 1 + i * 20, .next = 1 };
		scenario_task_start(&w->writers[i].task, w->client, writer_run, &w->writers[i]);
	}
}

static void group_run(struct scenario_run *run)
{
	struct group_world *w = calloc(1, sizeof *w);
	w->run = run;
	w->sim = scenario_sim(run, NULL);
	world_begin(w);
	unsigned rounds = 2 + (unsigned)draw(w, 4);
	for (w->round = 1; w->round <= rounds && !run->failed; w->round++)
		world_round(w);
	for (unsigned i = 0; i < w->place_count && !run->failed; i++)
		if (!w->places[i].running)
			place_begin(&w->places[i]);
	if (!run->failed)
		world_heal(w);
	for (unsigned i = 0; i < COMMANDS; i++)
		command_end(&w->commands[i], true);
	world_end(w);
	catalog_sim_destroy(w->catalogs);
	scenario_end(run, w->sim);
	free(w);
}

const struct scenario scenario_group = {
	.name = "group",
	.summary = "snapshots of several volumes at one instant, while owners and commands are killed and stopped",
	.run = group_run,
};
