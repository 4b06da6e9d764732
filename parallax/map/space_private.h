/* What space.c and space_table.c share. */
#ifndef AQ_SPACE_PRIVATE_H
#define AQ_SPACE_PRIVATE_H
#include "parallax/map/space.h"

static inline struct space_list *space_newest(struct space *s) { return s->list_count ? &s->lists[s->list_count - 1] : NULL; }
static inline uint32_t space_list_chunks(const struct space_list *l)
{
	return l->chunk_count + (l->written[0].count > 0) + (l->written[1].count > 0);
}
void space_frees_note(struct space *s, struct space_segment *g, enum frees_stage stage, uint32_t block);
uint8_t *space_chunk_encode(const struct space_chunk *c, uint8_t *p); /* returns what follows */
int space_chunk_add(struct space_list *l, const struct space_chunk *c); /* 0 or -ENOMEM */
#endif
