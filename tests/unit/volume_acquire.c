/* Acquiring a volume while the catalog's engine has moments of its own. */
#include <criterion/criterion.h>
#include <errno.h>

#include "tests/unit/volumetest.h"

/* The engine below, and how many leases it doesn't give. */
static struct {
	const struct catalog_ops *ops;
	struct catalog_ops fake;
	unsigned refuses;
	int status;
} below;

static int fake_lease(struct catalog *c, unsigned ttl_s, const char *key, struct catalog_lease **ret_lease)
{
	if (below.refuses) {
		below.refuses--;
		return below.status;
	}
	return below.ops->lease(c, ttl_s, key, ret_lease);
}

static struct volume_rig *make(unsigned refuses, int status)
{
	struct volume_rig *g = volume_rig_make(1, 1 << 20);
	volume_rig_kill(g);
	catalog_sim_doses(g->catalogs)->leases = true;
	volume_rig_begin(g);
	below.ops = g->places.catalog->ops;
	below.fake = *below.ops;
	below.fake.lease = fake_lease;
	below.refuses = refuses;
	below.status = status;
	g->places.catalog->ops = &below.fake;
	return g;
}

static int body_shown(void *arg)
{
	struct volume_rig *g = arg;
	struct meta_owner o;
	struct catalog_value v;
	char key[META_KEY_BYTES];
	cr_assert_eq(meta_get_owner(g->places.catalog, 1, &o, NULL), 0);
	meta_key_alive(o.stamp, key);
	cr_assert_eq(catalog_get(g->places.catalog, key, &v), 0, "other hosts take its holder for dead");
	catalog_value_free(&v);
	return 0;
}

/* An etcd that is electing a leader, say. */
Test(volume_acquire, a_holder_is_shown_to_live_although_the_first_leases_failed)
{
	struct volume_rig *g = make(3, -ETIMEDOUT);
	cr_assert_eq(volume_rig_open(g), 0, "%s", g->report.text);
	cr_assert_eq(volume_rig_run(g, body_shown), 0);
	volume_rig_free(g);
}

Test(volume_acquire, without_a_lease_it_isnt_opened)
{
	struct volume_rig *g = make(UINT32_MAX, -EPROTO);
	cr_assert_eq(volume_rig_open(g), -EPROTO);
	cr_assert(strstr(g->report.text, "no lease"), "%s", g->report.text);
	below.refuses = 0;
	g->report.text[0] = '\0';
	cr_assert_eq(volume_rig_open(g), 0, "%s", g->report.text);
	volume_rig_free(g);
}
