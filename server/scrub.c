#include "server/scrub.h"

#include <errno.h>
#include <inttypes.h>
#include <stdarg.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>

#include "core/array.h"
#include "core/bytes.h"
#include "core/fiber.h"
#include "server/found.h"
#include "server/mend.h"

#define PERIOD_NS (UINT64_C(14) * 24 * 3600 * NS_PER_S)
#define RATE (UINT64_C(64) << 20)
#define SLOWEST (UINT64_C(256) << 10)   /* by itself: a small directory is done long before the period ends */
#define NAP_NS (500 * NS_PER_MS)
#define SAVE_NS (60 * NS_PER_S)
#define FOUND_RATE (UINT64_C(8) << 20)  /* what readers say costs at most so much reading a second */
enum { ASKED_MAX = 16, FAULTS_MAX = 64, STATE_BYTES = 256, LOOK_BLOCKS = 64 /* to look at some blocks costs as much as reading so many */ };

enum whose { OWN, ASKED, READERS }; /* who has found it: the scrubber by itself, a pass that was asked for, a reader */

struct asked {
	bool all;
	uuid volume;
};

struct fault {
	uint64_t segment;
	uint32_t block;
	bool footer, repaired;
};

/* Of the pass that was asked for last. */
struct pass {
	uint64_t copies, bytes, total_bytes, bad, repaired, skipped;
	struct fault faults[FAULTS_MAX];
	unsigned fault_count;
};

struct scrub {
	struct env *env;
	struct segment_server *dir;
	struct server *server;
	struct scrub_options options;
	struct asked queue[ASKED_MAX]; /* by number % ASKED_MAX */
	uint64_t asked, ended;
	struct pass pass;
	/* by itself: as the file has it */
	uint64_t position, began_ns, finished_ns, all_bad, all_repaired;
	uint64_t unrepaired, unrepaired_now; /* as of the last pass over all; of the one that runs */
	uint64_t saved_ns, due_ns;
	struct mender mender;
	struct found found;
	uint64_t found_due_ns, read_bad, read_repaired; /* the last two: since it was started */
	struct timer timer;
	struct job nap;
	bool closing, running;
	struct fiber_cond ended_cond;
};

static void say(struct scrub *s, const char *format, ...) __attribute__((format(printf, 2, 3)));
static void say(struct scrub *s, const char *format, ...)
{
	char text[256];
	va_list ap;
	va_start(ap, format);
	vsnprintf(text, sizeof text, format, ap);
	va_end(ap);
	if (s->options.log)
		s->options.log(s->options.arg, text);
}

static bool ends(const struct scrub *s) { return s->closing || s->env->dead; }
static bool is_asked(const struct scrub *s) { return s->asked > s->ended; }

static void nap(struct scrub *s, uint64_t ns)
{
	if (ends(s))
		return;
	job_init(&s->nap, &s->env->loop);
	timer_start(s->env, &s->timer, ns, &s->nap);
	fiber_wait(&s->nap);
}

/* ---- what is remembered ---- */

static void state_path(const struct scrub *s, char *ret, size_t bytes) { snprintf(ret, bytes, "%s/scrub", s->options.directory); }

static void state_load(struct scrub *s)
{
	char path[1100], text[STATE_BYTES + 1] = "";
	struct file *f;
	size_t done = 0;
	state_path(s, path, sizeof path);
	if (file_open(s->env, path, 0, &f) < 0)
		return;
	if (file_read_wait(f, text, STATE_BYTES, 0, &done) < 0 ||
	    sscanf(text, "aquifer scrub 1 %" SCNu64 " %" SCNu64 " %" SCNu64 " %" SCNu64 " %" SCNu64 " %" SCNu64 " %" SCNu64 "\n", &s->position, &s->began_ns,
		   &s->finished_ns, &s->all_bad, &s->all_repaired, &s->unrepaired, &s->unrepaired_now) != 7)
		s->position = s->began_ns = s->finished_ns = s->all_bad = s->all_repaired = s->unrepaired = s->unrepaired_now = 0;
	file_close(s->env, f);
}

