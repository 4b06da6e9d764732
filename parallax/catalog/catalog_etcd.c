/* A transaction is one of etcd's, with its mod_revision compared; reads are linearizable. A list is read in pages of one
 * revision; if that is compacted meanwhile, it begins again.
 *
 * Only the store that was opened is believed: each transaction and read compares its id. An etcd with another one, or none, is
 * one that can't be asked; so its other addresses are tried, and who waits for the catalog goes on waiting.
 *
 * What can go wrong: nobody can be asked (-ENOTCONN), or the answer is missing, late, or "leader changed" (-ETIMEDOUT, outcome unknown);
 * out of quota (-EDQUOT: see quota_txn()); no permission (-EACCES); a transaction that is larger than this etcd takes (-E2BIG). */
#include "parallax/catalog/catalog_etcd.h"

#include <assert.h>
#include <errno.h>
#include <inttypes.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>

#include "core/array.h"
#include "core/bytes.h"
#include "parallax/catalog/catalog_access.h"
#include "parallax/catalog/catalog_etcd_call.h"

enum { LIST_TRIES = 5, ASIDE_TRIES = 600 };

static int damaged(struct etcd *e, int status)
{
	if (status == -EBADMSG)
		snprintf(e->catalog.why, sizeof e->catalog.why, "what answers at %.100s isn't etcd, or not with our keys", e->at.url[e->current]);
	return status == -EBADMSG ? -EPROTO : status;
}

/* The id of a store that moves away, or has moved: each digit's complement, so that it is found again should it stay. */
static void aside_id(const char *id, char ret[ETCD_ID_BYTES])
{
	static const char digits[] = "0123456789abcdef";
	size_t n = 0;
	for (; id[n]; n++)
		ret[n] = digits[15 - (strchr(digits, id[n]) - digits)];
	ret[n] = 0;
}

/* What answers there is another store, or none. */
static int foreign(struct etcd *e, const char *other)
{
	const char *address = strstr(e->at.url[e->current], "//") + 2;
	char text[ETCD_ID_BYTES + 8], aside[ETCD_ID_BYTES];
	aside_id(e->id, aside);
	snprintf(text, sizeof text, *other ? "id %s" : "no id", other);
	if (*other && strcmp(other, aside) == 0)
		snprintf(e->catalog.why, sizeof e->catalog.why, "the catalog has moved away from the etcd at %.100s, or is being moved (set `catalog = ' in "
			 "etc/aquifer/aquifer.conf, and start the agent again)", address);
	else
		snprintf(e->catalog.why, sizeof e->catalog.why, "the etcd at %.70s is not the cluster's (%s, expected %s)%s", address, text, e->id,
			 *other ? "; if a backup was restored there, start what ran before again" : "");
	e->current = (e->current + 1) % e->at.count;
	return -EREMCHG;
}

/* `id` NULL: any store. */
static const char *id_of(const struct etcd *e) { return e->id[0] ? e->id : NULL; }

/* ---- transactions ---- */

static int txn_once(struct etcd *e, const char *prefix, const struct catalog_txn *t, const char *id, uint64_t *ret_revision)
{
	struct etcd_call call = { .path = "/v3/kv/txn", .request = etcd_txn_request(prefix, t, id), .answer_max = ETCD_REPLY_MAX,
				  .change = t->change_count > 0 };
	char other[ETCD_ID_BYTES];
	bool succeeded = false;
	uint64_t revision = 0;
	int r = etcd_call(e, &call);
	if (r < 0)
		return r;
	r = etcd_txn_answer(call.answer, call.answer_length, id, &succeeded, &revision, other);
	free(call.answer);
	if (r == -EREMCHG)
		return foreign(e, other);
	if (r < 0) {
		damaged(e, r);
		return -ETIMEDOUT; /* it may have been carried out */
	}
	if (succeeded && ret_revision)
		*ret_revision = revision;
	return succeeded ? 0 : -EAGAIN;
}

