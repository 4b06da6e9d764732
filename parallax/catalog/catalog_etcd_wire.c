#include "parallax/catalog/catalog_etcd_wire.h"

#include <ctype.h>
#include <errno.h>
#include <inttypes.h>
#include <jansson.h>
#include <openssl/evp.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>

#include "core/bytes.h"
#include "core/modest.h"

/* ---- addresses ---- */

/* HOST:PORT or [IPv6]:PORT, of `n` bytes. */
static bool endpoint_valid(const char *text, size_t n)
{
	const char *colon = NULL, *end = text + n;
	for (const char *p = text; p < end; p++)
		if (*p == ':')
			colon = p;
	size_t host = colon ? (size_t)(colon - text) : 0, digits = colon ? (size_t)(end - colon - 1) : 0;
	if (host == 0 || host > 255 || digits == 0 || digits > 5)
		return false;
	unsigned port = 0;
	for (const char *p = colon + 1; p < end; p++) {
		if (!isdigit((unsigned char)*p))
			return false;
		port = port * 10 + (unsigned)(*p - '0');
	}
	bool v6 = text[0] == '[';
	if (v6 && (host < 4 || colon[-1] != ']'))
		return false;
	for (size_t i = v6; i < host - v6; i++)
		if (v6 ? !isxdigit((unsigned char)text[i]) && text[i] != ':' && text[i] != '.' : !isalnum((unsigned char)text[i]) && !strchr("-._", text[i]))
			return false;
	return port > 0 && port < 65536;
}

int etcd_endpoints_parse(const char *text, struct etcd_endpoints *ret, struct report *report)
{
	*ret = (struct etcd_endpoints){ .tls = strncmp(text, "https://", 8) == 0 };
	if (!ret->tls && strncmp(text, "http://", 7) != 0)
		return report_set(report, -EINVAL, "catalog 'etcd:%s': http:// or https:// is missing (give etcd:http://HOST:PORT[,HOST:PORT...])", text);
	const char *scheme = ret->tls ? "https" : "http";
	for (const char *p = text + strlen(scheme) + 3;;) {
		size_t n = strcspn(p, ",");
		if (!endpoint_valid(p, n))
			return report_set(report, -EINVAL, "catalog 'etcd:%s': '%.*s' is not HOST:PORT (for example etcd1:2379 or [::1]:2379)", text,
					  (int)MIN(n, (size_t)80), p);
		if (ret->count == ETCD_ENDPOINTS_MAX)
			return report_set(report, -EINVAL, "catalog 'etcd:%s': more than %d addresses", text, ETCD_ENDPOINTS_MAX);
		snprintf(ret->url[ret->count++], ETCD_URL_BYTES, "%s://%.*s", scheme, (int)n, p);
		if (!p[n])
			return 0;
		p += n + 1;
	}
}

/* ---- base64 ---- */

static json_t *base64(const void *bytes, size_t length)
{
	unsigned char *text = malloc(length / 3 * 4 + 5);
	int n = text ? EVP_EncodeBlock(text, bytes, (int)length) : 0;
	json_t *j = text ? json_stringn_nocheck((char *)text, (size_t)n) : NULL;
	free(text);
	return j;
}

static json_t *key_text(const char *prefix, const char *key, const char *suffix, size_t suffix_bytes)
{
	char whole[ETCD_KEY_BYTES];
	size_t n = (size_t)snprintf(whole, sizeof whole, "%s%s", prefix, key);
	if (n + suffix_bytes > sizeof whole)
		return NULL;
	memcpy(whole + n, suffix, suffix_bytes);
	return base64(whole, n + suffix_bytes);
}

/* Strict: nothing but the alphabet, and padding at the end. `ret` malloc'd, NUL behind it. */
static int unbase64(const json_t *j, size_t max, uint8_t **ret, size_t *ret_length)
{
	static const char alphabet[] = "ABCDEFGHIJKLMNOPQRSTUVWXYZabcdefghijklmnopqrstuvwxyz0123456789+/";
	const char *text = json_string_value(j);
	size_t n = text ? json_string_length(j) : 0, padding = 0;
	if (!text || n % 4 || n / 4 * 3 > max + 2)
		return -EBADMSG;
	while (padding < 2 && padding < n && text[n - 1 - padding] == '=')
		padding++;
	if (strspn(text, alphabet) != n - padding)
		return -EBADMSG;
	uint8_t *bytes = malloc(n / 4 * 3 + 1);
	if (!bytes)
		return -ENOMEM;
	if (EVP_DecodeBlock(bytes, (const unsigned char *)text, (int)n) != (int)(n / 4 * 3) || n / 4 * 3 - padding > max) {
		free(bytes);
		return -EBADMSG;
	}
	*ret_length = n / 4 * 3 - padding;
	bytes[*ret_length] = 0;
	*ret = bytes;
	return 0;
}