/* A hint: what can't be written now is written later. */
static void state_save(struct scrub *s)
{
	char path[1100], text[STATE_BYTES];
	struct file *f;
	s->saved_ns = env_now_ns(s->env);
	state_path(s, path, sizeof path);
	memset(text, ' ', sizeof text);
	int n = snprintf(text, sizeof text, "aquifer scrub 1 %" PRIu64 " %" PRIu64 " %" PRIu64 " %" PRIu64 " %" PRIu64 " %" PRIu64 " %" PRIu64 "\n", s->position,
			 s->began_ns, s->finished_ns, s->all_bad, s->all_repaired, s->unrepaired, s->unrepaired_now);
	text[n] = ' ';
	text[sizeof text - 1] = '\n';
	if (file_open(s->env, path, FILE_OPEN_WRITE | FILE_OPEN_CREATE, &f) < 0)
		return;
	file_write_wait(f, text, sizeof text, 0);
	file_close(s->env, f);
}

/* ---- mending ---- */

static void note_fault(struct scrub *s, enum whose whose, uint64_t segment, uint32_t block, bool footer, bool repaired)
{
	struct pass *p = &s->pass;
	if (whose == READERS && !repaired && !found_is_news(&s->found, segment, block))
		return;
	s->all_bad++;
	s->all_repaired += repaired;
	s->read_bad += whose == READERS;
	s->read_repaired += whose == READERS && repaired;
	if (whose == OWN)
		s->unrepaired_now += !repaired;
	s->unrepaired = MAX(s->unrepaired, s->unrepaired_now);
	const char *who = whose == READERS ? "found by a reader" : "scrub";
	if (footer)
		say(s, "%s: the head or the footer of segment %" PRIu64 " is damaged: %s", who, segment, repaired ? "another copy will take its place" : "there is no other copy to replace it from");
	else
		say(s, "%s: segment %" PRIu64 ", block %u was damaged: %s", who, segment, block, repaired ? "repaired from another copy" : "no other copy has it");
	if (whose != ASKED)
		return;
	p->bad++;
	p->repaired += repaired;
	if (p->fault_count < FAULTS_MAX)
		p->faults[p->fault_count++] = (struct fault){ segment, block, footer, repaired };
}

static void mend_slice(struct scrub *s, enum whose whose, uint64_t segment, const struct scrub_slice *bad)
{
	int r = mend_block(&s->mender, segment, bad);
	if (r != -ENODATA) /* it became free meanwhile */
		note_fault(s, whose, segment, bad->bad_block, /* footer= */ false, r == 0);
}

static void mend_footer(struct scrub *s, enum whose whose, uint64_t segment, int why)
{
	note_fault(s, whose, segment, 0, /* footer= */ true, mend_copy(&s->mender, segment, why));
}

/* The whole copy: what its blocks should be, or even what it is, can't be read. */
static bool is_useless(int r) { return r == -EBADMSG || r == -EIO; }

/* ---- what readers found ---- */

/* What they say is looked at first. */
static void mend_range(struct scrub *s, const struct found_range *range)
{
	struct scrub_slice slice = { .next = range->block };
	uint64_t blocks = 0;
	int r;
	do {
		r = segment_dir_look(s->dir, range->segment, slice.next, range->block + range->blocks, &slice);
		blocks += LOOK_BLOCKS + (r == 0 ? slice.blocks : 0);
		if (is_useless(r) && !ends(s))
			mend_footer(s, READERS, range->segment, r);
		if (r == 0 && slice.bad && !ends(s))
			mend_slice(s, READERS, range->segment, &slice);
	} while (r == 0 && slice.next && !ends(s));
	s->found_due_ns = env_now_ns(s->env) + blocks * BLOCK_BYTES * NS_PER_S / FOUND_RATE;
}

