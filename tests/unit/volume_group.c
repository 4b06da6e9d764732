/* A volume's part in a group snapshot: what is held and for how long, and what becomes of the mark. */
#include "parallax/volume/volume_group.h"

#include <criterion/criterion.h>
#include <errno.h>
#include <stdlib.h>
#include <string.h>

#include "core/bytes.h"
#include "core/fiber.h"
#include "tests/unit/volumetest.h"

enum { GROUP = 0x1234 };

static void world(int (*body)(void *arg))
{
	struct volume_rig *g = volume_rig_make(1, 1 << 20);
	cr_assert_eq(volume_rig_open(g), 0, "%s", g->report.text);
	cr_assert_eq(volume_rig_run(g, body), 0);
	volume_rig_free(g);
}

static void put(struct volume_rig *g, int byte)
{
	memset(g->buffer, byte, BLOCK_BYTES);
	cr_assert_eq(blk_write_wait(g->node, g->buffer, BLOCK_BYTES, 0, 0), 0);
}

static int get(struct volume_rig *g)
{
	uint8_t *b = env_alloc_aligned(BLOCK_BYTES);
	cr_assert_eq(blk_read_wait(g->node, b, BLOCK_BYTES, 0), 0);
	int byte = b[0];
	free(b);
	return byte;
}

/* group/G, as store_group.c makes it. */
static void begin(struct volume_rig *g)
{
	struct catalog_txn t;
	char key[META_KEY_BYTES];
	meta_key_group(GROUP, key);
	catalog_txn_init(&t);
	catalog_txn_compare(&t, key, 0);
	catalog_txn_put(&t, key, "", 0);
	cr_assert_eq(catalog_txn(g->places.catalog, &t, NULL), 0);
}

static bool pending(struct volume_rig *g)
{
	char key[META_KEY_BYTES];
	struct catalog_value v;
	meta_key_group(GROUP, key);
	int r = catalog_get(g->places.catalog, key, &v);
	catalog_value_free(&v);
	return r == 0;
}

static void mark(struct volume_rig *g, uint64_t hold_ns, struct volume_mark *ret)
{
	cr_assert_eq(volume_group_mark(g->volume, GROUP, hold_ns, ret, &g->report), 0, "%s", g->report.text);
}

static int write_two(void *arg)
{
	put(arg, 2);
	return 0;
}

static void start_write(struct volume_rig *g, struct job *j)
{
	job_init(j, &g->env->loop);
	job_hold(j);
	cr_assert_eq(fiber_start(&g->env->loop, write_two, g, j), 0);
}

static uint64_t held_for(struct volume_rig *g, struct job *j)
{
	uint64_t began = env_now_ns(g->env);
	cr_assert_eq(fiber_wait(j), 0);
	return env_now_ns(g->env) - began;
}

static int body_release(void *arg)
{
	struct volume_rig *g = arg;
	struct volume_mark m;
	struct job j;
	put(g, 1);
	begin(g);
	mark(g, 3 * NS_PER_S, &m);
	start_write(g, &j);
	fiber_sleep(&g->env->loop, NS_PER_S);
	cr_assert_eq(get(g), 1, "what follows the mark is shown");
	cr_assert_eq(volume_group_mark(g->volume, GROUP + 1, NS_PER_S, &m, NULL), -EBUSY);
	cr_assert_eq(volume_group_release(g->volume, GROUP + 1, NULL), -ENOENT);
	cr_assert_eq(volume_group_release(g->volume, GROUP, NULL), 0);
	cr_assert_lt(held_for(g, &j), 100 * NS_PER_MS);
	cr_assert_eq(get(g), 2);
	cr_assert_eq(volume_group_release(g->volume, GROUP, NULL), -ETIME, "released twice");
	cr_assert(pending(g), "the outcome is for who took it, until the volume is tired of waiting");
	fiber_sleep(&g->env->loop, 10 * NS_PER_S);
	cr_assert(!pending(g), "it never is");
	cr_assert_eq(volume_group_release(g->volume, GROUP, NULL), -ENOENT);
	cr_assert_eq(volume_snapshot(g->volume, "s", &g->report), 0, "%s", g->report.text);
	return volume_checkpoint(g->volume);
}

