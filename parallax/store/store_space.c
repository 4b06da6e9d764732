/* What deleting a snapshot would free, from the volume's space table as last published: the part of its dead list that was born
 * after the snapshot before it (space.h). Without being the volume's owner; what was overwritten since the last checkpoint isn't
 * in it yet. */
#include <errno.h>
#include <stdlib.h>

#include "core/bytes.h"
#include "parallax/map/space.h"
#include "parallax/store/store_private.h"
#include "parallax/volume/blob.h"

enum { TRIES = 8 };

struct store_space {
	struct store *store;
	uint64_t volume;
	struct meta_log log;
	bool loaded;
	struct sources sources; /* once it is loaded */
	struct space space;
};

static void unload(struct store_space *p)
{
	if (p->loaded) {
		sources_close(&p->sources);
		space_destroy(&p->space);
	}
	p->loaded = false;
}

static int load_once(struct store_space *p, struct report *report)
{
	struct store *s = p->store;
	uint8_t *bytes = NULL;
	int r = meta_get_log(s->catalog, p->volume, &p->log, NULL);
	if (r == 0)
		r = sources_open(&p->sources, s->env, s->catalog, &s->places->ops, p->volume, &p->log, NULL, report);
	if (r < 0)
		return r;
	space_init(&p->space);
	p->loaded = true;
	if (p->log.space.pointer.position)
		r = blob_read(&p->sources, &p->log.space, &bytes);
	if (r == 0 && bytes)
		r = space_decode(&p->space, bytes, p->log.space.length);
	free(bytes);
	if (r < 0)
		unload(p);
	return r < 0 ? report_set(report, r, "its space table can't be read: %s", errno_text(r)) : 0;
}

/* The owner has published another table since, and what this one names may be gone. */
static bool is_old(const struct store_space *p)
{
	struct meta_log *now = malloc(sizeof *now);
	bool old = now && meta_get_log(p->store->catalog, p->volume, now, NULL) == 0 && now->space.pointer.position != p->log.space.pointer.position;
	free(now);
	return old;
}

static int load(struct store_space *p, struct report *report)
{
	int r = load_once(p, report);
	for (unsigned i = 1; r < 0 && i < TRIES && is_old(p); i++) {
		if (report)
			report->text[0] = '\0';
		r = load_once(p, report);
	}
	return r;
}

int store_space_open(struct store *s, uint64_t volume, struct store_space **ret, struct report *report)
{
	struct store_space *p = calloc(1, sizeof *p);
	if (!p)
		return -ENOMEM;
	p->store = s;
	p->volume = volume;
	int r = load(p, report);
	if (r < 0)
		free(p);
	else
		*ret = p;
	return r;
}

void store_space_close(struct store_space *p)
{
	if (!p)
		return;
	unload(p);
	free(p);
}

/* What of a chunk, or of all of an index, goes with its list. */
static int count_chunk(struct store_space *p, const struct space_chunk *c, uint64_t border, uint64_t *sum)
{
	if (c->max <= border)
		return 0;
	if (c->min > border) {
		*sum += c->entries;
		return 0;
	}
	uint8_t *block = env_alloc_aligned(BLOCK_BYTES);
	int r = block ? sources_read_wait(&p->sources, &c->at, block) : -ENOMEM;
	for (uint32_t k = 0; r == 0 && k < c->count; k++) {
		struct space_chunk below;
		if (!c->index)
			*sum += get_le64(block + (size_t)k * 8) > border;
		else if ((r = space_index_decode(c, block, k, &below)) == 0)
			r = count_chunk(p, &below, border, sum); /* that is no index */
	}
	free(block);
	return r;
}

static int count_freed(struct store_space *p, uint64_t mark_seq, uint64_t *ret_bytes)
{
	const struct space_list *l = space_list_find(&p->space, mark_seq);
	uint64_t sum = 0;
	int r = 0;
	for (uint32_t i = 0; r == 0 && l && i < l->chunk_count; i++)
		r = count_chunk(p, &l->chunks[i], space_drop_border(&p->space, mark_seq, l->chunks[i].nodes), &sum);
	*ret_bytes = sum * BLOCK_BYTES;
	return r;
}

int store_space_snapshot(struct store_space *p, uint64_t mark_seq, uint64_t *ret_bytes)
{
	int r = count_freed(p, mark_seq, ret_bytes);
	for (unsigned i = 1; r < 0 && i < TRIES && p->loaded && is_old(p); i++) {
		unload(p);
		r = load(p, NULL);
		if (r == 0)
			r = count_freed(p, mark_seq, ret_bytes);
	}
	return r;
}