static bool found_due(const struct scrub *s) { return found_waits(&s->found) && env_now_ns(s->env) >= s->found_due_ns; }

/* Between the slices of a pass, and while it waits. */
static void mend_found(struct scrub *s)
{
	struct found_range range;
	uint64_t bad = s->all_bad;
	while (!ends(s) && found_due(s) && found_take(&s->found, &range))
		mend_range(s, &range);
	if (s->all_bad != bad && !ends(s))
		state_save(s);
}

/* Until there is something to mend, `ns` at most. Who asks for a pass ends a nap, and not what came before it: if that was suspended, he may have asked then. */
static void nap_or_mend(struct scrub *s, uint64_t ns)
{
	uint64_t now = env_now_ns(s->env);
	nap(s, found_waits(&s->found) ? MIN(ns, s->found_due_ns - MIN(now, s->found_due_ns)) : ns);
	mend_found(s);
}

/* ---- one copy ---- */

/* `own`: by itself; then whoever asks for a pass needn't wait. */
static void throttle(struct scrub *s, uint64_t bytes, uint64_t rate, bool own)
{
	uint64_t now = env_now_ns(s->env);
	s->due_ns = MAX(s->due_ns, now) + (uint64_t)((double)bytes * (double)NS_PER_S / (double)rate);
	mend_found(s);
	while (!ends(s) && !(own && is_asked(s)) && (now = env_now_ns(s->env)) < s->due_ns)
		nap_or_mend(s, MIN(s->due_ns - now, (uint64_t)NAP_NS));
}

/* False: somebody asked for a pass, or it ends; the copy isn't done. `asked` NULL: by itself. */
static bool scrub_segment(struct scrub *s, const struct asked *asked, uint64_t segment, uint64_t rate)
{
	struct scrub_slice slice = { 0 };
	const uuid *only = asked && !asked->all ? &asked->volume : NULL;
	uint32_t from = 0;
	do {
		int r = segment_dir_scrub(s->dir, segment, from, only, &slice);
		if (ends(s))
			return false;
		if (r == -EXDEV) {
			throttle(s, BLOCK_BYTES, rate, /* own= */ false);
			return !ends(s);
		}
		bool anybodys = r == -EIO && only; /* whose it is can't be read either */
		if (is_useless(r) && !anybodys) {
			mend_footer(s, asked ? ASKED : OWN, segment, r);
			throttle(s, BLOCK_BYTES, rate, /* own= */ !asked);
			break;
		}
		if (r < 0) {
			s->pass.skipped += asked && r != -ENOENT;
			break;
		}
		if (slice.bad)
			mend_slice(s, asked ? ASKED : OWN, segment, &slice);
		if (asked)
			s->pass.bytes += (uint64_t)slice.blocks * BLOCK_BYTES;
		throttle(s, (uint64_t)(slice.blocks + 1) * BLOCK_BYTES, rate, /* own= */ !asked);
		if (ends(s) || (!asked && is_asked(s)))
			return false;
		from = slice.next;
	} while (from);
	if (asked)
		s->pass.copies++;
	return true;
}

/* ---- passes ---- */

struct ids {
	uint64_t *ids;
	size_t count;
};

static int note_id(void *arg, uint64_t id)
{
	struct ids *l = arg;
	if (array_more(&l->ids, l->count) < 0)
		return -ENOMEM;
	l->ids[l->count++] = id;
	return 0;
}

static uint64_t used_bytes(const struct scrub *s) { return s->dir->total_bytes - MIN(s->dir->free_bytes, s->dir->total_bytes); }

static void pass_end(struct scrub *s)
{
	mend_rest(&s->mender);
	state_save(s);
}