static int txn_any(struct etcd *e, const struct catalog_txn *t, uint64_t *ret_revision)
{
	int r = -EREMCHG;
	for (unsigned tried = 0; r == -EREMCHG && tried < e->at.count; tried++)
		r = txn_once(e, ETCD_PREFIX, t, id_of(e), ret_revision);
	return r == -EREMCHG ? -ENOTCONN : r;
}

/* Do its compares hold now? That is a read. 0, -EAGAIN, or not known. */
static int txn_compares(struct etcd *e, const struct catalog_txn *t)
{
	struct catalog_txn *reads = malloc(sizeof *reads);
	if (!reads)
		return -ENOMEM;
	*reads = *t;
	reads->change_count = 0;
	int r = txn_any(e, reads, NULL);
	free(reads);
	return r;
}

/* An etcd that says "out of quota" may have carried the transaction out all the same: the one that goes beyond, and those that were on their way
 * with it, are applied first and refused then. So it was refused for certain only if its compares, which it would have made fail, hold afterwards. Once that
 * was said they are asked beforehand, too, so that who repeats one that had arrived learns it. */
static int quota_txn(struct etcd *e, const struct catalog_txn *t, uint64_t *ret_revision)
{
	int r = e->out_of_quota ? txn_compares(e, t) : 0;
	if (r < 0)
		return r;
	r = txn_any(e, t, ret_revision);
	e->out_of_quota = r == -EDQUOT || (e->out_of_quota && r != 0);
	if (r != -EDQUOT || t->compare_count == 0)
		return r;
	char why[sizeof e->catalog.why];
	memcpy(why, e->catalog.why, sizeof why);
	r = txn_compares(e, t) == 0 ? -EDQUOT : -ETIMEDOUT;
	memcpy(e->catalog.why, why, sizeof why);
	return r;
}

static int etcd_txn(struct catalog *c, const struct catalog_txn *t, uint64_t *ret_revision)
{
	struct etcd *e = etcd_of(c);
	return t->change_count ? quota_txn(e, t, ret_revision) : txn_any(e, t, ret_revision);
}

/* ---- reading ---- */

struct range_of {
	const char *prefix, *key;
	bool all_below;
	const char *after;
	unsigned limit;
	uint64_t revision;
};

static int range_once(struct etcd *e, const struct range_of *q, const char *id, struct etcd_range *ret)
{
	struct etcd_call call = { .path = id ? "/v3/kv/txn" : "/v3/kv/range", .answer_max = ETCD_REPLY_MAX,
				  .request = etcd_range_request(q->prefix, q->key, q->all_below, q->after, q->limit, q->revision, id) };
	char other[ETCD_ID_BYTES];
	int r = etcd_call(e, &call);
	if (r < 0)
		return r;
	r = damaged(e, etcd_range_answer(call.answer, call.answer_length, q->prefix, id, ret, other));
	free(call.answer);
	return r == -EREMCHG ? foreign(e, other) : r;
}

static int range_with(struct etcd *e, const struct range_of *q, const char *id, struct etcd_range *ret)
{
	int r = -EREMCHG;
	for (unsigned tried = 0; r == -EREMCHG && tried < e->at.count; tried++)
		r = range_once(e, q, id, ret);
	return r == -EREMCHG ? -ENOTCONN : r;
}

static int get_with(struct etcd *e, const char *prefix, const char *key, const char *id, struct catalog_value *ret_value)
{
	struct etcd_range range;
	*ret_value = (struct catalog_value){ 0 };
	int r = range_with(e, &(struct range_of){ .prefix = prefix, .key = key }, id, &range);
	if (r < 0)
		return r;
	r = range.count == 0 ? -ENOENT : range.count > 1 || strcmp(range.items[0].key, key) ? damaged(e, -EBADMSG) : 0;
	if (r == 0) {
		*ret_value = range.items[0].value;
		range.items[0].value.bytes = NULL;
	}
	etcd_range_free(&range);
	return r;
}

