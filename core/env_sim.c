/* The simulated world: scheduler, virtual time, timers, offload, processes and hosts.
 * The fault model is in env_sim.h; disks are in env_sim_disk.c, streams in env_sim_net.c.
 *
 * One heap holds all events of the world; each process has a loop of its own. A step is one
 * ready job of one process, or the next event. All choices come from one random stream, and
 * nothing depends on addresses, so a seed is a run. */
#include "core/env_sim.h"

#include <errno.h>
#include <stdarg.h>
#include <stdlib.h>
#include <string.h>

#include "core/bytes.h"
#include "core/env_sim_world.h"
#include "core/fiber.h"

#define WALL_START_NS UINT64_C(1767225600000000000)
#define STALL_NS NS_PER_MS      /* a ready job may be overtaken by events this close */
#define DRAIN_STEPS 10000000u   /* more than any unwinding takes */

/* ---- random numbers, trace ---- */

static uint64_t mix_next(uint64_t *state) /* splitmix64 */
{
	uint64_t z = *state += 0x9E3779B97F4A7C15u;
	z = (z ^ z >> 30) * 0xBF58476D1CE4E5B9u;
	z = (z ^ z >> 27) * 0x94D049BB133111EBu;
	return z ^ z >> 31;
}

uint64_t sim_random(struct sim *sim) { return mix_next(&sim->rng); }
uint64_t sim_below(struct sim *sim, uint64_t limit) { return limit ? sim_random(sim) % limit : 0; }

bool sim_chance(struct sim *sim, uint32_t in_a_million)
{
	return in_a_million && sim_below(sim, 1000000) < in_a_million;
}

const char *sim_fault_name(enum sim_fault fault)
{
	static const char *const names[SIM_FAULTS] = {
		[SIM_KILL] = "kills", [SIM_POWER_LOSS] = "power losses", [SIM_PAUSE] = "pauses", [SIM_CUT] = "one-way partitions",
		[SIM_CONNECT_REFUSED] = "refused connects", [SIM_DROP] = "dropped connections", [SIM_SLOW] = "slow operations",
		[SIM_WALL_JUMP] = "clock jumps", [SIM_READ_ERROR] = "read errors", [SIM_WRITE_ERROR] = "write errors",
		[SIM_SYNC_ERROR] = "failed syncs", [SIM_NO_SPACE] = "writes without space", [SIM_READ_FLIP] = "bits flipped in reads",
		[SIM_REST_FLIP] = "bits flipped at rest", [SIM_MISDIRECT] = "misdirected writes", [SIM_STALE_DISK] = "stale disks",
		[SIM_LOST_DISK] = "lost disks", [SIM_CATALOG_OUTAGE] = "catalog outages", [SIM_CATALOG_TIMEOUT] = "catalog calls of unknown outcome",
	};
	return names[fault];
}

uint64_t sim_faults(const struct sim *sim, enum sim_fault fault) { return sim->faults[fault]; }
void sim_fault(struct sim *sim, enum sim_fault fault) { sim->faults[fault]++; }

bool sim_happens(struct sim *sim, enum sim_fault fault, uint32_t in_a_million)
{
	bool does = sim_chance(sim, in_a_million);
	sim->faults[fault] += does;
	return does;
}

uint64_t sim_latency(struct sim *sim, uint64_t dose_ns, uint64_t default_ns)
{
	uint64_t ns = 1 + sim_below(sim, dose_ns ? dose_ns : default_ns);
	return sim_happens(sim, SIM_SLOW, sim->doses.slow) ? ns * 100 : ns;
}

static void hash_add(struct sim *sim, uint64_t v)
{
	sim->hash ^= v;
	(void)mix_next(&sim->hash);
	sim->hash = (sim->hash ^ sim->hash >> 29) * 0xBF58476D1CE4E5B9u;
}

void sim_trace(struct sim *sim, const struct sim_process *p, const char *what, uint64_t a, uint64_t b)
{
	for (const char *c = what; *c; c++)
		hash_add(sim, (uint8_t)*c);
	hash_add(sim, sim->now_ns);
	hash_add(sim, p ? p->number : 0);
	hash_add(sim, a);
	hash_add(sim, b);
	if (sim->trace)
		fprintf(sim->trace, "%12.6f ms p%u %s %llu %llu\n", (double)sim->now_ns / 1e6, p ? p->number : 0, what,
			(unsigned long long)a, (unsigned long long)b);
}

