/* The RPC that tapdisks, agents, servers and the command line speak: protobuf messages,
 * with a raw payload beside them that is never repacked, many calls at a time over one
 * connection, answered in any order. It knows no service: a call is a method number and
 * any protobuf message.
 *
 * What can go wrong is an error, never a wait for ever: a call ends with the server's status,
 * -ENOTCONN (not connected, or the connection was lost: it may have been carried out),
 * -ETIMEDOUT (its deadline; likewise), -EMSGSIZE, -EPROTO (the peer broke the protocol) or
 * -EBADMSG. Everything that a peer can make us allocate is bounded here. */
#ifndef AQ_RPC_H
#define AQ_RPC_H
#include "core/env.h"
#include "core/report.h"
#include "proto/arena.h"
#include "proto/channel.h"
#include "proto/pool.h"

/* Version of what is said inside the frames. A new version is spoken along with the one before it, so that
 * clients and servers can be upgraded in any order, one version at a time: docs/formats/versions.md.
 *   2: a call can be canceled, so that an answer that nobody waits for isn't sent */
enum { RPC_PROTOCOL = 2, RPC_PROTOCOL_OLDEST = 1, RPC_PROTOCOL_CANCEL = 2 };
/* What this program speaks: the same, but for tests that link another one (proto/protocol.c). */
extern const uint32_t rpc_protocol_newest, rpc_protocol_oldest;
enum { RPC_PAYLOAD_MAX = FRAME_PAYLOAD_MAX, RPC_CONNECTIONS_DEFAULT = 256 /* of a server */ };

/* ---- client ---- */

struct rpc_client;

struct rpc_client_options {
	const char *service;          /* must be the server's */
	uint64_t connect_timeout_ns;  /* to connect and greet; 0: 5 s */
	bool reconnect;               /* by itself, in the background, once the first connection has been made */
	bool lazy;                    /* the first one too: rpc_connect() neither waits nor fails for it, and needs no fiber */
	uint64_t retry_min_ns, retry_max_ns; /* pause between attempts, doubling; 0: 50 ms, 2 s */
	uint64_t silence_ns;          /* a server that says nothing for so long, although asked, is lost; 0: 10 s */
	unsigned in_flight;           /* calls under way at a time, others wait in order; 0: 256; the server may allow fewer */
	unsigned roles;               /* identity_role: who may answer at a "tls:" address; 0: ROLE_ANY */
	const char *host;             /* … and of which host; NULL or "": of any; copied */
	/* FIBER, may be NULL: called at each connection before other calls are let in; may make calls that are
	 * marked `early`. Not 0: this connection is no good (with the first one rpc_connect() fails). */
	int (*greet)(void *arg, struct rpc_client *client, struct report *report);
	void (*lost)(void *arg, int status); /* may be NULL; never suspends */
	/* May be NULL; never suspends: an attempt in the background has ended; 0: it is connected. Not called any more once rpc_close() has begun. */
	void (*tried)(void *arg, int status);
	void *arg;
	uint32_t protocol_oldest, protocol; /* tests only; 0: ours */
};

/* One call. Owned by the caller; not moved or touched until it has ended. */
struct rpc_call {
	/* asked; rpc_call_init() zeroes the rest */
	uint32_t method;
	const ProtobufCMessage *request;     /* borrowed until rpc_submit() returns; may be NULL */
	const struct iovec *payload;         /* borrowed until the call has ended */
	int payload_count;
	const ProtobufCMessageDescriptor *reply_type; /* NULL: the reply's message doesn't matter */
	const struct iovec *reply_payload;   /* where the reply's payload goes, directly; sums to its limit */
	int reply_payload_count;
	uint64_t deadline_ns;                /* from now; 0: none (the silence of the server still ends it) */
	bool early;                          /* see greet() */
	/* answered */
	int status;
	const char *text;                    /* the server's sentence, "" if none; valid until clean */
	ProtobufCMessage *reply;             /* when status is 0 and there was a body: of reply_type; valid until clean */
	uint64_t reply_payload_bytes;
	/* private */
	struct job *parent;
	enum frame_kind kind;
	uint8_t state;
	uint64_t id, due_ns;
	struct link link;
	struct channel_send send;
	struct arena arena;
};

void rpc_call_init(struct rpc_call *call, uint32_t method, const ProtobufCMessage *request,
		   const ProtobufCMessageDescriptor *reply_type);
/* Frees what the call holds, the reply too; the call has ended, or never began. */
void rpc_call_clean(struct rpc_call *call);

/* FIBER, unless lazy. "unix:/path", "tcp:HOST:PORT", or "tls:HOST:PORT": the same with certificates (env->identity is ours; without one,
 * or when one of the two doesn't accept the other's, -EACCES or -EKEYREJECTED; who is revoked later is lost at the next ping). 0 or -errno with a report. */
int rpc_connect(struct env *env, const char *address, const struct rpc_client_options *options,
		struct rpc_client **ret_client, struct report *report);
/* FIBER. Calls under way end with -ENOTCONN. Accepts NULL. */
void rpc_close(struct rpc_client *client);
/* Its first half, which doesn't wait: calls end, no attempt to connect begins any more. Who closes several so waits for the attempts under way together. */
void rpc_cut(struct rpc_client *client);
/* Holds `parent`, puts it with the call's status when it has ended. Never suspends. */
void rpc_submit(struct rpc_client *client, struct rpc_call *call, struct job *parent);
/* Its answer isn't needed any more: it ends with -ECANCELED (it may have been carried out), unless its buffers are being used this
 * moment or it has ended; then it ends by itself. A server that understands it is told, and sends no payload. */
