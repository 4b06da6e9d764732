/* What the catalog's backup has of a volume that was deleted since. */
#include <errno.h>
#include <stdlib.h>
#include <string.h>

#include "core/array.h"
#include "core/bytes.h"
#include "parallax/store/store_recover_private.h"

enum { DEPTH_MAX = 64 };

struct keys {
	char (*key)[META_KEY_BYTES];
	size_t count;
};

static int note(void *arg, const char *key, const struct catalog_value *value)
{
	struct keys *k = arg;
	(void)value;
	if (array_more(&k->key, k->count) < 0)
		return -ENOMEM;
	snprintf(k->key[k->count++], META_KEY_BYTES, "%s", key);
	return 0;
}

static int delete_all(struct catalog *c, const struct keys *k)
{
	struct catalog_txn *t = malloc(sizeof *t);
	int r = t ? 0 : -ENOMEM;
	for (size_t at = 0; r == 0 && at < k->count;) {
		catalog_txn_init(t);
		while (at < k->count && t->change_count < CATALOG_TXN_MAX)
			catalog_txn_delete(t, k->key[at++]);
		r = store_txn(c, t);
	}
	free(t);
	return r;
}

/* In what other volumes' names have of it as their history, it is left: it is passed over there. */
struct named {
	uint64_t id;
	struct keys *keys;
};

static int note_if_its(void *arg, const char *key, const struct catalog_value *value)
{
	const struct named *n = arg;
	struct meta_name m;
	return meta_name_decode(value->bytes, value->length, &m) == 0 && m.volume == n->id ? note(n->keys, key, value) : 0;
}

/* That which its record says, most often; it doesn't if it was renamed, and then all names are read. */
static int note_name(struct catalog *c, uint64_t id, const struct meta_log *log, struct keys *k)
{
	struct named n = { id, k };
	struct meta_name m;
	char key[META_KEY_BYTES];
	if (log && log->name[0] && meta_get_name(c, log->name, &m, NULL) == 0 && m.volume == id) {
		meta_key_name(log->name, key);
		return note(k, key, NULL);
	}
	return catalog_list(c, "name/", note_if_its, &n);
}

/* What isn't below its own keys: what it holds of another, and its name. */
static int note_elsewhere(struct catalog *c, uint64_t id, struct keys *k)
{
	struct meta_log *log = malloc(sizeof *log);
	int r = log ? meta_get_log(c, id, log, NULL) : -ENOMEM;
	bool known = r == 0;
	char key[META_KEY_BYTES];
	if (known && log->parent_volume) {
		meta_key_clone(log->parent_volume, log->parent_mark, id, key);
		r = note(k, key, NULL);
	}
	if (r == 0 || r == -ENOENT || r == -EUCLEAN)
		r = note_name(c, id, known ? log : NULL, k);
	free(log);
	return r;
}

static int forget(struct store *s, uint64_t id, unsigned depth, struct report *report)
{
	static void (*const prefixes[])(uint64_t volume, char *ret_prefix) = { meta_key_snapshots, meta_key_clones, meta_key_reap, meta_key_volume };
	struct keys clones = { 0 }, keys = { 0 };
	char prefix[META_KEY_BYTES];
	if (depth > DEPTH_MAX)
		return store_too_deep(report);
	meta_key_clones(id, prefix);
	int r = catalog_list(s->catalog, prefix, note, &clones);
	for (size_t i = 0; r == 0 && i < clones.count; i++) {
		const char *clone = strrchr(clones.key[i], '/');
		r = forget(s, strtoull(clone + 1, NULL, 16), depth + 1, report);
	}
	if (r == 0)
		r = note_elsewhere(s->catalog, id, &keys);
	snprintf(prefix, sizeof prefix, "snapname/%016llx/", (unsigned long long)id);
	if (r == 0)
		r = catalog_list(s->catalog, prefix, note, &keys);
	snprintf(prefix, sizeof prefix, "import/%016llx", (unsigned long long)id); /* one that was under way */
	if (r == 0)
		r = catalog_list(s->catalog, prefix, note, &keys);
	for (unsigned i = 0; r == 0 && i < ARRAY_COUNT(prefixes); i++) {
		prefixes[i](id, prefix);
		r = catalog_list(s->catalog, prefix, note, &keys);
	}
	if (r == 0)
		r = delete_all(s->catalog, &keys);
	free(clones.key);
	free(keys.key);
	return r;
}

int recover_forget(struct store *s, uint64_t id, struct report *report)
{
	int r = forget(s, id, 0, report);
	return r < 0 ? report_set(report, r, "it can't be forgotten: %s", catalog_text(s->catalog, r)) : 0;
}
