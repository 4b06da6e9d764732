/* A device on another host whose lease has run out may have lost only the catalog, and serve its guest all the same: no command but attach takes its volume. */
#include <criterion/criterion.h>
#include <errno.h>
#include <stdlib.h>
#include <string.h>

#include "parallax/store/store_check.h"
#include "tests/unit/storetest.h"

enum { BYTES = 1 << 20 };

/* An engine that has leases; nobody's is there. */
static int no_lease(struct catalog *c, unsigned ttl_s, const char *key, struct catalog_lease **ret_lease)
{
	(void)c, (void)ttl_s, (void)key, (void)ret_lease;
	return -ENOTSUP;
}

static void put_owner(struct rig *r, const struct meta_owner *o)
{
	char key[META_KEY_BYTES];
	size_t length;
	uint8_t *bytes = meta_owner_encode(o, &length);
	struct catalog_txn t;
	meta_key_owner(r->id, key);
	catalog_txn_init(&t);
	catalog_txn_put(&t, key, bytes, length);
	OK(r, catalog_txn(r->store->catalog, &t, NULL));
	free(bytes);
}

static int snapshot_one(struct rig *r) { return store_snapshot_create(r->store, (const char *const[]){ "v@new" }, 1, &r->report); }
static int snapshot_two(struct rig *r) { return store_snapshot_create(r->store, (const char *const[]){ "v@new", "w@new" }, 2, &r->report); }
static int resize(struct rig *r) { return store_volume_resize(r->store, "v", 2 * BYTES, false, &r->report); }
static int set(struct rig *r) { return store_volume_set(r->store, "v", "io-timeout", "5s", &r->report); }
static int rename_it(struct rig *r) { return store_volume_rename(r->store, "v", "u", &r->report); }
static int roll_back(struct rig *r) { return store_snapshot_rollback(r->store, "v@s", &r->report); }
static int delete_it(struct rig *r) { return store_volume_delete(r->store, "v", /* with_snapshots= */ true, &r->report); }
static int differ(struct rig *r) { return store_diff(r->store, "v@s", "v", NULL, NULL, &r->report); }

static const struct {
	const char *name;
	int (*run)(struct rig *r);
} commands[] = {
	{ "snapshot", snapshot_one }, { "snapshot of two", snapshot_two }, { "resize", resize }, { "set", set },
	{ "rename", rename_it }, { "rollback", roll_back }, { "delete", delete_it }, { "diff", differ },
};

static void note_fault(void *arg, const char *volume, const char *text)
{
	(void)arg;
	cr_assert_fail("%s: %s", volume ? volume : "the catalog", text);
}

static void note_checked(void *arg, const struct store_checked *v)
{
	if (strcmp(v->name, "v") == 0)
		*(struct store_checked *)arg = *v;
}

static struct store_checked checked(struct rig *r)
{
	struct store_checked v = { .name = "" };
	struct store_check k = { .fault = note_fault, .checked = note_checked, .arg = &v };
	OK(r, store_check(r->store, &k, &r->report));
	cr_assert_str_eq(v.name, "v");
	return v;
}

static void is_as_before(struct rig *r, const struct meta_owner *before, const char *command)
{
	struct meta_owner now;
	OK(r, meta_get_owner(r->store->catalog, r->id, &now, NULL));
	cr_assert(now.epoch == before->epoch && now.stamp == before->stamp && now.state == before->state, "%s has taken it from who may serve a guest", command);
}

/* Somebody else has it, and his lease has run out. */
static struct meta_owner lose_lease(struct rig *r, enum owner_state state)
{
	struct meta_owner o;
	OK(r, meta_get_owner(r->store->catalog, r->id, &o, NULL));
	o.epoch++;
	o.state = state;
	o.stamp = 77;
	snprintf(o.host, sizeof o.host, "another");
	snprintf(o.holder, sizeof o.holder, "device v");
	put_owner(r, &o);
	return o;
}

/* A command there that was killed, which has no guest. */
static void put_killed(struct rig *r, struct meta_owner *o)
{
	snprintf(o->holder, sizeof o->holder, VOLUME_MAINTENANCE);
	o->state = OWNER_HELD;
	put_owner(r, o);
}

