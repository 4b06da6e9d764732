/* Scenario `volume`: the whole store through lives that end in every way.
 *
 * One volume, embedded or on one to four servers, small segments and small limits so that turnover,
 * checkpoints and packing of everything happen all the time. A life: open (recover), check the disk and
 * every snapshot against the oracle, then clients read, write, flush, discard and take and delete
 * snapshots, until the process is killed, the power fails, or it closes in order; servers have
 * troubles meanwhile (troubles.h), one after the other, or two at once. What ends a life, and a trouble's beginning, often come just after
 * something that the volume did (moments.h). Between lives: volume_commands.c. Checked: P1, P2, P3 by the oracle; I11 for every snapshot; I10 by recounting. */
#include <errno.h>
#include <stdlib.h>
#include <string.h>

#include "core/bytes.h"
#include "core/fiber.h"
#include "core/plant.h"
#include "parallax/store/verify.h"
#include "parallax/volume/volume_private.h"
#include "tests/sim/heal.h"
#include "tests/sim/pieces.h"
#include "tests/sim/volume_world.h"

/* ---- clients ---- */

/* A failed request is right only when something was broken, or there is no more space. */
static void note_failure(struct volume_world *w, int status)
{
	if (status < 0)
		w->io_failed = true;
}

/* It ended, as a catalog that takes nothing for long makes it (publish.c): who waits for something that it should do learns no more than that. */
static void note_end(struct volume_world *w)
{
	struct volume_counters n;
	volume_count(w->o.volume, &n);
	note_failure(w, n.failed);
}

/* So many servers were full, or counted as lost, that there may have been too few for two copies; perhaps not any more: what is full
 * stays so until the next attempt, which may wait for the catalog. */
static bool may_lack_room(const struct volume_world *w)
{
	const struct placement *map = &w->o.volume->copies->map;
	bool few = map->revision != w->map_revision;
	for (uint32_t i = 0; i < map->group_count; i++)
		few |= map->groups[i].target_count < w->replicas;
	return w->troubles.no_room || (w->troubles.filled && few);
}

/* A server that is away, killed or cut off, makes requests wait; it fails none, unless they are to wait for so long only. */
static void note_io(struct volume_world *w, int status, uint64_t began_ns)
{
	status = scenario_gave_up(w->run, w->o.env->dead ? NULL : w->sim, status, began_ns, w->io_timeout_ms) ? 0 : status;
	note_failure(w, status);
	if (status < 0 && w->remote && !w->faults && !w->may_fail && !w->o.env->dead && !(status == -ENOSPC && may_lack_room(w)))
		FAIL(w, "life %u: a request failed (%d), and nothing but connections had, nor were two servers full", LIFE(w), status);
}

static uint32_t pick_range(struct volume_world *w, uint32_t *ret_count)
{
	uint32_t sectors = oracle_sectors(w->oracle), count = 1 + (uint32_t)draw(w, draw(w, 4) ? 16 : OP_SECTORS_MAX);
	uint32_t first = (uint32_t)draw(w, draw(w, 2) ? 64 : sectors);
	if (draw(w, 2)) { /* whole blocks */
		first = first / 8 * 8;
		count = (uint32_t)round_up(count, 8);
	}
	first = MIN(first, sectors - 1);
	*ret_count = MIN(count, sectors - first);
	return first;
}

static void client_write(struct volume_world *w, bool zero)
{
	uint32_t count, first = pick_range(w, &count);
	uint8_t *b = zero ? NULL : env_alloc_aligned((size_t)count * ORACLE_SECTOR);
	unsigned flags = draw(w, 8) == 0 ? BLK_FUA : 0;
	uint64_t began_ns = sim_now_ns(w->sim), id = oracle_write_begin(w->oracle, first, count, zero, b);
	int r = zero ? blk_op_wait(w->o.node, draw(w, 2) ? BLK_ZERO : BLK_DISCARD, (uint64_t)first * ORACLE_SECTOR, (uint64_t)count * ORACLE_SECTOR, flags)
		     : pieces_write(w->sim, w->o.node, b, (uint64_t)count * ORACLE_SECTOR, (uint64_t)first * ORACLE_SECTOR, flags);
	if (!w->o.env->dead)
		oracle_write_end(w->oracle, id, r == 0, flags & BLK_FUA);
	note_io(w, r, began_ns);
	free(b);
}

static void client_read(struct volume_world *w)
{
	uint32_t count, first = pick_range(w, &count);
	uint8_t *b = env_alloc_aligned((size_t)count * ORACLE_SECTOR);
	uint64_t began = oracle_now(w->oracle), began_ns = sim_now_ns(w->sim);
	int r = pieces_read(w->sim, w->o.node, b, (uint64_t)count * ORACLE_SECTOR, (uint64_t)first * ORACLE_SECTOR);
	const char *why = r == 0 && !w->o.env->dead ? oracle_read(w->oracle, first, count, b, began) : NULL;
	if (why)
		FAIL(w, "life %u: %s", LIFE(w), why);
	note_io(w, r, began_ns);
	free(b);
}

