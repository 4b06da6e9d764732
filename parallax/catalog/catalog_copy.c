#include "parallax/catalog/catalog_copy.h"

#include <errno.h>
#include <inttypes.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>

#include "core/array.h"
#include "core/bytes.h"
#include "core/fiber.h"
#include "parallax/catalog/meta.h"

#define BATCH_BYTES ((size_t)512 << 10)
#define PATIENCE_NS (60 * NS_PER_S)

static bool is_mark(const char *key) { return strncmp(key, "store/", 6) == 0; }

/* With a lease, which can't be copied: without, it would be there for ever. Whoever put it puts it again, if he lives. */
static bool is_leased(const char *key)
{
	return strncmp(key, META_ALIVE, strlen(META_ALIVE)) == 0 || strncmp(key, META_READERS, strlen(META_READERS)) == 0 || strcmp(key, META_MANAGER) == 0;
}

/* ---- images ---- */

void catalog_image_free(struct catalog_image *i)
{
	for (size_t n = 0; n < i->count; n++) {
		free(i->keys[n].key);
		free(i->keys[n].bytes);
	}
	free(i->keys);
	*i = (struct catalog_image){ 0 };
}

int catalog_image_add(struct catalog_image *i, const char *key, const void *bytes, size_t length)
{
	if (array_more(&i->keys, i->count) < 0)
		return -ENOMEM;
	struct catalog_image_key k = { strdup(key), malloc(length + 1), length };
	if (!k.key || !k.bytes) {
		free(k.key);
		free(k.bytes);
		return -ENOMEM;
	}
	memcpy(k.bytes, bytes, length);
	k.bytes[length] = 0;
	i->keys[i->count++] = k;
	return 0;
}

static int read_any(void *arg, const char *key, const struct catalog_value *value)
{
	return is_mark(key) ? 0 : catalog_image_add(arg, key, value->bytes, value->length);
}

static int read_lasting(void *arg, const char *key, const struct catalog_value *value)
{
	return is_leased(key) ? 0 : read_any(arg, key, value);
}

static int image_read(struct catalog *c, bool leased, struct catalog_image *ret, struct report *report)
{
	*ret = (struct catalog_image){ 0 };
	int r = catalog_list(c, "", leased ? read_any : read_lasting, ret);
	if (r < 0)
		catalog_image_free(ret);
	return r < 0 ? report_set(report, r, "it can't be read: %s", catalog_text(c, r)) : 0;
}

int catalog_image_read(struct catalog *c, struct catalog_image *ret, struct report *report) { return image_read(c, /* leased= */ false, ret, report); }

bool catalog_image_equal(const struct catalog_image *a, const struct catalog_image *b)
{
	bool equal = a->count == b->count;
	for (size_t n = 0; equal && n < a->count; n++)
		equal = strcmp(a->keys[n].key, b->keys[n].key) == 0 && a->keys[n].length == b->keys[n].length &&
			memcmp(a->keys[n].bytes, b->keys[n].bytes, a->keys[n].length) == 0;
	return equal;
}

/* Until it is known. Of changes that compare nothing, each repetition does the same. */
static int txn_known(struct catalog *c, const struct catalog_txn *t)
{
	uint64_t until_ns = env_now_ns(c->env) + PATIENCE_NS;
	int r;
	while ((r = catalog_txn(c, t, NULL)) == -ETIMEDOUT && env_now_ns(c->env) < until_ns)
		fiber_sleep(&c->env->loop, 50 * NS_PER_MS);
	return r;
}

static int write_some(struct catalog *c, struct catalog_txn *t, const struct catalog_image *i, size_t *at, bool erase)
{
	size_t bytes = 0;
	catalog_txn_init(t);
	for (; *at < i->count && t->change_count < CATALOG_TXN_MAX && bytes < BATCH_BYTES; ++*at) {
		const struct catalog_image_key *k = &i->keys[*at];
		if (erase)
			catalog_txn_delete(t, k->key);
		else
			catalog_txn_put(t, k->key, k->bytes, k->length);
		bytes += k->length;
	}
	return txn_known(c, t);
}

static int write_all(struct catalog *c, const struct catalog_image *i, bool erase, struct report *report)
{
	struct catalog_txn *t = malloc(sizeof *t);
	int r = t ? 0 : -ENOMEM;
	for (size_t at = 0; r == 0 && at < i->count;)
		r = write_some(c, t, i, &at, erase);
	free(t);
	return r < 0 ? report_set(report, r, "it can't be written: %s", catalog_text(c, r)) : 0;
}

int catalog_image_write(struct catalog *c, const struct catalog_image *i, struct report *report) { return write_all(c, i, false, report); }

