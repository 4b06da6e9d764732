/* Scenario `operator`: everything an operator can ask of a store, in any order, while volumes are written.
 *
 * Three or four servers that rebuild and collect garbage, two volumes that are attached and written, and a desk from which the store's operations
 * are called: volumes, snapshots, clones, imports, differences, servers, agents, status, check, scrub, gc, a backup. In half of the seeds
 * the world is calm: then each of them must succeed, and check and status find nothing wrong. In the others servers are
 * killed, stopped and cut off, connections end, and transactions have unknown outcomes; then they may fail, but what there is is what it was. Contents are one
 * byte for each block, so every snapshot, clone and difference is compared with what it must be. In half of them desk and attached volumes are
 * programs' own: opened by the configuration and the catalog's URL, by the driver, with leases (operator_program.c). At the end the catalog is
 * damaged, which check must find, and moved (operator_catalog.c), or lost (operator_lost.c). */
#include <errno.h>
#include <stdlib.h>
#include <string.h>

#include "core/fiber.h"
#include "parallax/store/store_status.h"
#include "tests/sim/catalog_url.h"
#include "tests/sim/operator.h"
#include "tests/sim/pieces.h"

/* ---- contents ---- */

static void compare(struct operator_world *w, const char *what, const struct contents *c, unsigned block, const uint8_t *b)
{
	for (unsigned i = 0; i < BLOCK_BYTES; i++)
		if (b[i] != c->byte[block] && (contents_sure(c, block) || b[i] != c->unsure_byte || b[i] != b[0])) {
			FAIL(w, "%s: block %u has %u instead of %u", what, block, b[i], c->byte[block]);
			return;
		}
}

/* A block that is said to be a hole reads as zeroes. */
static int map_node(struct operator_world *w, const char *what, struct blk_node *n, const struct contents *c)
{
	bool *holes = calloc(BLOCKS_MAX * (BLOCK_BYTES / 512), sizeof *holes);
	int r = pieces_map(n, 0, (uint64_t)c->blocks * BLOCK_BYTES, holes);
	for (unsigned i = 0; r == 0 && i < c->blocks * (BLOCK_BYTES / 512); i++)
		if (holes[i] && c->byte[i / (BLOCK_BYTES / 512)] && contents_sure(c, i / (BLOCK_BYTES / 512)))
			FAIL(w, "%s: block %u has %u, and is said to be a hole", what, i / (BLOCK_BYTES / 512), c->byte[i / (BLOCK_BYTES / 512)]);
	free(holes);
	return r;
}

int read_node(struct operator_world *w, const char *what, struct blk_node *n, const struct contents *c)
{
	uint8_t *b = env_alloc_aligned(BLOCK_BYTES);
	int r = map_node(w, what, n, c);
	for (unsigned block = 0; r == 0 && block < c->blocks && !w->run->failed; block++) {
		r = pieces_read(w->sim, n, b, BLOCK_BYTES, (uint64_t)block * BLOCK_BYTES);
		if (r == 0)
			compare(w, what, c, block, b);
	}
	free(b);
	return r;
}

/* ---- attached volumes ---- */

static int write_block(struct blk_node *n, unsigned block, uint8_t byte)
{
	uint8_t *b = env_alloc_aligned(BLOCK_BYTES);
	memset(b, byte, BLOCK_BYTES);
	int r = blk_write_wait(n, b, BLOCK_BYTES, (uint64_t)block * BLOCK_BYTES, 0);
	free(b);
	return r;
}

static int change(struct operator_world *w, struct blk_node *n, struct contents *c)
{
	unsigned block = (unsigned)draw(w, c->blocks), count = 1 + (unsigned)draw(w, 6);
	count = MIN(count, c->blocks - block);
	bool discards = draw(w, 6) == 0;
	uint8_t byte = discards ? 0 : (uint8_t)(1 + draw(w, 255));
	int r = 0;
	c->unsure = block;
	c->unsure_count = count;
	c->unsure_byte = byte;
	if (discards)
		r = blk_op_wait(n, BLK_ZERO, (uint64_t)block * BLOCK_BYTES, (uint64_t)count * BLOCK_BYTES, 0);
	for (unsigned i = 0; !discards && r == 0 && i < count; i++)
		r = write_block(n, block + i, byte);
	if (r == 0)
		memset(c->byte + block, byte, count);
	c->unsure_count = r == 0 ? 0 : count;
	return r == 0 && draw(w, 8) == 0 ? blk_op_wait(n, BLK_FLUSH, 0, 0, 0) : r;
}