void sim_note(struct sim *sim, const char *format, ...)
{
	if (!sim->trace)
		return;
	va_list args;
	va_start(args, format);
	fprintf(sim->trace, "%12.6f ms -- ", (double)sim->now_ns / 1e6);
	vfprintf(sim->trace, format, args);
	fputc('\n', sim->trace);
	va_end(args);
}

void *sim_alloc(size_t bytes)
{
	void *p = calloc(1, bytes);
	if (!p) {
		fprintf(stderr, "env_sim: out of memory\n");
		abort();
	}
	return p;
}

/* ---- events: a binary heap by due time; ties are broken at random ---- */

static bool event_before(const struct sim_event *a, const struct sim_event *b)
{
	return a->due_ns != b->due_ns ? a->due_ns < b->due_ns : a->tie < b->tie;
}

static void heap_set(struct sim *sim, unsigned i, struct sim_event *e)
{
	sim->heap[i] = e;
	e->index = i + 1;
}

static void heap_settle(struct sim *sim, unsigned i, struct sim_event *e)
{
	while (i > 0 && event_before(e, sim->heap[(i - 1) / 2])) {
		heap_set(sim, i, sim->heap[(i - 1) / 2]);
		i = (i - 1) / 2;
	}
	for (unsigned c; (c = 2 * i + 1) < sim->heap_count; i = c) {
		if (c + 1 < sim->heap_count && event_before(sim->heap[c + 1], sim->heap[c]))
			c++;
		if (!event_before(sim->heap[c], e))
			break;
		heap_set(sim, i, sim->heap[c]);
	}
	heap_set(sim, i, e);
}

void sim_event_add(struct sim *sim, struct sim_event *e, struct sim_process *owner, uint64_t delay_ns)
{
	assert(e->index == 0);
	e->due_ns = sim->now_ns + delay_ns;
	e->tie = sim_random(sim);
	e->owner = owner;
	link_init(&e->owned);
	if (owner)
		link_push(&owner->events, &e->owned);
	if (sim->heap_count == sim->heap_room) {
		sim->heap_room = sim->heap_room ? 2 * sim->heap_room : 64;
		sim->heap = realloc(sim->heap, sim->heap_room * sizeof *sim->heap);
		if (!sim->heap)
			abort();
	}
	sim->heap_count++;
	heap_settle(sim, sim->heap_count - 1, e);
}

void sim_event_remove(struct sim *sim, struct sim_event *e)
{
	if (e->index == 0)
		return;
	unsigned i = e->index - 1;
	struct sim_event *last = sim->heap[--sim->heap_count];
	if (last != e)
		heap_settle(sim, i, last);
	e->index = 0;
	link_drop(&e->owned);
}

/* ---- timers ---- */

struct timer_event {
	struct sim_event event;
	struct timer *timer;
	struct link at; /* timer->link is listed here, so that a cancel finds the event */
};

static void timer_end(struct timer_event *te, int status)
{
	struct timer *t = te->timer;
	struct job *parent = t->parent;
	t->parent = NULL;
	link_drop(&t->link);
	free(te);
	job_put(parent, status);
}

static void timer_fire(struct sim_event *e) { timer_end(container_of(e, struct timer_event, event), 0); }
static void timer_kill(struct sim_event *e) { timer_end(container_of(e, struct timer_event, event), -ESHUTDOWN); }

static void ops_timer_start(struct env *env, struct timer *t, uint64_t delay_ns, struct job *parent)
{
	struct sim_process *p = process_of(env);
	if (env->dead) {
		job_put(parent, -ESHUTDOWN);
		return;
	}
	struct timer_event *te = sim_alloc(sizeof *te);
	te->event = (struct sim_event){ .name = "timer", .fire = timer_fire, .kill = timer_kill };
	te->timer = t;
	link_init(&te->at);
	link_init(&t->link);
	link_push(&te->at, &t->link);
	t->parent = parent;
	t->due_ns = p->sim->now_ns + delay_ns;
	sim_event_add(p->sim, &te->event, p, delay_ns);
}

static void ops_timer_cancel(struct env *env, struct timer *t)
{
	struct timer_event *te = container_of(t->link.next, struct timer_event, at);
	sim_event_remove(process_of(env)->sim, &te->event);
	timer_end(te, -ECANCELED);
}

int sim_sleep(struct sim_process *p, uint64_t ns)
{
	int r = p->env.dead ? 0 : fiber_sleep(&p->env.loop, ns);
	return p->env.dead ? -ESHUTDOWN : r; /* the timer may have ended just before the process did */
}

