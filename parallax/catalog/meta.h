/* What the catalog says of volumes, as structs: encoding (proto/store.proto) and keys.
 * Codecs only. Every count is limited, so a value read back can't make us allocate much. */
#ifndef AQ_META_H
#define AQ_META_H
#include <stdbool.h>
#include <stdint.h>

#include "parallax/catalog/catalog.h"
#include "parallax/format.h"

enum { META_SEGMENTS_MAX = 64, META_UNSEALED_MAX = 32, META_REPLICAS_MAX = 3, META_HISTORY_MAX = 64, META_TEXT_MAX = 256 };

struct meta_root {
	struct pointer pointer; /* position 0: nothing there, all holes */
	uint32_t level;
	uint64_t length;        /* space table only: bytes */
};

struct meta_replica {
	uuid server;
	uint64_t incarnation;
};

struct meta_segment {
	uint64_t id, epoch, salt;
	uint32_t size_blocks;
	struct meta_replica ensemble[META_REPLICAS_MAX];
	uint32_t ensemble_count;
	bool cut;
	uint32_t length;  /* cut: blocks, with block 0 */
	uint32_t prev;    /* cut: CRC of the last record's header within; 0: none */
};

struct meta_log {
	uint64_t stamp, size_bytes;
	uint32_t replicas, min_replicas;
	uint32_t io_timeout_ms;              /* requests that can't reach what they need fail after that; 0: never */
	uuid volume;
	uint64_t parent_volume, parent_mark; /* clone of; 0: none */
	uint64_t origin;                     /* position: own blocks are above */
	uint64_t last_id;
	struct meta_root root, space;
	struct meta_root summary; /* summary.h; a hole: it has none */
	uint64_t node_end; /* greatest position of a node of root, or of an older version */
	uint64_t generation;
	uint64_t from_position, from_seq;
	uint32_t from_prev;
	struct meta_segment segments[META_SEGMENTS_MAX];
	uint32_t segment_count;
	struct meta_segment unsealed[META_UNSEALED_MAX]; /* cut, and not listed any more: see unsealed.c */
	uint32_t unsealed_count;
	uint64_t created_ns;
	char name[64];
	bool doomed;
	bool embedded;    /* its segments are in its own directory, not on servers */
	uint64_t mapped_blocks, live_blocks, dead_blocks; /* as of the last checkpoint */
};

enum { META_BOOT_BYTES = 37 };
enum owner_state { OWNER_FREE, OWNER_HELD, OWNER_OFFERED };
struct meta_owner {
	uint64_t epoch;
	enum owner_state state;
	char holder[META_TEXT_MAX], control[META_TEXT_MAX], host[64];
	uint64_t pid, stamp;
	char boot[META_BOOT_BYTES]; /* of the machine that the process runs on; "": not known, as of an offer's target, or by an older program */
	uint64_t pids;              /* the pid namespace there, as env_pids(); 0: not known */
	uint64_t began_ticks;       /* when the process began, as process_start_ticks(); 0: not known */
};

struct meta_snapshot {
	char name[64];
	uint64_t mark_seq, mark_position;
	bool doomed, has_root;
	struct meta_root root;
	uint64_t node_end;
	uint64_t size_bytes, created_ns, mapped_blocks;
};

struct meta_name {
	uint64_t volume;
	uint64_t history[META_HISTORY_MAX];
	uint32_t history_count;
};

struct meta_server {
	uint64_t incarnation;
	char address[META_TEXT_MAX], domain[64];
	char host[64]; /* whose certificate it has, "" if that isn't known */
	bool draining, removed; /* what operators said */
	uint32_t map_version; /* newest of `pgmap` that it reads; 0: it is of a time when there was only 1 */
};

enum { META_TOKEN_BYTES = 16 };
struct meta_agent {
	char address[META_TEXT_MAX], version[32];
	uint32_t protocol, map_version; /* newest versions that it speaks, and reads of `pgmap`; 0: it is of a time when there was only 1 */
	uint8_t token[META_TOKEN_BYTES]; /* what those have to show who ask it for something over the network */
	uint64_t stamp, pid, since_ns;   /* as an owner's; since 1970 */
	char boot[META_BOOT_BYTES];      /* as an owner's */
	uint64_t pids, began_ticks;
};