static int seat_run(void *arg)
{
	struct seat *s = arg;
	struct operator_world *w = s->w;
	struct report report = { "" };
	int r = operator_open(w, &s->o, s->volume->name, &report);
	if (r < 0) {
		FAIL(w, "attaching %s: %s", s->volume->name, report_text(&report, r));
		return r;
	}
	s->open = true;
	while (!s->stop && !w->run->failed && r == 0) {
		s->idle = s->still;
		if (!s->still)
			r = change(w, s->o.node, &s->volume->now);
		fiber_sleep(&s->o.env->loop, draw(w, 20 * NS_PER_MS));
	}
	if (r == 0 && !w->run->failed)
		r = read_node(w, s->volume->name, s->o.node, &s->volume->now);
	if (r < 0 && !w->losing)
		FAIL(w, "%s: a request failed: %d", s->volume->name, r);
	return r;
}

/* A request to an attached volume, carried out in its process. */
struct call {
	struct seat *seat;
	struct scenario_task task;
	const char *verb, *const *args;
	char *json;
	struct report report;
};

static int call_run(void *arg)
{
	struct call *c = arg;
	return volume_node_control(c->seat->o.node, c->verb, c->args, &c->json, &c->report);
}

static int holder_forward(void *arg, const struct store_holder *holder, const char *verb, const char *const *args, uint64_t deadline_ns, char **ret_json,
			  struct report *report)
{
	struct operator_world *w = arg;
	struct call c = { .verb = verb, .args = args };
	(void)deadline_ns;
	for (unsigned i = 0; i < ATTACHED; i++)
		if (w->seats[i].open && strcmp(w->seats[i].control, holder->control) == 0)
			c.seat = &w->seats[i];
	if (!c.seat)
		return report_set(report, -ECONNREFUSED, "nobody is there");
	scenario_task_start(&c.task, c.seat->o.env, call_run, &c);
	while (!c.task.ended) /* both live until the end */
		fiber_sleep(&w->desk.env->loop, NS_PER_MS);
	if (c.task.status < 0 && report)
		*report = c.report;
	*ret_json = c.json;
	return c.task.status;
}

static bool holder_alive(void *arg, const struct meta_owner *owner)
{
	struct operator_world *w = container_of((struct owner *)arg, struct operator_world, desk);
	for (unsigned i = 0; owner->state != OWNER_FREE && i < ATTACHED; i++)
		if (w->seats[i].open && strcmp(w->seats[i].control, owner->control) == 0)
			return true;
	return false;
}

struct seat *seat_of(struct operator_world *w, const struct known_volume *v)
{
	for (unsigned i = 0; i < ATTACHED; i++)
		if (w->seats[i].open && w->seats[i].volume == v)
			return &w->seats[i];
	return NULL;
}

static void hold_still(struct operator_world *w, bool still)
{
	for (unsigned i = 0; i < ATTACHED; i++) {
		struct seat *s = &w->seats[i];
		s->still = still;
		s->idle &= still;
		while (still && s->open && !s->idle && !w->run->failed)
			fiber_sleep(&w->desk.env->loop, NS_PER_MS);
	}
}

/* ---- what there is ---- */

struct known_volume *any_volume(struct operator_world *w, bool attached)
{
	for (unsigned n = 0; n < 20; n++) {
		struct known_volume *v = &w->volumes[draw(w, VOLUMES_MAX)];
		if (v->used && (attached || !seat_of(w, v)))
			return v;
	}
	return NULL;
}

struct known_volume *free_volume(struct operator_world *w)
{
	for (unsigned i = 0; i < VOLUMES_MAX; i++)
		if (!w->volumes[i].used)
			return &w->volumes[i];
	return NULL;
}

struct known_snapshot *any_snapshot(struct operator_world *w)
{
	for (unsigned n = 0; n < 20; n++) {
		struct known_snapshot *s = &w->snapshots[draw(w, SNAPSHOTS_MAX)];
		if (s->used)
			return s;
	}
	return NULL;
}

static unsigned free_snapshots(const struct operator_world *w)
{
	unsigned n = 0;
	for (unsigned i = 0; i < SNAPSHOTS_MAX; i++)
		n += !w->snapshots[i].used;
	return n;
}

static struct known_snapshot *free_snapshot(struct operator_world *w)
{
	for (unsigned i = 0; i < SNAPSHOTS_MAX; i++)
		if (!w->snapshots[i].used)
			return &w->snapshots[i];
	return NULL;
}

void new_name(struct operator_world *w, char ret[STORE_NAME_BYTES]) { snprintf(ret, STORE_NAME_BYTES, "n%u", w->next_name++); }
void snapshot_text(const struct known_snapshot *s, char ret[STORE_SNAPSHOT_NAME_BYTES])
{
	snprintf(ret, STORE_SNAPSHOT_NAME_BYTES, "%s@%s", s->of->name, s->name);
}

/* What can't be told any more isn't asked about; nor are its snapshots. */
static void forget(struct operator_world *w, struct known_volume *v)
{
	for (unsigned i = 0; i < SNAPSHOTS_MAX; i++)
		w->snapshots[i].used &= w->snapshots[i].of != v;
	v->used = false;
}