int sim_call_wait(struct sim_process *p)
{
	return sim_sleep(p, sim_latency(p->sim, p->sim->doses.disk_ns, 20000));
}

/* ---- offload ---- */

struct offload_event {
	struct sim_event event;
	struct offload *offload;
	struct link link;
};

static void offload_end(struct offload_event *oe, bool run, int status)
{
	struct offload *o = oe->offload;
	if (run)
		o->status = o->run(o);
	if (status)
		o->status = status;
	free(oe);
	job_put(o->parent, o->status);
}

static void offload_fire(struct sim_event *e)
{
	struct offload_event *oe = container_of(e, struct offload_event, event);
	if (e->owner->paused)
		link_push(&e->owner->deferred, &oe->link);
	else
		offload_end(oe, true, 0);
}

static void offload_kill(struct sim_event *e)
{
	offload_end(container_of(e, struct offload_event, event), sim_random(e->owner->sim) & 1, -ESHUTDOWN);
}

static void ops_offload(struct env *env, struct offload *o, struct job *parent)
{
	struct sim_process *p = process_of(env);
	o->parent = parent;
	o->status = 0;
	if (env->dead) {
		o->status = -ESHUTDOWN;
		job_put(parent, -ESHUTDOWN);
		return;
	}
	struct offload_event *oe = sim_alloc(sizeof *oe);
	oe->event = (struct sim_event){ .name = "offload", .fire = offload_fire, .kill = offload_kill };
	oe->offload = o;
	link_init(&oe->link);
	sim_event_add(p->sim, &oe->event, p, sim_latency(p->sim, p->sim->doses.offload_ns, 50000));
}

static void deferred_end(struct sim_process *p, int status)
{
	for (struct link *l; (l = link_pop(&p->deferred));)
		offload_end(container_of(l, struct offload_event, link), status == 0, status);
}

/* ---- clocks and the rest of the env ---- */

static uint64_t ops_now_ns(struct env *env) { return process_of(env)->sim->now_ns; }

static uint64_t ops_wall_ns(struct env *env)
{
	struct sim_host *h = process_of(env)->host;
	if (sim_happens(h->sim, SIM_WALL_JUMP, h->sim->doses.wall_jump))
		h->wall_offset_ns = (int64_t)sim_below(h->sim, 7200 * NS_PER_S) - (int64_t)(3600 * NS_PER_S);
	return WALL_START_NS + h->sim->now_ns + (uint64_t)h->wall_offset_ns;
}

static uint64_t ops_random(struct env *env) { return mix_next(&process_of(env)->rng); }
static void ops_boot_id(struct env *env, char ret_id[37]) { memcpy(ret_id, process_of(env)->host->boot_id, 37); }

static void ops_fd_watch_start(struct env *env, struct fd_watch *w, int fd, struct job *parent)
{
	(void)env;
	(void)fd;
	w->parent = NULL;
	job_put(parent, -ENOTSUP);
}

static void ops_fd_watch_cancel(struct env *env, struct fd_watch *w)
{
	(void)env;
	(void)w;
}

static const struct env_ops sim_ops = {
	.now_ns = ops_now_ns, .wall_ns = ops_wall_ns, .random = ops_random, .boot_id = ops_boot_id,
	.timer_start = ops_timer_start, .timer_cancel = ops_timer_cancel, .offload = ops_offload,
	.file_open = sim_file_open, .file_close = sim_file_close, .file_stat = sim_file_stat,
	.file_lock = sim_file_lock, .file_map = sim_file_map, .file_submit = sim_file_submit,
	.mkdir = sim_mkdir, .unlink = sim_unlink, .rmdir = sim_rmdir, .rename = sim_rename,
	.sync_dir = sim_sync_dir, .list_dir = sim_list_dir, .space = sim_space,
	.stream_connect = sim_stream_connect, .stream_listen = sim_stream_listen, .stream_accept = sim_stream_accept,
	.listener_close = sim_listener_close, .listener_address = sim_listener_address,
	.stream_recv = sim_stream_recv, .stream_send = sim_stream_send, .stream_shutdown = sim_stream_shutdown,
	.stream_close = sim_stream_close, .stream_peer_uid = sim_stream_peer_uid, .stream_peer = sim_stream_peer,
	.fd_watch_start = ops_fd_watch_start, .fd_watch_cancel = ops_fd_watch_cancel,
};

/* ---- the world ---- */

