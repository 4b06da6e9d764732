/* The servers of the cluster as an operator is shown them (parallax/store/store_server.c). */
#include <criterion/criterion.h>
#include <errno.h>
#include <string.h>

#include "tests/unit/clustertest.h"

static const struct catalog_ops *whole;

static int silent_get(struct catalog *c, const char *key, struct catalog_value *ret)
{
	*ret = (struct catalog_value){ .length = 0 };
	return strncmp(key, "server/", 7) == 0 ? -ETIMEDOUT : whole->get(c, key, ret);
}

static unsigned seen, without_address;

static int note(void *arg, const struct store_server *s)
{
	(void)arg;
	seen++;
	without_address += !s->address[0];
	return 0;
}

static int list(void *arg)
{
	struct cluster_rig *c = arg;
	c->g.report.text[0] = '\0';
	return store_server_list(&c->g.store, note, NULL, &c->g.report);
}

static int find(void *arg)
{
	struct cluster_rig *c = arg;
	struct store_server found;
	return store_server_find(&c->g.store, c->servers[1].address, &found, NULL);
}

Test(store_server, one_whose_record_cant_be_read_now_isnt_shown_without_an_address)
{
	struct cluster_rig *c = cluster_make();
	struct catalog *catalog = c->g.places.catalog;
	struct catalog_ops ops = *catalog->ops;
	whole = catalog->ops;
	ops.get = silent_get;
	catalog->ops = &ops;
	cr_assert_eq(volume_rig_run(&c->g, list), -ETIMEDOUT);
	cr_assert(strstr(c->g.report.text, "catalog"), "%s", c->g.report.text);
	cr_assert_eq(without_address, 0);
	cr_assert_eq(volume_rig_run(&c->g, find), -ETIMEDOUT, "nobody knows that there is none");
	catalog->ops = whole;
	cr_assert_eq(volume_rig_run(&c->g, list), 0);
	cr_assert(seen == SERVERS && without_address == 0);
	cluster_free(c);
}

/* ---- one whose record is damaged ---- */

static int damaged_get(struct catalog *c, const char *key, struct catalog_value *ret)
{
	int r = whole->get(c, key, ret);
	if (r == 0 && strncmp(key, "server/", 7) == 0 && ret->length)
		((uint8_t *)(uintptr_t)ret->bytes)[0] ^= 0xff;
	return r;
}

Test(store_server, one_whose_record_is_damaged_keeps_nobody_from_the_others)
{
	struct cluster_rig *c = cluster_make();
	struct catalog *catalog = c->g.places.catalog;
	struct catalog_ops ops = *catalog->ops;
	whole = catalog->ops;
	ops.get = damaged_get;
	catalog->ops = &ops;
	seen = 0;
	int r = volume_rig_run(&c->g, list);
	cr_expect_eq(r, 0, "%d %s", r, c->g.report.text);
	cr_expect_eq(seen, SERVERS);
	catalog->ops = whole;
	cluster_free(c);
}