/* ---- reading ---- */

static int lookup(struct operator_world *w, struct volume_reader *d, unsigned block, struct pointer *ret)
{
	int r = -EAGAIN;
	while (r == -EAGAIN && !w->desk.env->dead) {
		struct job j;
		job_init(&j, &w->desk.env->loop);
		r = volume_reader_lookup(d, block, 1, ret, &j);
		if (r == -EAGAIN && (r = fiber_wait(&j)) == 0)
			r = -EAGAIN;
	}
	return r;
}

int read_mark(struct operator_world *w, const struct known_snapshot *s, uint64_t volume, uint64_t mark_seq)
{
	struct volume_reader_open how = { .catalog = w->desk.catalog, .places = &w->desk.store.places->ops, .cache_bytes = 1 << 20, .volume = volume, .mark_seq = mark_seq };
	struct volume_reader *d;
	uint8_t *b = env_alloc_aligned(BLOCK_BYTES);
	int r = store_want_root(w->desk.store.places, how.volume, how.mark_seq, &w->desk.store, NULL);
	if (r == 0 && (r = volume_reader_open(w->desk.env, &how, &d, NULL)) == 0) {
		for (unsigned block = 0; r == 0 && block < s->was.blocks && !w->run->failed; block++) {
			struct pointer p = { 0 };
			memset(b, 0, BLOCK_BYTES);
			r = lookup(w, d, block, &p);
			if (r == 0 && p.position)
				r = sources_read_wait(volume_reader_sources(d), &p, b);
			if (r == 0)
				compare(w, s->name, &s->was, block, b);
		}
		volume_reader_close(d);
	}
	free(b);
	return r;
}

int read_snapshot(struct operator_world *w, const struct known_snapshot *s)
{
	uint64_t volume, mark_seq;
	int r = store_find_snapshot(w->desk.store.places, s->of->name, s->name, &volume, &mark_seq, NULL);
	return r ? r : read_mark(w, s, volume, mark_seq);
}

/* Opens one that nobody has, at the desk, changes something, and reads all. */
int use_volume(struct operator_world *w, struct known_volume *v, const char *name)
{
	struct report report = { "" };
	int r = operator_open(w, &w->desk, name, &report);
	if (r == 0)
		r = read_node(w, name, w->desk.node, &v->now);
	for (uint64_t n = draw(w, 30); r == 0 && n > 0; n--)
		r = change(w, w->desk.node, &v->now);
	int closed = owner_close(&w->desk);
	r = r ? r : closed;
	expect(w, r, "using", name, &report);
	return r;
}

/* ---- volumes ---- */

static void command_create(struct operator_world *w, struct report *report)
{
	struct known_volume *v = free_volume(w);
	struct store_volume_options o = { .size_bytes = (60 + draw(w, 200)) * BLOCK_BYTES };
	char name[STORE_NAME_BYTES];
	if (!v)
		return;
	new_name(w, name);
	if (!expect(w, store_volume_create(&w->desk.store, name, &o, report), "creating", name, report))
		return;
	*v = (struct known_volume){ .used = true, .now.blocks = (unsigned)(o.size_bytes / BLOCK_BYTES) };
	strcpy(v->name, name);
	report->text[0] = '\0';
	refused(w, store_volume_create(&w->desk.store, name, &o, report), "a second of its name", report);
}

static void command_use(struct operator_world *w, struct report *report)
{
	struct known_volume *v = any_volume(w, /* attached= */ false);
	(void)report;
	if (v && use_volume(w, v, v->name) < 0)
		forget(w, v); /* what was being written may be there */
}

static void command_import(struct operator_world *w, struct report *report)
{
	struct known_volume *v = free_volume(w);
	struct store_volume_options o = { .size_bytes = (60 + draw(w, 60)) * BLOCK_BYTES };
	char temporary[STORE_NAME_BYTES], name[STORE_NAME_BYTES];
	if (!v)
		return;
	new_name(w, name);
	if (!expect(w, store_import_begin(&w->desk.store, name, &o, temporary, report), "importing", name, report))
		return;
	*v = (struct known_volume){ .now.blocks = (unsigned)(o.size_bytes / BLOCK_BYTES) };
	int r = use_volume(w, v, temporary);
	if (r < 0 || draw(w, 3) == 0) {
		store_import_cancel(&w->desk.store, temporary);
		return;
	}
	if (!expect(w, store_import_end(&w->desk.store, temporary, name, report), "the end of importing", name, report))
		return;
	strcpy(v->name, name);
	v->used = true;
}

