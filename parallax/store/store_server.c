/* The servers of the cluster, as its map and they themselves say; what operators want of them goes into their keys, and the
 * manager (server/manager.c) sees it there. */
#include <errno.h>
#include <stdlib.h>
#include <string.h>

#include "core/array.h"
#include "core/bytes.h"
#include "parallax/copies/copies.h"
#include "parallax/store/store_private.h"
#include "parallax/store/wanted.h"

enum { WRITE_TRIES = 50 };
#define GC_WAIT_NS (600 * NS_PER_S)

/* Segments that belong there, in parts of a thousand of all; each copy counts. */
static unsigned share_of(const struct placement *map, uint32_t server)
{
	unsigned has = 0, all = 0;
	for (unsigned g = 0; g < map->group_count; g++)
		for (unsigned i = 0; i < map->groups[g].target_count; i++) {
			has += map->groups[g].target[i] == server;
			all++;
		}
	return all ? has * 1000 / all : 0;
}

/* FIBER. What the catalog doesn't say now isn't shown as nothing: a server has an address, by which it may be looked for. */
static int fill(const struct copies *c, uint32_t index, struct peer *p, struct store_server *ret)
{
	static const char *const states[] = { [PLACED_IN] = "in", [PLACED_DRAINING] = "draining", [PLACED_LOST] = "lost" };
	const struct placed_server *placed = &c->map.servers[index];
	struct meta_server m;
	struct segment_status s;
	*ret = (struct store_server){ .weight = placed->weight, .share = share_of(&c->map, index), .answers = peer_reach(p), .state = states[placed->state] };
	for (unsigned i = 0; i < sizeof p->id.bytes; i++)
		snprintf(ret->id + 2 * i, 3, "%02x", p->id.bytes[i]);
	snprintf(ret->domain, sizeof ret->domain, "%s", placed->domain);
	int r = meta_get_server(c->catalog, &p->id, &m, NULL);
	bool unreadable = r == -EUCLEAN || r == -EPROTONOSUPPORT; /* it is there */
	if (r < 0 && r != -ENOENT && !unreadable)
		return r;
	snprintf(ret->address, sizeof ret->address, "%s", p->address[0] || r < 0 ? p->address : m.address);
	if (r == 0) {
		ret->incarnation = m.incarnation;
		ret->state = m.draining && placed->state == PLACED_IN ? "draining" : ret->state; /* the manager will see it */
	}
	if (p->server && !ret->answers)
		snprintf(ret->why, sizeof ret->why, "%s", segment_why(p->server));
	else if (unreadable && !ret->answers)
		snprintf(ret->why, sizeof ret->why, "its record in the catalog can't be read: %s", errno_text(r));
	if (!ret->answers)
		return 0;
	bool told = peer_status(p, false, &s) == 0;
	if (told) {
		ret->copies = s.copies;
		ret->unsealed = s.unsealed;
		ret->missing = s.missing;
		ret->missing_bytes = s.missing_bytes;
		ret->bytes_per_s = s.bytes_per_s;
		ret->misplaced = s.misplaced;
		ret->settled = s.settled && s.map == c->map.revision;
	}
	if (told && placed->state == PLACED_DRAINING && s.copies == 0 && s.map == c->map.revision)
		ret->state = "drained";
	struct segment_server *server = p->server;
	ret->protocol = server ? server->protocol : 0;
	ret->free_bytes = server ? server->free_bytes : 0;
	ret->total_bytes = server ? server->total_bytes : 0;
	return 0;
}

int store_server_list(struct store *s, int (*entry)(void *arg, const struct store_server *server), void *arg, struct report *report)
{
	struct copies *c;
	int r = copies_open(s->env, s->catalog, &c, report);
	if (r < 0)
		return r;
	peers_await(c->peers, c->count, c->count);
	for (uint32_t i = 0; r == 0 && i < c->map.server_count; i++) {
		struct store_server server;
		struct peer *p = copies_peer(c, &c->map.servers[i].id);
		r = p ? fill(c, i, p, &server) : -ENOMEM;
		if (r < 0)
			report_set(report, r, "the catalog: %s", catalog_text(s->catalog, r));
		else
			r = entry(arg, &server);
	}
	copies_close(c);
	return r;
}

struct search {
	const char *text;
	struct store_server *found;
	unsigned count;
};

static int match(void *arg, const struct store_server *s)
{
	struct search *f = arg;
	const char *address = strncmp(s->address, "tcp:", 4) == 0 || strncmp(s->address, "tls:", 4) == 0 ? s->address + 4 : s->address;
	size_t n = strlen(f->text);
	if ((n < 4 || strncmp(s->id, f->text, n) != 0) && strcmp(s->address, f->text) != 0 && strcmp(address, f->text) != 0)
		return 0;
	f->count++;
	*f->found = *s;
	return 0;
}

