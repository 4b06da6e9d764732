/* What is said to etcd and what it answers, bytes only: addresses, requests, good answers, and answers of something that
 * isn't etcd, or means ill. */
#include "parallax/catalog/catalog_etcd_wire.h"

#include <criterion/criterion.h>
#include <errno.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>

#include "core/bytes.h"

/* ---- addresses ---- */

Test(catalog_etcd_wire, addresses)
{
	struct etcd_endpoints e;
	struct report report = { "" };
	cr_assert_eq(etcd_endpoints_parse("http://127.0.0.1:2379", &e, &report), 0, "%s", report.text);
	cr_assert(e.count == 1 && !e.tls && strcmp(e.url[0], "http://127.0.0.1:2379") == 0);
	cr_assert_eq(etcd_endpoints_parse("https://etcd-1.lan:2379,[::1]:1,b_c:65535", &e, &report), 0, "%s", report.text);
	cr_assert(e.count == 3 && e.tls && strcmp(e.url[1], "https://[::1]:1") == 0 && strcmp(e.url[2], "https://b_c:65535") == 0);
}

Test(catalog_etcd_wire, addresses_refused)
{
	static const char *const bad[] = {
		"", "127.0.0.1:2379", "ftp://h:1", "http://", "http://h", "http://h:", "http://:1", "http://h:0", "http://h:65536", "http://h:99999999",
		"http://h:1/", "http://h:1/path", "http://user@h:1", "http://h:1,", "http://h:1,,h:2", "http://h:1,http://h:2", "http://[::1:1", "http://[]:1",
		"http://::1:1", "http://h h:1", "http://h:1 ", "http://h%41:1", "http://[::1%25eth0]:1", "http://h?:1", "http://h#:1", "http://h:+1",
	};
	char long_one[600];
	struct etcd_endpoints e;
	for (unsigned i = 0; i < ARRAY_COUNT(bad); i++) {
		struct report report = { "" };
		cr_assert_eq(etcd_endpoints_parse(bad[i], &e, &report), -EINVAL, "'%s'", bad[i]);
		cr_assert(report.text[0] && !strchr(report.text, '\n'));
	}
	snprintf(long_one, sizeof long_one, "http://%0400d:1", 0);
	cr_assert_eq(etcd_endpoints_parse(long_one, &e, NULL), -EINVAL);
	strcpy(long_one, "http://h:1");
	for (unsigned i = 0; i < ETCD_ENDPOINTS_MAX; i++)
		strcat(long_one, ",h:1");
	cr_assert_eq(etcd_endpoints_parse(long_one, &e, NULL), -EINVAL);
}

/* ---- requests ---- */

Test(catalog_etcd_wire, transaction)
{
	struct catalog_txn *t = malloc(sizeof *t);
	catalog_txn_init(t);
	catalog_txn_compare(t, "a", 7);
	catalog_txn_put(t, "b", "xyz", 3);
	catalog_txn_delete(t, "a");
	char *text = etcd_txn_request("p/", t, NULL);
	cr_assert_str_eq(text, "{\"compare\":[{\"target\":\"MOD\",\"result\":\"EQUAL\",\"key\":\"cC9h\",\"mod_revision\":\"7\"}],\"success\":["
			       "{\"request_put\":{\"key\":\"cC9i\",\"value\":\"eHl6\"}},{\"request_delete_range\":{\"key\":\"cC9h\"}}]}");
	free(text);
	t->compare_count = 0;
	t->change_count = 1;
	t->change[0].lease = UINT64_C(9007199254740993); /* more than a double holds */
	text = etcd_txn_request("p/", t, NULL);
	cr_assert(strstr(text, "\"lease\":\"9007199254740993\""), "%s", text);
	free(text);
	free(t);
}

