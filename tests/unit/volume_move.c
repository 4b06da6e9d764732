/* A volume between two hosts that is deleted, taken by force, or expected twice: neither side waits for what nobody will have, and one has it once. */
#include <criterion/criterion.h>
#include <errno.h>
#include <stdlib.h>

#include "core/fiber.h"
#include "parallax/volume/volume_move.h"
#include "tests/unit/volumetest.h"

static const char *ask(struct volume_rig *g, struct volume_move *m, const char *verb, const char *const *args, int *ret_status)
{
	static char kept[256];
	char *json = NULL;
	g->report.text[0] = '\0';
	*ret_status = volume_move_control(m, verb, args, &json, &g->report);
	snprintf(kept, sizeof kept, "%s", json ? json : "");
	free(json);
	return kept;
}

static void delete_records(struct volume_rig *g)
{
	char owner[META_KEY_BYTES], log[META_KEY_BYTES];
	struct catalog_txn t;
	meta_key_owner(1, owner);
	meta_key_log(1, log);
	catalog_txn_init(&t);
	catalog_txn_delete(&t, owner);
	catalog_txn_delete(&t, log);
	cr_assert_eq(catalog_txn(g->places.catalog, &t, NULL), 0);
}

static void with_open_volume(int (*body)(void *arg))
{
	struct volume_rig *g = volume_rig_make(1, 1 << 20);
	cr_assert_eq(volume_rig_open(g), 0, "%s", g->report.text);
	cr_assert_eq(volume_rig_run(g, body), 0);
	volume_rig_free(g);
}

static int body_source(void *arg)
{
	static const char *const offer[] = { "1", "h2", "device v", "unix:/c", "5", NULL }, *const moved[] = { "1", "2000", NULL };
	struct volume_rig *g = arg;
	struct volume_move m;
	struct volume_open how = { .catalog = g->places.catalog, .places = &g->places.ops, .volume = 1 };
	int r;
	volume_move_init(&m, container_of(g->node, struct volume_node, node), &g->places, &how);
	ask(g, &m, "handover-offer", offer, &r);
	cr_assert_eq(r, 0, "%s", g->report.text);
	g->volume = NULL;
	delete_records(g);
	const char *json = ask(g, &m, "handover-moved", moved, &r);
	cr_assert_eq(r, 0, "%s", g->report.text);
	cr_assert_str_eq(json, "{\"serves\":false}");
	cr_assert_eq(blk_read_wait(g->node, g->buffer, BLOCK_BYTES, 0), -EIO, "it waits for ever");
	volume_move_end(&m);
	return 0;
}

Test(volume_move, what_was_offered_is_deleted) { with_open_volume(body_source); }

/* Two hosts were to get it at once. */
static int body_other_offer(void *arg)
{
	static const char *const offer[] = { "1", "h2", "device v", "unix:/c", "5", NULL }, *const other[] = { "2", "h3", "device v", "unix:/d", "6", NULL };
	static const char *const back[] = { "1", "2000", NULL }, *const other_back[] = { "2", "2000", NULL };
	struct volume_rig *g = arg;
	struct volume_move m;
	struct volume_open how = { .catalog = g->places.catalog, .places = &g->places.ops, .volume = 1 };
	int r;
	volume_move_init(&m, container_of(g->node, struct volume_node, node), &g->places, &how);
	ask(g, &m, "handover-offer", offer, &r);
	cr_assert_eq(r, 0, "%s", g->report.text);
	g->volume = NULL;
	ask(g, &m, "handover-offer", other, &r);
	cr_assert_eq(r, -EBUSY);
	delete_records(g); /* as good as taken */
	fiber_sleep(&g->env->loop, NS_PER_S);
	ask(g, &m, "handover-back", other_back, &r);
	cr_assert_eq(r, -ESTALE, "h3 is said to have it");
	cr_assert(strstr(g->report.text, "h2"), "%s", g->report.text);
	const char *json = ask(g, &m, "handover-back", back, &r);
	cr_assert_eq(r, 0, "%s", g->report.text);
	cr_assert_str_eq(json, "{\"serves\":false}");
	volume_move_end(&m);
	return 0;
}

Test(volume_move, who_has_it_is_told_to_whom_it_was_offered) { with_open_volume(body_other_offer); }

static void put_owner(struct volume_rig *g, const struct meta_owner *o)
{
	char key[META_KEY_BYTES];
	struct catalog_txn t;
	size_t length;
	uint8_t *bytes = meta_owner_encode(o, &length);
	meta_key_owner(1, key);
	catalog_txn_init(&t);
	catalog_txn_put(&t, key, bytes, length);
	cr_assert_eq(catalog_txn(g->places.catalog, &t, NULL), 0);
	free(bytes);
}