/* What is said to be a hole reads as zeroes. */
static void client_map(struct volume_world *w)
{
	uint32_t sectors = oracle_sectors(w->oracle), first = (uint32_t)draw(w, sectors), count = 1 + (uint32_t)draw(w, sectors - first);
	uint8_t zeroes[ORACLE_SECTOR] = { 0 };
	bool *holes = calloc(count, sizeof *holes);
	uint64_t began = oracle_now(w->oracle), began_ns = sim_now_ns(w->sim);
	int r = pieces_map(w->o.node, (uint64_t)first * ORACLE_SECTOR, (uint64_t)count * ORACLE_SECTOR, holes);
	for (uint32_t i = 0; r == 0 && !w->o.env->dead && i < count; i++) {
		const char *why = holes[i] ? oracle_read(w->oracle, first + i, 1, zeroes, began) : NULL;
		if (why)
			FAIL(w, "life %u: a hole: %s", LIFE(w), why);
	}
	if (r == -EPROTO)
		FAIL(w, "life %u: the map of %u sectors from %u isn't one", LIFE(w), count, first);
	note_io(w, r, began_ns);
	free(holes);
}

static void client_flush(struct volume_world *w)
{
	uint64_t began = oracle_now(w->oracle), began_ns = sim_now_ns(w->sim);
	int r = blk_op_wait(w->o.node, BLK_FLUSH, 0, 0, 0);
	if (r == 0 && !w->o.env->dead)
		oracle_flushed(w->oracle, began);
	note_io(w, r, began_ns);
}

static struct snapshot *snapshot_free_slot(struct volume_world *w)
{
	for (unsigned i = 0; i < SNAPSHOTS_MAX; i++) {
		struct snapshot *s = &w->snapshots[i];
		if (s->used && (!s->doomed || s->users || s == w->rolling_back))
			continue;
		free(s->bytes);
		s->bytes = NULL;
		return s;
	}
	return NULL;
}

static void client_snapshot(struct volume_world *w)
{
	struct snapshot *s = snapshot_free_slot(w);
	if (!s)
		return;
	*s = (struct snapshot){ .used = true, .began = oracle_now(w->oracle), .ended = UINT64_MAX };
	snprintf(s->name, sizeof s->name, "s%u", w->next_name++);
	struct report report = { "" };
	int r = volume_snapshot(w->o.volume, s->name, &report);
	if (w->o.env->dead)
		return;
	s->ended = oracle_now(w->oracle);
	s->acked = r == 0;
	if (r == 0)
		oracle_flushed(w->oracle, s->began);
	note_failure(w, r);
}

static void client_delete_snapshot(struct volume_world *w)
{
	struct snapshot *s = &w->snapshots[draw(w, SNAPSHOTS_MAX)];
	uint64_t volume, mark;
	if (!s->used || !s->known || s->doomed)
		return;
	s->users++;
	if (store_find_snapshot(&w->o.places, "v", s->name, &volume, &mark, NULL) == 0) {
		s->doomed = true;
		if (store_doom_snapshot(&w->o.store, volume, mark) == 0)
			switch (draw(w, 3)) {
			case 0: note_failure(w, volume_checkpoint(w->o.volume)); break;
			case 1: volume_reap_soon(w->o.volume); break;
			default: break; /* the next owner, or another deletion */
			}
	}
	s->users--;
}

struct snapshot *known_snapshot(struct volume_world *w)
{
	for (unsigned n = 0; n < 8; n++) {
		struct snapshot *s = &w->snapshots[draw(w, SNAPSHOTS_MAX)];
		if (s->used && s->known && !s->doomed)
			return s;
	}
	return NULL;
}

static int snapshot_open(struct volume_world *w, uint64_t volume, uint64_t mark, struct volume_reader **ret)
{
	struct volume_reader_open how = { .catalog = w->o.catalog, .places = &w->o.places.ops, .volume = volume, .mark_seq = mark, .cache_bytes = 1 << 20 };
	return volume_reader_open(w->o.env, &how, ret, NULL);
}

static int snapshot_read(struct volume_world *w, struct volume_reader *d, uint8_t *bytes, uint64_t size)
{
	int r = 0;
	memset(bytes, 0, size);
	for (uint64_t block = 0; r == 0 && block < div_up(size, BLOCK_BYTES); block++) {
		struct pointer p;
		struct job j;
		do {
			job_init(&j, &w->o.env->loop);
			r = volume_reader_lookup(d, block, 1, &p, &j);
		} while (r == -EAGAIN && (r = fiber_wait(&j)) == 0 && (r = -EAGAIN) && !w->o.env->dead);
		if (r == 0 && p.position) {
			uint8_t *page = env_alloc_aligned(BLOCK_BYTES);
			r = sources_read_wait(volume_reader_sources(d), &p, page);
			memcpy(bytes + block * BLOCK_BYTES, page, MIN((uint64_t)BLOCK_BYTES, size - block * BLOCK_BYTES));
			free(page);
		}
	}
	return r;
}

static int read_snapshot(struct volume_world *w, uint64_t volume, uint64_t mark, uint8_t *bytes, uint64_t size)
{
	struct volume_reader *d;
	int r = snapshot_open(w, volume, mark, &d);
	if (r < 0)
		return r;
	r = snapshot_read(w, d, bytes, size);
	volume_reader_close(d);
	return r;
}

