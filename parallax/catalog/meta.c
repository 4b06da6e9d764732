#include "parallax/catalog/meta.h"

#include <errno.h>
#include <inttypes.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>

#include "core/bytes.h"
#include "proto/store.pb-c.h"

#define LOG_VERSION 1
#define ROOT_LEVEL_MAX 4 /* of 64 TiB */
#define SIZE_BYTES_MAX (UINT64_C(64) << 40)

/* Packs a message whose protobuf-c type is Aquifer__Store__NAME. */
#define PACK(name, message)                                                          \
	do {                                                                         \
		size_t length = aquifer__store__##name##__get_packed_size(message);  \
		uint8_t *bytes = malloc(length ? length : 1);                        \
		if (bytes)                                                           \
			*ret_length = aquifer__store__##name##__pack(message, bytes); \
		return bytes;                                                        \
	} while (0)

static void copy_text(char *to, size_t room, const char *from) { snprintf(to, room, "%s", from ? from : ""); }

static void root_pack(const struct meta_root *r, Aquifer__Store__Root *to)
{
	aquifer__store__root__init(to);
	to->position = r->pointer.position;
	to->crc = r->pointer.crc;
	to->level = r->level;
	to->length = r->length;
}

static int root_unpack(const Aquifer__Store__Root *from, struct meta_root *ret)
{
	*ret = (struct meta_root){ 0 };
	if (!from)
		return 0;
	*ret = (struct meta_root){ { from->position, from->crc, 0 }, from->level, from->length };
	return from->level > ROOT_LEVEL_MAX || from->length > UINT64_C(1) << 32 ? -EUCLEAN : 0;
}

/* ---- log ---- */

struct segment_pack {
	Aquifer__Store__Segment segment;
	Aquifer__Store__Replica replica[META_REPLICAS_MAX];
	Aquifer__Store__Replica *pointers[META_REPLICAS_MAX];
};

static void segment_pack(const struct meta_segment *s, struct segment_pack *to)
{
	aquifer__store__segment__init(&to->segment);
	to->segment.id = s->id;
	to->segment.epoch = s->epoch;
	to->segment.salt = s->salt;
	to->segment.size_blocks = s->size_blocks;
	to->segment.cut = s->cut;
	to->segment.length = s->length;
	to->segment.prev = s->prev;
	to->segment.n_ensemble = s->ensemble_count;
	to->segment.ensemble = to->pointers;
	for (uint32_t i = 0; i < s->ensemble_count; i++) {
		aquifer__store__replica__init(&to->replica[i]);
		to->replica[i].server = (ProtobufCBinaryData){ 16, (uint8_t *)(uintptr_t)s->ensemble[i].server.bytes };
		to->replica[i].incarnation = s->ensemble[i].incarnation;
		to->pointers[i] = &to->replica[i];
	}
}

static void segments_pack(const struct meta_segment *s, uint32_t count, struct segment_pack *to, Aquifer__Store__Segment **ret_pointers)
{
	for (uint32_t i = 0; i < count; i++) {
		segment_pack(&s[i], &to[i]);
		ret_pointers[i] = &to[i].segment;
	}
}

static int segment_unpack(const Aquifer__Store__Segment *from, struct meta_segment *ret)
{
	if (from->n_ensemble == 0 || from->n_ensemble > META_REPLICAS_MAX || from->id == 0 || from->id >> 48 ||
	    from->size_blocks < 2 || from->size_blocks > SEGMENT_BLOCKS_MAX || (from->cut && from->length > from->size_blocks))
		return -EUCLEAN;
	*ret = (struct meta_segment){ .id = from->id, .epoch = from->epoch, .salt = from->salt, .size_blocks = from->size_blocks,
				      .ensemble_count = (uint32_t)from->n_ensemble, .cut = from->cut, .length = from->length,
				      .prev = from->prev };
	for (uint32_t i = 0; i < ret->ensemble_count; i++) {
		if (from->ensemble[i]->server.len != 16)
			return -EUCLEAN;
		memcpy(ret->ensemble[i].server.bytes, from->ensemble[i]->server.data, 16);
		ret->ensemble[i].incarnation = from->ensemble[i]->incarnation;
	}
	return 0;
}