static void command_resize(struct operator_world *w, struct report *report)
{
	struct known_volume *v = any_volume(w, /* attached= */ true);
	if (!v)
		return;
	unsigned blocks = (unsigned)(v->now.blocks / 2 + draw(w, v->now.blocks)) + 8;
	blocks = MIN(blocks, (unsigned)BLOCKS_MAX);
	hold_still(w, true);
	if (blocks < v->now.blocks)
		refused(w, store_volume_resize(&w->desk.store, v->name, (uint64_t)blocks * BLOCK_BYTES, /* force= */ false, report), "shrinking", report);
	report->text[0] = '\0';
	struct seat *s = seat_of(w, v);
	int r = store_volume_resize(&w->desk.store, v->name, (uint64_t)blocks * BLOCK_BYTES, /* force= */ true, report);
	if (!expect(w, r, "resizing", v->name, report) && s)
		blocks = (unsigned)(volume_size(s->o.volume) / BLOCK_BYTES); /* its holder knows whether it was done */
	if (r < 0 && !s)
		forget(w, v);
	for (unsigned i = v->now.blocks; i < blocks; i++)
		v->now.byte[i] = 0;
	v->now.blocks = blocks;
	hold_still(w, false);
}

static void command_rename(struct operator_world *w, struct report *report)
{
	struct known_volume *v = any_volume(w, /* attached= */ draw(w, 4) == 0);
	char name[STORE_NAME_BYTES];
	if (!v)
		return;
	new_name(w, name);
	int r = store_volume_rename(&w->desk.store, v->name, name, report);
	if (seat_of(w, v))
		refused(w, r, "renaming what is attached", report);
	else if (expect(w, r, "renaming", v->name, report))
		strcpy(v->name, name);
	else
		forget(w, v);
}

static void command_delete(struct operator_world *w, struct report *report)
{
	struct known_volume *v = any_volume(w, /* attached= */ draw(w, 4) == 0);
	if (!v)
		return;
	int r = store_volume_delete(&w->desk.store, v->name, /* with_snapshots= */ true, report);
	if (seat_of(w, v))
		refused(w, r, "deleting what is attached", report);
	else if (expect(w, r, "deleting", v->name, report) || true)
		forget(w, v);
}

struct listing {
	struct operator_world *w;
	unsigned seen;
};

static int list_volume(void *arg, const struct store_volume *v)
{
	struct listing *l = arg;
	for (unsigned i = 0; i < VOLUMES_MAX; i++) {
		const struct known_volume *k = &l->w->volumes[i];
		if (!k->used || strcmp(k->name, v->name) != 0)
			continue;
		l->seen++;
		if (v->size_bytes != (uint64_t)k->now.blocks * BLOCK_BYTES && (l->w->calm || !seat_of(l->w, k)))
			FAIL(l->w, "%s is shown with %llu bytes, and has %u blocks", v->name, (unsigned long long)v->size_bytes, k->now.blocks);
		if ((v->state == STORE_HELD) != (seat_of(l->w, k) != NULL))
			FAIL(l->w, "%s is shown as %s", v->name, store_state_name(v->state));
	}
	return 0;
}

/* A segment that was made while a server didn't know the newest map of servers has a copy less, and is left in some seconds (log_leave.c). */
static bool show_settled(struct operator_world *w, const char *name, struct store_volume *ret, struct report *report)
{
	for (unsigned attempt = 0; attempt < 6; attempt++) {
		if (!expect(w, store_volume_show(&w->desk.store, name, ret, report), "showing", name, report))
			return false;
		if (!w->calm || !strstr(ret->health, " have fewer than "))
			break;
		fiber_sleep(&w->desk.env->loop, 10 * NS_PER_S);
	}
	return true;
}

static void command_list(struct operator_world *w, struct report *report)
{
	struct listing l = { .w = w };
	unsigned used = 0;
	for (unsigned i = 0; i < VOLUMES_MAX; i++)
		used += w->volumes[i].used;
	if (expect(w, store_volume_list(&w->desk.store, list_volume, &l, report), "listing", "volumes", report) && l.seen != used)
		FAIL(w, "%u of %u volumes are listed", l.seen, used);
	struct known_volume *v = any_volume(w, /* attached= */ true);
	struct store_volume shown;
	struct store_holder holder;
	report->text[0] = '\0';
	if (v && show_settled(w, v->name, &shown, report)) {
		list_volume(&l, &shown);
		if (w->calm && strcmp(shown.health, "good") != 0)
			FAIL(w, "%s is shown as %s", v->name, shown.health);
	}
	if (v && (store_volume_holder(&w->desk.store, v->name, &holder, report) == 0) != (seat_of(w, v) != NULL) && w->calm)
		FAIL(w, "%s: %s", v->name, report->text);
}

/* ---- snapshots ---- */