Test(catalog_etcd_wire, ranges)
{
	char *text = etcd_range_request("p/", "v/", true, NULL, 10, 0, NULL);
	cr_assert_str_eq(text, "{\"key\":\"cC92Lw==\",\"range_end\":\"cC92MA==\",\"limit\":\"10\"}"); /* p/v/ to p/v0 */
	free(text);
	text = etcd_range_request("p/", "v/", true, "v/3", 0, 5, NULL);
	cr_assert_str_eq(text, "{\"key\":\"cC92LzMA\",\"range_end\":\"cC92MA==\",\"revision\":\"5\"}"); /* p/v/3\0 */
	free(text);
	text = etcd_range_request("p/", "v", false, NULL, 0, 0, NULL);
	cr_assert_str_eq(text, "{\"key\":\"cC92\"}");
	free(text);
}

/* ---- answers ---- */

static int range_of(const char *text, struct etcd_range *ret) { return etcd_range_answer(text, strlen(text), "p/", NULL, ret, NULL); }

Test(catalog_etcd_wire, range_answer)
{
	struct etcd_range r;
	cr_assert_eq(range_of("{\"header\":{\"cluster_id\":\"14841639068965178418\",\"revision\":\"12\"},\"kvs\":[{\"key\":\"cC9h\",\"create_revision\":\"3\","
			      "\"mod_revision\":\"4\",\"version\":\"1\",\"value\":\"eHk=\"},{\"key\":\"cC9i\",\"mod_revision\":\"12\"}],\"more\":true,\"count\":\"9\"}", &r), 0);
	cr_assert(r.revision == 12 && r.more && r.count == 2);
	cr_assert(strcmp(r.items[0].key, "a") == 0 && r.items[0].value.length == 2 && memcmp(r.items[0].value.bytes, "xy", 2) == 0);
	cr_assert(r.items[0].value.revision == 4 && strcmp(r.items[1].key, "b") == 0 && r.items[1].value.length == 0 && r.items[1].value.bytes);
	etcd_range_free(&r);
	cr_assert_eq(range_of("{\"header\":{\"revision\":\"1\"}}", &r), 0);
	cr_assert(r.count == 0 && !r.more);
	etcd_range_free(&r);
}

Test(catalog_etcd_wire, range_answers_refused)
{
#define HEAD "{\"header\":{\"revision\":\"9\"},"
	static const char *const bad[] = {
		"", "null", "[]", "{", "\"x\"", "<html>no</html>", "{}", "{\"header\":{}}", "{\"header\":{\"revision\":\"-1\"}}",
		"{\"header\":{\"revision\":\"99999999999999999999\"}}", "{\"header\":{\"revision\":\"1x\"}}", "{\"header\":{\"revision\":1.5}}",
		HEAD "\"kvs\":{}}", HEAD "\"kvs\":[7]}", HEAD "\"kvs\":[{}]}", HEAD "\"more\":true}",
		HEAD "\"kvs\":[{\"key\":\"cC9h\"}]}",                                    /* no revision */
		HEAD "\"kvs\":[{\"key\":\"cC9h\",\"mod_revision\":\"0\"}]}",
		HEAD "\"kvs\":[{\"key\":\"cC9\",\"mod_revision\":\"1\"}]}",              /* not base64 */
		HEAD "\"kvs\":[{\"key\":\"cC9h====\",\"mod_revision\":\"1\"}]}",
		HEAD "\"kvs\":[{\"key\":\"cC\\n9\",\"mod_revision\":\"1\"}]}",
		HEAD "\"kvs\":[{\"key\":\"=C9h\",\"mod_revision\":\"1\"}]}",
		HEAD "\"kvs\":[{\"key\":\"cS9h\",\"mod_revision\":\"1\"}]}",             /* q/a: not ours */
		HEAD "\"kvs\":[{\"key\":\"cA==\",\"mod_revision\":\"1\"}]}",             /* shorter than the prefix */
		HEAD "\"kvs\":[{\"key\":\"cC8A\",\"mod_revision\":\"1\"}]}",             /* a NUL in it */
		HEAD "\"kvs\":[{\"key\":\"cC9h\",\"mod_revision\":\"1\",\"value\":7}]}",
		HEAD "\"kvs\":[{\"key\":\"cC9i\",\"mod_revision\":\"1\"},{\"key\":\"cC9h\",\"mod_revision\":\"1\"}]}", /* not in order */
		HEAD "\"kvs\":[{\"key\":\"cC9h\",\"mod_revision\":\"1\"},{\"key\":\"cC9h\",\"mod_revision\":\"1\"}]}", /* twice */
	};
	struct etcd_range r;
	for (unsigned i = 0; i < ARRAY_COUNT(bad); i++) {
		cr_assert_eq(range_of(bad[i], &r), -EBADMSG, "%s", bad[i]);
		cr_assert(!r.items && r.count == 0);
	}
}

