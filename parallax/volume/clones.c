#include "parallax/volume/clones.h"

#include <stdlib.h>

#include "core/array.h"
#include "parallax/catalog/meta.h"

static int note_clone(void *arg, const char *key, const struct catalog_value *value)
{
	struct clones *l = arg;
	(void)value;
	if (array_more(&l->marks, l->count) < 0)
		return -ENOMEM;
	if (!meta_clone_mark(key, &l->marks[l->count]))
		return -EUCLEAN;
	l->count++;
	return 0;
}

int clones_read(struct catalog *c, uint64_t volume, struct clones *ret)
{
	char prefix[META_KEY_BYTES];
	*ret = (struct clones){ 0 };
	meta_key_clones(volume, prefix);
	int r = catalog_list(c, prefix, note_clone, ret);
	if (r < 0)
		clones_free(ret);
	return r;
}

uint32_t clones_of(const struct clones *l, uint64_t mark_seq)
{
	size_t at = array_place_bytes(l->marks, l->count, sizeof *l->marks, 0, mark_seq);
	size_t end = mark_seq == UINT64_MAX ? l->count : array_place_bytes(l->marks, l->count, sizeof *l->marks, 0, mark_seq + 1);
	return (uint32_t)(end - at);
}

void clones_free(struct clones *l)
{
	free(l->marks);
	*l = (struct clones){ 0 };
}