void rpc_cancel(struct rpc_client *client, struct rpc_call *call);
/* FIBER. The same, waited for; returns call->status and adds the server's sentence to the report (may be NULL). */
int rpc_call_wait(struct rpc_client *client, struct rpc_call *call, struct report *report);
bool rpc_connected(const struct rpc_client *client);
/* The version that is spoken on its connection; 0: not known yet. */
uint32_t rpc_protocol(const struct rpc_client *client);
/* Why there is no connection, if it is for the certificate of one of the two, or for want of a version that both speak: one clause, else "". */
const char *rpc_refused(const struct rpc_client *client);
/* Waits until connected, at most so long. FIBER. 0 or -ETIMEDOUT. */
int rpc_wait_connected(struct rpc_client *client, uint64_t timeout_ns);

/* ---- server ---- */

struct rpc_server;

/* One request, from handler to rpc_reply(). */
struct rpc_request {
	uint32_t method;
	void *payload;               /* page aligned; valid until the request is released */
	uint32_t payload_bytes;
	void *reply_payload;         /* page aligned room for the reply's payload, */
	uint32_t reply_limit;        /* as much as the caller has; not zeroed */
	uint32_t peer_uid;           /* of a unix socket's other end, or (uint32_t)-1 */
	const struct identity_name *who; /* whose certificate the caller has; NULL: plain text */
	void *private;               /* the handler's */
	void (*released)(struct rpc_request *r); /* the handler's, may be NULL: the reply is sent or given up, the
	                                            request goes away; whatever it lent can be taken back */
	/* private to the RPC layer */
	struct rpc_peer *peer;
	struct link link;
	uint64_t id;
	enum frame_kind kind;
	bool replied, canceled;
	ProtobufCBinaryData body;
	struct iovec payload_iov, reply_iov;
	struct pool_buffer payload_buffer, reply_buffer, head_buffer;
	uint64_t cost;
	struct channel_send send;
	struct arena arena;
};

struct rpc_server_options {
	const char *service;
	/* Exactly one rpc_reply() follows, from here or later, also when the peer is gone by then. */
	void (*handle)(void *arg, struct rpc_request *request);
	void *arg;
	bool in_fiber;               /* handle() is FIBER: each request gets one of its own */
	unsigned connections_max;    /* 0: RPC_CONNECTIONS_DEFAULT; further ones are told so and closed */
	unsigned in_flight;          /* requests handled at a time per connection; 0: 256 */
	uint64_t pool_bytes;         /* payloads of all connections together; 0: 64 MiB; one may have half */
	uint64_t silence_ns;         /* a peer that neither speaks nor takes its replies for so long is closed; 0: 60 s */
	/* identity_role: who may connect, by TLS, with env->identity as ours; 0: plain text. Connections whose handshake isn't over
	 * are bounded (proto/door.h) and don't count above. */
	unsigned roles;
	uint32_t protocol_oldest, protocol; /* tests only; 0: ours */
};

/* FIBER. 0 or -errno with a report. At a "tls:" address options->roles 0 means ROLE_ANY. */
int rpc_listen(struct env *env, const char *address, const struct rpc_server_options *options,
	       struct rpc_server **ret_server, struct report *report);
/* The same on a socket that is bound already, which is taken over, also on failure. */
int rpc_listen_on(struct env *env, struct listener *listener, const struct rpc_server_options *options,
		  struct rpc_server **ret_server);
unsigned rpc_server_connections(const struct rpc_server *server);
/* Closes connections whose certificate counts no more (identity_revoke()). */
void rpc_server_check_peers(struct rpc_server *server);
/* FIBER. Waits until nobody is connected, at most `most_ns`: who connected a moment ago and is about to ask is answered before the end, and needn't
 * wonder whether it was done. Accepts NULL. */
void rpc_server_linger(struct rpc_server *server, uint64_t most_ns);
/* FIBER. Takes nothing new, waits for the requests under way and their replies (at most `drain_ns`), closes.
 * Accepts NULL. */
void rpc_server_close(struct rpc_server *server, uint64_t drain_ns);

/* The request's message, of that type; freed with the request. NULL: it isn't one (reply -EBADMSG). */
ProtobufCMessage *rpc_request_body(struct rpc_request *r, const ProtobufCMessageDescriptor *type);
/* Answers: status 0 or -errno; text (may be NULL) for people; message (may be NULL) is packed before this
 * returns; payload, at most reply_limit bytes, is borrowed until released(). */
void rpc_reply(struct rpc_request *r, int status, const char *text, const ProtobufCMessage *message,
	       const struct iovec *payload, int payload_count);
/* The same with the first `bytes` of r->reply_payload. */
void rpc_reply_bytes(struct rpc_request *r, const ProtobufCMessage *message, uint32_t bytes);

/* Serves a stream that somebody else accepted (tests, socket activation). Takes the stream over. 0 or -errno. */
int rpc_server_adopt(struct rpc_server *server, struct stream *stream);
/* As rpc_listen(), without listening. */
int rpc_server_create(struct env *env, const struct rpc_server_options *options, struct rpc_server **ret_server);
#endif