static int gets_of(const char *text, struct catalog_want *wants, unsigned count)
{
	char other[ETCD_ID_BYTES];
	return etcd_gets_answer(text, strlen(text), "p/", "ab", wants, count, other);
}

Test(catalog_etcd_wire, several_keys)
{
	struct catalog_want wants[] = { { .key = "a" }, { .key = "b" } };
	char *text = etcd_gets_request("p/", wants, 2, NULL);
	cr_assert_str_eq(text, "{\"success\":[{\"request_range\":{\"key\":\"cC9h\"}},{\"request_range\":{\"key\":\"cC9i\"}}]}");
	free(text);
	text = etcd_gets_request("p/", wants, 1, "ab");
	cr_assert(strstr(text, "\"compare\":[{\"target\":\"VALUE\"") && strstr(text, "\"failure\":[{\"request_range\""), "%s", text);
	free(text);
#define NONE "{\"response_range\":{\"header\":{\"revision\":\"9\"}}}"
#define ONE(key) "{\"response_range\":{\"header\":{\"revision\":\"9\"},\"kvs\":[{\"key\":\"" key "\",\"mod_revision\":\"4\",\"value\":\"eHk=\"}],\"count\":\"1\"}}"
	cr_assert_eq(gets_of(HEAD "\"succeeded\":true,\"responses\":[" NONE "," ONE("cC9i") "]}", wants, 2), 0);
	cr_assert(!wants[0].value.bytes && wants[0].value.revision == 0);
	cr_assert(wants[1].value.revision == 4 && wants[1].value.length == 2 && memcmp(wants[1].value.bytes, "xy", 2) == 0);
	catalog_wants_free(wants, 2);
}

Test(catalog_etcd_wire, several_keys_refused)
{
	static const char *const bad[] = {
		"", "{}", HEAD "\"succeeded\":true}", HEAD "\"succeeded\":true,\"responses\":[" NONE "]}",
		HEAD "\"succeeded\":true,\"responses\":[" NONE "," NONE "," NONE "]}",
		HEAD "\"succeeded\":true,\"responses\":[" ONE("cC9i") "," NONE "]}",                 /* another key's */
		HEAD "\"succeeded\":true,\"responses\":[" ONE("cC9h") ",{\"response_put\":{}}]}",
		HEAD "\"succeeded\":true,\"responses\":[" ONE("cC9h") ",7]}",
		HEAD "\"responses\":[]}", HEAD "\"responses\":[{\"response_put\":{}}]}",                   /* it didn't succeed, and doesn't say why */
		"{\"succeeded\":true,\"responses\":[" NONE "," NONE "]}",                            /* of no revision */
	};
	struct catalog_want wants[] = { { .key = "a" }, { .key = "b" } };
	for (unsigned i = 0; i < ARRAY_COUNT(bad); i++) {
		cr_assert_eq(gets_of(bad[i], wants, 2), -EBADMSG, "%s", bad[i]);
		cr_assert(!wants[0].value.bytes && !wants[1].value.bytes && !wants[0].value.revision);
	}
	/* another store answers: its id is told */
	char other[ETCD_ID_BYTES];
	const char *text = HEAD "\"responses\":[{\"response_range\":{\"header\":{\"revision\":\"9\"},\"kvs\":[{\"key\":\"eA==\",\"mod_revision\":\"1\",\"value\":\"Y2Q=\"}]}}]}";
	cr_assert_eq(etcd_gets_answer(text, strlen(text), "p/", "ab", wants, 2, other), -EREMCHG);
	cr_assert_str_eq(other, "cd");
}