int catalog_image_erase(struct catalog *c, struct report *report)
{
	struct catalog_image i;
	int r = image_read(c, /* leased= */ true, &i, report);
	if (r == 0)
		r = write_all(c, &i, true, report);
	catalog_image_free(&i);
	return r;
}

/* ---- R5 ---- */

static int raise_counter(struct catalog_image_key *k, struct report *report)
{
	if (k->length != 8 || get_le64(k->bytes) > UINT64_MAX - CATALOG_RAISE)
		return report_set(report, -EUCLEAN, "its %s is damaged", k->key);
	put_le64(k->bytes, get_le64(k->bytes) + CATALOG_RAISE);
	return 0;
}

static int raise_owner(struct catalog_image_key *k, struct report *report)
{
	struct meta_owner m;
	size_t length = 0;
	int r = meta_owner_decode(k->bytes, k->length, &m);
	if (r < 0 || m.epoch > UINT64_MAX - CATALOG_RAISE)
		return report_set(report, r < 0 ? r : -EUCLEAN, "its %s can't be read: %s", k->key, errno_text(r < 0 ? r : -EUCLEAN));
	/* a volume that was never open has no directory, which its first opener sees by the epoch */
	struct meta_owner next = { .epoch = m.epoch ? m.epoch + CATALOG_RAISE : 0, .state = OWNER_FREE };
	uint8_t *bytes = meta_owner_encode(&next, &length);
	if (!bytes)
		return -ENOMEM;
	free(k->bytes);
	k->bytes = bytes;
	k->length = length;
	return 0;
}

int catalog_image_raise(struct catalog_image *i, struct report *report)
{
	int r = 0;
	for (size_t n = 0; r == 0 && n < i->count; n++) {
		struct catalog_image_key *k = &i->keys[n];
		const char *end = strrchr(k->key, '/');
		if (strncmp(k->key, "counter/", 8) == 0)
			r = raise_counter(k, report);
		else if (strncmp(k->key, "volume/", 7) == 0 && end && strcmp(end, "/owner") == 0)
			r = raise_owner(k, report);
	}
	return r;
}

/* ---- marks ---- */

int catalog_mark(struct catalog *c, const char *key, const char *text, struct report *report)
{
	struct catalog_txn *t = malloc(sizeof *t);
	int r = t ? 0 : -ENOMEM;
	if (r == 0) {
		catalog_txn_init(t);
		if (text)
			catalog_txn_put(t, key, text, strlen(text));
		else
			catalog_txn_delete(t, key);
		r = txn_known(c, t);
	}
	free(t);
	return r < 0 ? report_set(report, r, "the mark %s can't be set: %s", key, catalog_text(c, r)) : 0;
}

int catalog_mark_read(struct catalog *c, const char *key, char *ret_text, size_t bytes, struct report *report)
{
	struct catalog_value v;
	int r = catalog_get(c, key, &v);
	snprintf(ret_text, bytes, "%.*s", r == 0 ? (int)MIN(v.length, bytes - 1) : 0, r == 0 ? (char *)v.bytes : "");
	catalog_value_free(&v);
	return r < 0 && r != -ENOENT ? report_set(report, r, "the mark %s can't be read: %s", key, catalog_text(c, r)) : 0;
}

void catalog_marks_wanted(struct catalog_want ret_wants[CATALOG_MARKS])
{
	ret_wants[0] = (struct catalog_want){ .key = STORE_MOVED };
	ret_wants[1] = (struct catalog_want){ .key = STORE_INCOMING };
}

static void mark_text(const struct catalog_want *mark, char ret_text[1100])
{
	snprintf(ret_text, 1100, "%.*s", (int)MIN(mark->value.length, (size_t)1099), mark->value.revision ? (const char *)mark->value.bytes : "");
}

int catalog_marks_judge(const struct catalog_want marks[CATALOG_MARKS], const char *url, struct report *report)
{
	char moved[1100], incoming[1100];
	mark_text(&marks[0], moved);
	mark_text(&marks[1], incoming);
	const char *to = strchr(moved, ' ');
	if (moved[0])
		return report_set(report, -EREMCHG, strncmp(moved, "moved ", 6) == 0
				  ? "the catalog %s moved to %s (set `catalog = ' in etc/aquifer/aquifer.conf to that)"
				  : "the catalog %s is being moved to %s (if that was interrupted, begin it again: aquifer cluster move-catalog)",
				  url, to ? to + 1 : "somewhere else");
	if (incoming[0])
		return report_set(report, -EINPROGRESS, "the catalog %s is being filled from %s (if that was interrupted, begin it again)", url, incoming);
	return 0;
}