int store_server_find(struct store *s, const char *text, struct store_server *ret, struct report *report)
{
	struct search f = { .text = text, .found = ret };
	int r = store_server_list(s, match, &f, report);
	if (r < 0)
		return r;
	if (f.count == 0)
		return report_set(report, -ENOENT, "there is no server %s (see aquifer server list)", text);
	return f.count == 1 ? 0 : report_set(report, -ENOTUNIQ, "more than one server is meant by %s (give more of its id)", text);
}

/* ---- what operators want ---- */

static void id_parse(const char *id, uuid *ret)
{
	for (unsigned i = 0; i < sizeof ret->bytes; i++) {
		char two[3] = { id[2 * i], id[2 * i + 1], 0 };
		ret->bytes[i] = (uint8_t)strtoul(two, NULL, 16);
	}
}

static int mark_once(struct catalog *c, const uuid *id, bool draining, bool removed)
{
	char key[META_KEY_BYTES];
	struct meta_server m;
	uint64_t revision;
	size_t length = 0;
	int r = meta_get_server(c, id, &m, &revision);
	if (r < 0)
		return r;
	m.draining = draining;
	m.removed = removed;
	uint8_t *bytes = meta_server_encode(&m, &length);
	meta_key_server(id, key);
	r = catalog_put_at(c, key, revision, bytes, length);
	free(bytes);
	return r;
}

/* The same may be said twice. */
static int mark(struct store *s, const char *text, bool draining, bool removed, struct report *report)
{
	uuid id;
	int r = -EAGAIN;
	id_parse(text, &id);
	for (unsigned i = 0; i < WRITE_TRIES && (r == -EAGAIN || r == -ETIMEDOUT || r == -EBUSY); i++)
		r = i && fiber_sleep(&s->env->loop, 20 * NS_PER_MS) < 0 ? -ESHUTDOWN : mark_once(s->catalog, &id, draining, removed);
	return r < 0 ? report_set(report, r, "the catalog: %s", catalog_text(s->catalog, r)) : 0;
}

/* ---- will enough be left? ---- */

struct domains {
	const struct placement *map;
	bool stays[PLACEMENT_SERVERS_MAX]; /* nobody takes it out, and it isn't lost */
	uint32_t server;                   /* the one that is to go; server_count: it isn't in the map */
};

static int domains_fill(struct domains *d, struct catalog *c, const uuid *id)
{
	d->server = d->map->server_count;
	for (uint32_t i = 0; i < d->map->server_count; i++) {
		const struct placed_server *s = &d->map->servers[i];
		struct meta_server m = { .removed = false };
		int r = meta_get_server(c, &s->id, &m, NULL);
		if (r < 0 && r != -ENOENT)
			return r;
		d->stays[i] = r == 0 && s->state == PLACED_IN && !m.draining && !m.removed;
		if (memcmp(&s->id, id, sizeof *id) == 0)
			d->server = i;
	}
	return 0;
}

static unsigned domains_count(const struct domains *d, bool without)
{
	unsigned n = 0;
	for (uint32_t i = 0; i < d->map->server_count; i++) {
		bool first = d->stays[i] && !(without && i == d->server);
		for (uint32_t k = 0; first && k < i; k++)
			first = !d->stays[k] || (without && k == d->server) || !d->map->servers[i].domain[0] ||
				strcmp(d->map->servers[k].domain, d->map->servers[i].domain) != 0;
		n += first;
	}
	return n;
}

/* Volumes that want more copies than `domains`. */
static int count_wanting(struct catalog *c, unsigned domains, uint64_t *ret_volumes, uint32_t *ret_replicas)
{
	struct wanted *w;
	int r = wanted_open(c, NULL, &w);
	for (size_t i = 0; r == 0 && i < w->count; i++) {
		bool wants = !w->volumes[i].embedded && w->volumes[i].replicas > domains;
		*ret_volumes += wants;
		*ret_replicas = wants ? MAX(*ret_replicas, w->volumes[i].replicas) : *ret_replicas;
	}
	if (r == 0)
		wanted_close(w);
	return r;
}