/* As another host does; it may be deleted meanwhile. */
static void client_read_snapshot(struct volume_world *w)
{
	struct snapshot *s = known_snapshot(w);
	uint64_t volume, mark; /* it may be one of before a rollback */
	char key[META_KEY_BYTES];
	if (!s)
		return;
	s->users++;
	if (store_find_snapshot(&w->o.places, "v", s->name, &volume, &mark, NULL) < 0 || owner_hold_snapshot(&w->o, volume, mark, key) < 0) {
		s->users--;
		return;
	}
	uint64_t size = (uint64_t)oracle_sectors(w->oracle) * ORACLE_SECTOR;
	uint8_t *bytes = malloc(size + BLOCK_BYTES);
	struct volume_reader *d;
	int r = snapshot_open(w, volume, mark, &d);
	bool opened = r == 0;
	for (unsigned n = 1 + (unsigned)draw(w, 4); r == 0 && n > 0 && !w->o.env->dead; n--) {
		if (draw(w, 2) && !s->doomed && (s->doomed = true) && store_doom_snapshot(&w->o.store, volume, mark) == 0)
			note_failure(w, volume_checkpoint(w->o.volume));
		fiber_sleep(&w->o.env->loop, draw(w, NS_PER_S));
		r = snapshot_read(w, d, bytes, size);
		if (r == 0 && memcmp(bytes, s->bytes, size))
			FAIL(w, "life %u: snapshot %s changed while it was read", LIFE(w), s->name);
		if (r < 0 && r != -ENOTCONN && r != -ETIMEDOUT && !(r == -EIO && w->io_timeout_ms) && !w->faults && !w->may_fail && !w->o.env->dead)
			FAIL(w, "life %u: snapshot %s, which is held, can't be read: %d", LIFE(w), s->name, r);
	}
	if (opened)
		volume_reader_close(d);
	owner_let_go(&w->o, key);
	s->users--;
	free(bytes);
}

/* What brings the moment about that this seed is about. */
static void client_favourite(struct volume_world *w)
{
	switch (w->favourite) {
	case MOMENT_FLUSH: client_flush(w); break;
	case MOMENT_SNAPSHOT: snapshot_free_slot(w) ? client_snapshot(w) : client_delete_snapshot(w); break;
	case MOMENT_CHECKPOINT: case MOMENT_TRIM: case MOMENT_PUBLISH: note_failure(w, volume_checkpoint(w->o.volume)); break;
	case MOMENT_ANY: case MOMENT_TURN: case MOMENT_MEND: break;
	}
}

static bool is_hurt(const struct volume_world *w) { return w->troubles.hurt || w->damaged; }

/* R15, whatever was lost: what counts has as many holders as there must be. But where a lost catalog's cuts were found again only those are listed that have not been damaged. */
static void check_cuts(struct volume_world *w)
{
	const struct meta_log *log = &w->o.volume->meta;
	if (w->found_again && w->damaged)
		return;
	for (uint32_t i = 0; i < log->segment_count; i++)
		if (log->segments[i].cut && log->segments[i].ensemble_count < log->min_replicas)
			FAIL(w, "life %u: segment %llu was cut with %u copies", LIFE(w), (unsigned long long)log->segments[i].id, log->segments[i].ensemble_count);
}

static void check_copies(struct volume_world *w)
{
	check_cuts(w);
	struct report report = { "" };
	if (is_hurt(w)) /* I3 is of holders that lost nothing */
		return;
	if (volume_verify_copies(w->o.volume, &report) == -EUCLEAN)
		FAIL(w, "life %u: copies: %s", LIFE(w), report.text);
}

static void look_for_room(struct volume_world *w) { troubles_look_for_room(&w->troubles, w->drained ? 1u << (w->drained - 1) : 0); }

static void client_drain(struct volume_world *w)
{
	bool undo = w->drained;
	if (!undo)
		w->drained = 1 + (unsigned)draw(w, w->server_count);
	look_for_room(w);
	struct report report = { "" };
	char id[33];
	id_text(&w->servers[w->drained - 1].id, id);
	w->drains = false; /* nobody else does meanwhile */
	w->drains = store_server_drain(&w->o.store, id, undo, /* force= */ true, &report) == 0 && !w->o.env->dead;
	if (w->drains && undo)
		w->drained = 0;
	for (unsigned n = (unsigned)draw(w, 60); n > 0 && !w->o.env->dead; n--) { /* while copies move */
		fiber_sleep(&w->o.env->loop, draw(w, NS_PER_S / 10));
		check_copies(w);
	}
}

static int client_run(void *arg)
{
	struct client *c = arg;
	struct volume_world *w = c->w;
	while (c->ops-- > 0 && !w->run->failed && !w->o.env->dead) {
		switch (draw(w, 32)) {
		case 0: client_snapshot(w); break;
		case 1: client_delete_snapshot(w); break;
		case 2: draw(w, 2) ? note_failure(w, volume_checkpoint(w->o.volume)) : client_read_snapshot(w); break;
		case 3: w->drains && draw(w, 2) ? client_drain(w) : client_flush(w); break;
		case 4: case 5: w->few_flushes && draw(w, 8) ? client_write(w, false) : client_flush(w); break;
		case 6: case 7: case 8: client_write(w, true); break;
		case 9: draw(w, 2) ? client_map(w) : client_read(w); break;
		case 10: case 11: case 12: case 13: case 14: case 15: client_read(w); break;
		default: client_write(w, false); break;
		}
		if (draw(w, 12) == 0)
			client_favourite(w);
		if (draw(w, 4) == 0)
			fiber_sleep(&w->o.env->loop, draw(w, 2000000));
	}
	return 0;
}

/* ---- checking everything ---- */

/* The whole disk; asks again while the server is away. */
static int read_disk(struct volume_world *w, uint8_t **ret_bytes)
{
	uint64_t size = (uint64_t)oracle_sectors(w->oracle) * ORACLE_SECTOR;
	uint8_t *b = env_alloc_aligned(size);
	int r = 0;
	for (uint64_t at = 0; r == 0 && at < size; at += 256 << 10)
		for (unsigned attempt = 0; attempt < 100; attempt++) {
			r = blk_read_wait(w->o.node, b + at, MIN(size - at, (uint64_t)256 << 10), at);
			if (r != -ENOTCONN && r != -ETIMEDOUT && !(r == -EIO && (w->io_timeout_ms || w->may_fail)))
				break;
			fiber_sleep(&w->o.env->loop, 100 * NS_PER_MS);
		}
	if (r < 0)
		free(b);
	else
		*ret_bytes = b;
	return r;
}