static int etcd_get(struct catalog *c, const char *key, struct catalog_value *ret_value)
{
	return get_with(etcd_of(c), ETCD_PREFIX, key, id_of(etcd_of(c)), ret_value);
}

static int gets_once(struct etcd *e, const char *prefix, struct catalog_want *wants, unsigned count, const char *id)
{
	struct etcd_call call = { .path = "/v3/kv/txn", .answer_max = ETCD_REPLY_MAX, .request = etcd_gets_request(prefix, wants, count, id) };
	char other[ETCD_ID_BYTES];
	int r = etcd_call(e, &call);
	if (r < 0)
		return r;
	r = damaged(e, etcd_gets_answer(call.answer, call.answer_length, prefix, id, wants, count, other));
	free(call.answer);
	return r == -EREMCHG ? foreign(e, other) : r;
}

static int gets_with(struct etcd *e, const char *prefix, struct catalog_want *wants, unsigned count, const char *id)
{
	int r = -EREMCHG;
	for (unsigned tried = 0; r == -EREMCHG && tried < e->at.count; tried++)
		r = gets_once(e, prefix, wants, count, id);
	return r == -EREMCHG ? -ENOTCONN : r;
}

static int etcd_get_many(struct catalog *c, struct catalog_want *wants, unsigned count)
{
	return gets_with(etcd_of(c), ETCD_PREFIX, wants, count, id_of(etcd_of(c)));
}

static int counts_once(struct etcd *e, struct catalog_tally *tallies, unsigned count)
{
	const char *id = id_of(e);
	struct etcd_call call = { .path = "/v3/kv/txn", .answer_max = ETCD_REPLY_MAX, .request = etcd_counts_request(ETCD_PREFIX, tallies, count, id) };
	char other[ETCD_ID_BYTES];
	int r = etcd_call(e, &call);
	if (r < 0)
		return r;
	r = damaged(e, etcd_counts_answer(call.answer, call.answer_length, id, tallies, count, other));
	free(call.answer);
	return r == -EREMCHG ? foreign(e, other) : r;
}

static int etcd_count(struct catalog *c, struct catalog_tally *tallies, unsigned count)
{
	struct etcd *e = etcd_of(c);
	int r = -EREMCHG;
	for (unsigned tried = 0; r == -EREMCHG && tried < e->at.count; tried++)
		r = counts_once(e, tallies, count);
	return r == -EREMCHG ? -ENOTCONN : r;
}

struct listing {
	struct etcd_range all;
	uint32_t room;
	size_t bytes;
};

/* Takes the page's items over. */
static int listing_add(struct listing *l, const char *prefix, struct etcd_range *page)
{
	if (l->all.count + page->count > ETCD_LIST_ITEMS_MAX)
		return -E2BIG;
	int r = array_reserve(&l->all.items, &l->room, l->all.count + page->count);
	if (r < 0)
		return r;
	for (size_t i = 0; i < page->count; i++) {
		struct etcd_item *item = &page->items[i];
		l->bytes += item->value.length;
		if (l->bytes > ETCD_LIST_BYTES_MAX)
			return -E2BIG;
		if (strncmp(item->key, prefix, strlen(prefix)) != 0 || (l->all.count && strcmp(l->all.items[l->all.count - 1].key, item->key) >= 0))
			return -EBADMSG;
		l->all.items[l->all.count++] = *item;
		item->value.bytes = NULL;
	}
	return 0;
}

/* All pages, of the first one's revision. */
static int list_once(struct etcd *e, const char *prefix, struct listing *l)
{
	unsigned limit = ETCD_PAGE;
	bool more = true;
	int r = 0;
	*l = (struct listing){ 0 };
	while (r == 0 && more) {
		struct etcd_range page;
		const struct range_of q = { ETCD_PREFIX, prefix, /* all_below= */ true, l->all.count ? l->all.items[l->all.count - 1].key : NULL, limit,
					    l->all.revision };
		r = range_with(e, &q, id_of(e), &page);
		if (r == -EMSGSIZE && limit > 1) {
			limit = limit > 8 ? limit / 4 : 1; /* large values */
			r = 0;
			continue;
		}
		if (r < 0)
			break;
		if (!l->all.revision)
			l->all.revision = page.revision;
		more = page.more;
		r = damaged(e, listing_add(l, prefix, &page));
		etcd_range_free(&page);
	}
	if (r < 0)
		etcd_range_free(&l->all);
	return r;
}

