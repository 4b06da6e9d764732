/* What etcd, or something in its place, answers, and what a backup of a catalog may look like. The first byte says to what. What is accepted keeps within its limits: keys in order and
 * printable, values of at most their size, tokens that can be part of a header. */
#include <assert.h>
#include <errno.h>
#include <stdlib.h>
#include <string.h>

#include "parallax/catalog/catalog_copy.h"
#include "parallax/catalog/catalog_etcd_wire.h"

#define ID "0123456789abcdef0123456789abcdef"

/* What a foreign store's id is said to be is for people. */
static void check_other(const char *other)
{
	assert(memchr(other, 0, ETCD_ID_BYTES) && strcmp(other, ID) != 0);
	for (const char *p = other; *p; p++)
		assert(*p > ' ' && *p < 0x7f);
}

static void fuzz_range(const uint8_t *b, size_t n, const char *id)
{
	struct etcd_range r;
	char other[ETCD_ID_BYTES];
	int e = etcd_range_answer(b, n, "", id, &r, other);
	if (e < 0) {
		assert(!r.items && !r.count && (id || e != -EREMCHG));
		if (e == -EREMCHG)
			check_other(other);
		return;
	}
	assert(r.revision && r.count <= ETCD_VALUES_MAX && (r.count || !r.more));
	for (size_t i = 0; i < r.count; i++) {
		const struct etcd_item *item = &r.items[i];
		assert(memchr(item->key, 0, sizeof item->key) && item->value.bytes && item->value.revision && item->value.length <= CATALOG_VALUE_MAX);
		assert(i == 0 || strcmp(item[-1].key, item->key) < 0);
		for (const char *p = item->key; *p; p++)
			assert(*p >= ' ' && *p < 0x7f);
	}
	etcd_range_free(&r);
}

static void fuzz_gets(const uint8_t *b, size_t n, const char *id)
{
	struct catalog_want wants[] = { { .key = "a" }, { .key = "b" } };
	char other[ETCD_ID_BYTES];
	int e = etcd_gets_answer(b, n, "", id, wants, 2, other);
	assert(e == 0 || (!wants[0].value.bytes && !wants[1].value.bytes && (id || e != -EREMCHG)));
	if (e == -EREMCHG)
		check_other(other);
	for (unsigned i = 0; i < 2; i++)
		assert(!wants[i].value.bytes == !wants[i].value.revision && wants[i].value.length <= CATALOG_VALUE_MAX);
	catalog_wants_free(wants, 2);
}

static void fuzz_counts(const uint8_t *b, size_t n, const char *id)
{
	struct catalog_tally tallies[] = { { .prefix = "a" }, { .prefix = "b" } };
	char other[ETCD_ID_BYTES];
	int e = etcd_counts_answer(b, n, id, tallies, 2, other);
	assert(e == 0 || e == -EBADMSG || e == -EREMCHG);
	assert(id || e != -EREMCHG);
	if (e == -EREMCHG)
		check_other(other);
}

static void seen(void *arg, const char *key, const struct catalog_value *value)
{
	(void)arg;
	assert(memchr(key, 0, CATALOG_KEY_MAX + 1));
	for (const char *p = key; *p; p++)
		assert(*p >= ' ' && *p < 0x7f);
	assert(!value || (value->bytes && value->revision && value->length <= CATALOG_VALUE_MAX));
}

static void fuzz_txn(const uint8_t *b, size_t n, const char *id)
{
	char other[ETCD_ID_BYTES];
	bool succeeded;
	uint64_t revision;
	int e = etcd_txn_answer(b, n, id, &succeeded, &revision, other);
	assert(e < 0 || revision);
	if (e == -EREMCHG)
		check_other(other);
}

static void fuzz_error(const uint8_t *b, size_t n)
{
	char why[ETCD_WHY_BYTES];
	int r = etcd_error_answer(n ? 300 + b[0] : 500, b, n, why);
	assert(r < 0 && r != -EPERM && r != -EAGAIN && memchr(why, 0, sizeof why) && why[0] != '\n');
}

static void fuzz_addresses(const uint8_t *b, size_t n)
{
	struct etcd_endpoints e;
	char text[6000];
	if (n >= sizeof text)
		return;
	memcpy(text, b, n);
	text[n] = 0;
	if (etcd_endpoints_parse(text, &e, NULL) < 0)
		return;
	assert(e.count && e.count <= ETCD_ENDPOINTS_MAX);
	for (unsigned i = 0; i < e.count; i++)
		assert(memchr(e.url[i], 0, ETCD_URL_BYTES) && strncmp(e.url[i], "http", 4) == 0 && !strpbrk(e.url[i], "@?# \r\n"));
}

static void fuzz_backup(const uint8_t *b, size_t n)
{
	struct catalog_image i, again;
	if (catalog_image_decode((const char *)b, n, &i, NULL) < 0) {
		assert(!i.keys);
		return;
	}
	size_t length = 0;
	char *text = catalog_image_encode(&i, 1, &length);
	assert(text && catalog_image_decode(text, length, &again, NULL) == 0 && catalog_image_equal(&i, &again));
	catalog_image_free(&again);
	catalog_image_raise(&i, NULL);
	catalog_image_free(&i);
	free(text);
}

int LLVMFuzzerTestOneInput(const uint8_t *data, size_t size);
int LLVMFuzzerTestOneInput(const uint8_t *data, size_t size)
{
	char token[ETCD_TOKEN_BYTES];
	uint64_t a, b;
	if (size == 0)
		return 0;
	const uint8_t *bytes = data + 1;
	size_t n = size - 1;
	switch (data[0]) {
	case 'r': fuzz_range(bytes, n, NULL); break;
	case 'R': fuzz_range(bytes, n, ID); break;
	case 'w': etcd_watch_answer(bytes, n, "", seen, NULL); break;
	case 'm': fuzz_gets(bytes, n, NULL); break;
	case 'M': fuzz_gets(bytes, n, ID); break;
	case 'n': fuzz_counts(bytes, n, NULL); break;
	case 'N': fuzz_counts(bytes, n, ID); break;
	case 't': fuzz_txn(bytes, n, NULL); break;
	case 'T': fuzz_txn(bytes, n, ID); break;
	case 'k':
		if (etcd_login_answer(bytes, n, token) == 0)
			assert(token[0] && !strpbrk(token, "\r\n "));
		break;
	case 'l': assert(etcd_lease_answer(bytes, n, &a, &b) < 0 || a); break;
	case 'a': fuzz_addresses(bytes, n); break;
	case 'b': fuzz_backup(bytes, n); break;
	default: fuzz_error(bytes, n); break;
	}
	return 0;
}