static int counts_of(const char *text, struct catalog_tally *tallies, unsigned count)
{
	char other[ETCD_ID_BYTES];
	return etcd_counts_answer(text, strlen(text), "ab", tallies, count, other);
}

Test(catalog_etcd_wire, counts)
{
	struct catalog_tally t[] = { { .prefix = "a", .count = 7 }, { .prefix = "b" } };
	char *text = etcd_counts_request("p/", t, 1, NULL), other[ETCD_ID_BYTES];
	cr_assert_str_eq(text, "{\"success\":[{\"request_range\":{\"key\":\"cC9h\",\"range_end\":\"cC9i\",\"count_only\":true}}]}");
	free(text);
	text = etcd_counts_request("p/", t, 2, "ab");
	cr_assert(strstr(text, "\"compare\":[{\"target\":\"VALUE\"") && strstr(text, "\"failure\":[{\"request_range\""), "%s", text);
	free(text);
#define COUNTED(n) "{\"response_range\":{\"header\":{\"revision\":\"9\"},\"count\":" n "}}"
	cr_assert_eq(counts_of(HEAD "\"succeeded\":true,\"responses\":[" NONE "," COUNTED("\"10000\"") "]}", t, 2), 0);
	cr_assert(t[0].count == 0 && t[1].count == 10000); /* 0 is left out */
	static const char *const bad[] = {
		"", "{}", HEAD "\"succeeded\":true}", HEAD "\"succeeded\":true,\"responses\":[" NONE "]}",
		HEAD "\"succeeded\":true,\"responses\":[" NONE "," COUNTED("\"-1\"") "]}",
		HEAD "\"succeeded\":true,\"responses\":[" NONE "," COUNTED("[]") "]}",
		HEAD "\"succeeded\":true,\"responses\":[" NONE ",{\"response_put\":{}}]}",
		HEAD "\"succeeded\":true,\"responses\":[" NONE "," ONE("cC9h") "]}", /* keys were not asked for */
		HEAD "\"responses\":[]}",
	};
	for (unsigned i = 0; i < ARRAY_COUNT(bad); i++)
		cr_assert_eq(counts_of(bad[i], t, 2), -EBADMSG, "%s", bad[i]);
	const char *another = HEAD "\"responses\":[{\"response_range\":{\"header\":{\"revision\":\"9\"},\"kvs\":[{\"key\":\"eA==\",\"mod_revision\":\"1\",\"value\":\"Y2Q=\"}]}}]}";
	cr_assert_eq(etcd_counts_answer(another, strlen(another), "ab", t, 2, other), -EREMCHG);
	cr_assert_str_eq(other, "cd");
}

struct told {
	char text[200];
	uint64_t revision;
};

static void tell(void *arg, const char *key, const struct catalog_value *value)
{
	struct told *t = arg;
	size_t n = strlen(t->text);
	snprintf(t->text + n, sizeof t->text - n, "%s=%s ", key, value ? (const char *)value->bytes : "gone");
	if (value)
		t->revision = value->revision;
}

static struct told watch_of(const char *text)
{
	struct told t = { .text = "" };
	etcd_watch_answer(text, strlen(text), "p/", tell, &t);
	return t;
}

