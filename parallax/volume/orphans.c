/* Copies that nobody will ever ask for: an owner that died, perhaps some time ago, had made them and not listed them yet, or had dropped them
 * from its table, or as it closed from its list, and not deleted them yet. The evidence (R31): the id is not above last_id,
 * so it can't be listed any more (R1), and neither the table nor the log has it. Only for embedded volumes: there the directory is
 * this volume's alone. */
#include <errno.h>
#include <stdlib.h>
#include <string.h>

#include "core/array.h"
#include "core/bytes.h"
#include "parallax/catalog/catalog_copy.h"
#include "parallax/volume/volume_private.h"

enum { AT_ONCE = 1024, CATALOG_TRIES = 50 };

struct orphans {
	struct volume *v;
	uint64_t *ids; /* malloc'd */
	size_t count;
};

static int note(void *arg, uint64_t segment)
{
	struct orphans *o = arg;
	if (segment > o->v->meta.last_id || space_find(&o->v->space, segment))
		return 0;
	if (array_more(&o->ids, o->count) < 0)
		return -ENOMEM;
	o->ids[o->count++] = segment;
	return 0;
}

/* After a backup was restored, what the catalog doesn't list may be what it has forgotten: an operator decides (R5). */
static bool may_condemn(struct volume *v)
{
	int r = -ETIMEDOUT;
	for (unsigned i = 0; i < CATALOG_TRIES && r == -ETIMEDOUT && !v->env->dead; i++) {
		struct catalog_value mark;
		if (i)
			fiber_sleep(&v->env->loop, 20 * NS_PER_MS);
		r = catalog_get(v->catalog, STORE_RESTORED, &mark);
		catalog_value_free(&mark);
	}
	return r == -ENOENT;
}

/* The volume is to be opened: so many that were freed before a kill are left to the trimmer. */
static void delete_later(struct volume *v, const uint64_t *ids, size_t count)
{
	if (array_reserve(&v->freed, &v->freed_room, v->freed_count + count) < 0)
		return;
	memmove(v->freed + count, v->freed, v->freed_count * sizeof *v->freed);
	memcpy(v->freed, ids, count * sizeof *ids);
	v->freed_count += (uint32_t)count;
	v->freed_due += (uint32_t)count;
}

void orphans_delete(struct volume *v)
{
	struct orphans o = { .v = v };
	segment_dir_ids(v->server, note, &o); /* a part of them will do */
	if (o.count && !may_condemn(v))
		o.count = 0;
	size_t now = MIN(o.count, (size_t)AT_ONCE);
	for (size_t i = 0; i < now && !v->env->dead; i++) {
		struct segment_io io = { .op = SEGMENT_DELETE, .segment = o.ids[i], .epoch = v->epoch };
		v->counters.segments_freed += segment_wait(v->server, &io) == 0; /* what can't be deleted now may be found again */
	}
	if (o.count > now)
		delete_later(v, o.ids + now, o.count - now);
	free(o.ids);
}
