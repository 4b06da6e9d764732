#include "tests/tools/lib/catalog_conformance.h"

#include <errno.h>
#include <inttypes.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>

#include "core/bytes.h"
#include "core/fiber.h"

struct check {
	struct catalog *c;
	char *why;
	size_t bytes;
	struct catalog_txn txn;
};

/* The first thing that is wrong is told. */
#define EXPECT(k, condition, ...)                                                                        \
	do {                                                                                             \
		if (!(condition)) {                                                                      \
			int n_ = snprintf((k)->why, (k)->bytes, "line %d: %s: ", __LINE__, #condition);  \
			if (n_ > 0 && (size_t)n_ < (k)->bytes)                                           \
				snprintf((k)->why + n_, (k)->bytes - (size_t)n_, __VA_ARGS__);           \
			return -1;                                                                       \
		}                                                                                        \
	} while (0)

static int put(struct check *k, const char *key, const void *bytes, size_t length, uint64_t compare, uint64_t *ret_revision)
{
	catalog_txn_init(&k->txn);
	catalog_txn_compare(&k->txn, key, compare);
	catalog_txn_put(&k->txn, key, bytes, length);
	return catalog_txn(k->c, &k->txn, ret_revision);
}

static bool holds(struct check *k, const char *key, const void *bytes, size_t length, uint64_t revision)
{
	struct catalog_value v;
	int r = catalog_get(k->c, key, &v);
	bool good = r == 0 && v.length == length && memcmp(v.bytes, bytes, length) == 0 && (!revision || v.revision == revision);
	catalog_value_free(&v);
	return good;
}

static bool absent(struct check *k, const char *key)
{
	struct catalog_value v;
	return catalog_get(k->c, key, &v) == -ENOENT && !v.bytes && v.length == 0 && v.revision == 0;
}

static int check_transactions(struct check *k)
{
	uint64_t first = 0, second = 0, third = 0;
	int r;
	EXPECT(k, absent(k, "test/a"), "keys are left over");
	EXPECT(k, (r = put(k, "test/a", "one", 3, 0, &first)) == 0 && first > 0, "%d %s", r, k->c->why);
	EXPECT(k, (r = put(k, "test/a", "two", 3, 0, NULL)) == -EAGAIN, "%d: it is there", r);
	EXPECT(k, (r = put(k, "test/a", "two", 3, first + 1, NULL)) == -EAGAIN, "%d: another revision", r);
	EXPECT(k, holds(k, "test/a", "one", 3, first), "a compare that failed changed it");
	EXPECT(k, (r = put(k, "test/a", "two", 3, first, &second)) == 0 && second > first, "%d", r);
	EXPECT(k, holds(k, "test/a", "two", 3, second), "its revision is the transaction's");
	EXPECT(k, (r = catalog_same(k->c, "test/a", second)) == 1, "%d", r);
	EXPECT(k, (r = catalog_same(k->c, "test/a", first)) == 0 && catalog_same(k->c, "test/b", second) == 0, "%d", r);
	/* all or nothing */
	catalog_txn_init(&k->txn);
	catalog_txn_compare(&k->txn, "test/a", second);
	catalog_txn_compare(&k->txn, "test/b", 7);
	catalog_txn_put(&k->txn, "test/b", "x", 1);
	catalog_txn_delete(&k->txn, "test/a");
	EXPECT(k, (r = catalog_txn(k->c, &k->txn, NULL)) == -EAGAIN, "%d", r);
	EXPECT(k, absent(k, "test/b") && holds(k, "test/a", "two", 3, second), "half a transaction");
	catalog_txn_init(&k->txn);
	catalog_txn_compare(&k->txn, "test/a", second);
	catalog_txn_compare(&k->txn, "test/never", 0);
	catalog_txn_put(&k->txn, "test/b", "", 0);
	catalog_txn_delete(&k->txn, "test/a");
	catalog_txn_delete(&k->txn, "test/never");
	EXPECT(k, (r = catalog_txn(k->c, &k->txn, &third)) == 0 && third > second, "%d", r);
	EXPECT(k, absent(k, "test/a") && holds(k, "test/b", "", 0, third), "empty values, and deleting what isn't there");
	/* made again, it isn't what it was */
	EXPECT(k, (r = put(k, "test/a", "one", 3, 0, &second)) == 0 && second > third, "%d", r);
	EXPECT(k, (r = put(k, "test/a", "x", 1, first, NULL)) == -EAGAIN, "%d", r);
	return 0;
}

static int check_many(struct check *k)
{
	struct catalog_want wants[CATALOG_TXN_MAX] = { { .key = "test/many/b" }, { .key = "test/many/none" }, { .key = "test/many/" }, { .key = "test/many/a" },
						       { .key = "test/many/b" } };
	uint64_t a = 0, b = 0;
	int r = put(k, "test/many/a", "first", 5, 0, &a);
	r = r ? r : put(k, "test/many/b", "", 0, 0, &b);
	EXPECT(k, r == 0 && (r = catalog_get_many(k->c, wants, 5)) == 0, "%d %s", r, k->c->why);
	bool good = wants[3].value.revision == a && wants[3].value.length == 5 && memcmp(wants[3].value.bytes, "first", 5) == 0;
	bool empty = wants[0].value.revision == b && wants[0].value.bytes && !wants[0].value.length && wants[4].value.revision == b && wants[4].value.bytes;
	bool none = !wants[1].value.bytes && !wants[1].value.revision && !wants[2].value.bytes && !wants[2].value.revision;
	catalog_wants_free(wants, 5);
	EXPECT(k, good && empty && none, "what is there (%d), what is empty (%d), what isn't there or is only a beginning (%d)", good, empty, none);
	for (unsigned i = 0; i < CATALOG_TXN_MAX; i++)
		wants[i].key = i % 2 ? "test/many/a" : "test/many/none";
	EXPECT(k, (r = catalog_get_many(k->c, wants, CATALOG_TXN_MAX)) == 0, "%d %s", r, k->c->why);
	good = wants[CATALOG_TXN_MAX - 1].value.revision == a && !wants[CATALOG_TXN_MAX - 2].value.revision;
	catalog_wants_free(wants, CATALOG_TXN_MAX);
	EXPECT(k, good, "as many as can be asked for");
	return 0;
}

static int check_counts(struct check *k)
{
	struct catalog_tally t[CATALOG_TXN_MAX] = { { .prefix = "test/many/" }, { .prefix = "test/many/a" }, { .prefix = "test/man" }, { .prefix = "test/none/" },
						    { .prefix = "test/many/bb" } };
	int r = catalog_count(k->c, t, 5);
	EXPECT(k, r == 0, "%d %s", r, k->c->why);
	EXPECT(k, t[0].count == 2 && t[1].count == 1 && t[2].count == 2 && t[3].count == 0 && t[4].count == 0, "%" PRIu64 " %" PRIu64 " %" PRIu64 " %" PRIu64 " %" PRIu64,
	       t[0].count, t[1].count, t[2].count, t[3].count, t[4].count);
	for (unsigned i = 0; i < CATALOG_TXN_MAX; i++)
		t[i].prefix = i % 2 ? "test/many/" : "test/none/";
	EXPECT(k, (r = catalog_count(k->c, t, CATALOG_TXN_MAX)) == 0 && t[CATALOG_TXN_MAX - 1].count == 2 && t[CATALOG_TXN_MAX - 2].count == 0, "%d %s", r, k->c->why);
	EXPECT(k, catalog_any(k->c, "test/many/a") == 1 && catalog_any(k->c, "test/none/") == 0, "any");
	return 0;
}

static int check_limits(struct check *k)
{
	uint8_t *big = malloc(CATALOG_VALUE_MAX);
	char keys[CATALOG_TXN_MAX][32], longest[CATALOG_KEY_MAX + 1];
	for (size_t i = 0; i < CATALOG_VALUE_MAX; i++)
		big[i] = (uint8_t)(i * 7 + i / 251);
	catalog_txn_init(&k->txn);
	for (unsigned i = 0; i < CATALOG_TXN_MAX; i++) {
		snprintf(keys[i], sizeof keys[i], "test/limit/%03u", i);
		catalog_txn_compare(&k->txn, keys[i], 0);
		catalog_txn_put(&k->txn, keys[i], big, i ? 10 : CATALOG_VALUE_MAX);
	}
	int r = catalog_txn(k->c, &k->txn, NULL);
	bool good = r == 0 && holds(k, keys[0], big, CATALOG_VALUE_MAX, 0) && holds(k, keys[CATALOG_TXN_MAX - 1], big, 10, 0);
	memset(longest, 'k', CATALOG_KEY_MAX);
	memcpy(longest, "test/", 5);
	longest[CATALOG_KEY_MAX] = 0;
	int l = put(k, longest, big, 256, 0, NULL); /* every byte there is */
	bool whole = holds(k, longest, big, 256, 0);
	free(big);
	EXPECT(k, good, "the largest transaction: %d %s", r, k->c->why);
	EXPECT(k, l == 0 && whole, "the longest key: %d %s", l, k->c->why);
	return 0;
}

struct seen {
	struct check *k;
	char last[CATALOG_KEY_MAX + 1];
	unsigned count, stop_at;
	size_t bytes;
	bool disorder;
};

static int note(void *arg, const char *key, const struct catalog_value *value)
{
	struct seen *s = arg;
	s->disorder |= strcmp(s->last, key) >= 0 || value->revision == 0 || !value->bytes;
	snprintf(s->last, sizeof s->last, "%s", key);
	s->count++;
	s->bytes += value->length;
	return s->count == s->stop_at ? -ECANCELED : 0;
}

enum { MANY = 2100, LARGE = 24 };

static int fill(struct check *k, const char *format, unsigned count, const void *bytes, size_t length)
{
	int r = 0;
	for (unsigned i = 0; i < count && r == 0;) {
		char keys[20][48];
		catalog_txn_init(&k->txn);
		for (unsigned n = 0; n < (length > 1000 ? 1 : 20) && i < count; n++, i++) {
			snprintf(keys[n], sizeof keys[n], format, i);
			catalog_txn_put(&k->txn, keys[n], bytes, length);
		}
		r = catalog_txn(k->c, &k->txn, NULL);
	}
	return r;
}

static int check_lists(struct check *k)
{
	static const char *const around[] = { "test/v", "test/v/", "test/v0", "test/w", "test/u" };
	struct seen s = { .stop_at = 0 };
	uint8_t *large = calloc(1, CATALOG_VALUE_MAX);
	int r = 0;
	for (unsigned i = 0; i < ARRAY_COUNT(around) && r == 0; i++)
		r = put(k, around[i], "x", 1, 0, NULL);
	if (r == 0)
		r = fill(k, "test/v/%05u", MANY, "y", 1);
	if (r == 0)
		r = fill(k, "test/large/%02u", LARGE, large, CATALOG_VALUE_MAX);
	free(large);
	EXPECT(k, r == 0, "%d %s", r, k->c->why);
	EXPECT(k, (r = catalog_list(k->c, "test/v/", note, &s)) == 0, "%d %s", r, k->c->why);
	EXPECT(k, s.count == MANY + 1 && !s.disorder, "%u, to %s", s.count, s.last);
	s = (struct seen){ .stop_at = 210 };
	EXPECT(k, (r = catalog_list(k->c, "test/v/", note, &s)) == -ECANCELED && s.count == 210, "%d", r);
	s = (struct seen){ .stop_at = 0 };
	EXPECT(k, (r = catalog_list(k->c, "test/large/", note, &s)) == 0 && s.count == LARGE && s.bytes == (size_t)LARGE * CATALOG_VALUE_MAX, "%d %s",
	       r, k->c->why);
	s = (struct seen){ .stop_at = 0 };
	EXPECT(k, (r = catalog_list(k->c, "test/nothing/", note, &s)) == 0 && s.count == 0, "%d", r);
	return 0;
}

/* ---- several at once ---- */

enum { FIBERS = 6, EACH = 15 };

struct counting {
	struct check *k;
	uint64_t taken[FIBERS * EACH];
	unsigned count;
	int failed;
};

static int count_up(void *arg)
{
	struct counting *n = arg;
	for (unsigned i = 0; i < EACH && !n->failed; i++) {
		uint64_t first;
		int r = catalog_counter_take(n->k->c, "test/counter", 0, 3, &first);
		if (r < 0)
			n->failed = r;
		else
			n->taken[n->count++] = first;
	}
	return 0;
}

static int by_value(const void *a, const void *b)
{
	uint64_t x = *(const uint64_t *)a, y = *(const uint64_t *)b;
	return x < y ? -1 : x > y;
}

static int check_counters(struct check *k)
{
	struct counting n = { .k = k };
	struct job j;
	uint64_t first = 0;
	job_init(&j, &k->c->env->loop);
	for (unsigned i = 0; i < FIBERS; i++) {
		job_hold(&j);
		if (fiber_start(&k->c->env->loop, count_up, &n, &j) < 0)
			job_put(&j, -ENOMEM);
	}
	int r = fiber_wait(&j);
	EXPECT(k, r == 0 && n.failed == 0 && n.count == FIBERS * EACH, "%d %d %s", r, n.failed, k->c->why);
	qsort(n.taken, n.count, sizeof n.taken[0], by_value);
	for (unsigned i = 0; i < n.count; i++)
		EXPECT(k, n.taken[i] == 1 + 3 * i, "%" PRIu64 " instead of %u", n.taken[i], 1 + 3 * i);
	EXPECT(k, (r = catalog_counter_take(k->c, "test/counter", 1000, 1, &first)) == 0 && first == 1001, "%d %" PRIu64, r, first);
	r = put(k, "test/broken", "abc", 3, 0, NULL);
	EXPECT(k, r == 0 && (r = catalog_counter_take(k->c, "test/broken", 0, 1, &first)) == -EUCLEAN, "%d: not: begin again", r);
	return 0;
}

/* ---- removing ---- */

struct keys {
	char (*key)[CATALOG_KEY_MAX + 1];
	unsigned count;
};

static int remember(void *arg, const char *key, const struct catalog_value *value)
{
	struct keys *l = arg;
	(void)value;
	void *more = realloc(l->key, (l->count + 1) * sizeof *l->key);
	if (!more)
		return -ENOMEM;
	l->key = more;
	strcpy(l->key[l->count++], key);
	return 0;
}

static int remove_all(struct check *k)
{
	struct keys l = { 0 };
	int r = catalog_list(k->c, "test/", remember, &l);
	for (unsigned i = 0; i < l.count && r == 0;) {
		catalog_txn_init(&k->txn);
		for (; i < l.count && k->txn.change_count < CATALOG_TXN_MAX; i++)
			catalog_txn_delete(&k->txn, l.key[i]);
		r = catalog_txn(k->c, &k->txn, NULL);
	}
	free(l.key);
	EXPECT(k, r == 0, "%d %s", r, k->c->why);
	return 0;
}

int catalog_conformance(struct catalog *c, char *ret_why, size_t bytes)
{
	struct check *k = calloc(1, sizeof *k);
	*k = (struct check){ .c = c, .why = ret_why, .bytes = bytes };
	int r = check_transactions(k);
	r = r ? r : check_many(k);
	r = r ? r : check_counts(k);
	r = r ? r : check_limits(k);
	r = r ? r : check_lists(k);
	r = r ? r : check_counters(k);
	r = r ? r : remove_all(k);
	free(k);
	return r;
}
