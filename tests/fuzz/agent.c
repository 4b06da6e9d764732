/* What agents and tapdisks are asked: by the command line, by agents of other hosts with and without the token, about a graph and about a volume that
 * is handed over. The agent is a real one, but nothing can be started below its root; the tapdisk has a graph of memory, the volume a store in the
 * simulated world.
 *
 * Input: a byte that says who is asked, then calls: method, a byte for the payload's length, a byte for the message's; message; payload. Verbs of a
 * volume: a byte for the verb, one for how many words, one for each word. */
#include <assert.h>
#include <errno.h>
#include <stdlib.h>
#include <string.h>

#include "agent/daemon/agent.h"
#include "agent/daemon/tapdisk.h"
#include "core/bytes.h"
#include "core/env_sim.h"
#include "parallax/store/store_private.h"
#include "parallax/volume/volume_move.h"
#include "tests/sim/catalog_sim.h"

#define ROOT "/nonexistent/aquifer-fuzz" /* no tapdisk can be started there */
#define ADDRESS "tcp:h:1"
enum { CALLS_MAX = 24, ANSWER = 1 << 20 };

struct world {
	struct sim *sim;
	struct env *env;
	struct places places;
	struct store store;
	const uint8_t *input;
	size_t length;
	char *answer;
	struct tapdisk *tapdisk;
};

static const uint8_t *take(struct world *w, size_t *n)
{
	const uint8_t *at = w->input;
	*n = MIN(*n, w->length);
	w->input += *n;
	w->length -= *n;
	return at;
}

static uint8_t next(struct world *w)
{
	size_t n = 1;
	const uint8_t *b = take(w, &n);
	return n ? *b : 0;
}

/* ---- over the RPC ---- */

static const ProtobufCMessageDescriptor *const types[] = {
	&aquifer__attach_call__descriptor, &aquifer__detach_call__descriptor, &aquifer__device_call__descriptor, &aquifer__migrate_call__descriptor, &aquifer__store_call__descriptor,
	&aquifer__peer_control_call__descriptor, &aquifer__peer_migrate_call__descriptor, &aquifer__peer_incoming_call__descriptor,
	&aquifer__peer_offer_call__descriptor, &aquifer__close_call__descriptor, &aquifer__control_call__descriptor,
};

/* The method's message, and now and then another's. */
static const ProtobufCMessageDescriptor *type_of(uint8_t who, uint8_t method)
{
	static const uint8_t agent[] = { 0, 0, 0, 1, 0, 2, 0, 3 }, peer[] = { 0, 4, 5, 6, 7, 7 }, tapdisk[] = { 0, 0, 8, 9 };
	const uint8_t *of = who == 0 ? agent : who == 1 ? peer : tapdisk;
	size_t count = who == 0 ? sizeof agent : who == 1 ? sizeof peer : sizeof tapdisk;
	return types[method < count ? of[method] : method % ARRAY_COUNT(types)];
}

/* In the place of a token that can't be guessed. */
static void know_token(const struct agent *a, ProtobufCMessage *m)
{
	ProtobufCBinaryData *token = m->descriptor == &aquifer__peer_control_call__descriptor ? &((Aquifer__PeerControlCall *)m)->token
		: m->descriptor == &aquifer__peer_migrate_call__descriptor ? &((Aquifer__PeerMigrateCall *)m)->token
		: m->descriptor == &aquifer__peer_incoming_call__descriptor ? &((Aquifer__PeerIncomingCall *)m)->token
		: m->descriptor == &aquifer__peer_offer_call__descriptor ? &((Aquifer__PeerOfferCall *)m)->token : NULL;
	if (a && token && token->len && token->data[0] == 't') {
		free(token->data);
		token->data = malloc(16);
		token->len = 16;
		memcpy(token->data, store_agent_token(a->registry.entry), 16);
	}
}