static void pass_asked(struct scrub *s)
{
	const struct asked asked = s->queue[s->ended % ASKED_MAX];
	struct ids l = { 0 };
	uint64_t began = env_wall_ns(s->env);
	s->pass = (struct pass){ .total_bytes = used_bytes(s) };
	s->due_ns = 0;
	int r = segment_dir_ids(s->dir, note_id, &l);
	bool whole = r == 0;
	for (size_t i = 0; i < l.count && whole; i++) {
		whole = scrub_segment(s, &asked, l.ids[i], s->options.bytes_per_s);
		s->pass.total_bytes = MAX(s->pass.total_bytes, s->pass.bytes);
	}
	s->pass.skipped += r < 0;
	free(l.ids);
	if (whole && asked.all) { /* as good as one by itself */
		s->began_ns = began;
		s->finished_ns = env_wall_ns(s->env);
		s->position = s->unrepaired_now = 0;
		s->unrepaired = s->pass.bad - s->pass.repaired;
	}
	s->pass.total_bytes = s->pass.bytes;
	s->ended++;
	pass_end(s);
}

static uint64_t own_rate(const struct scrub *s)
{
	return MAX((uint64_t)((double)used_bytes(s) * (double)NS_PER_S / (double)s->options.period_ns), SLOWEST);
}

static bool own_due(const struct scrub *s)
{
	return s->position > 0 || s->began_ns == 0 || env_wall_ns(s->env) - s->began_ns >= s->options.period_ns;
}

/* Goes on until it is through, or somebody asks. */
static void pass_own(struct scrub *s)
{
	struct ids l = { 0 };
	bool whole = segment_dir_ids(s->dir, note_id, &l) == 0;
	if (!whole && !is_asked(s)) /* not now; and not at once again */
		nap_or_mend(s, 60 * NS_PER_S);
	if (s->position == 0) {
		s->began_ns = env_wall_ns(s->env);
		s->unrepaired_now = 0;
	}
	for (size_t i = 0; i < l.count && whole; i++) {
		if (l.ids[i] <= s->position)
			continue;
		whole = scrub_segment(s, NULL, l.ids[i], own_rate(s));
		if (whole)
			s->position = l.ids[i];
		if (env_now_ns(s->env) - s->saved_ns > SAVE_NS)
			state_save(s);
	}
	free(l.ids);
	if (whole) {
		s->position = 0;
		s->finished_ns = env_wall_ns(s->env);
		s->unrepaired = s->unrepaired_now;
	}
	pass_end(s);
}

static void idle(struct scrub *s)
{
	if (!found_waits(&s->found))
		mend_rest(&s->mender);
	if (!is_asked(s))
		nap_or_mend(s, 60 * NS_PER_S);
}

static int scrub_fiber(void *arg)
{
	struct scrub *s = arg;
	state_load(s);
	while (!ends(s)) {
		if (is_asked(s))
			pass_asked(s);
		else if (own_due(s))
			pass_own(s);
		else
			idle(s);
	}
	mend_rest(&s->mender);
	state_save(s);
	s->running = false;
	fiber_cond_wake(&s->ended_cond);
	return 0;
}

/* ---- what is asked ---- */

static void fill(const struct scrub *s, Aquifer__Segment__Scrub *m, Aquifer__Segment__ScrubFault *faults, Aquifer__Segment__ScrubFault **pointers)
{
	const struct pass *p = &s->pass;
	m->ended = s->ended;
	m->copies = p->copies;
	m->bytes = p->bytes;
	m->total_bytes = p->total_bytes;
	m->bad = p->bad;
	m->repaired = p->repaired;
	m->skipped = p->skipped;
	m->began_ns = s->began_ns;
	m->finished_ns = s->finished_ns;
	m->period_ns = s->options.period_ns;
	m->all_bad = s->all_bad;
	m->all_repaired = s->all_repaired;
	m->unrepaired = s->unrepaired;
	m->read_bad = s->read_bad;
	m->read_repaired = s->read_repaired;
	m->n_faults = p->fault_count;
	m->faults = pointers;
	for (unsigned i = 0; i < p->fault_count; i++) {
		aquifer__segment__scrub_fault__init(&faults[i]);
		faults[i].segment = p->faults[i].segment;
		faults[i].block = p->faults[i].block;
		faults[i].footer = p->faults[i].footer;
		faults[i].repaired = p->faults[i].repaired;
		pointers[i] = &faults[i];
	}
}