/* 0 also when it changes nothing, because it isn't used any more, or others of its domain are. `marked`: the catalog says already that it is to go. */
static int check_domains(struct store *s, const char *text, bool marked, struct report *report)
{
	uuid id;
	uint64_t volumes = 0;
	uint32_t replicas = 0;
	unsigned left = 0;
	struct placement *map = malloc(sizeof *map);
	struct domains *d = calloc(1, sizeof *d);
	id_parse(text, &id);
	int r = map && d ? placement_read(s->catalog, map, NULL) : -ENOMEM;
	if (r == 0) {
		d->map = map;
		r = domains_fill(d, s->catalog, &id);
	}
	if (r == 0 && marked && d->server < map->server_count)
		d->stays[d->server] = map->servers[d->server].state != PLACED_LOST;
	if (r == 0 && d->server < map->server_count && d->stays[d->server]) {
		left = domains_count(d, /* without= */ true);
		if (left < domains_count(d, false))
			r = count_wanting(s->catalog, left, &volumes, &replicas);
	}
	free(d);
	free(map);
	if (r < 0)
		return report_set(report, r, "what would be left for its volumes can't be found out: %s", catalog_text(s->catalog, r));
	if (volumes == 0)
		return 0;
	return report_set(report, -EBUSY, "%llu volume%s as many as %u copies, and servers in %u failure domain%s would be left (start another one first, or give --force)",
			  (unsigned long long)volumes, volumes == 1 ? " has" : "s have", replicas, left, left == 1 ? "" : "s");
}

static int is_draining(struct store *s, const char *text)
{
	struct meta_server m;
	uuid id;
	id_parse(text, &id);
	int r = meta_get_server(s->catalog, &id, &m, NULL);
	return r < 0 ? r : m.draining;
}

/* Of two that are to go at the same moment each may have been looked at before the other was marked: so it is looked at again then. */
int store_server_drain(struct store *s, const char *id, bool undo, bool force, struct report *report)
{
	if (undo || force || is_draining(s, id) > 0)
		return mark(s, id, !undo, /* removed= */ false, report);
	int r = check_domains(s, id, /* marked= */ false, report);
	r = r ? r : mark(s, id, /* draining= */ true, /* removed= */ false, report);
	if (r == 0) {
		r = check_domains(s, id, /* marked= */ true, report);
		if (r == -EBUSY)
			mark(s, id, /* draining= */ false, /* removed= */ false, NULL);
	}
	return r;
}

struct release {
	uuid id;
	uint64_t *volumes;
	size_t count;
};

static int note_open(void *arg, const char *key, const struct catalog_value *value)
{
	struct release *f = arg;
	const char *end = strrchr(key, '/');
	struct meta_log *log = end && strcmp(end, "/log") == 0 ? malloc(sizeof *log) : NULL;
	bool there = false;
	if (log && meta_log_decode(value->bytes, value->length, log) == 0)
		for (uint32_t i = 0; i < log->segment_count; i++)
			for (uint32_t k = 0; k < log->segments[i].ensemble_count && !log->segments[i].cut; k++)
				there |= memcmp(&log->segments[i].ensemble[k].server, &f->id, sizeof f->id) == 0;
	free(log);
	if (there && array_more(&f->volumes, f->count) == 0)
		f->volumes[f->count++] = strtoull(key + strlen("volume/"), NULL, 16);
	return 0;
}

/* What an owner has left and not deleted yet is found by gc. */
static void ask_gc(struct store *s, const uuid *id)
{
	struct copies *c;
	struct segment_status status;
	if (copies_open(s->env, s->catalog, &c, NULL) < 0)
		return;
	struct peer *p = copies_peer(c, id);
	if (p && peers_await(&p, 1, 1))
		peer_status(p, true, &status);
	copies_close(c);
}

/* Who has it will see the map. 1: if he could; he may have lost only the catalog. */
static int release_volume(struct store *s, uint64_t volume, struct meta_owner *ret_owner)
{
	struct volume *v;
	if (store_holder(s->places, volume, ret_owner))
		return 0;
	if (places_attached_elsewhere(s->places, ret_owner))
		return 1;
	if (store_maintain(s->places, volume, &v, NULL) == 0)
		volume_close(v);
	return 0;
}

unsigned store_server_release(struct store *s, const char *id, struct report *ret_held)
{
	struct release f = { .count = 0 };
	unsigned held = 0;
	id_parse(id, &f.id);
	catalog_list(s->catalog, "volume/", note_open, &f);
	for (size_t i = 0; i < f.count; i++) {
		struct meta_owner owner;
		if (release_volume(s, f.volumes[i], &owner) && held++ == 0)
			report_set(ret_held, -EBUSY, "%s on host %s, which hasn't renewed its lease, writes there (attach its volume on another host to take it over, or mend that one)",
				   owner.holder, owner.host);
	}
	free(f.volumes);
	ask_gc(s, &f.id);
	return held;
}

/* ---- what would be lost ---- */

struct only_there {
	struct copies *copies;
	uuid id;
	uint64_t segments, volumes, unknown; /* that no other has; volumes they are of; volumes of which it isn't known */
};

static bool somebody_else_has(struct only_there *o, uint64_t segment)
{
	struct copies *c = o->copies;
	for (uint32_t i = 0; i < c->map.server_count; i++) {
		struct peer *p = copies_peer(c, &c->map.servers[i].id);
		struct segment_io io = { .op = SEGMENT_STAT, .segment = segment };
		if (p && memcmp(&p->id, &o->id, sizeof p->id) != 0 && peer_usable(p) && peer_wait(p, &io) == 0 && io.state != COPY_ABSENT &&
		    io.state != COPY_BROKEN)
			return true;
	}
	return false;
}