static void call(struct world *w, uint8_t who, const struct agent *a, struct rpc_client *client)
{
	uint8_t method = next(w);
	size_t message_length = next(w), payload_length = next(w);
	const uint8_t *bytes = take(w, &message_length), *payload = take(w, &payload_length);
	ProtobufCMessage *m = protobuf_c_message_unpack(type_of(who, method), NULL, message_length, bytes);
	struct iovec out = { (void *)(uintptr_t)payload, payload_length }, in = { w->answer, ANSWER };
	struct rpc_call c;
	if (m)
		know_token(a, m);
	rpc_call_init(&c, method, m, NULL);
	c.payload = &out;
	c.payload_count = payload_length ? 1 : 0;
	c.reply_payload = &in;
	c.reply_payload_count = 1;
	rpc_call_wait(client, &c, NULL);
	assert(c.status != -ENOTCONN || c.text[0]);
	assert(c.status <= 0 && (c.status == 0 || c.text));
	rpc_call_clean(&c);
	if (m)
		protobuf_c_message_free_unpacked(m, NULL);
}

static void converse(struct world *w, uint8_t who, struct agent *a, const struct rpc_server_options *options)
{
	struct rpc_client_options o = { .service = options->service };
	struct rpc_server *server;
	struct rpc_client *client;
	if (rpc_listen(w->env, ADDRESS, options, &server, NULL) < 0 || rpc_connect(w->env, ADDRESS, &o, &client, NULL) < 0)
		abort();
	for (unsigned i = 0; i < CALLS_MAX && w->length; i++) {
		call(w, who, a, client);
		if (a)
			a->ending = false;
	}
	rpc_close(client);
	rpc_server_close(server, 0);
}

/* ---- who is asked ---- */

static void ask_agent(struct world *w, bool by_peers)
{
	static const struct agent_options options = { .root = ROOT, .ready_fd = -1 };
	struct rpc_server_options o = { .service = "agent", .handle = by_peers ? agent_peer_handle : agent_handle, .in_fiber = true };
	struct agent *a = calloc(1, sizeof *a);
	a->env = w->env;
	a->options = &options;
	fiber_cond_init(&a->end);
	taps_init(&a->taps, w->env, ROOT);
	a->registry = (struct registry){ .env = w->env, .root = ROOT, .store = &w->store };
	if (store_agent_register(&w->store, ADDRESS, "fuzz", &a->registry.entry, NULL) < 0)
		abort();
	o.arg = a;
	converse(w, by_peers, a, &o);
	assert(link_empty(&a->taps.list)); /* nothing could be started, and nothing of the attempts is left */
	store_agent_leave(a->registry.entry);
	taps_close(&a->taps);
	free(a);
}

static void ask_tapdisk(struct world *w)
{
	static const char text[] = "ro(ram(1M))";
	static const struct tapdisk_options options = { .root = ROOT, .ready_fd = -1 };
	struct rpc_server_options o = { .service = "tapdisk", .handle = tapdisk_handle, .in_fiber = true };
	struct plan plan;
	struct plan_how how = { .name = "d" };
	struct graph_how open = { .root = ROOT };
	struct tapdisk *t = calloc(1, sizeof *t);
	t->env = w->env;
	t->options = &options;
	fiber_mutex_init(&t->closing);
	fiber_mutex_init(&t->resizing);
	fiber_cond_init(&t->controlled);
	fiber_cond_init(&t->end);
	if (plan_make(text, strlen(text), &how, &plan, NULL) < 0 || graph_open(w->env, plan.graph, &open, &t->graph, NULL) < 0)
		abort();
	t->state.graph = strdup(text);
	strcpy(t->state.name, "d");
	o.arg = t;
	converse(w, 2, NULL, &o);
	tap_state_free(&t->state);
	graph_close(t->graph);
	free(t);
}

/* ---- a volume's verbs ---- */