static void command_snapshot(struct operator_world *w, struct report *report)
{
	char texts[VOLUMES_MAX][STORE_SNAPSHOT_NAME_BYTES];
	const char *list[VOLUMES_MAX];
	struct known_snapshot *made[VOLUMES_MAX];
	unsigned count = 0, wanted = draw(w, 2) ? 1 : 4, most = MIN(free_snapshots(w), wanted);
	hold_still(w, true);
	for (unsigned i = 0, first = (unsigned)draw(w, VOLUMES_MAX); i < VOLUMES_MAX && count < most; i++) {
		struct known_volume *v = &w->volumes[(first + i) % VOLUMES_MAX];
		if (!v->used)
			continue;
		struct known_snapshot *s = made[count] = free_snapshot(w);
		*s = (struct known_snapshot){ .used = true, .of = v, .was = v->now };
		new_name(w, s->name);
		snapshot_text(s, texts[count]);
		list[count] = texts[count];
		count++;
	}
	if (count && !expect(w, store_snapshot_create(&w->desk.store, list, count, report), "snapshot", texts[0], report))
		for (unsigned i = 0; i < count; i++)
			made[i]->used = false; /* it may be there; then it is shown by nobody but check */
	hold_still(w, false);
}

static int list_snapshot(void *arg, const struct store_snapshot *s)
{
	struct listing *l = arg;
	for (unsigned i = 0; i < SNAPSHOTS_MAX; i++) {
		const struct known_snapshot *k = &l->w->snapshots[i];
		if (!k->used || strcmp(k->of->name, s->volume) != 0 || strcmp(k->name, s->name) != 0)
			continue;
		l->seen++;
		if (s->size_bytes != (uint64_t)k->was.blocks * BLOCK_BYTES)
			FAIL(l->w, "%s@%s is listed with %llu bytes", s->volume, s->name, (unsigned long long)s->size_bytes);
	}
	return 0;
}

static void command_list_snapshots(struct operator_world *w, struct report *report)
{
	struct known_volume *v = draw(w, 2) ? any_volume(w, /* attached= */ true) : NULL;
	struct listing l = { .w = w };
	unsigned used = 0;
	for (unsigned i = 0; i < SNAPSHOTS_MAX; i++)
		used += w->snapshots[i].used && (!v || w->snapshots[i].of == v);
	if (expect(w, store_snapshot_list(&w->desk.store, v ? v->name : NULL, list_snapshot, &l, report), "listing", "snapshots", report) && l.seen != used)
		FAIL(w, "%u of %u snapshots are listed", l.seen, used);
}

static void command_read_snapshot(struct operator_world *w, struct report *report)
{
	struct known_snapshot *s = any_snapshot(w);
	if (s)
		expect(w, read_snapshot(w, s), "reading", s->name, report);
}

static void command_delete_snapshot(struct operator_world *w, struct report *report)
{
	struct known_snapshot *s = any_snapshot(w);
	char text[STORE_SNAPSHOT_NAME_BYTES];
	if (!s)
		return;
	snapshot_text(s, text);
	s->used = false;
	expect(w, store_snapshot_delete(&w->desk.store, text, report), "deleting", text, report);
}

static void command_clone(struct operator_world *w, struct report *report)
{
	struct known_snapshot *s = any_snapshot(w);
	struct known_volume *v = free_volume(w);
	char text[STORE_SNAPSHOT_NAME_BYTES], name[STORE_NAME_BYTES];
	if (!s || !v)
		return;
	snapshot_text(s, text);
	new_name(w, name);
	if (!expect(w, store_clone(&w->desk.store, text, name, report), "cloning", text, report))
		return;
	*v = (struct known_volume){ .used = true, .now = s->was };
	strcpy(v->name, name);
}

static void command_rollback(struct operator_world *w, struct report *report)
{
	struct known_snapshot *s = any_snapshot(w);
	char text[STORE_SNAPSHOT_NAME_BYTES];
	if (!s)
		return;
	snapshot_text(s, text);
	int r = store_snapshot_rollback(&w->desk.store, text, report);
	if (seat_of(w, s->of))
		refused(w, r, "rolling back what is attached", report);
	else if (expect(w, r, "rolling back to", text, report))
		s->of->now = s->was;
	else
		forget(w, s->of);
}

/* ---- differences ---- */

struct difference {
	struct operator_world *w;
	struct contents from, to;
	bool in[BLOCKS_MAX];
	uint64_t end;
};

static int note_extent(void *arg, const struct store_extent *e)
{
	struct difference *d = arg;
	if (e->offset < d->end || e->length == 0 || e->offset + e->length > (uint64_t)MAX(d->from.blocks, d->to.blocks) * BLOCK_BYTES)
		FAIL(d->w, "diff: an extent at %llu of %llu bytes", (unsigned long long)e->offset, (unsigned long long)e->length);
	for (uint64_t at = e->offset; at < e->offset + e->length && at / BLOCK_BYTES < BLOCKS_MAX; at += BLOCK_BYTES) {
		d->in[at / BLOCK_BYTES] = true;
		if (!e->data && at / BLOCK_BYTES < d->to.blocks && d->to.byte[at / BLOCK_BYTES])
			FAIL(d->w, "diff: block %u is said to be zeroes", (unsigned)(at / BLOCK_BYTES));
	}
	d->end = e->offset + e->length;
	return 0;
}