/* The snapshot's bytes, once it has its root. A catalog or a server that is away for a while is asked again. */
static int find_and_read(struct volume_world *w, struct snapshot *s, uint64_t *ret_mark, uint8_t *bytes, uint64_t size)
{
	uint64_t volume;
	int r = -ETIMEDOUT;
	for (unsigned attempt = 0; attempt < (w->faults ? 2 : 100) && (r == -ETIMEDOUT || r == -ENOTCONN || r == -EAGAIN) && !w->o.env->dead; attempt++) {
		if (attempt)
			fiber_sleep(&w->o.env->loop, 100 * NS_PER_MS);
		r = store_find_snapshot(&w->o.places, "v", s->name, &volume, ret_mark, NULL);
		if (r == 0 && s->ended == UINT64_MAX)
			s->ended = oracle_now(w->oracle);
		if (r == 0)
			r = store_want_root(&w->o.places, volume, *ret_mark, NULL, NULL);
		if (r == 0)
			r = read_snapshot(w, volume, *ret_mark, bytes, size);
		else if (r == -ENOENT)
			return r;
	}
	return r == -ENOENT ? -EIO : r;
}

static void check_snapshot(struct volume_world *w, struct snapshot *s, uint8_t *bytes, uint64_t size)
{
	uint64_t mark;
	int r = find_and_read(w, s, &mark, bytes, size);
	if (w->o.env->dead)
		return;
	if (r == -ENOENT && (s->acked || s->known))
		FAIL(w, "life %u: snapshot %s is gone", LIFE(w), s->name);
	if (r == -ENOENT) {
		s->used = false;
		return;
	}
	if (r < 0) {
		note_end(w);
		if (!w->io_failed && !w->faults && !w->may_fail)
			FAIL(w, "life %u: snapshot %s can't be read: %d", LIFE(w), s->name, r);
		return;
	}
	if (s->known) {
		if (memcmp(bytes, s->bytes, size))
			FAIL(w, "life %u: snapshot %s changed", LIFE(w), s->name);
		return;
	}
	const char *why = s->late ? NULL : oracle_snapshot(w->oracle, bytes, s->began, s->ended);
	if (why)
		FAIL(w, "life %u: snapshot %s: %s", LIFE(w), s->name, why);
	s->acked = s->known = true;
	s->mark = mark;
	s->bytes = malloc(size);
	memcpy(s->bytes, bytes, size);
}

/* Every snapshot shows what it always showed; what isn't known yet is checked against the oracle. */
static void check_snapshots(struct volume_world *w, bool all)
{
	uint64_t size = (uint64_t)oracle_sectors(w->oracle) * ORACLE_SECTOR;
	uint8_t *bytes = malloc(size + BLOCK_BYTES);
	for (unsigned i = 0; i < SNAPSHOTS_MAX && !w->run->failed && !w->o.env->dead; i++) {
		struct snapshot *s = &w->snapshots[i];
		if (s->used && !s->doomed && (all || !s->known))
			check_snapshot(w, s, bytes, size);
	}
	free(bytes);
}

static void check_space(struct volume_world *w)
{
	struct report report = { "" };
	if (!w->keeps.round_ns && is_hurt(w)) /* nobody tells that server what it has forgotten */
		return;
	int r = volume_verify_space(w->o.volume, &report);
	/* a copy that was made while a trim was on its way takes it from a peer soon after */
	for (unsigned i = 0; r == -EUCLEAN && w->keeps.round_ns && i < 60 && !w->o.env->dead; i++) {
		fiber_sleep(&w->o.env->loop, NS_PER_S);
		r = volume_verify_space(w->o.volume, &report);
	}
	if (r == -EUCLEAN)
		FAIL(w, "life %u: space: %s", LIFE(w), report.text);
}

/* ---- a life ---- */

static uint64_t disk_syncs_failed(const struct volume_world *w)
{
	uint64_t n = sim_disk_syncs_failed(w->host);
	for (unsigned i = 0; i < w->server_count; i++)
		n += sim_disk_syncs_failed(w->servers[i].host);
	return n;
}

/* Bits that are flipped on the way aren't the next time; and a catalog in a file that took nothing for ten seconds ended the attempt (publish.c). */
static bool may_open_later(const struct volume_world *w, int status, const struct report *report)
{
	if (status == 0 || status == -ESHUTDOWN)
		return false;
	return status != -EIO || w->may_fail || (!w->remote && strstr(report->text, "its record in the catalog can't be written"));
}