/* ---- requests ---- */

/* Drops the reference. A part that couldn't be allocated makes all of it NULL. */
static char *dump(json_t *j)
{
	char *text = j ? json_dumps(j, JSON_COMPACT) : NULL;
	json_decref(j);
	return text;
}

static json_t *decimal(uint64_t n)
{
	char text[24];
	snprintf(text, sizeof text, "%" PRIu64, n);
	return json_string_nocheck(text);
}

static json_t *compare_id(const char *id)
{
	return json_pack("{s:s, s:s, s:o, s:o}", "target", "VALUE", "result", "EQUAL", "key", key_text("", ETCD_ID_KEY, "", 0), "value",
			 base64(id, strlen(id)));
}

/* What is done if a compare fails: it may have been the id. */
static json_t *ask_id(void) { return json_pack("[{s:{s:o}}]", "request_range", "key", key_text("", ETCD_ID_KEY, "", 0)); }

static json_t *txn_compares(const char *prefix, const struct catalog_txn *t, const char *id)
{
	json_t *list = id ? json_pack("[o]", compare_id(id)) : json_array();
	for (unsigned i = 0; list && i < t->compare_count; i++) {
		const struct catalog_compare *c = &t->compare[i];
		json_t *one = json_pack("{s:s, s:s, s:o, s:o}", "target", "MOD", "result", "EQUAL", "key", key_text(prefix, c->key, "", 0),
					"mod_revision", decimal(c->revision));
		if (!one || json_array_append_new(list, one) < 0) {
			json_decref(list);
			return NULL;
		}
	}
	return list;
}

static json_t *txn_change(const char *prefix, const struct catalog_change *c)
{
	json_t *key = key_text(prefix, c->key, "", 0);
	if (!c->bytes)
		return json_pack("{s:{s:o}}", "request_delete_range", "key", key);
	json_t *put = json_pack("{s:o, s:o}", "key", key, "value", base64(c->bytes, c->length));
	if (put && c->lease && json_object_set_new(put, "lease", decimal(c->lease)) < 0) {
		json_decref(put);
		return NULL;
	}
	return json_pack("{s:o}", "request_put", put);
}

static json_t *txn_changes(const char *prefix, const struct catalog_txn *t)
{
	json_t *list = json_array();
	for (unsigned i = 0; list && i < t->change_count; i++) {
		json_t *one = txn_change(prefix, &t->change[i]);
		if (!one || json_array_append_new(list, one) < 0) {
			json_decref(list);
			return NULL;
		}
	}
	return list;
}

char *etcd_txn_request(const char *prefix, const struct catalog_txn *t, const char *id)
{
	json_t *compares = txn_compares(prefix, t, id), *changes = txn_changes(prefix, t);
	return dump(id ? json_pack("{s:o, s:o, s:o}", "compare", compares, "success", changes, "failure", ask_id())
		       : json_pack("{s:o, s:o}", "compare", compares, "success", changes));
}

/* The first key behind all that begin with it: the last byte plus one. Ours are ASCII, so there is one. */
static json_t *range_end(const char *prefix, const char *key)
{
	char whole[ETCD_KEY_BYTES];
	size_t n = (size_t)snprintf(whole, sizeof whole, "%s%s", prefix, key);
	if (n == 0 || n >= sizeof whole)
		return NULL;
	whole[n - 1]++;
	return base64(whole, n);
}