static int look_for_only(struct only_there *o, struct catalog *catalog)
{
	struct wanted *w;
	int r = wanted_open(catalog, o->copies, &w);
	for (size_t i = 0; r == 0 && i < w->count; i++) {
		struct wanted_volume *v = &w->volumes[i];
		uint64_t before = o->segments;
		if (v->embedded)
			continue;
		int known = wanted_load(w, v);
		o->unknown += known < 0 && known != -ENOENT;
		for (size_t k = 0; known == 0 && k < v->count; k++)
			o->segments += !wanted_is_unused(v, v->segments[k]) && !somebody_else_has(o, v->segments[k]);
		o->volumes += o->segments > before;
	}
	if (r == 0)
		wanted_close(w);
	return r;
}

static int check_only(struct store *s, const char *id, struct report *report)
{
	struct only_there o = { .segments = 0 };
	id_parse(id, &o.id);
	int r = copies_open(s->env, s->catalog, &o.copies, report);
	if (r < 0)
		return r;
	peers_await(o.copies->peers, o.copies->count, o.copies->count);
	r = look_for_only(&o, s->catalog);
	copies_close(o.copies);
	if (r < 0)
		return report_set(report, r, "what is on it can't be found out: %s", errno_text(r));
	if (o.segments)
		return report_set(report, -EBUSY, "%llu segments of %llu volumes are on no other server that answers, and would be lost (drain it, or give --force)",
				  (unsigned long long)o.segments, (unsigned long long)o.volumes);
	if (o.unknown)
		return report_set(report, -EBUSY, "of %llu volumes it isn't known what would be lost: their space tables can't be read (bring servers back, or give --force)",
				  (unsigned long long)o.unknown);
	return 0;
}

int store_server_remove(struct store *s, const char *id, bool force, struct report *report)
{
	int r = force ? 0 : check_only(s, id, report);
	if (r == 0 && !force)
		r = check_domains(s, id, /* marked= */ false, report);
	return r ? r : mark(s, id, /* draining= */ false, /* removed= */ true, report);
}

/* ---- gc ---- */

/* FIBER. One after the other would wait longer, but each has its own disk to go through. */
static int gc_wait(struct store *s, struct peer *p, uint64_t round, const struct segment_status *before, struct store_gc *ret)
{
	uint64_t until = env_now_ns(s->env) + GC_WAIT_NS;
	struct segment_status now = *before;
	int r = 0;
	while (now.gc_rounds < round && env_now_ns(s->env) < until && r == 0) {
		r = fiber_sleep(&s->env->loop, 50 * NS_PER_MS);
		if (r == 0)
			r = peer_status(p, false, &now);
	}
	if (r < 0 || now.gc_rounds < round) {
		ret->silent++;
		return r == -ESHUTDOWN ? r : 0;
	}
	ret->freed += now.gc_freed - MIN(now.gc_freed, before->gc_freed);
	ret->freed_bytes += now.gc_freed_bytes - MIN(now.gc_freed_bytes, before->gc_freed_bytes);
	ret->unanswered += now.gc_unanswered;
	ret->refused += now.gc_refused;
	return 0;
}

int store_gc(struct store *s, struct store_gc *ret, struct report *report)
{
	struct copies *c;
	*ret = (struct store_gc){ 0 };
	store_reap(s); /* volumes that are deleted as far as their names go */
	struct segment_status *before = calloc(PLACEMENT_SERVERS_MAX, sizeof *before);
	uint64_t *rounds = calloc(PLACEMENT_SERVERS_MAX, sizeof *rounds);
	int r = before && rounds ? copies_open(s->env, s->catalog, &c, report) : -ENOMEM;
	if (r == 0) {
		peers_await(c->peers, c->count, c->count);
		ret->servers = c->map.server_count;
		for (uint32_t i = 0; i < ret->servers; i++) {
			struct peer *p = copies_peer(c, &c->map.servers[i].id);
			struct segment_status asked;
			if (p && peer_status(p, false, &before[i]) == 0 && peer_status(p, true, &asked) == 0)
				rounds[i] = asked.gc_rounds;
			else
				ret->silent++;
		}
		for (uint32_t i = 0; r == 0 && i < ret->servers; i++)
			if (rounds[i])
				r = gc_wait(s, copies_peer(c, &c->map.servers[i].id), rounds[i], &before[i], ret);
		copies_close(c);
	}
	free(before);
	free(rounds);
	return r < 0 ? report_set(report, r, "ask the servers: %s", errno_text(r)) : 0;
}