static int life_begin(void *arg)
{
	struct volume_world *w = arg;
	struct report report = { "" };
	int r = -ENOENT;
	if (w->life > 1 && !w->faults && !w->may_fail && !is_hurt(w))
		check_published(w);
	for (unsigned attempt = 0; attempt < 100 && !w->o.env->dead; attempt++) {
		owner_forget_holds(&w->o);
		struct store_volume_options o = { .size_bytes = w->size_bytes, .replicas = w->replicas, .min_replicas = w->min_replicas,
						  .io_timeout_ms = w->io_timeout_ms };
		report.text[0] = '\0';
		if (w->life == 1)
			r = store_volume_create(&w->o.store, "v", &o, &report);
		r = owner_open(&w->o, "v", &w->limits, /* force= */ false, &report);
		if (!may_open_later(w, r, &report))
			break;
		fiber_sleep(&w->o.env->loop, 100 * NS_PER_MS);
	}
	if (r < 0) {
		if (!w->faults && !w->o.env->dead)
			FAIL(w, "life %u: open: %s", LIFE(w), report_text(&report, r));
		return r;
	}
	check_copies(w);
	check_snapshots(w, false); /* before the oracle forgets what they are checked against */
	uint8_t *bytes;
	r = read_disk(w, &bytes);
	if (r < 0) {
		if (!w->faults && !w->o.env->dead)
			FAIL(w, "life %u: the disk can't be read: %d", LIFE(w), r);
		return r;
	}
	if (w->o.env->dead) { /* the life ended before it had read all, and its servers may have lost something since */
		free(bytes);
		return -ESHUTDOWN;
	}
	for (unsigned i = 0; i < SNAPSHOTS_MAX; i++)
		w->snapshots[i].late = w->snapshots[i].used && !w->snapshots[i].known;
	const char *why = NULL;
	if (disk_syncs_failed(w) > w->syncs_failed) /* also one that failed while this opened it, and broke the only copy */
		oracle_crash(w->oracle, /* power= */ true);
	if (w->rolling_back && memcmp(bytes, w->rolling_back->bytes, (size_t)oracle_sectors(w->oracle) * ORACLE_SECTOR) == 0)
		oracle_assume(w->oracle, bytes);
	else
		why = oracle_recovered(w->oracle, bytes);
	w->rolling_back = NULL;
	w->syncs_failed = disk_syncs_failed(w);
	w->lost_power = w->troubles.gone | w->damaged;
	if (why)
		FAIL(w, "life %u: %s", LIFE(w), why);
	free(bytes);
	if (draw(w, 3) == 0)
		check_snapshots(w, true);
	return 0;
}

/* In order: quiesce, recount, close. */
static int life_finish(void *arg)
{
	struct volume_world *w = arg;
	if (w->o.node && !w->o.env->dead) {
		check_snapshots(w, draw(w, 2));
		check_copies(w);
		if (volume_checkpoint(w->o.volume) == 0 && volume_checkpoint(w->o.volume) == 0)
			check_space(w);
		uint8_t *bytes;
		if (!w->run->failed && read_disk(w, &bytes) == 0) {
			const char *why = oracle_read(w->oracle, 0, oracle_sectors(w->oracle), bytes, oracle_now(w->oracle));
			if (why)
				FAIL(w, "life %u: at the end: %s", LIFE(w), why);
			free(bytes);
		}
	}
	return 0;
}

static bool clients_ended(const struct volume_world *w, unsigned count)
{
	for (unsigned i = 0; i < count; i++)
		if (!w->clients[i].task.ended)
			return false;
	return true;
}

enum life_end { LIFE_CLEAN, LIFE_KILL, LIFE_POWER };

/* As many as must have a copy are left, whichever server goes; unless disks that make errors break those. */
static bool may_go(const struct volume_world *w) { return !is_hurt(w) && !w->faults && w->replicas == 3 && w->min_replicas == 2; }

/* Enough copies are on others: only when as many servers as there must be copies have lost something may it be gone. */
static void server_lost(struct volume_world *w, unsigned server)
{
	w->lost_power |= 1u << server;
	if ((unsigned)__builtin_popcount(w->lost_power | w->troubles.gone) >= w->min_replicas)
		oracle_crash_server(w->oracle);
}

static void trouble(struct volume_world *w, const struct trouble *t)
{
	if (trouble_begins(&w->troubles, t))
		server_lost(w, t->server);
	look_for_room(w);
}

struct coming { /* a trouble that is to come, or is there */
	struct trouble trouble;
	struct due begins;
	uint64_t until;
	bool on;
};

/* Not the server that the other one is about. */
static struct trouble next_trouble(struct volume_world *w, const struct coming *other, uint64_t now)
{
	struct trouble t = { .kind = draw(w, TROUBLE_SPLIT), .server = w->server_count ? (unsigned)draw(w, w->server_count) : 0, .from = UINT64_MAX };
	if (w->troubles.kept && draw(w, 2)) /* it can go back in time */
		t.server = w->troubles.kept_of;
	if (other && t.server == other->trouble.server)
		t.server = (t.server + 1) % w->server_count;
	if (w->focused && draw(w, 4))
		t.kind = w->focus;
	bool ever = may_go(w) && !w->blackouts;
	if (ever && draw(w, 8) == 0)
		t.kind = TROUBLE_GONE;
	else if (w->cluster)
		trouble_draw_more(&w->troubles, &t, w->server_count, ever);
	if (w->server_count && (w->cluster || draw(w, 4)) && !(w->troubles.gone & 1u << t.server)) {
		t.from = now + draw(w, w->dense ? 300 : w->cluster ? 4000 : 20000);
		t.lasts = 1 + draw(w, draw(w, 2) ? 200 : w->dense ? 1000 : 15000);
	}
	return t;
}

static void coming_next(struct volume_world *w, struct coming coming[2], unsigned i, uint64_t now)
{
	coming[i].on = false;
	coming[i].trouble = next_trouble(w, w->two ? &coming[!i] : NULL, now);
	coming[i].begins = due_draw(w->sim, w->favourite, coming[i].trouble.from);
}