Test(volume_group, holds_until_released) { world(body_release); }

static int body_deadline(void *arg)
{
	struct volume_rig *g = arg;
	struct volume_mark m;
	struct job j;
	put(g, 1);
	begin(g);
	mark(g, NS_PER_S, &m);
	start_write(g, &j);
	uint64_t held = held_for(g, &j);
	cr_assert(held > 800 * NS_PER_MS && held < 1200 * NS_PER_MS, "%llu ns", (unsigned long long)held);
	cr_assert_eq(volume_group_release(g->volume, GROUP, &g->report), -ETIME);
	cr_assert(strstr(g->report.text, "held"), "%s", g->report.text);
	fiber_sleep(&g->env->loop, NS_PER_S);
	cr_assert(!pending(g), "a broken hold voids the group at once");
	return volume_checkpoint(g->volume);
}

Test(volume_group, deadline_ends_the_hold_and_voids_the_group) { world(body_deadline); }

static int body_published(void *arg)
{
	struct volume_rig *g = arg;
	struct volume_mark m;
	char *json = NULL, group_key[META_KEY_BYTES], key[META_KEY_BYTES];
	const char *args[] = { "1234", "3000", NULL };
	begin(g);
	cr_assert_eq(volume_group_control(g->volume, "group-mark", args, &json, &g->report), 0, "%s", g->report.text);
	cr_assert_eq(volume_mark_decode(json, &m), 0, "%s", json);
	free(json);
	json = NULL;
	cr_assert_eq(volume_group_control(g->volume, "group-release", args, &json, &g->report), 0);
	struct meta_snapshot s = { .name = "s", .mark_seq = m.seq, .mark_position = m.position, .size_bytes = m.size_bytes };
	cr_assert_eq(m.size_bytes, 1 << 20);
	size_t length;
	uint8_t *bytes = meta_snapshot_encode(&s, &length);
	struct catalog_txn t;
	catalog_txn_init(&t);
	meta_key_group(GROUP, group_key);
	uint64_t volume;
	cr_assert_eq(store_find_volume(&g->places, "v", &volume, NULL), 0);
	meta_key_snapshot(volume, m.seq, key);
	catalog_txn_delete(&t, group_key);
	catalog_txn_put(&t, key, bytes, length);
	cr_assert_eq(catalog_txn(g->places.catalog, &t, NULL), 0);
	free(bytes);
	cr_assert_eq(volume_group_control(g->volume, "group-end", args, &json, &g->report), 0);
	for (unsigned i = 0; i < 100 && !s.has_root; i++) { /* it looks, and starts a checkpoint */
		fiber_sleep(&g->env->loop, 50 * NS_PER_MS);
		cr_assert_eq(meta_get_snapshot(g->places.catalog, volume, m.seq, &s, NULL), 0);
	}
	cr_assert(s.has_root);
	const char *none[] = { NULL }, *zero[] = { "1234", "0", NULL }, *endless[] = { "1234", "999999999", NULL };
	cr_assert_eq(volume_group_control(g->volume, "group-mark", none, &json, NULL), -EINVAL);
	cr_assert_eq(volume_group_control(g->volume, "group-mark", zero, &json, NULL), -EINVAL);
	cr_assert_eq(volume_group_control(g->volume, "group-mark", endless, &json, NULL), -EINVAL);
	cr_assert_eq(volume_group_control(g->volume, "group-other", args, &json, NULL), -EOPNOTSUPP);
	return 0;
}

Test(volume_group, what_is_published_gets_its_map) { world(body_published); }

Test(volume_group, answers_that_are_none)
{
	struct volume_mark m;
	static const char *const bad[] = { "", "{}", "{\"seq\":0,\"position\":1,\"size\":2,\"owner\":3}", "{\"seq\":1,\"position\":2,\"size\":3}",
					   "{\"seq\":x" };
	for (unsigned i = 0; i < ARRAY_COUNT(bad); i++)
		cr_assert_eq(volume_mark_decode(bad[i], &m), -EPROTO, "%s", bad[i]);
}
