/* A store that is kept open for long, as an agent's is, goes by what names mean now. */
#include <errno.h>

#include "parallax/store/store.h"
#include "tests/unit/storetest.h"

static void create(struct rig *r, const char *name)
{
	struct store_volume_options o = { .size_bytes = 1 << 20 };
	OK(r, store_volume_create(r->store, name, &o, REPORT(r)));
}

static int body_renamed(struct rig *r)
{
	const char *v = "v@s", *w = "w@s", *other = "w@t";
	create(r, "v");
	OK(r, store_snapshot_create(r->store, &v, 1, REPORT(r)));
	FAILS(r, store_snapshot_create(r->store, &v, 1, REPORT(r)), -EEXIST, "'v@s' already");
	OK(r, store_volume_rename(r->store, "v", "w", REPORT(r)));
	FAILS(r, store_snapshot_create(r->store, &v, 1, REPORT(r)), -ENOENT, "no volume 'v'");
	create(r, "v");
	OK(r, store_snapshot_create(r->store, &v, 1, REPORT(r)));
	OK(r, store_snapshot_create(r->store, &other, 1, REPORT(r)));
	OK(r, store_snapshot_rollback(r->store, w, REPORT(r)));
	FAILS(r, store_snapshot_create(r->store, &w, 1, REPORT(r)), -EEXIST, "'w@s' already");
	return 0;
}

Test(store_names, snapshots_are_of_what_a_name_means_now) { rig_test(body_renamed); }