/* A server can't start without the catalog. */
static void coming_end(struct volume_world *w, struct coming coming[2], unsigned i, uint64_t now)
{
	struct coming *other = &coming[!i];
	if (other->on && other->trouble.kind == TROUBLE_CATALOG) {
		trouble_ends(&w->troubles, &other->trouble);
		coming_next(w, coming, !i, now);
	}
	trouble_ends(&w->troubles, &coming[i].trouble);
	coming_next(w, coming, i, now);
	check_cuts(w);
}

static void coming_step(struct volume_world *w, struct coming coming[2], unsigned i, uint64_t now)
{
	struct coming *c = &coming[i];
	if (!c->on && due_now(&c->begins, w->o.volume, now)) {
		if (c->trouble.kind >= TROUBLE_STALE && !may_go(w)) /* since it was drawn */
			c->trouble.kind = TROUBLE_POWER;
		trouble(w, &c->trouble);
		c->on = true;
		c->until = now + c->trouble.lasts;
	} else if (c->on && now >= c->until) {
		coming_end(w, coming, i, now);
	}
}

/* Servers look for what nobody lists while something is being listed. */
static void collect(struct volume_world *w, struct due *due, uint64_t now)
{
	if (!w->keeps.round_ns || !due_now(due, w->o.volume, now))
		return;
	for (unsigned i = 0; i < w->server_count; i++)
		if (w->servers[i].env && w->servers[i].keeper)
			keeper_gc(w->servers[i].keeper);
	*due = due_draw(w->sim, MOMENT_PUBLISH, now + draw(w, 2000));
}

/* Clients run; servers have their troubles meanwhile, one after the other, or two at a time. */
static void life_work(struct volume_world *w, enum life_end how)
{
	unsigned clients = 1 + (unsigned)draw(w, CLIENTS_MAX);
	struct due end = how == LIFE_CLEAN ? (struct due){ .from = STEPS_MAX } : due_draw(w->sim, w->favourite, draw(w, draw(w, 2) ? 2000 : 40000));
	struct due collects = due_draw(w->sim, MOMENT_PUBLISH, draw(w, 1000));
	struct coming coming[2] = { 0 };
	uint64_t backup = draw(w, 3) == 0 ? draw(w, 8000) : UINT64_MAX;
	unsigned at_once = w->two ? 2 : 1;
	for (unsigned i = 0; i < at_once; i++)
		coming_next(w, coming, i, 0);
	for (unsigned i = 0; i < clients; i++) {
		w->clients[i] = (struct client){ .w = w, .ops = 5 + (unsigned)draw(w, 80) };
		scenario_task_start(&w->clients[i].task, w->o.env, client_run, &w->clients[i]);
	}
	for (uint64_t n = 0; !clients_ended(w, clients) && !due_now(&end, w->o.volume, n) && !w->run->failed; n++) {
		if (!sim_step(w->sim)) {
			FAIL(w, "life %u: all wait for something that will not happen", LIFE(w));
			break;
		}
		for (unsigned i = 0; i < at_once; i++)
			coming_step(w, coming, i, n);
		collect(w, &collects, n);
		if (n == backup)
			volume_backup(w);
	}
	if (how == LIFE_KILL && !coming[0].on && !coming[1].on && may_go(w) && !w->blackouts && draw(w, 3) == 0) { /* at the same instant */
		sim_kill(w->o.env);
		trouble(w, &(struct trouble){ .kind = TROUBLE_GONE, .server = (unsigned)draw(w, w->server_count) });
	}
	for (unsigned i = 0; i < at_once; i++)
		if (coming[i].on)
			coming_end(w, coming, i, 0);
	if (how == LIFE_CLEAN && !clients_ended(w, clients))
		FAIL(w, "life %u: requests do not end", LIFE(w));
}

/* So do all servers, at about the same time; one may stay away for ever. */
static void site_loses_power(struct volume_world *w)
{
	unsigned goes = may_go(w) && draw(w, 4) ? (unsigned)draw(w, w->server_count) : w->server_count;
	unsigned ended = 0;
	for (unsigned i = 0; i < w->server_count; i++)
		if (w->servers[i].env) {
			trouble(w, &(struct trouble){ .kind = i == goes ? TROUBLE_GONE : TROUBLE_POWER, .server = i });
			ended |= i == goes ? 0 : 1u << i;
		}
	for (unsigned i = 0; i < w->server_count; i++)
		if (ended & 1u << i)
			trouble_ends(&w->troubles, &(struct trouble){ .kind = TROUBLE_POWER, .server = i });
}