static int etcd_list(struct catalog *c, const char *prefix,
		     int (*entry)(void *arg, const char *key, const struct catalog_value *value), void *arg)
{
	struct listing l;
	int r = -ESTALE;
	for (unsigned attempt = 0; r == -ESTALE && attempt < LIST_TRIES; attempt++)
		r = list_once(etcd_of(c), prefix, &l);
	if (r < 0)
		return r == -ESTALE ? -ETIMEDOUT : r;
	for (size_t i = 0; r == 0 && i < l.all.count; i++)
		r = entry(arg, l.all.items[i].key, &l.all.items[i].value);
	etcd_range_free(&l.all);
	return r;
}

/* ---- moving away ---- */

/* Each transaction and read of others compares the id. An attempt of unknown outcome may have arrived: then the store has the new one. */
static int etcd_set_aside(struct catalog *c, const char *key, const char *text)
{
	struct etcd *e = etcd_of(c);
	char full[ETCD_KEY_BYTES], before[ETCD_ID_BYTES], after[ETCD_ID_BYTES];
	struct catalog_txn *t = malloc(sizeof *t);
	if (!t)
		return -ENOMEM;
	snprintf(full, sizeof full, "%s%s", ETCD_PREFIX, key);
	memcpy(before, e->id, sizeof before);
	aside_id(before, after);
	catalog_txn_init(t);
	if (text)
		catalog_txn_put(t, full, text, strlen(text));
	else
		catalog_txn_delete(t, full);
	if (*before)
		catalog_txn_put(t, ETCD_ID_KEY, after, strlen(after));
	int r = -ETIMEDOUT;
	for (unsigned i = 0; i < ASIDE_TRIES && (r == -ETIMEDOUT || r == -EREMCHG); i++) {
		if (i)
			fiber_sleep(&c->env->loop, 50 * NS_PER_MS);
		memcpy(e->id, before, sizeof e->id);
		r = txn_once(e, "", t, id_of(e), NULL);
		memcpy(e->id, r == 0 || r == -EREMCHG ? after : before, sizeof e->id);
		if (r == -EREMCHG) {
			struct catalog_value v;
			int known = etcd_get(c, key, &v);
			catalog_value_free(&v);
			r = known == 0 || known == -ENOENT ? 0 : r;
		}
	}
	if (r < 0)
		memcpy(e->id, before, sizeof e->id);
	free(t);
	return r == -EREMCHG ? -ENOTCONN : r;
}

/* ---- opening ---- */

static void etcd_close(struct catalog *c)
{
	struct etcd *e = etcd_of(c);
	assert(link_empty(&e->lives)); /* whoever made them ended them */
	http_client_close(e->http);
	http_client_close(e->beat);
	catalog_access_free(&e->access);
	explicit_bzero(e->login, sizeof e->login);
	free(e);
}

static const struct catalog_ops etcd_ops = {
	.txn = etcd_txn, .get = etcd_get, .get_many = etcd_get_many, .count = etcd_count, .list = etcd_list, .close = etcd_close, .lease = etcd_lease,
	.lease_end = etcd_lease_end, .watch = etcd_watch, .watch_end = etcd_watch_end, .set_aside = etcd_set_aside,
};

static void new_id(struct env *env, char ret[ETCD_ID_BYTES])
{
	uint64_t high = env_random(env), low = env_random(env);
	snprintf(ret, ETCD_ID_BYTES, "%016" PRIx64 "%016" PRIx64, high, low);
}