/* Each returns malloc'd bytes (NULL: out of memory) and their length. */
uint8_t *meta_log_encode(const struct meta_log *m, size_t *ret_length);
/* Do pids in a record with the former say nothing to who has the latter? What isn't known differs from nothing. */
bool meta_pids_foreign(const char *boot, uint64_t pids, const char *our_boot, uint64_t our_pids);
uint8_t *meta_owner_encode(const struct meta_owner *m, size_t *ret_length);
uint8_t *meta_snapshot_encode(const struct meta_snapshot *m, size_t *ret_length);
uint8_t *meta_name_encode(const struct meta_name *m, size_t *ret_length);
uint8_t *meta_server_encode(const struct meta_server *m, size_t *ret_length);
uint8_t *meta_agent_encode(const struct meta_agent *m, size_t *ret_length);
/* 0, -EUCLEAN (damaged), -EPROTONOSUPPORT (newer). */
int meta_log_decode(const void *bytes, size_t length, struct meta_log *ret);
int meta_owner_decode(const void *bytes, size_t length, struct meta_owner *ret);
int meta_snapshot_decode(const void *bytes, size_t length, struct meta_snapshot *ret);
int meta_name_decode(const void *bytes, size_t length, struct meta_name *ret);
int meta_server_decode(const void *bytes, size_t length, struct meta_server *ret);
int meta_agent_decode(const void *bytes, size_t length, struct meta_agent *ret);

/* Keys. Buffers of META_KEY_BYTES. Snapshots sort by mark. */
#define META_KEY_BYTES 128
void meta_key_log(uint64_t volume, char *ret_key);
void meta_key_owner(uint64_t volume, char *ret_key);
void meta_key_volume(uint64_t volume, char *ret_prefix); /* of both */
void meta_key_snapshot(uint64_t volume, uint64_t mark_seq, char *ret_key);
void meta_key_snapshots(uint64_t volume, char *ret_prefix);
/* One per clone of a snapshot, written and deleted with the clone: while there is one, the snapshot's blocks stay. */
void meta_key_clone(uint64_t volume, uint64_t mark_seq, uint64_t clone, char *ret_key);
void meta_key_clones(uint64_t volume, char *ret_prefix);                    /* of all its snapshots */
void meta_key_snapshot_clones(uint64_t volume, uint64_t mark_seq, char *ret_prefix);
bool meta_clone_mark(const char *key, uint64_t *ret_mark_seq);              /* of which snapshot, by the key; false: it is none */
/* One per reader of a snapshot, where the engine has leases; goes with his: while there is one, the snapshot's blocks stay. */
#define META_READERS "reader/"
void meta_key_reader(uint64_t volume, uint64_t mark_seq, uint64_t stamp, char *ret_key);
void meta_key_readers(uint64_t volume, char *ret_prefix);                   /* of all its snapshots */
void meta_key_snapshot_readers(uint64_t volume, uint64_t mark_seq, char *ret_prefix);
void meta_key_snapshot_name(uint64_t volume, const char *name, char *ret_key); /* → its mark, 8 bytes */
#define META_ALIVE "alive/"
void meta_key_alive(uint64_t stamp, char *ret_key); /* there while the holder with this stamp lives, where the engine has leases */
void meta_key_reap(uint64_t volume, char *ret_key); /* there while something of the volume waits to be freed: see doomed.h; also the prefix of: */
void meta_key_reap_snapshot(uint64_t volume, uint64_t mark_seq, char *ret_key);
bool meta_reap_parse(const char *key, uint64_t *ret_volume, uint64_t *ret_mark_seq); /* mark 0: the volume's own; false: it is neither */
void meta_key_group(uint64_t group, char *ret_key); /* there while the group snapshot has no outcome → when it began, 8 bytes */
void meta_key_name(const char *name, char *ret_key);
void meta_key_server(const uuid *server, char *ret_key);
bool meta_server_id(const char *key, uuid *ret_server); /* false: it is no server's */
#define META_COUNTER_VOLUME "counter/volume"   /* the greatest number given away; 8 bytes */
#define META_COUNTER_SEGMENT "counter/segment"
#define META_MANAGER "manager" /* → the id of the server that changes the map of servers; with its lease */
#define META_AGENTS "agent/"
void meta_key_agent(const char *host, char *ret_key);

/* FIBER. Get and decode; `ret_revision` may be NULL. */
int meta_get_log(struct catalog *c, uint64_t volume, struct meta_log *ret, uint64_t *ret_revision);
int meta_get_owner(struct catalog *c, uint64_t volume, struct meta_owner *ret, uint64_t *ret_revision);
int meta_get_snapshot(struct catalog *c, uint64_t volume, uint64_t mark_seq, struct meta_snapshot *ret, uint64_t *ret_revision);
int meta_get_name(struct catalog *c, const char *name, struct meta_name *ret, uint64_t *ret_revision);
int meta_get_server(struct catalog *c, const uuid *server, struct meta_server *ret, uint64_t *ret_revision);
int meta_get_agent(struct catalog *c, const char *host, struct meta_agent *ret, uint64_t *ret_revision);
#endif