char *etcd_range_request(const char *prefix, const char *key, bool all_below, const char *after, unsigned limit, uint64_t revision, const char *id)
{
	json_t *j = json_pack("{s:o}", "key", after ? key_text(prefix, after, "\0", 1) : key_text(prefix, key, "", 0));
	int bad = !j;
	if (all_below)
		bad = bad || json_object_set_new(j, "range_end", range_end(prefix, key)) < 0;
	if (limit)
		bad = bad || json_object_set_new(j, "limit", decimal(limit)) < 0;
	if (revision)
		bad = bad || json_object_set_new(j, "revision", decimal(revision)) < 0;
	if (bad) {
		json_decref(j);
		return NULL;
	}
	return dump(id ? json_pack("{s:[o], s:[{s:o}], s:o}", "compare", compare_id(id), "success", "request_range", j, "failure", ask_id()) : j);
}

static json_t *gets(const char *prefix, const struct catalog_want *wants, unsigned count)
{
	json_t *list = json_array();
	for (unsigned i = 0; list && i < count; i++) {
		json_t *one = json_pack("{s:{s:o}}", "request_range", "key", key_text(prefix, wants[i].key, "", 0));
		if (!one || json_array_append_new(list, one) < 0) {
			json_decref(list);
			return NULL;
		}
	}
	return list;
}

static json_t *counts(const char *prefix, const struct catalog_tally *tallies, unsigned count)
{
	json_t *list = json_array();
	for (unsigned i = 0; list && i < count; i++) {
		json_t *one = json_pack("{s:{s:o, s:o, s:b}}", "request_range", "key", key_text(prefix, tallies[i].prefix, "", 0), "range_end",
					range_end(prefix, tallies[i].prefix), "count_only", 1);
		if (!one || json_array_append_new(list, one) < 0) {
			json_decref(list);
			return NULL;
		}
	}
	return list;
}

/* Reads `list`, of the store with that id. */
static char *reads(json_t *list, const char *id)
{
	return dump(id ? json_pack("{s:[o], s:o, s:o}", "compare", compare_id(id), "success", list, "failure", ask_id()) : json_pack("{s:o}", "success", list));
}

char *etcd_gets_request(const char *prefix, const struct catalog_want *wants, unsigned count, const char *id)
{
	return reads(gets(prefix, wants, count), id);
}

char *etcd_counts_request(const char *prefix, const struct catalog_tally *tallies, unsigned count, const char *id)
{
	return reads(counts(prefix, tallies, count), id);
}

char *etcd_login_request(const char *user, const char *password)
{
	return dump(json_pack("{s:s, s:s}", "name", user, "password", password));
}

char *etcd_lease_request(uint64_t id, uint64_t ttl_s)
{
	return ttl_s ? dump(json_pack("{s:o}", "TTL", decimal(ttl_s))) : dump(json_pack("{s:o}", "ID", decimal(id)));
}

char *etcd_watch_request(const char *prefix, const char *key)
{
	return dump(json_pack("{s:{s:o, s:o}}", "create_request", "key", key_text(prefix, key, "", 0), "range_end", range_end(prefix, key)));
}

/* ---- answers ---- */

static json_t *parse(const void *bytes, size_t length)
{
	json_t *j = modest_json(bytes, length, ETCD_VALUES_MAX, ETCD_DEPTH_MAX) ? json_loadb(bytes, length, 0, NULL) : NULL;
	if (!json_is_object(j)) {
		json_decref(j);
		return NULL;
	}
	return j;
}

/* A 64-bit number is a string of digits there; absent means 0. */
static int number(const json_t *object, const char *key, uint64_t *ret)
{
	const json_t *j = json_object_get(object, key);
	const char *text = json_string_value(j);
	*ret = 0;
	if (!j)
		return 0;
	if (json_is_integer(j) && json_integer_value(j) >= 0) {
		*ret = (uint64_t)json_integer_value(j);
		return 0;
	}
	if (!text || !*text || strlen(text) > 19 || strspn(text, "0123456789") != strlen(text))
		return -EBADMSG;
	*ret = strtoull(text, NULL, 10);
	return 0;
}

static int header_revision(const json_t *answer, uint64_t *ret)
{
	int r = number(json_object_get(answer, "header"), "revision", ret);
	return r < 0 || *ret == 0 ? -EBADMSG : 0;
}

/* One of a transaction's responses, which is a range. NULL: it isn't. */
static const json_t *range_at(const json_t *answer, size_t index)
{
	return json_object_get(json_array_get(json_object_get(answer, "responses"), index), "response_range");
}