struct sim *sim_create(uint64_t seed, const struct sim_doses *doses)
{
	struct sim *sim = sim_alloc(sizeof *sim);
	sim->rng = seed;
	(void)sim_random(sim);
	if (doses)
		sim->doses = *doses;
	link_init(&sim->hosts);
	link_init(&sim->processes);
	link_init(&sim->listeners);
	link_init(&sim->cuts);
	sim->next_port = 40000;
	return sim;
}

void sim_destroy(struct sim *sim)
{
	if (!sim)
		return;
	assert(link_empty(&sim->processes));
	while (sim->heap_count) { /* the world's own: deliveries to nobody */
		struct sim_event *e = sim->heap[0];
		sim_event_remove(sim, e);
		e->kill(e);
	}
	for (struct link *l; (l = link_pop(&sim->hosts));) {
		struct sim_host *h = container_of(l, struct sim_host, link);
		sim_disk_destroy(h);
		free(h);
	}
	for (struct link *l; (l = link_pop(&sim->cuts));)
		free(container_of(l, struct sim_cut, link));
	free(sim->heap);
	free(sim);
}

struct sim_doses *sim_doses(struct sim *sim) { return &sim->doses; }
uint64_t sim_now_ns(const struct sim *sim) { return sim->now_ns; }
uint64_t sim_steps(const struct sim *sim) { return sim->steps; }
uint64_t sim_trace_hash(const struct sim *sim) { return sim->hash; }
void sim_trace_to(struct sim *sim, FILE *f) { sim->trace = f; }

static void host_boot(struct sim_host *h)
{
	uint64_t a = sim_random(h->sim), b = sim_random(h->sim);
	snprintf(h->boot_id, sizeof h->boot_id, "%08x-%04x-%04x-%04x-%012llx", (uint32_t)a, (uint32_t)(a >> 32 & 0xffff),
		 (uint32_t)(a >> 48), (uint32_t)(b & 0xffff), (unsigned long long)(b >> 16));
}

struct sim_host *sim_host_create(struct sim *sim, const char *name, uint64_t disk_bytes, uint32_t io_align)
{
	struct sim_host *h = sim_alloc(sizeof *h);
	h->sim = sim;
	snprintf(h->name, sizeof h->name, "%s", name);
	h->disk_bytes = disk_bytes;
	h->io_align = io_align;
	link_push(&sim->hosts, &h->link);
	host_boot(h);
	sim_disk_init(h);
	return h;
}

struct env *sim_process_create(struct sim *sim, struct sim_host *host)
{
	struct sim_process *p = sim_alloc(sizeof *p);
	p->env.ops = &sim_ops;
	loop_init(&p->env.loop, &p->env);
	p->env.loop.shuffle_state = sim_random(sim) | 1;
	p->sim = sim;
	p->host = host;
	p->number = ++sim->next_process;
	p->rng = sim_random(sim);
	link_init(&p->events);
	link_init(&p->files);
	link_init(&p->streams);
	link_init(&p->listeners);
	link_init(&p->deferred);
	link_push(&sim->processes, &p->link);
	return &p->env;
}

static void leak_check(const struct sim_process *p, const struct link *list, const char *what)
{
	if (link_empty(list))
		return;
	fprintf(stderr, "env_sim: process %u ends with %s left\n", p->number, what);
	abort();
}

void sim_process_destroy(struct env *env)
{
	if (!env)
		return;
	struct sim_process *p = process_of(env);
	leak_check(p, &p->events, "operations under way");
	leak_check(p, &p->env.loop.ready, "jobs to run");
	leak_check(p, &p->files, "open files");
	leak_check(p, &p->streams, "open streams");
	leak_check(p, &p->listeners, "open listeners");
	link_drop(&p->link);
	free(p);
}

struct sim *sim_of(struct env *env) { return process_of(env)->sim; }

/* ---- stepping ---- */

static bool process_runnable(const struct sim_process *p)
{
	return !p->env.dead && !p->paused && !link_empty(&p->env.loop.ready);
}

static struct sim_process *process_pick(struct sim *sim)
{
	unsigned count = 0;
	link_for (l, &sim->processes)
		count += process_runnable(container_of(l, struct sim_process, link));
	if (count == 0)
		return NULL;
	uint64_t n = sim_below(sim, count);
	link_for (l, &sim->processes) {
		struct sim_process *p = container_of(l, struct sim_process, link);
		if (process_runnable(p) && n-- == 0)
			return p;
	}
	return NULL;
}