static void life(struct volume_world *w)
{
	struct scenario_task task;
	enum life_end how = draw(w, 4) == 0 ? LIFE_CLEAN : draw(w, w->blackouts ? 8 : 3) == 0 ? LIFE_KILL : LIFE_POWER;
	w->life++;
	w->io_failed = w->troubles.no_room = false;
	w->troubles.filled = w->troubles.full;
	look_for_room(w);
	sim_note(w->sim, "life %u begins", w->life);
	if (w->cluster && may_go(w) && draw(w, 2))
		troubles_keep(&w->troubles, (unsigned)draw(w, w->server_count));
	owner_begin(&w->o, w->sim, w->host, w->catalogs, /* locks= */ true);
	w->o.idle_ns = owner_idle_ns(w->run);
	/* when all of a segment's servers but one that lost power are lost, that one has what was flushed; and the oracle knows */
	w->o.accept_flushed = w->faults || (unsigned)__builtin_popcount(w->lost_power | w->troubles.gone) >= w->min_replicas;
	scenario_task_start(&task, w->o.env, life_begin, w);
	/* now and then it dies while it recovers */
	uint64_t steps = draw(w, 6) == 0 && how != LIFE_CLEAN && w->life > 1 ? draw(w, 3000) : STEPS_MAX;
	bool opened = scenario_step_until(w->run, w->sim, &task.ended, steps) && task.status == 0;
	if (!task.ended && steps == STEPS_MAX)
		FAIL(w, "life %u: opening does not end", LIFE(w));
	if (opened) {
		w->map_revision = w->o.volume->copies->map.revision;
		life_work(w, how);
	}
	bool clean = false;
	if (how == LIFE_CLEAN && opened && !w->run->failed) {
		scenario_task_start(&task, w->o.env, life_finish, w);
		if (!scenario_step_until(w->run, w->sim, &task.ended, STEPS_MAX))
			FAIL(w, "life %u: what is there can't be read to the end", LIFE(w));
		clean = !w->run->failed && sim_run_fiber(w->o.env, owner_close, &w->o) == 0;
		if (!clean && !w->faults && !w->io_failed)
			FAIL(w, "life %u: closing failed", LIFE(w));
	}
	if (how == LIFE_POWER) {
		sim_power_loss(w->host);
		if (w->remote && (w->blackouts || draw(w, 3) == 0))
			site_loses_power(w);
	} else if (w->o.volume || !clean) {
		sim_kill(w->o.env);
	}
	sim_note(w->sim, "life %u ends: %s", w->life, how == LIFE_POWER ? "power loss" : clean ? "closed" : "killed");
	/* what a failed sync dropped may be missing from now on, until somebody served what there was */
	oracle_crash(w->oracle, (how == LIFE_POWER && !w->remote && !clean) || disk_syncs_failed(w) > w->syncs_failed);
	if (w->o.env->dead)
		sim_drain_dead(w->o.env);
	if (w->o.volume)
		sim_run_fiber(w->o.env, owner_close, &w->o);
	owner_end(&w->o);
}

/* ---- all of it ---- */

/* Embedded, or on some servers with some copies; a cluster has enough of both to lose one. */
static void draw_servers(struct volume_world *w)
{
	w->server_count = w->cluster ? 3 + (unsigned)draw(w, SERVERS_MAX - 2) : draw(w, 2) ? 0 : 1 + (unsigned)draw(w, SERVERS_MAX);
	w->remote = w->server_count > 0;
	unsigned most = MAX(MIN(w->server_count, 3u), 1u);
	w->replicas = w->cluster || draw(w, 2) ? most : 1 + (uint32_t)draw(w, most);
	w->min_replicas = w->cluster || draw(w, 2) ? w->replicas == 3 ? 2 : 1 : 1 + (uint32_t)draw(w, w->replicas);
}

/* Then one thing overtakes the other; often, where nothing is given up because of it. */
static void draw_slow(struct volume_world *w, struct sim_doses *d)
{
	static const uint32_t doses[] = { 0, 20000, 20000, 150000 };
	uint32_t dose = doses[draw(w, ARRAY_COUNT(doses))];
	d->slow = w->io_timeout_ms ? MIN(dose, UINT32_C(20000)) : dose;
}

/* One server's disk may damage what is on it. */
static void draw_damage(struct volume_world *w, struct sim_doses *d)
{
	d->wall_jump = draw(w, 4) == 0 ? 100000 : 0;
	d->connect_refused = draw(w, 4) == 0 ? 20000 : 0;
	if (draw(w, 3))
		return;
	unsigned i = (unsigned)draw(w, w->server_count);
	uint32_t dose = draw(w, 2) ? 4000 : 40000;
	w->damaged = w->lost_power = 1u << i;
	sim_host_damages(w->servers[i].host, draw(w, 2) ? dose : 0, draw(w, 2) ? dose : 0);
}