static void command_diff(struct operator_world *w, struct report *report)
{
	struct known_snapshot *s = any_snapshot(w), *t = NULL;
	char from[STORE_SNAPSHOT_NAME_BYTES], to[STORE_SNAPSHOT_NAME_BYTES];
	if (!s)
		return;
	for (unsigned i = 0; i < SNAPSHOTS_MAX && draw(w, 2); i++)
		if (w->snapshots[i].used && w->snapshots[i].of == s->of && &w->snapshots[i] != s)
			t = &w->snapshots[i];
	snapshot_text(s, from);
	t ? snapshot_text(t, to) : (void)snprintf(to, sizeof to, "%s", s->of->name);
	hold_still(w, true);
	struct difference d = { .w = w, .from = s->was, .to = t ? t->was : s->of->now };
	int r = store_diff(&w->desk.store, from, to, note_extent, &d, report);
	for (unsigned i = 0; r == 0 && i < MIN(d.from.blocks, d.to.blocks); i++)
		if (!d.in[i] && d.from.byte[i] != d.to.byte[i])
			FAIL(w, "diff of %s and %s: block %u differs, and isn't in it", from, to, i);
	if (r < 0 && w->calm && !report->text[0])
		FAIL(w, "diff of %s and %s: %d", from, to, r);
	hold_still(w, false);
}

/* ---- all of it ---- */

#define COMMAND(what) { #what, command_##what }
static const struct {
	const char *name;
	void (*run)(struct operator_world *w, struct report *report);
} commands[] = {
	COMMAND(create), COMMAND(use), COMMAND(use), COMMAND(import), COMMAND(import_killed), COMMAND(attach_snapshot), COMMAND(ask_seats), COMMAND(resize), COMMAND(rename), COMMAND(delete), COMMAND(set),
	COMMAND(list), COMMAND(snapshot), COMMAND(snapshot), COMMAND(snapshot), COMMAND(list_snapshots), COMMAND(read_snapshot),
	COMMAND(delete_snapshot), COMMAND(clone), COMMAND(rollback), COMMAND(diff), COMMAND(diff), COMMAND(check), COMMAND(scrub),
	COMMAND(gc), COMMAND(status), COMMAND(servers), COMMAND(agents), COMMAND(backup),
};

static int desk_run(void *arg)
{
	struct operator_world *w = arg;
	for (uint64_t n = 20 + draw(w, 40); n > 0 && !w->run->failed; n--) {
		struct report report = { "" };
		unsigned which = (unsigned)draw(w, ARRAY_COUNT(commands));
		commands[which].run(w, &report);
		sim_note(w->sim, "%s: %s", commands[which].name, report.text);
		if (!w->programs && draw(w, 12) == 0)
			keep_backup(w);
		if (draw(w, 4) == 0)
			fiber_sleep(&w->desk.env->loop, draw(w, 3 * NS_PER_S));
	}
	return 0;
}

/* Everything is well again; what there is is what it must be, and nothing is found wrong. */
static int end_run(void *arg)
{
	struct operator_world *w = arg;
	struct report report = { "" };
	w->calm = true;
	for (unsigned i = 0; i < w->server_count; i++) { /* nothing is drained any more */
		struct store_server found;
		if (store_server_find(&w->desk.store, w->servers[i].address, &found, &report) == 0)
			store_server_drain(&w->desk.store, found.id, /* undo= */ true, /* force= */ true, &report);
	}
	store_reap(&w->desk.store);
	fiber_sleep(&w->desk.env->loop, 60 * NS_PER_S);
	for (unsigned i = 0; i < VOLUMES_MAX && !w->run->failed; i++) {
		struct known_volume *v = &w->volumes[i];
		if (v->used && !seat_of(w, v))
			use_volume(w, v, v->name);
	}
	for (unsigned i = 0; i < SNAPSHOTS_MAX && !w->run->failed; i++)
		if (w->snapshots[i].used)
			expect(w, read_snapshot(w, &w->snapshots[i]), "reading", w->snapshots[i].name, NULL);
	report.text[0] = '\0';
	if (!w->run->failed)
		command_check(w, &report);
	struct store_status *t = NULL;
	if (!w->run->failed && expect(w, store_status(&w->desk.store, &t, &report), "status of", "all", &report))
		judge_status(w, t, /* settled= */ false);
	store_status_free(t);
	if (!w->run->failed && draw(w, 2))
		damage_catalog(w);
	if (!w->run->failed && w->programs)
		move_catalog(w);
	return 0;
}

static int seat_close(void *arg) { return owner_close(&((struct seat *)arg)->o); }

static bool all_open(const struct operator_world *w)
{
	for (unsigned i = 0; i < ATTACHED; i++)
		if (!w->seats[i].open)
			return false;
	return true;
}