static void event_step(struct sim *sim, struct sim_event *e)
{
	sim_event_remove(sim, e);
	sim->now_ns = MAX(sim->now_ns, e->due_ns);
	sim_trace(sim, e->owner, e->name, 0, 0);
	e->fire(e);
}

bool sim_step(struct sim *sim)
{
	struct sim_process *p = process_pick(sim);
	struct sim_event *e = sim->heap_count ? sim->heap[0] : NULL;
	if (!p && !e)
		return false;
	sim->steps++;
	if (p && !(e && e->due_ns <= sim->now_ns + STALL_NS && sim_below(sim, 16) == 0)) {
		sim_trace(sim, p, "run", 0, 0);
		loop_run_one(&p->env.loop);
	} else {
		event_step(sim, e);
	}
	return true;
}

bool sim_run_until(struct sim *sim, const bool *stop)
{
	while (!*stop)
		if (!sim_step(sim))
			return false;
	return true;
}

struct fiber_run {
	struct job job;
	bool ended;
	int status;
};

static void fiber_run_ended(struct job *j)
{
	struct fiber_run *r = container_of(j, struct fiber_run, job);
	r->status = j->status;
	r->ended = true;
}

int sim_run_fiber(struct env *env, int (*run)(void *arg), void *arg)
{
	struct fiber_run r = { 0 };
	job_init(&r.job, &env->loop);
	job_hold(&r.job);
	int s = fiber_start(&env->loop, run, arg, &r.job);
	if (s < 0)
		return s;
	job_then(&r.job, fiber_run_ended);
	if (env->dead)
		sim_drain_dead(env);
	else
		sim_run_until(sim_of(env), &r.ended);
	if (!r.ended && env->dead) /* killed while it ran, by something in the world */
		sim_drain_dead(env);
	if (!r.ended) {
		/* The fiber still uses this frame: there is no way back. */
		fprintf(stderr, "env_sim: the world came to rest before a fiber had ended\n");
		abort();
	}
	return r.status;
}

/* ---- faults ---- */

static void process_die(struct sim_process *p, bool power)
{
	if (p->env.dead)
		return;
	sim_trace(p->sim, p, power ? "power off" : "kill", 0, 0);
	p->env.dead = true;
	p->paused = false;
	p->sim->faults[SIM_KILL] += !power;
	sim_net_process_died(p, power);
	while (!link_empty(&p->events)) {
		struct sim_event *e = container_of(p->events.next, struct sim_event, owned);
		sim_event_remove(p->sim, e);
		e->kill(e);
	}
	deferred_end(p, -ESHUTDOWN);
	sim_disk_process_died(p);
}

void sim_kill(struct env *env) { process_die(process_of(env), false); }

void sim_drain_dead(struct env *env)
{
	assert(env->dead);
	for (unsigned i = 0; loop_run_one(&env->loop); i++)
		if (i == DRAIN_STEPS) {
			fprintf(stderr, "env_sim: process %u goes on for ever although it is dead\n",
				process_of(env)->number);
			abort();
		}
}

void sim_power_loss(struct sim_host *host)
{
	link_for (l, &host->sim->processes) {
		struct sim_process *p = container_of(l, struct sim_process, link);
		if (p->host == host)
			process_die(p, true);
	}
	sim_fault(host->sim, SIM_POWER_LOSS);
	sim_disk_power_loss(host);
	host_boot(host);
}

void sim_pause(struct env *env)
{
	sim_trace(sim_of(env), process_of(env), "pause", 0, 0);
	process_of(env)->paused = true;
	sim_fault(sim_of(env), SIM_PAUSE);
}

void sim_resume(struct env *env)
{
	struct sim_process *p = process_of(env);
	if (!p->paused)
		return;
	sim_trace(p->sim, p, "resume", 0, 0);
	p->paused = false;
	deferred_end(p, 0);
}

void sim_partition(struct sim *sim, struct sim_host *from, struct sim_host *to, bool cut)
{
	sim_trace(sim, NULL, cut ? "cut" : "heal", 0, 0);
	link_for_safe (l, n, &sim->cuts) {
		struct sim_cut *c = container_of(l, struct sim_cut, link);
		if (c->from == from && c->to == to) {
			link_drop(l);
			free(c);
		}
	}
	if (!cut)
		return;
	sim_fault(sim, SIM_CUT);
	struct sim_cut *c = sim_alloc(sizeof *c);
	c->from = from;
	c->to = to;
	link_push(&sim->cuts, &c->link);
}