/* The store's keys: format, unless it is there (`format` isn't NULL), and id. -EAGAIN: somebody was faster, or an attempt of ours had arrived. */
static int make_keys(struct etcd *e, const struct catalog_value *format)
{
	char text[16], id[ETCD_ID_BYTES];
	struct catalog_txn *t = malloc(sizeof *t);
	if (!t)
		return -ENOMEM;
	snprintf(text, sizeof text, "%d", ETCD_FORMAT);
	new_id(e->catalog.env, id);
	catalog_txn_init(t);
	catalog_txn_compare(t, ETCD_FORMAT_KEY, format ? format->revision : 0);
	catalog_txn_compare(t, ETCD_ID_KEY, 0);
	if (!format)
		catalog_txn_put(t, ETCD_FORMAT_KEY, text, strlen(text));
	catalog_txn_put(t, ETCD_ID_KEY, id, strlen(id));
	int r = txn_once(e, "", t, NULL, NULL);
	free(t);
	return r;
}

static int make_format(struct etcd *e, const char *addresses, struct report *report)
{
	int r = make_keys(e, NULL);
	return r < 0 && r != -EAGAIN ? report_set(report, r, "catalog etcd:%s can't be made: %s", addresses, catalog_text(&e->catalog, r)) : 0;
}

static int newer(const char *addresses, unsigned long format, struct report *report)
{
	char what[600];
	snprintf(what, sizeof what, "catalog etcd:%.500s", addresses);
	return report_newer(report, what, (unsigned)format, ETCD_FORMAT);
}

static int check_format(const char *addresses, const struct catalog_value *v, struct report *report)
{
	const char *text = (const char *)v->bytes;
	bool digits = v->length > 0 && v->length < 10 && strspn(text, "0123456789") == v->length;
	unsigned long format = digits ? strtoul(text, NULL, 10) : 0;
	if (format == 0)
		return report_set(report, -EUCLEAN, "catalog etcd:%s: its key %s is damaged (restore a backup)", addresses, ETCD_FORMAT_KEY);
	if (format > ETCD_FORMAT)
		return newer(addresses, format, report);
	return 0;
}

static int open_failed(const struct etcd *e, const char *addresses, int status, struct report *report)
{
	const char *cure = strchr(addresses, ',') ? " (most of its members must run)" : " (does it run there?)";
	return report_set(report, status, "catalog etcd:%s: %s%s", addresses, catalog_text(&e->catalog, status), status == -ENOTCONN || status == -ETIMEDOUT ? cure : "");
}

/* What is read at once when it is opened. */
enum { OPEN_FORMAT, OPEN_ID, OPEN_ALSO, ALSO_MAX = 4 };
struct opening {
	struct catalog_want wants[OPEN_ALSO + ALSO_MAX];
	char keys[ALSO_MAX][ETCD_KEY_BYTES];
	unsigned count; /* of wants */
};

static int opening_read(struct etcd *e, struct opening *o)
{
	catalog_wants_free(o->wants, o->count);
	return gets_with(e, "", o->wants, o->count, NULL);
}

/* Which store is it? One that an older program made has no id until now; where it can't be written (no quota, no right), it goes on without. */
static int learn_id(struct etcd *e, const char *addresses, struct opening *o, struct report *report)
{
	const struct catalog_value *v = &o->wants[OPEN_ID].value;
	int r = 0;
	if (!v->revision) {
		make_keys(e, &o->wants[OPEN_FORMAT].value);
		r = opening_read(e, o);
	}
	if (r < 0)
		return open_failed(e, addresses, r, report);
	if (!v->revision)
		return 0;
	bool good = v->length == ETCD_ID_BYTES - 1 && strspn((const char *)v->bytes, "0123456789abcdef") == v->length;
	if (good)
		memcpy(e->id, v->bytes, ETCD_ID_BYTES);
	return good ? 0 : report_set(report, -EUCLEAN, "catalog etcd:%s: its key %s is damaged (restore a backup)", addresses, ETCD_ID_KEY);
}