Test(catalog_etcd_wire, watch_answer)
{
#define WATCH "{\"result\":{\"header\":{\"revision\":\"9\"},"
	struct told t = watch_of(WATCH "\"events\":[{\"kv\":{\"key\":\"cC9h\",\"mod_revision\":\"9\",\"value\":\"eHk=\"}},{\"type\":\"DELETE\",\"kv\":{\"key\":\"cC9i\",\"mod_revision\":\"9\"}},"
				 "{\"type\":\"PUT\",\"kv\":{\"key\":\"cC9j\",\"mod_revision\":\"9\"}}]}}");
	cr_assert_str_eq(t.text, "a=xy b=gone c= ");
	cr_assert_eq(t.revision, 9);
	cr_assert_str_eq(watch_of(WATCH "\"created\":true}}").text, "");
	static const char *const bad[] = {
		"", "{}", "[]", "{\"error\":{\"message\":\"no\"}}", WATCH "\"events\":{}}}", WATCH "\"events\":[7,{},{\"kv\":{}}]}}",
		WATCH "\"events\":[{\"kv\":{\"key\":\"cS9h\",\"mod_revision\":\"9\"}}]}}",                            /* not ours */
		WATCH "\"events\":[{\"kv\":{\"key\":\"cC9h\",\"mod_revision\":\"0\"}}]}}",
		WATCH "\"events\":[{\"type\":\"OTHER\",\"kv\":{\"key\":\"cC9h\",\"mod_revision\":\"9\"}}]}}",
	};
	for (unsigned i = 0; i < ARRAY_COUNT(bad); i++)
		cr_assert_str_eq(watch_of(bad[i]).text, "", "%s", bad[i]);
}

/* Small text that would become much memory is refused before it is parsed; a long string is not. */
Test(catalog_etcd_wire, answers_that_grow)
{
	size_t n = 1 << 20;
	char *text = malloc(n + 100);
	struct etcd_range r;
	memset(text, '[', n);
	cr_assert_eq(etcd_range_answer(text, n, "p/", NULL, &r, NULL), -EBADMSG);
	for (size_t i = 0; i < n; i++)
		text[i] = "[],"[i % 3];
	text[0] = '[';
	cr_assert_eq(etcd_range_answer(text, n, "p/", NULL, &r, NULL), -EBADMSG);
	/* a value of the largest size, and one beyond it */
	for (size_t length = CATALOG_VALUE_MAX / 3 * 4 + 4; length <= CATALOG_VALUE_MAX / 3 * 4 + 8; length += 4) {
		int begin = sprintf(text, HEAD "\"kvs\":[{\"key\":\"cC9h\",\"mod_revision\":\"1\",\"value\":\"");
		memset(text + begin, 'A', length);
		if (length == CATALOG_VALUE_MAX / 3 * 4 + 4)
			memcpy(text + begin + length - 2, "==", 2); /* 256 KiB is a multiple of three, and one */
		strcpy(text + begin + length, "\"}]}");
		int e = etcd_range_answer(text, strlen(text), "p/", NULL, &r, NULL);
		cr_assert_eq(e, length == CATALOG_VALUE_MAX / 3 * 4 + 4 ? 0 : -EBADMSG, "%zu: %d", length, e);
		if (e == 0)
			cr_assert_eq(r.items[0].value.length, CATALOG_VALUE_MAX);
		etcd_range_free(&r);
	}
	free(text);
}

Test(catalog_etcd_wire, transaction_answers)
{
	bool succeeded = false;
	uint64_t revision = 0;
	const char *text = HEAD "\"succeeded\":true,\"responses\":[{\"response_put\":{\"header\":{\"revision\":\"9\"}}}]}";
	cr_assert_eq(etcd_txn_answer(text, strlen(text), NULL, &succeeded, &revision, NULL), 0);
	cr_assert(succeeded && revision == 9);
	text = "{\"header\":{\"revision\":\"9\"}}"; /* false is left out */
	cr_assert_eq(etcd_txn_answer(text, strlen(text), NULL, &succeeded, &revision, NULL), 0);
	cr_assert(!succeeded);
	text = HEAD "\"succeeded\":\"true\"}";
	cr_assert_eq(etcd_txn_answer(text, strlen(text), NULL, &succeeded, &revision, NULL), -EBADMSG);
}

/* Requests that are for one store only, and what another one answers. */
#define ID "0123456789abcdef0123456789abcdef"
#define ID_64 "MDEyMzQ1Njc4OWFiY2RlZjAxMjM0NTY3ODlhYmNkZWY="
#define ASK_ID "\"failure\":[{\"request_range\":{\"key\":\"YXF1aWZlci9pZA==\"}}]}"
#define IS_ID "{\"target\":\"VALUE\",\"result\":\"EQUAL\",\"key\":\"YXF1aWZlci9pZA==\",\"value\":\"" ID_64 "\"}"

