/* Snapshots are deleted: the name goes, the state is doomed, and a note says that there is something to be freed (R25; doomed.h). As many as a transaction
 * takes at once. */
#include <errno.h>
#include <stdlib.h>

#include "core/bytes.h"
#include "parallax/store/store_private.h"

enum { TOGETHER = 32, TRIES = 100 }; /* three changes each */

struct dooming {
	struct store *store;
	const struct store_mark *of;
	unsigned count;
	bool whole;
	struct catalog_want wants[TOGETHER];
	struct catalog_txn txn;
	uint8_t *bytes[TOGETHER];
	char keys[TOGETHER][META_KEY_BYTES], names[TOGETHER][META_KEY_BYTES], notes[TOGETHER][META_KEY_BYTES];
};

static int read_them(struct dooming *d)
{
	for (unsigned i = 0; i < d->count; i++) {
		meta_key_snapshot(d->of[i].volume, d->of[i].mark, d->keys[i]);
		d->wants[i] = (struct catalog_want){ .key = d->keys[i] };
	}
	return catalog_get_many(d->store->catalog, d->wants, d->count);
}

/* `whole`: all are of one volume, of which all is to be looked at. */
static void add_note(struct dooming *d, unsigned i)
{
	if (d->whole)
		meta_key_reap(d->of[i].volume, d->notes[i]);
	else
		meta_key_reap_snapshot(d->of[i].volume, d->of[i].mark, d->notes[i]);
	if (!d->whole || d->txn.change_count == 2)
		catalog_txn_put(&d->txn, d->notes[i], "", 0);
}

/* One that is gone, or doomed already, needs nothing. */
static int add_one(struct dooming *d, unsigned i)
{
	const struct catalog_value *v = &d->wants[i].value;
	struct meta_snapshot m;
	size_t length = 0;
	int r = v->revision ? meta_snapshot_decode(v->bytes, v->length, &m) : 0;
	if (r < 0 || !v->revision || m.doomed)
		return r;
	m.doomed = true;
	d->bytes[i] = meta_snapshot_encode(&m, &length);
	if (!d->bytes[i])
		return -ENOMEM;
	meta_key_snapshot_name(d->of[i].volume, m.name, d->names[i]);
	catalog_txn_compare(&d->txn, d->keys[i], v->revision);
	catalog_txn_put(&d->txn, d->keys[i], d->bytes[i], length);
	catalog_txn_delete(&d->txn, d->names[i]);
	add_note(d, i);
	return 0;
}

static int doom_once(struct dooming *d)
{
	int r = read_them(d);
	if (r < 0)
		return r;
	catalog_txn_init(&d->txn);
	for (unsigned i = 0; r == 0 && i < d->count; i++)
		r = add_one(d, i);
	if (r == 0 && d->txn.change_count)
		r = store_txn(d->store->catalog, &d->txn);
	for (unsigned i = 0; i < d->count; i++) {
		free(d->bytes[i]);
		d->bytes[i] = NULL;
	}
	catalog_wants_free(d->wants, d->count);
	return r;
}

/* Somebody may change one of them meanwhile: it gets its root. */
static int doom_some(struct dooming *d)
{
	int r = -EAGAIN;
	for (unsigned attempt = 0; r == -EAGAIN && attempt < TRIES; attempt++)
		r = doom_once(d);
	return r;
}

static int doom(struct store *s, const struct store_mark *of, size_t count, bool whole)
{
	struct dooming *d = calloc(1, sizeof *d);
	int r = d ? 0 : -ENOMEM;
	for (size_t at = 0; r == 0 && at < count; at += TOGETHER) {
		d->store = s;
		d->of = of + at;
		d->count = (unsigned)MIN(count - at, (size_t)TOGETHER);
		d->whole = whole;
		r = doom_some(d);
	}
	free(d);
	return r;
}

int store_doom_snapshots(struct store *s, const struct store_mark *of, size_t count) { return doom(s, of, count, /* whole= */ false); }
int store_doom_all(struct store *s, const struct store_mark *of, size_t count) { return doom(s, of, count, /* whole= */ true); }

int store_doom_snapshot(struct store *s, uint64_t volume, uint64_t mark)
{
	return store_doom_snapshots(s, &(struct store_mark){ volume, mark }, 1);
}