static int find_store(struct etcd *e, const char *addresses, bool create, struct opening *o, struct report *report)
{
	const struct catalog_value *format = &o->wants[OPEN_FORMAT].value;
	int r = opening_read(e, o);
	if (r == 0 && !format->revision && create) {
		r = make_format(e, addresses, report);
		if (r < 0)
			return r;
		r = opening_read(e, o);
	}
	if (r < 0)
		return open_failed(e, addresses, r, report);
	if (!format->revision) /* not as a status: that is a store that nobody has made yet, and this may be one that was lost */
		return report_set(report, -ENODATA, "there is no store in etcd:%s (make one: aquifer cluster init --catalog etcd:%s; if there was one, restore its backup)",
				  addresses, addresses);
	r = check_format(addresses, format, report);
	return r < 0 ? r : learn_id(e, addresses, o, report);
}

/* In one round trip with the keys of `also`. */
static int find_store_and(struct etcd *e, const char *addresses, bool create, struct catalog_want *also, unsigned also_count, struct report *report)
{
	struct opening *o = calloc(1, sizeof *o);
	if (!o)
		return -ENOMEM;
	assert(also_count <= ALSO_MAX);
	o->wants[OPEN_FORMAT].key = ETCD_FORMAT_KEY;
	o->wants[OPEN_ID].key = ETCD_ID_KEY;
	o->count = OPEN_ALSO + also_count;
	for (unsigned i = 0; i < also_count; i++) {
		snprintf(o->keys[i], sizeof o->keys[i], "%s%s", ETCD_PREFIX, also[i].key);
		o->wants[OPEN_ALSO + i].key = o->keys[i];
	}
	int r = find_store(e, addresses, create, o, report);
	for (unsigned i = 0; r == 0 && i < also_count; i++) {
		also[i].value = o->wants[OPEN_ALSO + i].value;
		o->wants[OPEN_ALSO + i].value = (struct catalog_value){ 0 };
	}
	catalog_wants_free(o->wants, o->count);
	free(o);
	return r;
}

static int etcd_set_up(struct etcd *e, const char *addresses, const struct catalog_access *access, struct report *report)
{
	int r = etcd_endpoints_parse(addresses, &e->at, report);
	if (r < 0)
		return r;
	if (!e->at.tls && (access->authorities || access->certificate))
		return report_set(report, -EINVAL, "catalog 'etcd:%s': there is a certificate, but http:// doesn't use it (give https://)", addresses);
	r = catalog_access_copy(access, &e->access);
	if (r < 0)
		return r;
	e->access_ns = env_now_ns(e->catalog.env);
	const struct http_tls tls = etcd_tls(&e->access);
	r = http_client_create(e->catalog.env, &tls, &e->http);
	const char *why = r == -ENOSYS ? "this libcurl can't look up names without waiting" : r == -ELIBACC ? "libcurl.so.4 can't be loaded (install libcurl4)" : errno_text(r);
	return r < 0 ? report_set(report, r, "catalog 'etcd:%s': %s", addresses, why) : 0;
}

int catalog_etcd_open(struct env *env, const char *addresses, const struct catalog_access *access, bool create, struct catalog_want *also,
		      unsigned also_count, struct catalog **ret_catalog, struct report *report)
{
	static const struct catalog_access nobody;
	struct etcd *e = calloc(1, sizeof *e);
	if (!e)
		return -ENOMEM;
	e->catalog = (struct catalog){ .ops = &etcd_ops, .env = env };
	fiber_mutex_init(&e->logging_in);
	link_init(&e->lives);
	int r = etcd_set_up(e, addresses, access ? access : &nobody, report);
	if (r == 0) {
		e->current = etcd_first(env, &e->at);
		r = find_store_and(e, addresses, create, also, also_count, report);
	}
	if (r < 0) {
		etcd_close(&e->catalog);
		return r;
	}
	*ret_catalog = &e->catalog;
	return 0;
}
