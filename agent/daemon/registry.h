/* The agent among those of other hosts: where they reach it, and its entry in the catalog.
 *
 *     etcd, or agent.listen is set ─▶ listen ─▶ open the catalog ─▶ register ─▶ look every ten seconds whether it is there still
 *
 * In the background: an agent serves its own host whether the catalog answers or not. */
#ifndef AQ_REGISTRY_H
#define AQ_REGISTRY_H
#include "core/fiber.h"
#include "parallax/store/store.h"
#include "proto/rpc.h"

struct registry {
	struct env *env;
	const char *root;
	struct rpc_server_options service; /* what is served there */
	struct rpc_server *server;
	char address[256];                 /* what the others are told */
	struct store *store;               /* NULL: the catalog wasn't reached yet, or isn't shared */
	struct store_registration *entry;  /* NULL: not registered yet */
	char said[768];                    /* the trouble it has, as logged */
	bool stop, running;
	struct timer pause;
	struct job pause_job;
	struct fiber_cond ended;
};

void registry_start(struct registry *g, struct env *env, const char *root, const struct rpc_server_options *service);
/* FIBER. The entry goes; other hosts' calls under way are waited for, those of this host's commands have ended: they use the store, too. */
void registry_end(struct registry *g, uint64_t drain_ns);
/* FIBER. The catalog, for who is asked to move a volume; NULL with a report: there is none. One that has just begun is waited for. */
struct store *registry_store(struct registry *g, struct report *report);
/* Does he know the token? */
bool registry_knows(const struct registry *g, const ProtobufCBinaryData *token);
#endif
