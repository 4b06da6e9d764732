/* The servers of the cluster as an operator is shown them (parallax/store/store_server.c). */
#include <criterion/criterion.h>
#include <errno.h>
#include <stdio.h>
#include <stdlib.h>
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

/* ---- two that are drained at the same moment ---- */

static struct cluster_rig *race;
static bool other_marked;

/* While the first one is being marked somebody marks the second. */
static int racing_txn(struct catalog *c, const struct catalog_txn *t, uint64_t *ret_revision)
{
	char key[META_KEY_BYTES];
	struct meta_server m;
	uint64_t revision;
	size_t length;
	meta_key_server(&race->servers[0].dir->id, key);
	if (other_marked || !t->change_count || strcmp(t->change[0].key, key) != 0)
		return whole->txn(c, t, ret_revision);
	other_marked = true;
	const uuid *other = &race->servers[1].dir->id;
	cr_assert_eq(meta_get_server(c, other, &m, &revision), 0);
	m.draining = true;
	uint8_t *bytes = meta_server_encode(&m, &length);
	meta_key_server(other, key);
	cr_assert_eq(catalog_put_at(c, key, revision, bytes, length), 0);
	free(bytes);
	return whole->txn(c, t, ret_revision);
}

static int want_two(void *arg)
{
	struct cluster_rig *c = arg;
	struct catalog *catalog = c->g.places.catalog;
	struct meta_log *log = malloc(sizeof *log);
	char key[META_KEY_BYTES];
	size_t length;
	uint64_t revision;
	cr_assert_eq(meta_get_log(catalog, c->g.volume->id, log, &revision), 0);
	meta_key_log(c->g.volume->id, key);
	log->replicas = 2;
	uint8_t *bytes = meta_log_encode(log, &length);
	int r = catalog_put_at(catalog, key, revision, bytes, length);
	free(bytes);
	free(log);
	return r;
}

static int drain(void *arg)
{
	struct cluster_rig *c = arg;
	char id[33];
	for (unsigned i = 0; i < 16; i++)
		snprintf(id + 2 * i, 3, "%02x", c->servers[0].dir->id.bytes[i]);
	return store_server_drain(&c->g.store, id, /* undo= */ false, /* force= */ false, &c->g.report);
}

static int draining(void *arg)
{
	struct cluster_rig *c = arg;
	struct meta_server m;
	int r = meta_get_server(c->g.places.catalog, &c->servers[0].dir->id, &m, NULL);
	return r ? r : m.draining;
}

Test(store_server, of_two_drained_at_the_same_moment_one_is_refused_where_too_few_domains_would_be_left)
{
	struct cluster_rig *c = cluster_make();
	struct catalog *catalog = c->g.places.catalog;
	race = c;
	cr_assert_eq(volume_rig_run(&c->g, want_two), 0);
	struct catalog_ops ops = *catalog->ops;
	whole = catalog->ops;
	ops.txn = racing_txn;
	catalog->ops = &ops;
	int r = volume_rig_run(&c->g, drain);
	cr_expect(r == -EBUSY && strstr(c->g.report.text, "1 failure domain would be left"), "%d %s", r, c->g.report.text);
	cr_expect(other_marked);
	cr_expect_eq(volume_rig_run(&c->g, draining), 0, "it is used as before");
	catalog->ops = whole;
	cluster_free(c);
}