static int begin_run(void *arg)
{
	struct operator_world *w = arg;
	struct report report = { "" };
	for (unsigned i = 0; i < ATTACHED; i++) {
		struct known_volume *v = &w->volumes[i];
		struct store_volume_options o = { .size_bytes = (100 + draw(w, 200)) * BLOCK_BYTES };
		snprintf(v->name, sizeof v->name, "v%u", i);
		v->now.blocks = (unsigned)(o.size_bytes / BLOCK_BYTES);
		v->used = true;
		int r = store_volume_create(&w->desk.store, v->name, &o, &report);
		if (r < 0)
			FAIL(w, "creating %s: %s", v->name, report_text(&report, r));
	}
	keep_backup(w);
	return 0;
}

static void seats_begin(struct operator_world *w)
{
	for (unsigned i = 0; i < ATTACHED; i++) {
		struct seat *s = &w->seats[i];
		*s = (struct seat){ .w = w, .volume = &w->volumes[i] };
		snprintf(s->control, sizeof s->control, "unix:/seat%u", i);
		owner_begin(&s->o, w->sim, w->host, w->catalogs, /* locks= */ false);
		s->o.control = s->control;
		scenario_task_start(&s->task, s->o.env, seat_run, s);
	}
	while (!w->run->failed && !all_open(w) && sim_step(w->sim))
		;
}

struct trouble {
	struct block_server *server; /* NULL: there is none with one */
	enum { KILLED, POWERLESS, PAUSED, CUT_OFF, KINDS } kind;
	struct sim_host *from, *to;  /* cut off, one way */
	bool outage;
};

/* The catalog is away, for longer than leases last or not: then whoever has a volume has it without one until he is heard again. */
static void outage(struct operator_world *w, struct trouble *t, bool begins)
{
	t->outage = begins;
	sim_note(w->sim, "the catalog is %s", begins ? "away" : "back");
	catalog_sim_outage(w->catalogs, begins);
}

static void trouble_begins(struct operator_world *w, struct trouble *t)
{
	if (w->programs && draw(w, 4) == 0) {
		outage(w, t, true);
		return;
	}
	static const char *const what[] = { "is killed", "loses power", "is paused", "is cut off" };
	struct sim_host *client = draw(w, 2) ? w->desk_host : w->host;
	bool hears = draw(w, 2);
	t->server = &w->servers[draw(w, w->server_count)];
	t->kind = draw(w, KINDS);
	t->from = hears ? t->server->host : client;
	t->to = hears ? client : t->server->host;
	sim_note(w->sim, "%s %s%s", t->server->domain, what[t->kind], t->kind != CUT_OFF ? "" : client == w->host ? " from the host" : " from the desk");
	switch (t->kind) {
	case KILLED: case POWERLESS: block_server_end(t->server, t->kind == POWERLESS); break;
	case PAUSED: sim_pause(t->server->env); break;
	case CUT_OFF: case KINDS: sim_partition(w->sim, t->from, t->to, true); break;
	}
}

static void server_well(struct operator_world *w, struct trouble *t)
{
	switch (t->kind) {
	case KILLED: case POWERLESS: block_server_begin(t->server, w->run, w->sim, w->catalogs); break;
	case PAUSED: sim_resume(t->server->env); break;
	case CUT_OFF: case KINDS: sim_partition(w->sim, t->from, t->to, false); break;
	}
	sim_note(w->sim, "%s is back", t->server->domain);
}

static void trouble_ends(struct operator_world *w, struct trouble *t)
{
	if (t->outage)
		outage(w, t, false);
	if (t->server)
		server_well(w, t);
	t->server = NULL;
	if (!w->removed)
		return;
	struct block_server *s = &w->servers[w->removed - 1];
	sim_note(w->sim, "%s is started again", s->domain);
	block_server_end(s, false);
	block_server_begin(s, w->run, w->sim, w->catalogs);
	w->removed = 0;
}

/* The desk works; servers have their troubles meanwhile, one at a time, unless it is calm. */
static void work(struct operator_world *w)
{
	uint64_t next = draw(w, 20000);
	struct trouble t = { .server = NULL };
	scenario_task_start(&w->task, w->desk.env, desk_run, w);
	for (uint64_t n = 0; !w->task.ended && !w->run->failed; n++) {
		if (n == STEPS_MAX || !sim_step(w->sim)) {
			FAIL(w, "a command doesn't end");
			break;
		}
		if (w->calm || n < next)
			continue;
		t.server || t.outage ? trouble_ends(w, &t) : trouble_begins(w, &t);
		next = n + draw(w, 40000);
	}
	trouble_ends(w, &t);
}