static const json_t *first_range(const json_t *answer) { return range_at(answer, 0); }

/* A compare failed. 0: not that of the id; -EREMCHG: ret_other is the store's; -EBADMSG. */
static int read_other(const json_t *answer, const char *id, char ret_other[ETCD_ID_BYTES])
{
	const json_t *range = first_range(answer), *kvs = json_object_get(range, "kvs");
	uint8_t *value = NULL;
	size_t n = 0;
	if (!json_is_object(range) || (kvs && !json_is_array(kvs)) || json_array_size(kvs) > 1)
		return -EBADMSG;
	int r = json_array_size(kvs) ? unbase64(json_object_get(json_array_get(kvs, 0), "value"), ETCD_ID_BYTES - 1, &value, &n) : 0;
	if (r < 0)
		return r;
	ret_other[0] = 0;
	for (size_t i = 0; i < n; i++) {
		ret_other[i] = value[i] > ' ' && value[i] < 0x7f ? (char)value[i] : '?';
		ret_other[i + 1] = 0;
	}
	bool same = value && n == strlen(id) && memcmp(value, id, n) == 0;
	free(value);
	return same ? 0 : -EREMCHG;
}

static int item_fill(struct etcd_item *item, const json_t *kv, const char *prefix)
{
	uint8_t *key = NULL;
	size_t n = 0, skip = strlen(prefix);
	int r = unbase64(json_object_get(kv, "key"), ETCD_KEY_BYTES, &key, &n);
	if (r < 0)
		return r;
	bool good = n >= skip && n - skip <= CATALOG_KEY_MAX && memcmp(key, prefix, skip) == 0;
	for (size_t i = 0; good && i < n; i++)
		good = key[i] >= ' ' && key[i] < 0x7f;
	if (good)
		memcpy(item->key, key + skip, n - skip + 1);
	free(key);
	if (!good || number(kv, "mod_revision", &item->value.revision) < 0 || item->value.revision == 0)
		return -EBADMSG;
	const json_t *value = json_object_get(kv, "value");
	if (value)
		return unbase64(value, CATALOG_VALUE_MAX, &item->value.bytes, &item->value.length);
	item->value.bytes = calloc(1, 1); /* an empty one is left out */
	return item->value.bytes ? 0 : -ENOMEM;
}

/* `range`: in the answer, or all of it. */
static int range_fill(const json_t *answer, const json_t *range, const char *prefix, struct etcd_range *ret)
{
	const json_t *kvs = json_object_get(range, "kvs");
	size_t count = json_array_size(kvs);
	int r = header_revision(answer, &ret->revision);
	if (r < 0 || !json_is_object(range) || (kvs && !json_is_array(kvs)))
		return -EBADMSG;
	ret->more = json_is_true(json_object_get(range, "more"));
	if (ret->more && count == 0)
		return -EBADMSG;
	ret->items = calloc(count + 1, sizeof *ret->items);
	if (!ret->items)
		return -ENOMEM;
	for (; r == 0 && ret->count < count; ret->count++) {
		struct etcd_item *item = &ret->items[ret->count];
		r = item_fill(item, json_array_get(kvs, ret->count), prefix);
		if (r == 0 && ret->count && strcmp(item[-1].key, item->key) >= 0)
			r = -EBADMSG;
	}
	return r;
}

int etcd_range_answer(const void *bytes, size_t length, const char *prefix, const char *id, struct etcd_range *ret, char ret_other[ETCD_ID_BYTES])
{
	json_t *j = parse(bytes, length);
	*ret = (struct etcd_range){ 0 };
	int r = j ? 0 : -EBADMSG;
	if (r == 0 && id && !json_is_true(json_object_get(j, "succeeded")))
		r = read_other(j, id, ret_other) == -EREMCHG ? -EREMCHG : -EBADMSG;
	if (r == 0)
		r = range_fill(j, id ? first_range(j) : j, prefix, ret);
	json_decref(j);
	if (r < 0)
		etcd_range_free(ret);
	return r;
}