int catalog_marks_allow(struct catalog *c, const char *url, struct report *report)
{
	struct catalog_want marks[CATALOG_MARKS];
	catalog_marks_wanted(marks);
	int r = catalog_get_many(c, marks, CATALOG_MARKS);
	if (r < 0)
		return report_set(report, r, "catalog %s: %s", url, catalog_text(c, r));
	r = catalog_marks_judge(marks, url, report);
	catalog_wants_free(marks, CATALOG_MARKS);
	return r;
}

/* ---- restored ---- */

#define INCOMPLETE " incomplete"

static uint64_t volumes_before(const struct catalog_image *i)
{
	for (size_t n = 0; n < i->count; n++)
		if (strcmp(i->keys[n].key, META_COUNTER_VOLUME) == 0 && i->keys[n].length == 8)
			return get_le64(i->keys[n].bytes) - CATALOG_RAISE;
	return 0;
}

int catalog_mark_restored(struct catalog *c, const struct catalog_image *i, const char *when, struct report *report)
{
	char text[40];
	snprintf(text, sizeof text, "wanted %llu", (unsigned long long)volumes_before(i));
	int r = catalog_mark(c, STORE_RECOVER, text, report);
	return r ? r : catalog_mark(c, STORE_RESTORED, when, report);
}

/* Its text. */
static int read_recover(struct catalog *c, char ret_text[96])
{
	struct catalog_value v;
	int r = catalog_get(c, STORE_RECOVER, &v);
	snprintf(ret_text, 96, "%.*s", r == 0 ? (int)MIN(v.length, (size_t)95) : 0, r == 0 ? (const char *)v.bytes : "");
	catalog_value_free(&v);
	return r;
}

int catalog_recover_wanted(struct catalog *c, struct catalog_since *ret)
{
	struct catalog_since since = { 0, UINT64_MAX };
	char text[96], *end;
	int r = read_recover(c, text);
	if (r < 0)
		return r;
	bool done = strncmp(text, "done", 4) == 0;
	const char *number = strchr(text, ' ');
	if (number)
		since.after = strtoull(number, &end, 10);
	if (number && done)
		since.upto = strtoull(end, NULL, 10);
	if (ret)
		*ret = since;
	return !done;
}

int catalog_recover_unfinished(struct catalog *c)
{
	char text[96];
	int r = read_recover(c, text);
	return r < 0 ? (r == -ENOENT ? 0 : r) : strncmp(text, "done", 4) != 0 || strstr(text, INCOMPLETE);
}

/* "store/recover/V" */
static void left_key(uint64_t volume, char ret_key[META_KEY_BYTES])
{
	snprintf(ret_key, META_KEY_BYTES, STORE_RECOVER "/%016llx", (unsigned long long)volume);
}

int catalog_recover_wanted_of(struct catalog *c, uint64_t volume)
{
	struct catalog_value v;
	char key[META_KEY_BYTES];
	int r = catalog_recover_wanted(c, NULL);
	if (r != 0)
		return r;
	left_key(volume, key);
	r = catalog_get(c, key, &v);
	catalog_value_free(&v);
	return r == 0 ? 1 : r == -ENOENT ? 0 : r;
}

int catalog_mark_left(struct catalog *c, uint64_t volume, const char *why, struct report *report)
{
	char key[META_KEY_BYTES];
	left_key(volume, key);
	return catalog_mark(c, key, why, report);
}

int catalog_mark_recovered(struct catalog *c, const struct catalog_since *since, bool all, struct report *report)
{
	char text[96];
	snprintf(text, sizeof text, "done %llu %llu%s", (unsigned long long)since->after, (unsigned long long)since->upto, all ? "" : INCOMPLETE);
	return catalog_mark(c, STORE_RECOVER, text, report);
}

static int note_left(void *arg, const char *key, const struct catalog_value *value) { return catalog_image_add(arg, key, value->bytes, value->length); }

/* Those of single volumes first: nobody would look for them afterwards. */
int catalog_mark_confirmed(struct catalog *c, struct report *report)
{
	struct catalog_image left = { 0 };
	int r = catalog_list(c, STORE_RECOVER "/", note_left, &left);
	if (r < 0)
		report_set(report, r, "the marks can't be read: %s", catalog_text(c, r));
	if (r == 0)
		r = write_all(c, &left, /* erase= */ true, report);
	catalog_image_free(&left);
	if (r == 0)
		r = catalog_mark(c, STORE_RECOVER, NULL, report);
	return r ? r : catalog_mark(c, STORE_RESTORED, NULL, report);
}