Test(catalog_etcd_wire, requests_for_one_store)
{
	struct catalog_txn *t = malloc(sizeof *t);
	catalog_txn_init(t);
	catalog_txn_compare(t, "a", 7);
	catalog_txn_delete(t, "a");
	char *text = etcd_txn_request("p/", t, ID);
	cr_assert_str_eq(text, "{\"compare\":[" IS_ID ",{\"target\":\"MOD\",\"result\":\"EQUAL\",\"key\":\"cC9h\",\"mod_revision\":\"7\"}],"
			       "\"success\":[{\"request_delete_range\":{\"key\":\"cC9h\"}}]," ASK_ID);
	free(text);
	free(t);
	text = etcd_range_request("p/", "v", false, NULL, 3, 0, ID);
	cr_assert_str_eq(text, "{\"compare\":[" IS_ID "],\"success\":[{\"request_range\":{\"key\":\"cC92\",\"limit\":\"3\"}}]," ASK_ID);
	free(text);
}

Test(catalog_etcd_wire, answers_of_one_store_and_of_others)
{
	struct etcd_range r;
	char other[ETCD_ID_BYTES];
	bool succeeded = true;
	uint64_t revision;
#define RANGE(text) etcd_range_answer(text, strlen(text), "p/", ID, &r, other)
#define TXN(text) etcd_txn_answer(text, strlen(text), ID, &succeeded, &revision, other)
#define FIRST(kvs) HEAD "\"responses\":[{\"response_range\":{" kvs "}}]}"
	cr_assert_eq(RANGE(HEAD "\"succeeded\":true,\"responses\":[{\"response_range\":{\"kvs\":[{\"key\":\"cC9h\",\"mod_revision\":\"4\"}],\"count\":\"1\"}}]}"), 0);
	cr_assert(r.revision == 9 && r.count == 1 && strcmp(r.items[0].key, "a") == 0);
	etcd_range_free(&r);
	const char *mine = FIRST("\"kvs\":[{\"value\":\"" ID_64 "\"}]"), *theirs = FIRST("\"kvs\":[{\"value\":\"AWJj\"}]"), *none = FIRST("");
	cr_assert_eq(RANGE(theirs), -EREMCHG);
	cr_assert_str_eq(other, "?bc");
	cr_assert_eq(RANGE(none), -EREMCHG);
	cr_assert_str_eq(other, "");
	cr_assert_eq(RANGE(mine), -EBADMSG); /* it was compared with that */
	cr_assert_eq(TXN(mine), 0);
	cr_assert(!succeeded);
	cr_assert_eq(TXN(theirs), -EREMCHG);
	cr_assert_eq(TXN(none), -EREMCHG);
	cr_assert_eq(TXN(HEAD "\"succeeded\":true}"), 0);
	cr_assert(succeeded);
	static const char *const bad[] = { HEAD "\"x\":1}", HEAD "\"responses\":[]}", HEAD "\"responses\":[{\"response_put\":{}}]}", FIRST("\"kvs\":{}"),
					   FIRST("\"kvs\":[{}]"), FIRST("\"kvs\":[{\"value\":\"YQ==\"},{\"value\":\"YQ==\"}]"), FIRST("\"kvs\":[{\"value\":\"" ID_64 ID_64 "\"}]") };
	for (unsigned i = 0; i < ARRAY_COUNT(bad); i++) {
		cr_assert_eq(RANGE(bad[i]), -EBADMSG, "%s", bad[i]);
		cr_assert(!r.items);
		cr_assert_eq(TXN(bad[i]), -EBADMSG, "%s", bad[i]);
	}
	cr_assert_eq(RANGE(HEAD "\"succeeded\":true}"), -EBADMSG);
}