uint8_t *meta_log_encode(const struct meta_log *m, size_t *ret_length)
{
	Aquifer__Store__Log to = AQUIFER__STORE__LOG__INIT;
	Aquifer__Store__Root root, space, summary;
	struct segment_pack segments[META_SEGMENTS_MAX], unsealed[META_UNSEALED_MAX];
	Aquifer__Store__Segment *pointers[META_SEGMENTS_MAX], *unsealed_pointers[META_UNSEALED_MAX];
	to.version = LOG_VERSION;
	to.stamp = m->stamp;
	to.size_bytes = m->size_bytes;
	to.replicas = m->replicas;
	to.min_replicas = m->min_replicas;
	to.io_timeout_ms = m->io_timeout_ms;
	to.uuid = (ProtobufCBinaryData){ 16, (uint8_t *)(uintptr_t)m->volume.bytes };
	to.parent_volume = m->parent_volume;
	to.parent_mark = m->parent_mark;
	to.origin = m->origin;
	to.last_id = m->last_id;
	root_pack(&m->root, &root);
	root_pack(&m->space, &space);
	to.root = &root;
	to.space = &space;
	root_pack(&m->summary, &summary);
	to.summary = m->summary.pointer.position ? &summary : NULL;
	to.generation = m->generation;
	to.from_position = m->from_position;
	to.from_seq = m->from_seq;
	to.from_prev = m->from_prev;
	to.n_segments = m->segment_count;
	to.segments = pointers;
	segments_pack(m->segments, m->segment_count, segments, pointers);
	to.n_unsealed = m->unsealed_count;
	to.unsealed = unsealed_pointers;
	segments_pack(m->unsealed, m->unsealed_count, unsealed, unsealed_pointers);
	to.created_ns = m->created_ns;
	to.name = (char *)(uintptr_t)m->name;
	to.doomed = m->doomed;
	to.cluster = !m->embedded;
	to.mapped_blocks = m->mapped_blocks;
	to.live_blocks = m->live_blocks;
	to.dead_blocks = m->dead_blocks;
	to.node_end = m->node_end;
	PACK(log, &to);
}

static int log_unpack(const Aquifer__Store__Log *from, struct meta_log *ret)
{
	if (from->version > LOG_VERSION)
		return -EPROTONOSUPPORT;
	if (from->n_segments > META_SEGMENTS_MAX || from->n_unsealed > META_UNSEALED_MAX || from->uuid.len != 16 || from->size_bytes == 0 || from->size_bytes % 512 ||
	    from->size_bytes > SIZE_BYTES_MAX || from->from_seq == 0)
		return -EUCLEAN;
	struct meta_log *m = ret;
	*m = (struct meta_log){ .stamp = from->stamp, .size_bytes = from->size_bytes, .replicas = from->replicas,
		.min_replicas = from->min_replicas, .io_timeout_ms = from->io_timeout_ms, .parent_volume = from->parent_volume, .parent_mark = from->parent_mark,
		.origin = from->origin, .last_id = from->last_id, .generation = from->generation,
		.from_position = from->from_position, .from_seq = from->from_seq, .from_prev = from->from_prev,
		.segment_count = (uint32_t)from->n_segments, .unsealed_count = (uint32_t)from->n_unsealed, .created_ns = from->created_ns, .doomed = from->doomed,
		.embedded = !from->cluster, .mapped_blocks = from->mapped_blocks, .live_blocks = from->live_blocks,
		.dead_blocks = from->dead_blocks, .node_end = from->node_end };
	memcpy(m->volume.bytes, from->uuid.data, 16);
	copy_text(m->name, sizeof m->name, from->name);
	int r = root_unpack(from->root, &m->root);
	if (r == 0)
		r = root_unpack(from->space, &m->space);
	if (r == 0)
		r = root_unpack(from->summary, &m->summary);
	for (uint32_t i = 0; r == 0 && i < m->segment_count; i++)
		r = segment_unpack(from->segments[i], &m->segments[i]);
	for (uint32_t i = 0; r == 0 && i < m->segment_count; i++) /* in order, none listed late (R1) */
		if (m->segments[i].id > m->last_id || (i && m->segments[i].id <= m->segments[i - 1].id))
			r = -EUCLEAN;
	for (uint32_t i = 0; r == 0 && i < m->unsealed_count; i++) {
		r = segment_unpack(from->unsealed[i], &m->unsealed[i]);
		if (r == 0 && (!m->unsealed[i].cut || m->unsealed[i].id > m->last_id))
			r = -EUCLEAN;
	}
	return r;
}