/* One key's range: itself, or nothing. */
static int want_fill(const json_t *answer, const json_t *range, const char *prefix, struct catalog_want *w)
{
	struct etcd_range got = { 0 };
	int r = range_fill(answer, range, prefix, &got);
	if (r == 0 && (got.count > 1 || (got.count == 1 && strcmp(got.items[0].key, w->key) != 0)))
		r = -EBADMSG;
	if (r == 0 && got.count == 1) {
		w->value = got.items[0].value;
		got.items[0].value.bytes = NULL;
	}
	etcd_range_free(&got);
	return r;
}

/* So many reads were carried out, of the store with that id. */
static int check_reads(const json_t *answer, const char *id, unsigned count, char ret_other[ETCD_ID_BYTES])
{
	if (!answer)
		return -EBADMSG;
	if (!json_is_true(json_object_get(answer, "succeeded")))
		return id && read_other(answer, id, ret_other) == -EREMCHG ? -EREMCHG : -EBADMSG;
	return json_array_size(json_object_get(answer, "responses")) == count ? 0 : -EBADMSG;
}

int etcd_gets_answer(const void *bytes, size_t length, const char *prefix, const char *id, struct catalog_want *wants, unsigned count, char ret_other[ETCD_ID_BYTES])
{
	json_t *j = parse(bytes, length);
	for (unsigned i = 0; i < count; i++)
		wants[i].value = (struct catalog_value){ 0 };
	int r = check_reads(j, id, count, ret_other);
	for (unsigned i = 0; r == 0 && i < count; i++)
		r = want_fill(j, range_at(j, i), prefix, &wants[i]);
	json_decref(j);
	if (r < 0)
		catalog_wants_free(wants, count);
	return r;
}

int etcd_counts_answer(const void *bytes, size_t length, const char *id, struct catalog_tally *tallies, unsigned count, char ret_other[ETCD_ID_BYTES])
{
	json_t *j = parse(bytes, length);
	int r = check_reads(j, id, count, ret_other);
	for (unsigned i = 0; r == 0 && i < count; i++) {
		const json_t *range = range_at(j, i);
		r = json_is_object(range) && !json_object_get(range, "kvs") ? number(range, "count", &tallies[i].count) : -EBADMSG; /* 0 is left out */
	}
	json_decref(j);
	return r;
}

void etcd_range_free(struct etcd_range *r)
{
	for (size_t i = 0; i < r->count; i++)
		catalog_value_free(&r->items[i].value);
	free(r->items);
	*r = (struct etcd_range){ 0 };
}

int etcd_txn_answer(const void *bytes, size_t length, const char *id, bool *ret_succeeded, uint64_t *ret_revision, char ret_other[ETCD_ID_BYTES])
{
	json_t *j = parse(bytes, length), *succeeded = json_object_get(j, "succeeded");
	uint64_t revision;
	int r = j && header_revision(j, &revision) == 0 && (!succeeded || json_is_boolean(succeeded)) ? 0 : -EBADMSG;
	if (r == 0 && id && !json_is_true(succeeded))
		r = read_other(j, id, ret_other);
	if (r == 0) {
		*ret_succeeded = json_is_true(succeeded);
		*ret_revision = revision;
	}
	json_decref(j);
	return r;
}

int etcd_login_answer(const void *bytes, size_t length, char ret_token[ETCD_TOKEN_BYTES])
{
	json_t *j = parse(bytes, length);
	const char *token = json_string_value(json_object_get(j, "token"));
	bool good = token && *token && strlen(token) < ETCD_TOKEN_BYTES;
	for (const char *p = token; good && *p; p++)
		good = *p > ' ' && *p < 0x7f; /* it becomes part of a header */
	if (good)
		strcpy(ret_token, token);
	json_decref(j);
	return good ? 0 : -EBADMSG;
}

bool etcd_watch_answer(const void *bytes, size_t length, const char *prefix, catalog_seen *seen, void *arg)
{
	json_t *j = parse(bytes, length);
	const json_t *result = json_object_get(j, "result"), *events = json_object_get(result, "events"), *event;
	bool canceled = json_is_true(json_object_get(result, "canceled"));
	size_t i;
	json_array_foreach(events, i, event) {
		const char *type = json_string_value(json_object_get(event, "type")); /* the usual one, PUT, is left out */
		struct etcd_item item = { .value.bytes = NULL };
		bool deleted = type && strcmp(type, "DELETE") == 0;
		if (seen && item_fill(&item, json_object_get(event, "kv"), prefix) == 0 && (deleted || !type || strcmp(type, "PUT") == 0))
			seen(arg, item.key, deleted ? NULL : &item.value);
		catalog_value_free(&item.value);
	}
	json_decref(j);
	return canceled;
}

