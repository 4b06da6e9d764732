#include "tests/unit/salvagetest.h"

#include <criterion/criterion.h>
#include <string.h>

struct catalog_image salvage_image;
unsigned salvage_counts[STORE_RECOVERED_NOT + 1];
bool salvage_may_fail; /* volumes may be left */
bool salvage_behind;
uint64_t salvage_lost;
bool salvage_lost_more;

/* A cluster's rig begins with that of its volume, which is what bodies take that are for embedded ones, too. */
int salvage_backup(void *arg)
{
	struct volume_rig *g = arg;
	return catalog_image_read(g->places.catalog, &salvage_image, &g->report);
}

int salvage_restore(void *arg)
{
	struct volume_rig *g = arg;
	struct catalog *catalog = g->places.catalog;
	cr_assert_eq(catalog_image_raise(&salvage_image, &g->report), 0);
	cr_assert_eq(catalog_image_erase(catalog, &g->report), 0);
	cr_assert_eq(catalog_image_write(catalog, &salvage_image, &g->report), 0);
	cr_assert_eq(catalog_mark_restored(catalog, &salvage_image, "today", &g->report), 0);
	catalog_image_free(&salvage_image);
	return 0;
}

static void note(void *arg, const struct store_recovered *v)
{
	(void)arg;
	salvage_counts[v->how]++;
	salvage_behind |= v->behind;
	salvage_lost += v->lost_blocks;
	salvage_lost_more |= v->lost_more;
	cr_expect(salvage_may_fail || v->how != STORE_RECOVERED_NOT, "%s: %s", v->name, v->why);
}

static int look(struct volume_rig *g, bool force)
{
	struct store_recover how = { .force = force, .volume = note };
	memset(salvage_counts, 0, sizeof salvage_counts);
	g->report.text[0] = '\0';
	salvage_behind = salvage_lost_more = false;
	salvage_lost = 0;
	return store_recover(&g->store, &how, &g->report);
}

int salvage_recover(void *arg) { return look(arg, false); }
int salvage_force(void *arg) { return look(arg, true); }

/* All blocks anew: what cluster_read() compares with is the rig's. */
int salvage_write(void *arg)
{
	struct cluster_rig *c = arg;
	c->shift += 7;
	for (unsigned b = 0; b < BLOCKS; b++) {
		memset(c->g.buffer, (int)(b + c->shift), BLOCK_BYTES);
		cr_assert_eq(blk_write_wait(c->g.node, c->g.buffer, BLOCK_BYTES, b * BLOCK_BYTES, BLK_FUA), 0);
	}
	return 0;
}

int salvage_checkpoint(void *arg) { return volume_checkpoint(((struct cluster_rig *)arg)->g.volume); }

/* Killed, and attached again. */
void salvage_next_owner(struct cluster_rig *c)
{
	volume_rig_kill(&c->g);
	volume_rig_begin(&c->g);
}

void salvage_lose_catalog(struct cluster_rig *c)
{
	salvage_next_owner(c);
	cr_assert_eq(volume_rig_run(&c->g, salvage_restore), 0);
}

void salvage_must_have_all(struct cluster_rig *c)
{
	cluster_open(c);
	cr_assert_eq(volume_rig_run(&c->g, cluster_read), 0);
	cr_assert_eq(volume_rig_run(&c->g, salvage_write), 0);
	cr_assert_eq(volume_rig_run(&c->g, cluster_close), 0);
	cluster_open(c);
	cr_assert_eq(volume_rig_run(&c->g, cluster_read), 0);
}
