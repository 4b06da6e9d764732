/* What is forgotten of a volume that was deleted since a backup (parallax/store/store_recover_forget.c). */
#include <criterion/criterion.h>
#include <errno.h>
#include <string.h>

#include "parallax/store/store_recover_private.h"
#include "tests/unit/volumetest.h"

static struct {
	struct catalog_ops ops;
	const struct catalog_ops *real;
	unsigned lists; /* of all names */
} below;

static int counting_list(struct catalog *c, const char *prefix, int (*entry)(void *arg, const char *key, const struct catalog_value *value), void *arg)
{
	below.lists += strcmp(prefix, "name/") == 0;
	return below.real->list(c, prefix, entry, arg);
}

static int note_any(void *arg, const char *key, const struct catalog_value *value)
{
	(void)key;
	(void)value;
	++*(unsigned *)arg;
	return 0;
}

/* How often all names are read. */
static int forget(struct volume_rig *g, const char *name)
{
	uint64_t id;
	unsigned left = 0;
	char prefix[META_KEY_BYTES];
	cr_assert_eq(store_find_volume(&g->places, name, &id, &g->report), 0);
	below.real = g->places.catalog->ops;
	below.ops = *below.real;
	below.ops.list = counting_list;
	below.lists = 0;
	g->places.catalog->ops = &below.ops;
	cr_assert_eq(recover_forget(&g->store, id, &g->report), 0, "%s", g->report.text);
	g->places.catalog->ops = below.real;
	meta_key_volume(id, prefix);
	cr_assert_eq(catalog_list(g->places.catalog, prefix, note_any, &left), 0);
	cr_assert_eq(left, 0);
	cr_assert_eq(store_find_volume(&g->places, name, &id, &g->report), -ENOENT, "its name is left");
	return (int)below.lists;
}

static int body_named(void *arg) { return forget(arg, "v"); }

static int body_renamed(void *arg)
{
	struct volume_rig *g = arg;
	cr_assert_eq(store_volume_rename(&g->store, "v", "w", &g->report), 0, "%s", g->report.text);
	return forget(g, "w");
}

static void lists(int (*body)(void *arg), int want)
{
	struct volume_rig *g = volume_rig_make(1, 4 << 20);
	cr_assert_eq(volume_rig_run(g, body), want);
	volume_rig_free(g);
}

/* Else many that are forgotten cost the square of that. */
Test(forget, of_other_names_nothing_is_read) { lists(body_named, 0); }

Test(forget, a_name_that_was_changed_is_found) { lists(body_renamed, 1); }