int etcd_lease_answer(const void *bytes, size_t length, uint64_t *ret_id, uint64_t *ret_ttl_s)
{
	json_t *j = parse(bytes, length);
	const json_t *result = json_object_get(j, "result"); /* of a stream */
	uint64_t id, ttl_s;
	int r = j && !json_object_get(j, "error") && number(result ? result : j, "ID", &id) == 0 && id != 0 &&
				number(result ? result : j, "TTL", &ttl_s) == 0 && ttl_s <= INT32_MAX
			? 0 : -EBADMSG;
	if (r == 0) {
		*ret_id = id;
		*ret_ttl_s = ttl_s;
	}
	json_decref(j);
	return r;
}

/* ---- errors ---- */

/* gRPC's numbers */
enum { CODE_UNKNOWN = 2, CODE_INVALID = 3, CODE_NOT_FOUND = 5, CODE_DENIED = 7, CODE_EXHAUSTED = 8, CODE_PRECONDITION = 9,
       CODE_OUT_OF_RANGE = 11, CODE_UNIMPLEMENTED = 12, CODE_UNAUTHENTICATED = 16 };

static int code_status(uint64_t code, const char *message)
{
	static const struct {
		const char *part;
		int status;
	} known[] = {
		{ "invalid auth token", -EKEYREJECTED }, { "revision of auth store is old", -EKEYREJECTED },
		{ "authentication failed", -EACCES }, { "authentication is not enabled", -EACCES },
		{ "user name is empty", -EACCES }, { "permission denied", -EACCES },
		{ "database space exceeded", -EDQUOT }, { "has been compacted", -ESTALE }, { "too many requests", -EBUSY },
		{ "request is too large", -E2BIG }, { "too many operations", -E2BIG }, { "lease not found", -ENOENT },
	};
	for (unsigned i = 0; i < ARRAY_COUNT(known); i++)
		if (strstr(message, known[i].part))
			return known[i].status;
	switch (code) {
	case CODE_UNAUTHENTICATED: return -EKEYREJECTED;
	case CODE_DENIED: return -EACCES;
	case CODE_INVALID:
	case CODE_NOT_FOUND:
	case CODE_PRECONDITION:
	case CODE_OUT_OF_RANGE:
	case CODE_UNIMPLEMENTED: return -EPROTO;
	default: return -ETIMEDOUT;
	}
}

/* One line of printable ASCII. */
static void clean(const char *text, char *ret, size_t bytes)
{
	size_t n = 0;
	for (; *text && n + 1 < bytes; text++)
		ret[n++] = *text >= ' ' && *text < 0x7f ? *text : '?';
	ret[n] = 0;
}

int etcd_error_answer(unsigned http_status, const void *bytes, size_t length, char ret_why[ETCD_WHY_BYTES])
{
	json_t *j = parse(bytes, length), *error = json_object_get(j, "error");
	bool nested = json_is_object(error); /* of a stream */
	const char *message = json_string_value(nested ? json_object_get(error, "message") : error);
	uint64_t code = 0;
	int r;
	if (!message)
		message = json_string_value(json_object_get(j, "message"));
	if (j && message && number(nested ? error : j, nested ? "grpc_code" : "code", &code) == 0) {
		r = code_status(code, message);
		clean(message, ret_why, ETCD_WHY_BYTES);
		size_t n = strlen(ret_why);
		if (code == CODE_DENIED)
			snprintf(ret_why + n, ETCD_WHY_BYTES - n, " (grant its user readwrite on aquifer/ aquifer0: docs/cluster.md)");
	} else {
		/* no etcd, or none that has the gateway, or something before it that has trouble of its own */
		r = http_status == 401 || http_status == 403 ? -EACCES : http_status >= 400 && http_status < 500 ? -EPROTO : -ETIMEDOUT;
		snprintf(ret_why, ETCD_WHY_BYTES, "it answers HTTP status %u%s", http_status, http_status == 404 ? " (no etcd of version 3.4 or later?)" : "");
	}
	json_decref(j);
	return r;
}