/* Unpacks with protobuf-c, then with `UNPACK(from, ret)`. */
#define DECODE(name, UNPACK)                                                                        \
	do {                                                                                        \
		if (length > CATALOG_VALUE_MAX)                                                     \
			return -EUCLEAN;                                                            \
		__typeof__(aquifer__store__##name##__unpack(NULL, 0, NULL)) from =                  \
			aquifer__store__##name##__unpack(NULL, length, bytes);                      \
		if (!from)                                                                          \
			return -EUCLEAN;                                                            \
		int status = UNPACK(from, ret);                                                     \
		aquifer__store__##name##__free_unpacked(from, NULL);                                \
		return status;                                                                      \
	} while (0)

int meta_log_decode(const void *bytes, size_t length, struct meta_log *ret) { DECODE(log, log_unpack); }

/* ---- owner ---- */

uint8_t *meta_owner_encode(const struct meta_owner *m, size_t *ret_length)
{
	Aquifer__Store__Owner to = AQUIFER__STORE__OWNER__INIT;
	to.epoch = m->epoch;
	to.state = m->state;
	to.holder = (char *)(uintptr_t)m->holder;
	to.control = (char *)(uintptr_t)m->control;
	to.host = (char *)(uintptr_t)m->host;
	to.pid = m->pid;
	to.stamp = m->stamp;
	to.boot = (char *)(uintptr_t)m->boot;
	to.pids = m->pids;
	to.began = m->began_ticks;
	PACK(owner, &to);
}

static int owner_unpack(const Aquifer__Store__Owner *from, struct meta_owner *ret)
{
	if (from->state > OWNER_OFFERED)
		return -EUCLEAN;
	*ret = (struct meta_owner){ .epoch = from->epoch, .state = from->state, .pid = from->pid, .stamp = from->stamp, .pids = from->pids, .began_ticks = from->began };
	copy_text(ret->holder, sizeof ret->holder, from->holder);
	copy_text(ret->control, sizeof ret->control, from->control);
	copy_text(ret->host, sizeof ret->host, from->host);
	copy_text(ret->boot, sizeof ret->boot, from->boot);
	return 0;
}

int meta_owner_decode(const void *bytes, size_t length, struct meta_owner *ret) { DECODE(owner, owner_unpack); }

bool meta_pids_foreign(const char *boot, uint64_t pids, const char *our_boot, uint64_t our_pids)
{
	return (boot[0] && strcmp(boot, our_boot) != 0) || (pids && our_pids && pids != our_pids);
}

/* ---- snapshot ---- */

uint8_t *meta_snapshot_encode(const struct meta_snapshot *m, size_t *ret_length)
{
	Aquifer__Store__Snapshot to = AQUIFER__STORE__SNAPSHOT__INIT;
	Aquifer__Store__Root root;
	to.name = (char *)(uintptr_t)m->name;
	to.mark_seq = m->mark_seq;
	to.mark_position = m->mark_position;
	to.doomed = m->doomed;
	to.has_root = m->has_root;
	root_pack(&m->root, &root);
	to.root = &root;
	to.node_end = m->node_end;
	to.size_bytes = m->size_bytes;
	to.created_ns = m->created_ns;
	to.mapped_blocks = m->mapped_blocks;
	PACK(snapshot, &to);
}

static int snapshot_unpack(const Aquifer__Store__Snapshot *from, struct meta_snapshot *ret)
{
	*ret = (struct meta_snapshot){ .mark_seq = from->mark_seq, .mark_position = from->mark_position, .doomed = from->doomed,
		.has_root = from->has_root, .node_end = from->node_end, .size_bytes = from->size_bytes,
		.created_ns = from->created_ns, .mapped_blocks = from->mapped_blocks };
	copy_text(ret->name, sizeof ret->name, from->name);
	return root_unpack(from->root, &ret->root);
}

int meta_snapshot_decode(const void *bytes, size_t length, struct meta_snapshot *ret) { DECODE(snapshot, snapshot_unpack); }

/* ---- name, server ---- */

uint8_t *meta_name_encode(const struct meta_name *m, size_t *ret_length)
{
	Aquifer__Store__Name to = AQUIFER__STORE__NAME__INIT;
	to.volume = m->volume;
	to.n_history = m->history_count;
	to.history = (uint64_t *)(uintptr_t)m->history;
	PACK(name, &to);
}

static int name_unpack(const Aquifer__Store__Name *from, struct meta_name *ret)
{
	if (from->volume == 0 || from->n_history > META_HISTORY_MAX)
		return -EUCLEAN;
	*ret = (struct meta_name){ .volume = from->volume, .history_count = (uint32_t)from->n_history };
	for (uint32_t i = 0; i < ret->history_count; i++)
		ret->history[i] = from->history[i];
	return 0;
}

int meta_name_decode(const void *bytes, size_t length, struct meta_name *ret) { DECODE(name, name_unpack); }

uint8_t *meta_server_encode(const struct meta_server *m, size_t *ret_length)
{
	Aquifer__Store__Server to = AQUIFER__STORE__SERVER__INIT;
	to.incarnation = m->incarnation;
	to.address = (char *)(uintptr_t)m->address;
	to.domain = (char *)(uintptr_t)m->domain;
	to.host = (char *)(uintptr_t)m->host;
	to.draining = m->draining;
	to.removed = m->removed;
	to.map_version = m->map_version;
	PACK(server, &to);
}

static int server_unpack(const Aquifer__Store__Server *from, struct meta_server *ret)
{
	*ret = (struct meta_server){ .incarnation = from->incarnation, .draining = from->draining, .removed = from->removed,
				      .map_version = from->map_version };
	copy_text(ret->address, sizeof ret->address, from->address);
	copy_text(ret->domain, sizeof ret->domain, from->domain);
	copy_text(ret->host, sizeof ret->host, from->host);
	return 0;
}

int meta_server_decode(const void *bytes, size_t length, struct meta_server *ret) { DECODE(server, server_unpack); }

uint8_t *meta_agent_encode(const struct meta_agent *m, size_t *ret_length)
{
	Aquifer__Store__Agent to = AQUIFER__STORE__AGENT__INIT;
	to.address = (char *)(uintptr_t)m->address;
	to.version = (char *)(uintptr_t)m->version;
	to.token = (ProtobufCBinaryData){ META_TOKEN_BYTES, (uint8_t *)(uintptr_t)m->token };
	to.stamp = m->stamp;
	to.pid = m->pid;
	to.since_ns = m->since_ns;
	to.protocol = m->protocol;
	to.map_version = m->map_version;
	to.boot = (char *)(uintptr_t)m->boot;
	to.pids = m->pids;
	to.began = m->began_ticks;
	PACK(agent, &to);
}

static int agent_unpack(const Aquifer__Store__Agent *from, struct meta_agent *ret)
{
	*ret = (struct meta_agent){ .stamp = from->stamp, .pid = from->pid, .since_ns = from->since_ns,
				     .protocol = from->protocol, .map_version = from->map_version, .pids = from->pids, .began_ticks = from->began };
	copy_text(ret->address, sizeof ret->address, from->address);
	copy_text(ret->version, sizeof ret->version, from->version);
	copy_text(ret->boot, sizeof ret->boot, from->boot);
	if (from->token.len != META_TOKEN_BYTES)
		return -EUCLEAN;
	memcpy(ret->token, from->token.data, META_TOKEN_BYTES);
	return 0;
}

int meta_agent_decode(const void *bytes, size_t length, struct meta_agent *ret) { DECODE(agent, agent_unpack); }

/* ---- keys ---- */

void meta_key_log(uint64_t volume, char *ret_key) { snprintf(ret_key, META_KEY_BYTES, "volume/%016" PRIx64 "/log", volume); }
void meta_key_owner(uint64_t volume, char *ret_key) { snprintf(ret_key, META_KEY_BYTES, "volume/%016" PRIx64 "/owner", volume); }
void meta_key_volume(uint64_t volume, char *ret_prefix) { snprintf(ret_prefix, META_KEY_BYTES, "volume/%016" PRIx64 "/", volume); }
void meta_key_snapshots(uint64_t volume, char *ret_prefix) { snprintf(ret_prefix, META_KEY_BYTES, "snapshot/%016" PRIx64 "/", volume); }
void meta_key_name(const char *name, char *ret_key) { snprintf(ret_key, META_KEY_BYTES, "name/%s", name); }

void meta_key_snapshot(uint64_t volume, uint64_t mark_seq, char *ret_key)
{
	snprintf(ret_key, META_KEY_BYTES, "snapshot/%016" PRIx64 "/%016" PRIx64, volume, mark_seq);
}

void meta_key_alive(uint64_t stamp, char *ret_key) { snprintf(ret_key, META_KEY_BYTES, META_ALIVE "%016" PRIx64, stamp); }
void meta_key_reap(uint64_t volume, char *ret_key) { snprintf(ret_key, META_KEY_BYTES, "reap/%016" PRIx64, volume); }
void meta_key_reap_snapshot(uint64_t volume, uint64_t mark_seq, char *ret_key)
{
	snprintf(ret_key, META_KEY_BYTES, "reap/%016" PRIx64 "/%016" PRIx64, volume, mark_seq);
}

bool meta_reap_parse(const char *key, uint64_t *ret_volume, uint64_t *ret_mark_seq)
{
	int volume_end = 0, end = 0;
	*ret_mark_seq = 0;
	if (sscanf(key, "reap/%16" SCNx64 "%n/%16" SCNx64 "%n", ret_volume, &volume_end, ret_mark_seq, &end) < 1)
		return false;
	return !key[volume_end] || (end && !key[end] && *ret_mark_seq);
}

void meta_key_group(uint64_t group, char *ret_key) { snprintf(ret_key, META_KEY_BYTES, "group/%016" PRIx64, group); }
void meta_key_clones(uint64_t volume, char *ret_prefix) { snprintf(ret_prefix, META_KEY_BYTES, "clone/%016" PRIx64 "/", volume); }

void meta_key_snapshot_clones(uint64_t volume, uint64_t mark_seq, char *ret_prefix)
{
	snprintf(ret_prefix, META_KEY_BYTES, "clone/%016" PRIx64 "/%016" PRIx64 "/", volume, mark_seq);
}

bool meta_clone_mark(const char *key, uint64_t *ret_mark_seq)
{
	char end;
	return sscanf(key, "clone/%*16[0-9a-f]/%16" SCNx64 "%c", ret_mark_seq, &end) == 2 && end == '/';
}

void meta_key_clone(uint64_t volume, uint64_t mark_seq, uint64_t clone, char *ret_key)
{
	snprintf(ret_key, META_KEY_BYTES, "clone/%016" PRIx64 "/%016" PRIx64 "/%016" PRIx64, volume, mark_seq, clone);
}

void meta_key_reader(uint64_t volume, uint64_t mark_seq, uint64_t stamp, char *ret_key)
{
	snprintf(ret_key, META_KEY_BYTES, META_READERS "%016" PRIx64 "/%016" PRIx64 "/%016" PRIx64, volume, mark_seq, stamp);
}

void meta_key_readers(uint64_t volume, char *ret_prefix) { snprintf(ret_prefix, META_KEY_BYTES, META_READERS "%016" PRIx64 "/", volume); }

void meta_key_snapshot_readers(uint64_t volume, uint64_t mark_seq, char *ret_prefix)
{
	snprintf(ret_prefix, META_KEY_BYTES, META_READERS "%016" PRIx64 "/%016" PRIx64 "/", volume, mark_seq);
}

void meta_key_snapshot_name(uint64_t volume, const char *name, char *ret_key)
{
	snprintf(ret_key, META_KEY_BYTES, "snapname/%016" PRIx64 "/%s", volume, name);
}

void meta_key_agent(const char *host, char *ret_key) { snprintf(ret_key, META_KEY_BYTES, META_AGENTS "%.63s", host); }

void meta_key_server(const uuid *server, char *ret_key)
{
	char *p = ret_key + sprintf(ret_key, "server/");
	for (unsigned i = 0; i < 16; i++)
		p += sprintf(p, "%02x", server->bytes[i]);
}

bool meta_server_id(const char *key, uuid *ret_server)
{
	char again[META_KEY_BYTES];
	for (unsigned i = 0; i < sizeof ret_server->bytes; i++)
		if (strlen(key) < strlen("server/") + 2 * (i + 1) || sscanf(key + strlen("server/") + 2 * i, "%2hhx", &ret_server->bytes[i]) != 1)
			return false;
	meta_key_server(ret_server, again);
	return strcmp(key, again) == 0;
}

/* ---- get and decode ---- */

#define GET(key_call, decode)                                          \
	do {                                                           \
		char key[META_KEY_BYTES];                              \
		struct catalog_value v;                                \
		key_call;                                              \
		int status = catalog_get(c, key, &v);                  \
		if (status == 0)                                       \
			status = decode(v.bytes, v.length, ret);       \
		if (ret_revision)                                      \
			*ret_revision = v.revision;                    \
		catalog_value_free(&v);                                \
		return status;                                         \
	} while (0)

int meta_get_log(struct catalog *c, uint64_t volume, struct meta_log *ret, uint64_t *ret_revision)
{
	GET(meta_key_log(volume, key), meta_log_decode);
}
int meta_get_owner(struct catalog *c, uint64_t volume, struct meta_owner *ret, uint64_t *ret_revision)
{
	GET(meta_key_owner(volume, key), meta_owner_decode);
}
int meta_get_snapshot(struct catalog *c, uint64_t volume, uint64_t mark_seq, struct meta_snapshot *ret, uint64_t *ret_revision)
{
	GET(meta_key_snapshot(volume, mark_seq, key), meta_snapshot_decode);
}
int meta_get_name(struct catalog *c, const char *name, struct meta_name *ret, uint64_t *ret_revision)
{
	GET(meta_key_name(name, key), meta_name_decode);
}
int meta_get_server(struct catalog *c, const uuid *server, struct meta_server *ret, uint64_t *ret_revision)
{
	GET(meta_key_server(server, key), meta_server_decode);
}
int meta_get_agent(struct catalog *c, const char *host, struct meta_agent *ret, uint64_t *ret_revision)
{
	GET(meta_key_agent(host, key), meta_agent_decode);
}
