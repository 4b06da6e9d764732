/* What the tests of the RPC over real sockets share: a world with one env, a server and its clients in it, and peers that lie. */
#ifndef AQ_RPCTEST_H
#define AQ_RPCTEST_H
#include <criterion/criterion.h>

#include "core/fiber.h"
#include "proto/rpc.h"

/* The service of these tests: its messages are Hellos, for want of others. */
enum { ECHO = 1, FAIL, NEVER, SLOW, FILL, HUGE_ANSWER };

struct world {
	struct env *env;
	char directory[64], address[96];
	struct rpc_server *server;
	struct rpc_server_options options;
	struct rpc_request *kept[512]; /* NEVER: not answered until let_go() */
	unsigned kept_count, handled, lost, greeted, released;
	int greeting;
};

void world_listen(struct world *w); /* as w->options say */
struct rpc_client *world_connect(struct world *w, struct rpc_client_options o);
void world_run(int (*run)(void *arg));
void let_go(struct world *w); /* answers what was kept, as long as the caller has room */
void count_lost(void *arg, int status); /* rpc_client_options.lost, with the world as `arg` */
int call_plain(struct rpc_client *c, uint32_t method, uint64_t deadline_ns); /* its status */
int connect_as(struct world *w, const char *service, uint32_t oldest, uint32_t newest, struct report *report);

#define RPC_TEST(name)                                  \
	static int rpc_##name(void *arg);               \
	Test(rpc, name) { world_run(rpc_##name); }      \
	static int rpc_##name(void *arg)

struct liar {
	struct world *world;
	struct listener *listener;
	struct stream *stream;
	uint8_t bytes[4096];
	uint64_t id; /* of the last call read */
	uint32_t protocol_oldest; /* that it offers; 0: no other than the newest */
};

/* Reads one frame without payload; 0 or the stream's error. */
int liar_read(struct liar *l, struct frame *f);
int liar_write(struct liar *l, enum frame_kind kind, const Aquifer__Envelope *e, const ProtobufCMessage *body, uint32_t payload_bytes);
void liar_connect(struct liar *l, bool hello);
/* The server hangs up after at most `answers` to what was right; a call that comes after the lie is not served. */
void liar_is_thrown_out(struct liar *l, int answers, const char *what);
#endif
