#include "tests/sim/moments.h"

#include "core/bytes.h"
#include "parallax/volume/volume_private.h"

enum { PATIENCE = 15000 };

struct due due_draw(struct sim *sim, enum moment favourite, uint64_t from)
{
	static const enum moment often[] = { MOMENT_ANY, MOMENT_ANY, MOMENT_TURN, MOMENT_TURN, MOMENT_TURN, MOMENT_FLUSH, MOMENT_SNAPSHOT, MOMENT_CHECKPOINT, MOMENT_TRIM, MOMENT_MEND,
					    MOMENT_PUBLISH };
	struct due d = { .from = from, .patience = PATIENCE, .moment = often[sim_random(sim) % ARRAY_COUNT(often)] };
	if (favourite != MOMENT_ANY && sim_random(sim) % 4)
		d.moment = favourite;
	bool soon = sim_random(sim) % 3;
	d.then = sim_random(sim) % (d.moment == MOMENT_PUBLISH ? soon ? 300 : 2000 : soon ? 20 : 300);
	return d;
}

/* Another one each time it comes. */
static uint64_t mark(const struct volume *v, enum moment moment)
{
	switch (moment) {
	case MOMENT_TURN: return v->log.current ? v->log.current->meta.id : 0;
	case MOMENT_FLUSH: return v->log.synced_seq;
	case MOMENT_SNAPSHOT: return v->counters.snapshots;
	case MOMENT_CHECKPOINT: return v->counters.checkpoints;
	case MOMENT_TRIM: return v->counters.trims;
	case MOMENT_MEND: return v->counters.mends;
	case MOMENT_PUBLISH: return 2 * v->meta_revision + (v->publishing.serving != v->publishing.next_ticket);
	case MOMENT_ANY: break;
	}
	return 0;
}

bool due_now(struct due *d, const struct volume *v, uint64_t step)
{
	if (step < d->from)
		return false;
	if (d->moment == MOMENT_ANY)
		return true;
	if (!d->waits) {
		d->waits = true;
		d->mark = mark(v, d->moment);
	}
	if (mark(v, d->moment) != d->mark) {
		d->moment = MOMENT_ANY;
		d->from = step + d->then;
		return d->then == 0;
	}
	return step - d->from >= d->patience;
}
