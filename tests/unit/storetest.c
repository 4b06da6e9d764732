#include "tests/unit/storetest.h"

#include <stdlib.h>

#include "parallax/store/store_check.h"
#include "tests/unit/blktest.h"
#include "tests/unit/tempdir.h"

static int rig_run(void *arg)
{
	struct rig *r = arg;
	struct store_options o = { .root = r->dir, .create = true };
	OK(r, store_open(r->env, &o, &r->store, &r->report));
	int e = r->body(r);
	store_close(r->store);
	return e;
}

void rig_test(int (*body)(struct rig *r))
{
	struct rig r = { .dir = "/tmp/aqstore.XXXXXX", .body = body, .random = 1 };
	cr_assert(mkdtemp(r.dir));
	blktest_root = r.dir;
	cr_assert_eq(env_linux_create(0, &r.env), 0);
	cr_assert_eq(env_linux_run_fiber(r.env, rig_run, &r), 0);
	env_linux_destroy(r.env);
	tempdir_remove(r.dir);
}

static int count_key(void *arg, const char *key, const struct catalog_value *value)
{
	(void)key;
	(void)value;
	++*(unsigned *)arg;
	return 0;
}

unsigned rig_keys(struct rig *r, const char *prefix)
{
	unsigned n = 0;
	cr_assert_eq(catalog_list(r->store->catalog, prefix, count_key, &n), 0);
	return n;
}

static void fault(void *arg, const char *volume, const char *text)
{
	(void)arg;
	cr_assert(0, "%s: %s", volume ? volume : "the catalog", text);
}

void rig_check(struct rig *r)
{
	struct store_check how = { .fault = fault };
	OK(r, store_check(r->store, &how, REPORT(r)));
}
