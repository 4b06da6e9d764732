/* Acquiring a volume while the catalog's engine has moments of its own. */
#include <criterion/criterion.h>
#include <errno.h>
#include <stdlib.h>
#include <string.h>

#include "tests/unit/volumetest.h"

/* The engine below, how many leases it doesn't give, and a put with a lease that nobody hears of until it arrives. */
static struct {
	const struct catalog_ops *ops;
	struct catalog_ops fake;
	unsigned refuses;
	int status;
	bool holds_put;
	struct catalog_txn late;
	char late_key[META_KEY_BYTES];
	unsigned logs; /* so many reads of the volume's record are answered, if it isn't 0, and no more */
} below;

static int fake_get(struct catalog *c, const char *key, struct catalog_value *ret)
{
	char log[META_KEY_BYTES];
	meta_key_log(1, log);
	if (below.logs && strcmp(key, log) == 0 && --below.logs == 0)
		return -EPROTO;
	return below.ops->get(c, key, ret);
}

static int fake_lease(struct catalog *c, unsigned ttl_s, const char *key, struct catalog_lease **ret_lease)
{
	if (below.refuses) {
		below.refuses--;
		return below.status;
	}
	return below.ops->lease(c, ttl_s, key, ret_lease);
}

static int fake_txn(struct catalog *c, const struct catalog_txn *t, uint64_t *ret_revision)
{
	if (!below.holds_put || t->change_count != 1 || !t->change[0].lease)
		return below.ops->txn(c, t, ret_revision);
	below.holds_put = false;
	below.late = *t;
	snprintf(below.late_key, sizeof below.late_key, "%s", t->change[0].key);
	below.late.change[0].key = below.late_key;
	below.late.change[0].bytes = "";
	if (t->compare_count)
		below.late.compare[0].key = below.late_key;
	return -ETIMEDOUT;
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
	below.fake.txn = fake_txn;
	below.fake.get = fake_get;
	below.logs = 0;
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

/* When the second one has been put. */
static int body_late(void *arg)
{
	struct volume_rig *g = arg;
	cr_assert(below.late_key[0]);
	below.ops->txn(g->places.catalog, &below.late, NULL);
	fiber_sleep(&g->places.catalog->env->loop, 60 * NS_PER_S);
	return body_shown(arg);
}

Test(volume_acquire, a_put_that_arrives_late_ends_no_life)
{
	struct volume_rig *g = make(0, 0);
	below.holds_put = true;
	cr_assert_eq(volume_rig_open(g), 0, "%s", g->report.text);
	cr_assert_eq(volume_rig_run(g, body_late), 0);
	volume_rig_free(g);
}

/* ---- machines of one name ---- */

static struct {
	struct volume_rig *g;
	uint64_t until_ns; /* so long its lease says that it lives */
} namesake;

static bool namesake_alive(void *arg, const struct meta_owner *owner)
{
	(void)arg, (void)owner;
	return env_now_ns(namesake.g->env) < namesake.until_ns;
}

static int body_held(void *arg)
{
	struct volume_rig *g = arg;
	struct meta_owner o = { .state = OWNER_HELD, .epoch = 5, .stamp = 77, .pid = 12, .host = "here", .holder = "device v", .boot = "before" };
	char key[META_KEY_BYTES];
	size_t length;
	uint8_t *bytes = meta_owner_encode(&o, &length);
	struct catalog_txn t;
	meta_key_owner(1, key);
	catalog_txn_init(&t);
	catalog_txn_put(&t, key, bytes, length);
	cr_assert_eq(catalog_txn(g->places.catalog, &t, NULL), 0);
	free(bytes);
	namesake.until_ns += env_now_ns(g->env);
	return 0;
}

static struct volume_rig *make_namesake(uint64_t lives_ns)
{
	struct volume_rig *g = make(0, 0);
	strcpy(g->places.host, "here");
	g->places.ops.boot = "now";
	g->places.ops.held_elsewhere = namesake_alive;
	namesake.g = g;
	namesake.until_ns = lives_ns;
	cr_assert_eq(volume_rig_open(g), 0, "%s", g->report.text); /* it has a directory */
	cr_assert_eq(volume_rig_run(g, volume_rig_close), 0);
	cr_assert_eq(volume_rig_run(g, body_held), 0);
	return g;
}

static int body_boot(void *arg)
{
	struct volume_rig *g = arg;
	struct meta_owner o;
	cr_assert_eq(meta_get_owner(g->places.catalog, 1, &o, NULL), 0);
	cr_assert_str_eq(o.boot, "now");
	return 0;
}

/* A machine that was faster than its lease. */
Test(volume_acquire, who_held_it_before_this_machine_started_anew_is_waited_for)
{
	struct volume_rig *g = make_namesake(9 * NS_PER_S);
	cr_assert_eq(volume_rig_open(g), 0, "%s", g->report.text);
	cr_assert_eq(volume_rig_run(g, body_boot), 0);
	volume_rig_free(g);
}

Test(volume_acquire, another_machine_of_this_name_is_not_robbed)
{
	struct volume_rig *g = make_namesake(3600 * NS_PER_S);
	cr_assert_eq(volume_rig_open(g), -EBUSY);
	cr_assert(strstr(g->report.text, "device v on another machine that is called here too"), "%s", g->report.text);
	volume_rig_free(g);
}

/* ---- what fails ---- */

static int body_owner(void *arg)
{
	struct meta_owner o;
	const struct volume_rig *g = arg;
	int r = meta_get_owner(g->places.catalog, 1, &o, NULL);
	cr_assert_eq(r, 0);
	cr_assert(o.pid == 0 || (o.state == OWNER_HELD && strcmp(o.holder, VOLUME_MAINTENANCE) != 0), "who lives on would be taken for its holder");
	return o.state == OWNER_FREE ? 0 : strcmp(o.holder, VOLUME_MAINTENANCE) == 0 ? 1 : 2;
}

/* Opening it fails after it was acquired: on another host a record that names a device would stand for one that may serve its guest. */
static void fails_to_open(struct volume_rig *g, int owner)
{
	below.logs = 2;
	g->report.text[0] = '\0';
	cr_assert_eq(volume_rig_open(g), -EPROTO, "%s", g->report.text);
	cr_assert_eq(below.logs, 0);
	cr_assert_eq(volume_rig_run(g, body_owner), owner);
}

Test(volume_acquire, what_could_not_be_opened_is_nobodys)
{
	struct volume_rig *g = make(0, 0);
	g->pid = 4711;
	fails_to_open(g, 0);
	cr_assert_eq(volume_rig_open(g), 0, "%s", g->report.text);
	cr_assert_eq(volume_rig_run(g, volume_rig_write), 0);
	cr_assert_eq(volume_rig_run(g, body_owner), 2);
	volume_rig_kill(g);
	volume_rig_begin(g);
	const struct catalog_ops *ops = g->places.catalog->ops;
	g->places.catalog->ops = &below.fake;
	below.ops = ops;
	fails_to_open(g, 1); /* its log must be replayed still */
	cr_assert_eq(volume_rig_open(g), 0, "%s", g->report.text);
	cr_assert_eq(volume_rig_run(g, volume_rig_check), 0);
	cr_assert_eq(volume_rig_run(g, volume_rig_close), 0);
	cr_assert_eq(volume_rig_run(g, body_owner), 0);
	volume_rig_free(g);
}
