/* Revocations outlive their entries in the catalog: a host writes down what it has seen, ROOT/etc/aquifer/tls/revoked, a line "HOST UNTIL_S" for
 * each, and puts back what is missing. So who can write the catalog (a revoked host that still has etcd's password, say) can't let anybody in
 * again where a server or an agent has seen him revoked. The file only grows, until the certificates it means have run out anyhow.
 *
 * What says that certificates to come don't count either isn't written down: that would keep a host out for good by one key. */
#include <errno.h>
#include <inttypes.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>

#include "core/bytes.h"
#include "core/option.h"
#include "core/plant.h"
#include "parallax/access/access.h"
#include "proto/access.pb-c.h"

#define FILE_NAME "revoked"
enum {
	LINE_BYTES = IDENTITY_HOST_BYTES + 24,
	REMEMBERED_MAX = IDENTITY_REVOKED_MAX / 2, /* so that there is always room for what the catalog says */
};

struct list {
	struct identity_revoked *entries;
	size_t count;
};

static uint64_t now_s(const struct catalog *c) { return env_wall_ns(c->env) / NS_PER_S; }

static struct identity_revoked *find(const struct list *l, const char *host)
{
	for (size_t i = 0; i < l->count; i++)
		if (strcmp(l->entries[i].host, host) == 0)
			return &l->entries[i];
	return NULL;
}

/* True: that is news. When `most` are there, they stay. There is room in memory. */
static bool learn(struct list *l, const struct identity_revoked *e, size_t most)
{
	struct identity_revoked *there = find(l, e->host);
	if (there ? there->until_s >= e->until_s : l->count >= most)
		return false;
	if (!there)
		there = &l->entries[l->count++];
	*there = *e;
	return true;
}

/* Of certificates that may be there, and can't be made any more. */
static bool worth_keeping(const struct catalog *c, const struct identity_revoked *e)
{
	return e->until_s <= now_s(c) + IDENTITY_SKEW_S && e->until_s + CERTIFICATE_LIFE_S + IDENTITY_SKEW_S >= now_s(c);
}

/* ---- the file ---- */

static bool parse_line(const char *line, size_t n, struct identity_revoked *ret)
{
	char text[LINE_BYTES], *end;
	if (n >= sizeof text)
		return false;
	memcpy(text, line, n);
	text[n] = 0;
	char *space = strchr(text, ' ');
	if (!space || space[1] < '0' || space[1] > '9')
		return false;
	*space = 0;
	ret->until_s = strtoull(space + 1, &end, 10);
	snprintf(ret->host, sizeof ret->host, "%s", text);
	return !*end && name_valid(text) && strlen(text) < sizeof ret->host;
}

/* Adds what is there; lines that make no sense are passed over. */
static void parse_file(struct catalog *c, const char *text, struct list *l)
{
	struct identity_revoked e;
	for (const char *p = text; *p;) {
		size_t n = strcspn(p, "\n");
		if (parse_line(p, n, &e) && worth_keeping(c, &e))
			learn(l, &e, REMEMBERED_MAX);
		p += n + (p[n] == '\n');
	}
}

/* FIBER. If it can't be written, the next look tries again. */
static void write_file(struct catalog *c, const char *root, const struct list *l)
{
	char *text = malloc(l->count * LINE_BYTES + 1);
	size_t n = 0;
	for (size_t i = 0; text && i < l->count; i++)
		n += (size_t)snprintf(text + n, LINE_BYTES, "%s %" PRIu64 "\n", l->entries[i].host, l->entries[i].until_s);
	if (n)
		access_write(c->env, root, FILE_NAME, text, NULL);
	free(text);
}

/* ---- the catalog ---- */

/* FIBER. Who is faster has done the same, or more; if nobody can do it now, somebody does later. */
static void put_back(struct catalog *c, const struct identity_revoked *e)
{
	char key[CATALOG_KEY_MAX + 1];
	uint8_t bytes[16];
	struct catalog_value v;
	Aquifer__Access__Revoked m = AQUIFER__ACCESS__REVOKED__INIT;
	m.until_s = e->until_s;
	snprintf(key, sizeof key, "%s%s", ACCESS_REVOKED, e->host);
	int r = catalog_get(c, key, &v);
	if (r == 0 || r == -ENOENT)
		catalog_put_at(c, key, v.revision, bytes, aquifer__access__revoked__pack(&m, bytes));
	catalog_value_free(&v);
}

int access_revoked_known(struct catalog *c, const char *root, bool keep, struct identity_revoked **ret, size_t *ret_count)
{
	struct list said = { 0 }, known = { 0 };
	char *text = NULL;
	int r = access_revoked(c, &said.entries, &said.count);
	if (r < 0)
		return r;
	if (PLANTED(access_revoked_forgotten) || access_read(c->env, root, FILE_NAME, &text, NULL) < 0)
		text = NULL;
	known.entries = calloc(said.count + REMEMBERED_MAX + 1, sizeof *known.entries);
	if (!known.entries) {
		free(said.entries);
		free(text);
		return -ENOMEM;
	}
	if (text)
		parse_file(c, text, &known);
	free(text);
	bool news = false;
	for (size_t i = 0; i < said.count; i++)
		if (worth_keeping(c, &said.entries[i]))
			news |= learn(&known, &said.entries[i], REMEMBERED_MAX);
	if (keep && news)
		write_file(c, root, &known);
	for (size_t i = 0; keep && i < known.count; i++) {
		const struct identity_revoked *there = find(&said, known.entries[i].host);
		if (!there || there->until_s < known.entries[i].until_s)
			put_back(c, &known.entries[i]);
	}
	for (size_t i = 0; i < said.count; i++) /* the rest of what it says, for as long as it does */
		learn(&known, &said.entries[i], IDENTITY_REVOKED_MAX);
	free(said.entries);
	*ret = known.entries;
	*ret_count = known.count;
	return 0;
}
