/* What deleting a snapshot would free, from the volume's space table as last published: the part of its dead list that was born
 * after the snapshot before it (space.h). Without being the volume's owner; what was overwritten since the last checkpoint isn't
 * in it yet. */
#include <errno.h>
#include <stdlib.h>

#include "core/bytes.h"
#include "parallax/blob.h"
#include "parallax/space.h"
#include "parallax/store_private.h"

struct store_space {
	struct meta_log log;
	struct sources sources;
	struct space space;
};

int store_space_open(struct store *s, uint64_t volume, struct store_space **ret, struct report *report)
{
	struct store_space *p = calloc(1, sizeof *p);
	uint8_t *bytes = NULL;
	int r = p ? meta_get_log(s->catalog, volume, &p->log, NULL) : -ENOMEM;
	if (r == 0)
		r = sources_open(&p->sources, s->env, s->catalog, &s->places->ops, volume, &p->log, NULL, report);
	if (r < 0) {
		free(p);
		return r;
	}
	space_init(&p->space);
	if (p->log.space.pointer.position)
		r = blob_read(&p->sources, &p->log.space, &bytes);
	if (r == 0 && bytes)
		r = space_decode(&p->space, bytes, p->log.space.length);
	free(bytes);
	if (r < 0) {
		store_space_close(p);
		return report_set(report, r, "its space table can't be read: %s", errno_text(r));
	}
	*ret = p;
	return 0;
}

void store_space_close(struct store_space *p)
{
	if (!p)
		return;
	sources_close(&p->sources);
	space_destroy(&p->space);
	free(p);
}

int store_space_snapshot(struct store_space *p, uint64_t mark_seq, uint64_t *ret_bytes)
{
	const struct space_list *l = space_list_find(&p->space, mark_seq);
	uint8_t *block = env_alloc_aligned(BLOCK_BYTES);
	uint64_t sum = 0;
	int r = block ? 0 : -ENOMEM;
	for (uint32_t i = 0; r == 0 && l && i < l->chunk_count; i++) {
		const struct space_chunk *c = &l->chunks[i];
		uint64_t border = space_drop_border(&p->space, mark_seq, c->nodes);
		if (c->max <= border)
			continue;
		if (c->min > border) {
			sum += c->count;
			continue;
		}
		r = sources_read_wait(&p->sources, &c->at, block);
		for (uint32_t k = 0; r == 0 && k < c->count; k++)
			sum += get_le64(block + (size_t)k * 8) > border;
	}
	free(block);
	*ret_bytes = sum * BLOCK_BYTES;
	return r;
}