static int open_embedded(void *arg, uint64_t volume, bool create, struct segment_server **ret, struct report *report)
{
	struct world *w = arg;
	struct segment_dir_options o = { .create = create };
	(void)volume;
	return segment_dir_open(w->env, "/v", w->places.catalog, &o, ret, report);
}

static void ask_volume(struct world *w)
{
	static const char *const verbs[] = { "handover-expect", "handover-activate", "handover-cancel", "handover-offer", "handover-back", "handover-moved", "handover-",
		"snapshot", "checkpoint", "status", "resize", "group-mark", "group-release", "group-end", "", "no-such-verb" };
	static const char *const words[] = { "1", "0", "", "7", "force", "ffffffffffffffff", "18446744073709551615", "-1", "1000", "8192", "8191", "other", "unix:/x/control.sock",
		"%s%n\xff", "a-name-that-is-longer-than-sixty-three-characters-and-then-some-more-of-it", "99999999999999999999999" };
	struct store_volume_options o = { .size_bytes = 1 << 20 };
	struct volume_node *n = calloc(1, sizeof *n);
	struct volume_move *m = calloc(1, sizeof *m);
	struct volume *v;
	uint64_t id;
	if (store_volume_create(&w->store, "v", &o, NULL) < 0 || store_find_volume(&w->places, "v", &id, NULL) < 0)
		abort();
	struct volume_open how = { .catalog = w->places.catalog, .places = &w->places.ops, .volume = id, .holder = "fuzz", .control = "unix:/h/control.sock", .host = "h",
				   .limits.segment_blocks = 256 };
	if (volume_open(w->env, &how, &v, NULL) < 0)
		abort();
	n->node.env = w->env;
	n->node.loop = &w->env->loop;
	volume_node_init(n, v, NULL);
	volume_move_init(m, n, &w->places, &how);
	for (unsigned i = 0; i < CALLS_MAX && w->length; i++) {
		const char *verb = verbs[next(w) % ARRAY_COUNT(verbs)], *args[8] = { NULL };
		unsigned count = next(w) % 7;
		struct report report = { "" };
		char *json = NULL;
		for (unsigned k = 0; k < count; k++)
			args[k] = words[next(w) % ARRAY_COUNT(words)];
		int r = volume_move_control(m, verb, args, &json, &report);
		assert(r <= 0 && memchr(report.text, 0, sizeof report.text) && (!json || r == 0));
		free(json);
	}
	volume_move_end(m);
	volume_close(n->volume);
	free(n);
	free(m);
}

/* ---- the world ---- */

static int live(void *arg)
{
	struct world *w = arg;
	switch (next(w) % 4) {
	case 0: ask_agent(w, false); break;
	case 1: ask_agent(w, true); break;
	case 2: ask_tapdisk(w); break;
	default: ask_volume(w); break;
	}
	return 0;
}

int LLVMFuzzerTestOneInput(const uint8_t *data, size_t size);
int LLVMFuzzerTestOneInput(const uint8_t *data, size_t size)
{
	struct world w = { .sim = sim_create(1, NULL), .input = data, .length = size };
	struct catalog_sim *catalogs = catalog_sim_create(w.sim);
	static char *answer;
	if (!answer)
		answer = malloc(ANSWER);
	w.answer = answer;
	w.env = sim_process_create(w.sim, sim_host_create(w.sim, "h", 32 << 20, 4096));
	w.places = (struct places){ .env = w.env, .catalog = catalog_sim_open(catalogs, w.env), .dir = "", .ops = { .open_embedded = open_embedded, .arg = &w } };
	strcpy(w.places.host, "h");
	w.store = (struct store){ .env = w.env, .places = &w.places, .catalog = w.places.catalog };
	if (sim_run_fiber(w.env, live, &w) < 0)
		abort();
	catalog_close(w.places.catalog);
	sim_process_destroy(w.env);
	catalog_sim_destroy(catalogs);
	sim_destroy(w.sim);
	return 0;
}