static void world_run(struct scenario_run *run, bool cluster, bool keeps)
{
	struct volume_world *w = calloc(1, sizeof *w);
	w->run = run;
	w->cluster = cluster;
	w->sim = scenario_sim(run, NULL);
	struct sim_doses *d = sim_doses(w->sim);
	w->io_timeout_ms = run->seed % 3 == 0 ? 1000 + (uint32_t)(run->seed / 3 % 9) * 250 : 0;
	draw_slow(w, d);
	draw_servers(w);
	w->dense = draw(w, 3) == 0;
	w->drains = keeps && w->server_count > 3 && draw(w, 4);
	w->two = cluster && draw(w, 3) == 0;
	w->few_flushes = draw(w, 3) == 0;
	w->blackouts = draw(w, 3) == 0;
	w->favourite = due_draw(w->sim, MOMENT_ANY, 0).moment;
	w->focused = draw(w, 3) == 0;
	w->focus = (enum trouble_kind)draw(w, TROUBLE_SPLIT);
	w->faults = !cluster && draw(w, 4) == 0;
	if (w->faults) { /* a disk that makes errors: requests may fail, but what is answered is right */
		d->read_error = draw(w, 2) ? 2000 : 0;
		d->write_error = draw(w, 2) ? 2000 : 0;
		d->sync_error = draw(w, 4) == 0 ? 15000 : 0;
		d->sync_error_stays = 700000; /* also the mark that says so fails */
	}
	d->read_flip = draw(w, cluster ? 3 : 4) ? 0 : !cluster ? 1000 : draw(w, 3) ? 40000 : 10000; /* where there are other copies, more often */
	w->may_fail = d->read_flip;
	if (w->remote)
		d->drop = draw(w, 3) == 0 ? 300 : 0;
	/* now and then the disk is full much of the time: refusals, but nothing lost and no end of it (P7) */
	bool full = !w->remote && draw(w, 6) == 0;
	w->faults |= full;
	w->host = sim_host_create(w->sim, "host", full ? (3 + draw(w, 14)) << 20 : (uint64_t)512 << 20, draw(w, 2) ? 512 : 4096);
	w->catalogs = catalog_sim_create(w->sim);
	catalog_sim_doses(w->catalogs)->timeout = draw(w, 2) ? 50000 : 0;
	/* then it takes its time; but one that is slow makes mending slow, and what is given up waits for that */
	bool publishing = (w->favourite == MOMENT_TRIM || w->favourite == MOMENT_PUBLISH) && !w->io_timeout_ms;
	catalog_sim_doses(w->catalogs)->latency_ns = publishing ? draw(w, 200 * NS_PER_MS) : draw(w, 3) ? 0 : draw(w, 20 * NS_PER_MS);
	w->limits = (struct volume_limits){ .cache_bytes = (16 + draw(w, 48)) * BLOCK_BYTES, .segment_blocks = 96 + (uint32_t)draw(w, draw(w, 2) ? 16 : 200),
		.replay_bytes = (64 + draw(w, 400)) * BLOCK_BYTES, .checkpoint_ns = (1 + draw(w, 50)) * 20 * NS_PER_MS,
		.window = 1 + (uint32_t)draw(w, 4) };
	owner_limit_indexes(run, &w->limits);
	w->limits.retain_bytes = draw(w, 3) ? 0 : (8 + draw(w, 200)) * BLOCK_BYTES; /* then servers must sync although nobody flushes */
	if (w->drains && draw(w, 2)) { /* then what the log lists moves, too */
		w->limits.replay_bytes *= 8;
		w->limits.checkpoint_ns *= 20;
	}
	w->size_bytes = (300 + draw(w, 3000)) * ORACLE_SECTOR;
	w->oracle = oracle_create((uint32_t)(w->size_bytes / ORACLE_SECTOR));
	if (keeps)
		w->keeps = (struct keeper_options){ .round_ns = (1 + draw(w, 40)) * 50 * NS_PER_MS, .gc_ns = (1 + draw(w, 10)) * NS_PER_S,
						    .gc_first_ns = draw(w, 2000) * NS_PER_MS, .bytes_per_s = draw(w, 3) ? 0 : 4 << 20,
						    .manager_ns = (1 + draw(w, 10)) * 100 * NS_PER_MS, .lost_ns = (3 + draw(w, 20)) * NS_PER_S };
	for (unsigned i = 0; i < w->server_count; i++) {
		block_server_init(&w->servers[i], w->sim, i, (uint64_t)512 << 20);
		w->servers[i].keeps = keeps ? &w->keeps : NULL;
		w->servers[i].scrub_ns = run->seed % 2 ? 0 : UINT64_C(14) * 24 * 3600 * NS_PER_S; /* then reads must find what is damaged */
		block_server_begin(&w->servers[i], w->run, w->sim, w->catalogs);
	}
	w->troubles = (struct troubles){ .run = run, .sim = w->sim, .client = w->host, .catalogs = w->catalogs, .servers = w->servers };
	if (cluster)
		draw_damage(w, d);
	unsigned lives = 3 + (unsigned)draw(w, cluster ? 4 : 6);
	for (unsigned i = 0; i < lives && !run->failed; i++) {
		life(w);
		if (w->life > 1 && draw(w, 3) == 0 && !run->failed)
			commands(w);
		if (w->kept.count && !w->faults && !w->troubles.hurt && !w->drained && draw(w, 3) == 0 && !run->failed && volume_can_be_found(w))
			volume_loses_catalog(w);
	}
	if (w->drained && !run->failed)
		undo_drains(w);
	if (keeps && !run->failed)
		heal_check(run, w->sim, w->catalogs, w->host, w->servers, w->server_count, w->troubles.gone, w->troubles.wiped ? &w->troubles.lost : NULL, w->damaged);
	if (!run->failed && !w->faults && (!w->troubles.hurt || keeps) && draw(w, 2))
		delete_all(w);
	for (unsigned i = 0; i < w->server_count; i++)
		if (w->servers[i].env)
			block_server_end(&w->servers[i], false);
	for (unsigned i = 0; i < SNAPSHOTS_MAX; i++)
		free(w->snapshots[i].bytes);
	for (unsigned i = 0; i < CLONES_MAX; i++)
		free(w->clones[i].bytes);
	troubles_end(&w->troubles);
	catalog_image_free(&w->kept);
	catalog_sim_destroy(w->catalogs);
	oracle_destroy(w->oracle);
	scenario_end(run, w->sim);
	free(w);
}

static void volume_run(struct scenario_run *run) { world_run(run, /* cluster= */ false, /* keeps= */ false); }
static void cluster_run(struct scenario_run *run) { world_run(run, /* cluster= */ true, /* keeps= */ false); }
static void rebuild_run(struct scenario_run *run) { world_run(run, /* cluster= */ true, /* keeps= */ true); }

const struct scenario scenario_volume = {
	.name = "volume",
	.summary = "a volume of the store through kills, power losses and servers that die",
	.run = volume_run,
};

const struct scenario scenario_cluster = {
	.name = "cluster",
	.summary = "the same with three copies on three or four servers, of which one or the other is always in trouble",
	.run = cluster_run,
};

const struct scenario scenario_rebuild = {
	.name = "rebuild",
	.summary = "cluster, with servers that rebuild, scrub, trim and collect garbage by themselves; in the end all copies are where they belong",
	.share = 2,
	.run = rebuild_run,
};