/* Somebody attaches it by force while it is offered. */
static void rob(struct volume_rig *g, const char *host, uint64_t pid)
{
	struct meta_owner o;
	cr_assert_eq(meta_get_owner(g->places.catalog, 1, &o, NULL), 0);
	o.epoch++;
	o.state = OWNER_HELD;
	o.stamp = 77;
	o.pid = pid;
	snprintf(o.host, sizeof o.host, "%s", host);
	put_owner(g, &o);
}

/* It is offered to the process 5 of host h2, and somebody takes it: what its giver is told when he asks for it again. */
static const char *take_offered(struct volume_rig *g, struct volume_move *m, const char *host, int pid, int *ret_status)
{
	static const char *const offer[] = { "1", "h2", "device v", "unix:/c", "5", NULL }, *const back[] = { "1", "2000", NULL };
	struct volume_open how = { .catalog = g->places.catalog, .places = &g->places.ops, .volume = 1 };
	volume_move_init(m, container_of(g->node, struct volume_node, node), &g->places, &how);
	ask(g, m, "handover-offer", offer, ret_status);
	cr_assert_eq(*ret_status, 0, "%s", g->report.text);
	g->volume = NULL;
	rob(g, host, pid);
	return ask(g, m, "handover-back", back, ret_status);
}

static int body_robbed(void *arg)
{
	struct volume_rig *g = arg;
	struct volume_move m;
	char state[16], why[128];
	int r;
	take_offered(g, &m, "h3", 5, &r);
	cr_assert_eq(r, -ESTALE, "h2 is said to have it");
	cr_assert(strstr(g->report.text, "h3"), "%s", g->report.text);
	cr_assert(volume_move_condition(&m, state, why, sizeof why));
	cr_assert_str_eq(why, "to host h3");
	volume_move_end(&m);
	return 0;
}

Test(volume_move, who_took_it_by_force_is_named) { with_open_volume(body_robbed); }

/* On the host to which it was offered, but not by the device that was to have it. */
static int body_robbed_there(void *arg)
{
	struct volume_move m;
	int r;
	take_offered(arg, &m, "h2", 6, &r);
	cr_assert_eq(r, -ESTALE, "the offer's target is said to have it");
	volume_move_end(&m);
	return 0;
}

Test(volume_move, another_device_of_the_targets_host_is_no_target) { with_open_volume(body_robbed_there); }

/* It failed half-way before, so that it has another number. */
static int body_target_took(void *arg)
{
	struct volume_rig *g = arg;
	struct volume_move m;
	int r;
	const char *json = take_offered(g, &m, "h2", 5, &r);
	cr_assert_eq(r, 0, "%s", g->report.text);
	cr_assert_str_eq(json, "{\"serves\":false}");
	volume_move_end(&m);
	return 0;
}

Test(volume_move, the_target_is_known_by_its_process) { with_open_volume(body_target_took); }

static int body_target(void *arg)
{
	struct volume_rig *g = arg;
	struct volume_node *n = container_of(g->node, struct volume_node, node);
	struct volume_move m;
	struct volume_open how = { .catalog = g->places.catalog, .places = &g->places.ops, .volume = 1 };
	struct volume *v = g->volume;
	char state[16], why[128];
	/* a node over nothing, of the one that was open */
	volume_node_end(n);
	volume_node_init(n, NULL, NULL);
	volume_move_init(&m, n, &g->places, &how);
	cr_assert_eq(volume_move_begin(&m, 3 * NS_PER_S, &g->report), 0, "%s", g->report.text);
	fiber_sleep(&g->env->loop, NS_PER_S);
	cr_assert(volume_move_condition(&m, state, why, sizeof why) && strcmp(state, "incoming") == 0);
	cr_assert_eq(volume_close(v), 0);
	g->volume = NULL;
	delete_records(g);
	fiber_sleep(&g->env->loop, 10 * NS_PER_S);
	volume_move_condition(&m, state, why, sizeof why);
	cr_assert_str_eq(state, "given-up");
	volume_move_end(&m);
	return 0;
}

Test(volume_move, what_is_waited_for_is_deleted) { with_open_volume(body_target); }

/* An engine whose first lease takes its time, or the second look at the volume's log record. */
static struct {
	const struct catalog_ops *ops;
	struct catalog_ops fake;
	bool slow;
	unsigned looks;
} below;

static int slow_lease(struct catalog *c, unsigned ttl_s, const char *key, struct catalog_lease **ret_lease)
{
	bool slow = below.slow;
	below.slow = false;
	if (slow)
		fiber_sleep(&c->env->loop, NS_PER_S / 2);
	return below.ops->lease(c, ttl_s, key, ret_lease);
}