Test(catalog_etcd_wire, tokens)
{
	char token[ETCD_TOKEN_BYTES];
	const char *text = "{\"header\":{},\"token\":\"sMxZ.7\"}";
	cr_assert_eq(etcd_login_answer(text, strlen(text), token), 0);
	cr_assert_str_eq(token, "sMxZ.7");
	text = "{\"token\":\"a\\r\\nHost: evil\"}";
	cr_assert_eq(etcd_login_answer(text, strlen(text), token), -EBADMSG);
	text = "{\"token\":\"\"}";
	cr_assert_eq(etcd_login_answer(text, strlen(text), token), -EBADMSG);
}

Test(catalog_etcd_wire, leases)
{
	uint64_t id, ttl_s;
	const char *text = "{\"result\":{\"header\":{},\"ID\":\"7587862094143077380\",\"TTL\":\"5\"}}";
	cr_assert_eq(etcd_lease_answer(text, strlen(text), &id, &ttl_s), 0);
	cr_assert(id == UINT64_C(7587862094143077380) && ttl_s == 5);
	text = "{\"result\":{\"ID\":\"7\"}}";
	cr_assert_eq(etcd_lease_answer(text, strlen(text), &id, &ttl_s), 0);
	cr_assert_eq(ttl_s, 0); /* it has run out */
	text = "{\"error\":{\"grpc_code\":5}}";
	cr_assert_eq(etcd_lease_answer(text, strlen(text), &id, &ttl_s), -EBADMSG);
}

/* ---- errors ---- */

Test(catalog_etcd_wire, errors)
{
	static const struct {
		unsigned http;
		const char *text;
		int status;
	} cases[] = {
		{ 401, "{\"error\":\"etcdserver: invalid auth token\",\"code\":16}", -EKEYREJECTED },
		{ 400, "{\"error\":\"etcdserver: authentication failed, invalid user ID or password\",\"code\":3}", -EACCES },
		{ 400, "{\"error\":\"etcdserver: user name is empty\",\"message\":\"etcdserver: user name is empty\",\"code\":3}", -EACCES },
		{ 403, "{\"error\":\"etcdserver: permission denied\",\"code\":7}", -EACCES },
		{ 429, "{\"error\":\"etcdserver: mvcc: database space exceeded\",\"code\":8}", -EDQUOT },
		{ 429, "{\"error\":\"etcdserver: too many requests\",\"code\":8}", -EBUSY },
		{ 400, "{\"error\":\"etcdserver: mvcc: required revision has been compacted\",\"code\":11}", -ESTALE },
		{ 400, "{\"error\":\"etcdserver: request is too large\",\"code\":3}", -E2BIG },
		{ 400, "{\"error\":\"something new\",\"code\":3}", -EPROTO },
		{ 503, "{\"error\":\"etcdserver: request timed out\",\"code\":14}", -ETIMEDOUT },
		{ 503, "{\"error\":\"etcdserver: leader changed\",\"code\":14}", -ETIMEDOUT },
		{ 503, "{\"error\":\"etcdserver: no leader\",\"code\":14}", -ETIMEDOUT },
		{ 500, "{\"error\":\"etcdserver: whatever\",\"code\":2}", -ETIMEDOUT },
		{ 200, "{\"error\":{\"grpc_code\":5,\"http_code\":404,\"message\":\"etcdserver: requested lease not found\"}}", -ENOENT },
		{ 404, "404 page not found\n", -EPROTO },
		{ 502, "<html>bad gateway</html>", -ETIMEDOUT },
		{ 503, "", -ETIMEDOUT },
		{ 403, "Forbidden", -EACCES },
	};
	char why[ETCD_WHY_BYTES];
	for (unsigned i = 0; i < ARRAY_COUNT(cases); i++) {
		int e = etcd_error_answer(cases[i].http, cases[i].text, strlen(cases[i].text), why);
		cr_assert_eq(e, cases[i].status, "%d for %s", e, cases[i].text);
		cr_assert(why[0] && !strchr(why, '\n'));
	}
	const char *rude = "{\"error\":\"\\u001b[2J\\n\\u00e9\",\"code\":3}";
	cr_assert_eq(etcd_error_answer(400, rude, strlen(rude), why), -EPROTO);
	for (const char *p = why; *p; p++)
		cr_assert(*p >= ' ' && *p < 0x7f);
}