static void lapsed(struct rig *r, enum owner_state state)
{
	struct meta_owner o = lose_lease(r, state);
	for (size_t i = 0; i < sizeof commands / sizeof *commands; i++) {
		r->report.text[0] = '\0';
		int e = commands[i].run(r);
		cr_assert_eq(e, -EBUSY, "%s: %d %s", commands[i].name, e, r->report.text);
		cr_assert(strstr(r->report.text, "device v on host another, which hasn't renewed its lease"), "%s: %s", commands[i].name, r->report.text);
		is_as_before(r, &o, commands[i].name);
	}
	struct store_volume shown;
	OK(r, store_volume_show(r->store, "v", &shown, &r->report));
	cr_assert(shown.lapsed && shown.state == (state == OWNER_HELD ? STORE_HELD : STORE_OFFERED) && strstr(shown.health, "hasn't renewed its lease"), "%s", shown.health);
	struct store_checked v = checked(r);
	cr_assert(v.attached && !v.complete && strstr(v.why, "on host another"), "%s", v.why);
	is_as_before(r, &o, "check");
	put_killed(r, &o);
	v = checked(r);
	cr_assert(!v.attached && v.complete, "%s", v.why);
	OK(r, snapshot_one(r));
	OK(r, store_snapshot_delete(r->store, "v@new", &r->report));
}

static void put_alive(struct rig *r, bool there)
{
	char key[META_KEY_BYTES];
	struct catalog_txn t;
	meta_key_alive(77, key);
	catalog_txn_init(&t);
	if (there)
		catalog_txn_put(&t, key, "", 0);
	else
		catalog_txn_delete(&t, key);
	OK(r, catalog_txn(r->store->catalog, &t, NULL));
}

/* Another machine that is called as this one is has it: while its lease says so nobody takes it; afterwards it may as well be this machine before it started anew. */
static void namesake(struct rig *r)
{
	struct meta_owner o;
	struct places *p = r->store->places;
	OK(r, meta_get_owner(r->store->catalog, r->id, &o, NULL));
	o.epoch++;
	o.state = OWNER_HELD;
	o.stamp = 77;
	o.pid = 1;
	snprintf(o.host, sizeof o.host, "%s", p->host);
	snprintf(o.holder, sizeof o.holder, "device v");
	snprintf(o.boot, sizeof o.boot, "01234567-89ab-cdef-0123-456789abcdef");
	put_owner(r, &o);
	put_alive(r, true);
	cr_assert(places_holder_alive(p, &o) && places_held_elsewhere(p, &o));
	cr_assert_eq(delete_it(r), -EBUSY);
	cr_assert(strstr(r->report.text, "it is attached as device v"), "%s", r->report.text);
	is_as_before(r, &o, "delete");
	put_alive(r, false);
	cr_assert(!places_holder_alive(p, &o) && !places_held_elsewhere(p, &o) && !places_attached_elsewhere(p, &o));
	OK(r, snapshot_one(r));
	OK(r, store_snapshot_delete(r->store, "v@new", &r->report));
}

/* Runs `part` on a volume v with a snapshot s, and w, where there are leases. */
static void with_leases(struct rig *r, void (*part)(struct rig *r))
{
	struct store_volume_options volume = { .size_bytes = BYTES };
	struct catalog_ops leases = *r->store->catalog->ops;
	const struct catalog_ops *before = r->store->catalog->ops;
	leases.lease = no_lease;
	OK(r, store_volume_create(r->store, "v", &volume, &r->report));
	OK(r, store_volume_create(r->store, "w", &volume, &r->report));
	OK(r, store_snapshot_create(r->store, (const char *const[]){ "v@s" }, 1, &r->report));
	OK(r, store_find_volume(r->store->places, "v", &r->id, &r->report));
	r->store->catalog->ops = &leases;
	part(r);
	r->store->catalog->ops = before;
}

static void all_commands(struct rig *r)
{
	lapsed(r, OWNER_HELD);
	lapsed(r, OWNER_OFFERED);
	namesake(r);
}

static int body_commands(struct rig *r) { return with_leases(r, all_commands), 0; }

Test(lapsed, no_command_takes_the_volume) { rig_test(body_commands); }

/* What is deleted of it is noted, and freed when he is known to have no guest. */
static void deletion(struct rig *r)
{
	OK(r, store_snapshot_create(r->store, (const char *const[]){ "v@t" }, 1, &r->report));
	OK(r, store_snapshot_create(r->store, (const char *const[]){ "v@u" }, 1, &r->report));
	struct meta_owner o = lose_lease(r, OWNER_HELD);
	OK(r, store_snapshot_delete(r->store, "v@t", REPORT(r)));
	is_as_before(r, &o, "deleting a snapshot");
	cr_assert(rig_keys(r, "snapshot/") == 3 && rig_keys(r, "reap/") == 1, "it stays noted");
	put_killed(r, &o);
	store_reap(r->store);
	cr_assert(rig_keys(r, "snapshot/") == 2 && rig_keys(r, "reap/") == 0);
	rig_check(r);
}

static int body_deletion(struct rig *r) { return with_leases(r, deletion), 0; }

Test(lapsed, a_deletion_waits_for_who_may_serve_a_guest) { rig_test(body_deletion); }