static void handle(void *arg, struct rpc_request *r)
{
	struct scrub *s = arg;
	Aquifer__Segment__Scrub m = AQUIFER__SEGMENT__SCRUB__INIT;
	Aquifer__Segment__ScrubFault faults[FAULTS_MAX], *pointers[FAULTS_MAX];
	const Aquifer__Segment__ScrubRequest *q =
		(const Aquifer__Segment__ScrubRequest *)rpc_request_body(r, &aquifer__segment__scrub_request__descriptor);
	int status = !q ? -EBADMSG : (q->volume.len && q->volume.len != sizeof(uuid)) || (q->begin && q->segment) ? -EINVAL : 0;
	if (status == 0 && q->segment)
		status = found_add(&s->found, &(struct found_range){ q->segment, q->block, q->blocks });
	if (status < 0) {
		rpc_reply(r, status, status == -EBUSY ? "too much waits to be looked at already" : "that is no request to scrub", NULL, NULL, 0);
		return;
	}
	if (q->segment)
		timer_cancel(s->env, &s->timer);
	if (q->begin && s->asked - s->ended == ASKED_MAX) {
		rpc_reply(r, -EBUSY, "too many scrubs wait already", NULL, NULL, 0);
		return;
	}
	if (q->begin) {
		struct asked *a = &s->queue[s->asked++ % ASKED_MAX];
		*a = (struct asked){ .all = q->volume.len == 0 };
		if (!a->all)
			memcpy(&a->volume, q->volume.data, sizeof(uuid));
		m.number = s->asked;
		timer_cancel(s->env, &s->timer);
	}
	fill(s, &m, faults, pointers);
	rpc_reply_bytes(r, &m.base, 0);
}

/* By the directory itself. What doesn't fit is found again. */
static void found_here(void *arg, uint64_t segment, uint32_t block, uint32_t blocks)
{
	struct scrub *s = arg;
	found_add(&s->found, &(struct found_range){ segment, block, MIN(blocks, (uint32_t)FOUND_BLOCKS_MAX) });
	timer_cancel(s->env, &s->timer);
}

/* ---- life ---- */

int scrub_start(struct env *env, struct catalog *catalog, struct segment_server *dir, struct server *server, const struct scrub_options *options,
		struct scrub **ret)
{
	struct scrub *s = calloc(1, sizeof *s);
	if (!s)
		return -ENOMEM;
	*s = (struct scrub){ .env = env, .mender = { env, catalog, dir, NULL }, .dir = dir, .server = server, .options = *options };
	s->options.period_ns = s->options.period_ns ? s->options.period_ns : PERIOD_NS;
	s->options.bytes_per_s = s->options.bytes_per_s ? s->options.bytes_per_s : RATE;
	timer_init(&s->timer);
	fiber_cond_init(&s->ended_cond);
	s->running = true;
	int r = fiber_start(&env->loop, scrub_fiber, s, NULL);
	if (r < 0) {
		free(s);
		return r;
	}
	server_scrubber(server, handle, s);
	segment_dir_on_damage(dir, found_here, s);
	*ret = s;
	return 0;
}

void scrub_stop(struct scrub *s)
{
	if (!s)
		return;
	server_scrubber(s->server, NULL, NULL);
	segment_dir_on_damage(s->dir, NULL, NULL);
	s->closing = true;
	timer_cancel(s->env, &s->timer);
	while (s->running)
		fiber_cond_wait(&s->env->loop, &s->ended_cond);
	free(s);
}