static int slow_get(struct catalog *c, const char *key, struct catalog_value *ret_value)
{
	char log[META_KEY_BYTES];
	meta_key_log(1, log);
	if (strcmp(key, log) == 0 && ++below.looks == 2)
		fiber_sleep(&c->env->loop, 2 * NS_PER_S);
	return below.ops->get(c, key, ret_value);
}

struct expecting {
	struct volume_rig *g;
	struct volume_move *m;
	int status;
	bool over;
};

static int expect_it(void *arg)
{
	static const char *const offer[] = { "7", "20000", "h3", NULL };
	struct expecting *e = arg;
	char *json = NULL;
	e->status = volume_move_control(e->m, "handover-expect", offer, &json, NULL);
	free(json);
	e->over = true;
	return 0;
}

static void let_go(struct volume_rig *g)
{
	struct meta_owner o;
	cr_assert_eq(meta_get_owner(g->places.catalog, 1, &o, NULL), 0);
	o.state = OWNER_FREE;
	put_owner(g, &o);
}

/* It has moved and comes back; who asks for that has no answer in time, and says it again. */
static int body_expected_twice(void *arg)
{
	struct volume_rig *g = arg;
	struct volume_node *n = container_of(g->node, struct volume_node, node);
	struct volume_move m;
	char state[16], why[128];
	int r;
	take_offered(g, &m, "h3", 5, &r);
	let_go(g);
	struct expecting first = { g, &m, 1, false }, again = first;
	below.ops = g->places.catalog->ops;
	below.fake = *below.ops;
	below.fake.get = slow_get;
	below.looks = 0;
	g->places.catalog->ops = &below.fake;
	fiber_start(&g->env->loop, expect_it, &first, NULL);
	fiber_start(&g->env->loop, expect_it, &again, NULL);
	for (unsigned i = 0; i < 100 && !(first.over && again.over); i++)
		fiber_sleep(&g->env->loop, NS_PER_S / 10);
	g->places.catalog->ops = below.ops;
	cr_assert(first.over && again.over);
	fiber_sleep(&g->env->loop, 2 * NS_PER_S);
	cr_assert(!volume_move_condition(&m, state, why, sizeof why), "%s: %s", state, why);
	cr_assert(n->volume);
	cr_assert_eq(blk_read_wait(g->node, g->buffer, BLOCK_BYTES, 0), 0);
	g->volume = n->volume;
	volume_move_end(&m);
	return 0;
}

Test(volume_move, returns_once_when_told_twice) { with_open_volume(body_expected_twice); }

/* It is let go while the node looks whether it is, and is told at the same time to expect an offer. */
static int body_let_go_and_expected(void *arg)
{
	static const char *const offer[] = { "5", "1000", "h2", NULL };
	struct volume_rig *g = arg;
	struct volume_node *n = container_of(g->node, struct volume_node, node);
	struct volume_move m;
	struct volume_open how = { .catalog = g->places.catalog, .places = &g->places.ops, .volume = 1 };
	struct catalog_value alive;
	char key[META_KEY_BYTES], state[16], why[128];
	int r;
	volume_node_end(n);
	volume_node_init(n, NULL, NULL);
	cr_assert_eq(volume_close(g->volume), 0);
	volume_move_init(&m, n, &g->places, &how);
	cr_assert_eq(volume_move_begin(&m, 3 * NS_PER_S, &g->report), 0, "%s", g->report.text);
	below.slow = true;
	uint64_t before = m.looked_ns;
	while (m.looked_ns == before)
		fiber_sleep(&g->env->loop, 1000);
	ask(g, &m, "handover-expect", offer, &r);
	fiber_sleep(&g->env->loop, NS_PER_S);
	cr_assert(!volume_move_condition(&m, state, why, sizeof why), "%s: %s", state, why);
	g->volume = n->volume;
	meta_key_alive(volume_acquisition(n->volume), key);
	cr_assert_eq(catalog_get(g->places.catalog, key, &alive), 0, "others don't see that its holder lives");
	catalog_value_free(&alive);
	cr_assert(!m.warm.alive && !m.warm.lock && !m.warm.copies, "what was had for the offer is kept");
	volume_move_end(&m);
	return 0;
}

Test(volume_move, is_had_or_expected_not_both)
{
	struct volume_rig *g = volume_rig_make(1, 1 << 20);
	volume_rig_kill(g);
	catalog_sim_doses(g->catalogs)->leases = true;
	volume_rig_begin(g);
	below.ops = g->places.catalog->ops;
	below.fake = *below.ops;
	below.fake.lease = slow_lease;
	g->places.catalog->ops = &below.fake;
	cr_assert_eq(volume_rig_open(g), 0, "%s", g->report.text);
	cr_assert_eq(volume_rig_run(g, body_let_go_and_expected), 0);
	volume_rig_free(g);
}
