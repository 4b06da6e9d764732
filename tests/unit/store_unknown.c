/* Commands whose transaction has no known outcome: what they say is what is known, and no more. */
#include <criterion/criterion.h>
#include <errno.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <unistd.h>

#include "core/fiber.h"
#include "parallax/store/store_private.h"
#include "tests/unit/tempdir.h"

/* The engine below, and what becomes of calls. */
static struct {
	const struct catalog_ops *ops;
	unsigned lost;    /* so many transactions are applied, and their answer is lost */
	unsigned refused; /* then so many aren't applied, as if somebody had changed what they compare */
	bool blind;       /* from the first of them on nothing can be read */
} below;

static int fake_txn(struct catalog *c, const struct catalog_txn *t, uint64_t *ret_revision)
{
	if (t->change_count < 2) /* it takes a number */
		return below.ops->txn(c, t, ret_revision);
	if (below.lost) {
		below.lost--;
		cr_assert_eq(below.ops->txn(c, t, ret_revision), 0);
		return -ETIMEDOUT;
	}
	if (below.refused) {
		below.refused--;
		return -EAGAIN;
	}
	return below.ops->txn(c, t, ret_revision);
}

static int fake_get_many(struct catalog *c, struct catalog_want *wants, unsigned count)
{
	return below.blind && !below.lost && !below.refused ? -EIO : below.ops->get_many(c, wants, count);
}

static int fake_get(struct catalog *c, const char *key, struct catalog_value *ret_value)
{
	*ret_value = (struct catalog_value){ 0 };
	return below.blind && !below.lost && !below.refused ? -EIO : below.ops->get(c, key, ret_value);
}

struct rig {
	struct env *env;
	char dir[64];
	struct store *store;
	struct report report;
};

static int create(struct rig *r, const char *name)
{
	struct store_volume_options o = { .size_bytes = 1 << 20 };
	r->report.text[0] = 0;
	return store_volume_create(r->store, name, &o, &r->report);
}

static bool says(const struct rig *r, const char *text) { return strstr(r->report.text, text); }

static void next(unsigned lost, unsigned refused, bool blind)
{
	below.lost = lost;
	below.refused = refused;
	below.blind = blind;
}

static void tell(struct rig *r)
{
	/* it had arrived: that is seen */
	next(1, 0, false);
	cr_assert_eq(create(r, "a"), 0, "%s", r->report.text);
	/* it had arrived, and nobody can tell */
	next(1, 0, true);
	cr_assert_eq(create(r, "b"), -ETIMEDOUT);
	cr_assert(says(r, "isn't known") && !says(r, "snapshot"), "%s", r->report.text);
	next(0, 0, false);
	cr_assert_eq(create(r, "b"), -EEXIST);
	/* it is refused, and nothing says why: somebody else took the number */
	next(0, 3, false);
	cr_assert_eq(create(r, "c"), 0, "%s", r->report.text);
	next(0, 1000, false);
	cr_assert_eq(create(r, "never"), -EAGAIN);
	cr_assert(says(r, "all the time"), "%s", r->report.text);
	/* moving a name: the same */
	r->report.text[0] = 0;
	next(1, 0, true);
	cr_assert_eq(store_volume_rename(r->store, "a", "d", &r->report), -ETIMEDOUT);
	cr_assert(says(r, "isn't known"), "%s", r->report.text);
	r->report.text[0] = 0;
	next(0, 1, false);
	cr_assert_eq(store_volume_rename(r->store, "d", "e", &r->report), -EAGAIN);
	cr_assert(says(r, "renamed or deleted it meanwhile (see: aquifer volume list)"), "%s", r->report.text);
	r->report.text[0] = 0;
	next(1, 0, false);
	cr_assert_eq(store_volume_delete(r->store, "d", false, &r->report), 0, "%s", r->report.text);
}

static int body(void *arg)
{
	struct rig *r = arg;
	struct store_options o = { .root = r->dir, .create = true };
	cr_assert_eq(store_open(r->env, &o, &r->store, &r->report), 0, "%s", r->report.text);
	struct catalog_ops fake = *r->store->catalog->ops;
	below.ops = r->store->catalog->ops;
	fake.txn = fake_txn;
	fake.get = fake_get;
	fake.get_many = fake_get_many;
	r->store->catalog->ops = &fake;
	tell(r);
	r->store->catalog->ops = below.ops;
	store_close(r->store);
	return 0;
}

Test(store_unknown, says_what_is_known)
{
	struct rig r = { .dir = "/tmp/aqunknown.XXXXXX" };
	cr_assert(mkdtemp(r.dir));
	cr_assert_eq(env_linux_create(0, &r.env), 0);
	cr_assert_eq(env_linux_run_fiber(r.env, body, &r), 0);
	env_linux_destroy(r.env);
	tempdir_remove(r.dir);
}
