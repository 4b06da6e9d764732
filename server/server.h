/* The block server's network side: the service "segment" over whatever holds the copies (a data
 * directory, in production). The rules are segment.h's; this only checks what comes from the wire,
 * hands it on, and answers. */
#ifndef AQ_SERVER_H
#define AQ_SERVER_H
#include "parallax/segment/segment.h"
#include "proto/rpc.h"
#include "proto/segment.pb-c.h"

struct server;

enum { SERVER_CONNECTIONS_DEFAULT = 1024 }; /* tapdisks and other servers, as far as they need it */
struct server_limits { /* 0: the RPC layer's defaults */
	unsigned connections_max; /* 0: SERVER_CONNECTIONS_DEFAULT */
	unsigned in_flight;   /* per connection */
	uint64_t pool_bytes;  /* payloads under way */
	unsigned roles;       /* identity_role: who may connect, by TLS; 0: anybody, in plain text */
};

/* Of so many `files` that the process may have open, returns how many idle segments are to have (segment_dir_options.files_max), and leaves the others to
 * connections, of which `limits` are made fewer if need be. What is open of both is never closed for the other, so that with too many segments nobody could connect. */
unsigned server_share_files(uint64_t files, struct server_limits *limits);
/* How many that takes as they were wanted. */
uint64_t server_wants_files(const struct server_limits *limits);

/* FIBER. Serves `segments` (borrowed until server_stop) to who connects to `listener` (taken over, also on
 * failure). 0 or -errno. */
int server_start(struct env *env, struct listener *listener, struct segment_server *segments,
		 const struct server_limits *limits, struct server **ret_server);
/* FIBER. Takes nothing new, answers what is under way (at most `drain_ns`), closes. Accepts NULL. */
void server_stop(struct server *s, uint64_t drain_ns);

/* What a server that belongs to a cluster knows (keeper.h); without, it knows no map: all are welcome to create copies, and
 * nobody hears from it that it holds one. */
struct server_rules {
	uint64_t (*map)(const struct server_rules *r);        /* revision of the map it goes by */
	bool (*belongs)(const struct server_rules *r, uint64_t segment);
	void (*status)(const struct server_rules *r, Aquifer__Segment__Status *ret);
	uint64_t (*gc)(const struct server_rules *r);
	uint64_t going;                                       /* the segment of which it is deleting its copy; 0: none */
};
void server_rules(struct server *s, const struct server_rules *rules); /* borrowed; NULL: none any more */

/* Requests of one more method go to `handle`, which replies; NULL: to nobody any more. */
void server_scrubber(struct server *s, void (*handle)(void *arg, struct rpc_request *r), void *arg);

/* For what has no socket (fuzzing): the server without listening, and its RPC side. */
int server_create(struct env *env, struct segment_server *segments, const struct server_limits *limits,
		  struct server **ret_server);
struct rpc_server *server_rpc(struct server *s);
#endif
