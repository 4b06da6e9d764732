#include "tests/sim/embedded_scrub.h"

#include <errno.h>
#include <inttypes.h>
#include <stdlib.h>
#include <string.h>

#include "core/fiber.h"
#include "parallax/segment/segment.h"
#include "parallax/segment/segment_dir.h"
#include "parallax/segment/segment_scrub.h"
#include "parallax/store/store_scrub.h"
#include "parallax/store/store_status.h"
#include "parallax/volume/volume_private.h"

enum { FILE_BLOCKS_MAX = 1024, FLIPPED_AT = 777 };

struct said {
	unsigned faults, skipped;
	char first[160];
};

static void note_fault(void *arg, const char *where, const char *text, bool repaired)
{
	struct said *s = arg;
	(void)repaired;
	if (s->faults++ == 0)
		snprintf(s->first, sizeof s->first, "%s: %s", where, text);
}

static void note_skipped(void *arg, const char *where, const char *why)
{
	struct said *s = arg;
	if (s->skipped++ == 0)
		snprintf(s->first, sizeof s->first, "%s: %s", where, why);
}

/* How many blocks are bad, of all volumes or of "v"; -ETIMEDOUT: the catalog didn't answer. */
static int scrub(struct volume_world *w, bool all, struct said *said)
{
	struct report report = { "" };
	struct store_scrub how = { .volume = all ? NULL : "v", .fault = note_fault, .skipped = note_skipped, .arg = said };
	*said = (struct said){ 0 };
	int r = store_scrub(&w->o.store, &how, &report);
	if (w->o.env->dead || r == -ETIMEDOUT)
		return -ETIMEDOUT;
	if (r < 0)
		FAIL(w, "life %u: scrub: %s", LIFE(w), report_text(&report, r));
	if (how.bad != said->faults)
		FAIL(w, "life %u: scrub counts %u bad blocks, and tells of %u", LIFE(w), (unsigned)how.bad, said->faults);
	if (said->skipped)
		FAIL(w, "life %u: scrub skips %s", LIFE(w), said->first);
	return (int)how.bad;
}

/* ---- a block of the snapshot ---- */

struct place {
	char path[128];
	uint64_t offset;
	struct pointer at;
	uint8_t was[BLOCK_BYTES];
};

/* Where its segment's file has it; false: it isn't sealed, so that scrub leaves it alone, or isn't there. */
static bool find_place(struct volume_world *w, uint64_t volume, struct place *p)
{
	char dir[64];
	struct scrub_slice slice;
	uint64_t segment = position_segment(p->at.position);
	uint8_t *page = malloc(BLOCK_BYTES);
	unsigned found = 0;
	snprintf(dir, sizeof dir, "/volumes/%016" PRIx64, volume);
	snprintf(p->path, sizeof p->path, "%s/segments/%02x/%012" PRIx64 ".seg", dir, (unsigned)(segment & 0xff), segment);
	if (segment_path_scrub(w->o.env, dir, segment, 0, &slice) == 0)
		for (uint64_t i = 0; i < FILE_BLOCKS_MAX && sim_disk_read(w->host, p->path, i * BLOCK_BYTES, page, BLOCK_BYTES) == 0; i++)
			if (memcmp(page, p->was, BLOCK_BYTES) == 0) {
				found++;
				p->offset = i * BLOCK_BYTES;
			}
	free(page);
	return found == 1;
}

static int look_up(struct volume_world *w, struct volume_reader *d, uint64_t block, struct pointer *ret)
{
	int r = -EAGAIN;
	while (r == -EAGAIN && !w->o.env->dead) {
		struct job j;
		job_init(&j, &w->o.env->loop);
		r = volume_reader_lookup(d, block, 1, ret, &j);
		if (r == -EAGAIN && (r = fiber_wait(&j)) == 0)
			r = -EAGAIN;
	}
	return r;
}

static void damage(struct volume_world *w, struct volume_reader *d, uint64_t volume)
{
	struct place *p = calloc(1, sizeof *p);
	uint8_t *page = env_alloc_aligned(BLOCK_BYTES);
	struct said said;
	uint64_t block = draw(w, disk_bytes(w) / BLOCK_BYTES);
	bool there = look_up(w, d, block, &p->at) == 0 && p->at.position && sources_read_wait(volume_reader_sources(d), &p->at, page) == 0;
	memcpy(p->was, page, BLOCK_BYTES);
	if (there && !w->o.env->dead && find_place(w, volume, p) && sim_disk_flip(w->host, p->path, p->offset + FLIPPED_AT, 4) == 0) {
		sim_note(w->sim, "segment %" PRIu64 ", block %u is damaged", position_segment(p->at.position), position_block(p->at.position));
		if (scrub(w, /* all= */ true, &said) == 0)
			FAIL(w, "life %u: segment %" PRIu64 ", block %u is damaged, and scrub finds nothing", LIFE(w), position_segment(p->at.position),
			     position_block(p->at.position));
		if (sources_read_wait(volume_reader_sources(d), &p->at, page) == 0 && !w->o.env->dead)
			FAIL(w, "life %u: a block that is damaged could be read", LIFE(w));
		sim_disk_flip(w->host, p->path, p->offset + FLIPPED_AT, 4);
		if (scrub(w, draw(w, 2), &said) > 0)
			FAIL(w, "life %u: scrub finds %s, and it is mended", LIFE(w), said.first);
	}
	free(page);
	free(p);
}

void embedded_scrub(struct volume_world *w, const struct snapshot *s)
{
	struct said said;
	struct volume_reader *d;
	struct volume_reader_open how = { .catalog = w->o.catalog, .places = &w->o.places.ops, .cache_bytes = 1 << 20 };
	if (scrub(w, draw(w, 2), &said) > 0)
		FAIL(w, "life %u: scrub finds %s", LIFE(w), said.first);
	if (store_find_snapshot(&w->o.places, "v", s->name, &how.volume, &how.mark_seq, NULL) < 0 ||
	    store_want_root(&w->o.places, how.volume, how.mark_seq, NULL, NULL) < 0 || volume_reader_open(w->o.env, &how, &d, NULL) < 0)
		return;
	for (unsigned n = 0; n < 3 && !w->run->failed && !w->o.env->dead; n++)
		damage(w, d, how.volume);
	volume_reader_close(d);
}

void embedded_status(struct volume_world *w)
{
	struct report report = { "" };
	struct store_status *t = NULL;
	bool found = false;
	int r = store_status(&w->o.store, &t, &report);
	for (size_t i = 0; r == 0 && i < t->volume_count; i++)
		found |= strcmp(t->volumes[i].volume.name, "v") == 0 && t->volumes[i].volume.embedded && t->volumes[i].volume.size_bytes == w->size_bytes;
	if (r < 0 && r != -ETIMEDOUT && !w->o.env->dead)
		FAIL(w, "life %u: status: %s", LIFE(w), report_text(&report, r));
	if (r == 0 && !found && !w->o.env->dead)
		FAIL(w, "life %u: status doesn't show the volume as it is", LIFE(w));
	store_status_free(t);
}