static void seat_end(struct operator_world *w, struct seat *s, bool killed)
{
	if (s->over)
		return;
	s->over = s->stop = true;
	if (!s->task.ended && !w->run->failed)
		scenario_step_until(w->run, w->sim, &s->task.ended, STEPS_MAX);
	if (!s->task.ended || killed)
		sim_kill(s->o.env);
	while (!s->task.ended)
		sim_drain_dead(s->o.env);
	sim_run_fiber(s->o.env, seat_close, s);
	owner_end(&s->o);
	s->open = false;
}

void seats_end(struct operator_world *w)
{
	hold_still(w, false);
	for (unsigned i = 0; i < ATTACHED; i++)
		seat_end(w, &w->seats[i], draw(w, 2));
}

void seats_go_on(struct operator_world *w) { hold_still(w, false); }

static void end_all(struct operator_world *w)
{
	hold_still(w, false);
	for (unsigned i = 0; i < ATTACHED; i++)
		seat_end(w, &w->seats[i], /* killed= */ false);
	if (w->task.ended == false && w->run->failed) {
		sim_kill(w->desk.env);
		while (!w->task.ended)
			sim_drain_dead(w->desk.env);
	}
	if (w->programs)
		programs_end(w);
	owner_end(&w->desk);
	for (unsigned i = 0; i < w->server_count; i++)
		if (w->servers[i].env)
			block_server_end(&w->servers[i], false);
}

static void operator_run(struct scenario_run *run)
{
	struct operator_world *w = calloc(1, sizeof *w);
	w->run = run;
	w->sim = scenario_sim(run, NULL);
	w->calm = draw(w, 2);
	w->catalogs = catalog_sim_create(w->sim);
	w->programs = draw(w, 2);
	catalog_sim_doses(w->catalogs)->leases = w->programs;
	catalog_sim_doses(w->catalogs)->watches = w->programs && draw(w, 2);
	w->limits = (struct volume_limits){ .cache_bytes = (32 + draw(w, 48)) * BLOCK_BYTES, .segment_blocks = 96 + (uint32_t)draw(w, 200),
		.replay_bytes = (64 + draw(w, 400)) * BLOCK_BYTES, .checkpoint_ns = (1 + draw(w, 50)) * 20 * NS_PER_MS, .window = 1 + (uint32_t)draw(w, 4) };
	owner_limit_indexes(run, &w->limits);
	if (draw(w, 4) == 0) /* so that who doesn't know that he lost his volume goes on for long */
		w->limits.checkpoint_ns *= 50;
	w->keeps = (struct keeper_options){ .round_ns = (1 + draw(w, 20)) * 100 * NS_PER_MS, .gc_ns = 10 * NS_PER_S, .gc_first_ns = NS_PER_S,
					    .manager_ns = 500 * NS_PER_MS, .lost_ns = 600 * NS_PER_S };
	w->host = sim_host_create(w->sim, "host", (uint64_t)64 << 20, 4096);
	w->desk_host = sim_host_create(w->sim, "desk", (uint64_t)64 << 20, 4096);
	w->server_count = 3 + (unsigned)draw(w, 2);
	for (unsigned i = 0; i < w->server_count; i++) {
		block_server_init(&w->servers[i], w->sim, i, (uint64_t)512 << 20);
		w->servers[i].keeps = &w->keeps;
		block_server_begin(&w->servers[i], w->run, w->sim, w->catalogs);
	}
	owner_begin(&w->desk, w->sim, w->desk_host, w->catalogs, /* locks= */ false);
	w->desk.places.ops.holder_alive = w->desk.places.ops.held_elsewhere = holder_alive;
	snprintf(w->desk.places.host, sizeof w->desk.places.host, "desk");
	if (w->programs)
		programs_begin(w);
	w->desk.store.forward = holder_forward;
	w->desk.store.forward_arg = w;
	sim_run_fiber(w->desk.env, begin_run, w);
	seats_begin(w);
	catalog_sim_doses(w->catalogs)->timeout = w->calm ? 0 : 30000;
	sim_doses(w->sim)->drop = !w->calm && draw(w, 3) == 0 ? 300 : 0;
	sim_doses(w->sim)->slow = !w->calm && draw(w, 2) ? 20000 : 0;
	if (!run->failed)
		work(w);
	catalog_sim_doses(w->catalogs)->timeout = sim_doses(w->sim)->drop = sim_doses(w->sim)->slow = 0;
	if (!run->failed) {
		for (unsigned i = 0; i < ATTACHED; i++)
			w->seats[i].still = true;
		sim_run_fiber(w->desk.env, end_run, w);
		if (!run->failed && !w->programs)
			lose_catalog(w);
	}
	end_all(w);
	catalog_image_free(&w->kept);
	catalog_sim_destroy(w->catalogs);
	scenario_end(run, w->sim);
	free(w);
}

const struct scenario scenario_operator = {
	.name = "operator",
	.summary = "an operator's commands, all there are, while volumes are written and servers die",
	.share = 10,
	.run = operator_run,
};
