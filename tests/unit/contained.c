/* Containers of one kernel that share a store's directory: none sees another one's processes, but its locks (parallax/volume/places.c). */
#include <criterion/criterion.h>
#include <errno.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>

#include "core/drivers.h"
#include "parallax/store/store_check.h"
#include "tests/unit/blktest.h"
#include "tests/unit/storetest.h"

/* It is held by a process of another one, which this one doesn't see. */
static void hold_elsewhere(struct rig *r, const char *name, struct file **ret_lock)
{
	struct meta_name named;
	struct meta_owner o;
	char key[META_KEY_BYTES], path[256];
	uint64_t revision;
	size_t length;
	cr_assert_eq(meta_get_name(r->store->catalog, name, &named, NULL), 0);
	cr_assert_eq(meta_get_owner(r->store->catalog, named.volume, &o, &revision), 0);
	o.state = OWNER_HELD;
	o.pid = 1;
	o.pids = env_pids(r->env) + 1;
	env_boot_id(r->env, o.boot);
	snprintf(o.holder, sizeof o.holder, "device v");
	meta_key_owner(named.volume, key);
	uint8_t *bytes = meta_owner_encode(&o, &length);
	cr_assert_eq(catalog_put_at(r->store->catalog, key, revision, bytes, length), 0);
	free(bytes);
	places_embedded_path(r->store->places, named.volume, path, sizeof path);
	strcat(path, "/lock");
	cr_assert_eq(file_open(r->env, path, FILE_OPEN_WRITE, ret_lock), 0);
	cr_assert_eq(file_lock(*ret_lock, /* exclusive= */ true), 0);
}

static int body_contained(struct rig *r)
{
	struct store_volume v;
	struct file *lock;
	struct store_volume_options o = { .size_bytes = 1 << 20 };
	struct blk_node *n = NULL;
	const char *name = "v@s";
	OK(r, store_volume_create(r->store, "v", &o, REPORT(r)));
	OK(r, blktest_open(r->env, &driver_volume, NULL, false, (const char *[]){ "v", NULL }, &n, REPORT(r)));
	cr_assert_eq(blk_close(n), 0);
	OK(r, store_snapshot_create(r->store, &name, 1, REPORT(r)));
	hold_elsewhere(r, "v", &lock);
	FAILS(r, store_volume_delete(r->store, "v", true, REPORT(r)), -EBUSY, "attached as device v in another container");
	FAILS(r, store_snapshot_rollback(r->store, "v@s", REPORT(r)), -EBUSY, "attached as device v in another container");
	OK(r, store_volume_show(r->store, "v", &v, REPORT(r)));
	cr_assert(v.state == STORE_HELD, "%s", v.health);
	struct store_check check = { .volume = NULL };
	OK(r, store_check(r->store, &check, REPORT(r)));
	cr_assert(check.incomplete == 1 && check.faults == 0, "%d %d", (int)check.incomplete, (int)check.faults);
	file_close(r->env, lock); /* it has ended, and said nothing */
	OK(r, store_snapshot_rollback(r->store, "v@s", REPORT(r)));
	OK(r, store_volume_delete(r->store, "v", true, REPORT(r)));
	return 0;
}

Test(contained, what_another_container_has_is_not_deleted) { rig_test(body_contained); }
