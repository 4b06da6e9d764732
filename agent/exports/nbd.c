/* The `nbd` export: a listener, and for each client a fiber that owns its connection:
 *
 *   accept ─▶ handshake (within HANDSHAKE_NS) ─▶ transmission ─▶ end
 *
 * Closing stops the first, hurries the others, and waits for all of them; a client that doesn't
 * take its last answers is cut off after CLOSE_NS. A client that dies takes its connection with
 * it, nothing more (if its host does, the kernel finds out: env_linux_net.c). What a client can make us hold: CONNECTIONS_MAX times the limits stated in
 * nbd_transmission.h and nbd_handshake.h. */
#include <errno.h>
#include <stdlib.h>
#include <string.h>
#include <sys/un.h>

#include "agent/exports/export.h"
#include "agent/exports/nbd_handshake.h"
#include "agent/exports/nbd_transmission.h"
#include "agent/exports/nbd_wire.h"
#include "core/bytes.h"
#include "core/fiber.h"
#include "core/strangers.h"

#define CONNECTIONS_MAX 64u
#define DEPTH_DEFAULT 128u
#define DEPTH_MAX 1024u
#define TRANSFER_MAX (32u << 20)      /* bytes of one request; what clients take for granted */
#define KEPT_MAX (UINT64_C(32) << 20) /* bytes of idle buffers */
#define HANDSHAKE_NS (10 * NS_PER_S)
#define CLOSE_NS (5 * NS_PER_S)
#define ACCEPT_RETRY_NS (100 * NS_PER_MS)

struct nbd_server {
	struct export export; /* first */
	struct nbd_service service;
	struct nbd_offer offer;
	char description[NBD_DESCRIPTION_MAX + 1];
	struct listener *listener;
	struct job accepting;       /* the accept fiber, until it ends */
	bool closing;
	struct link connections;
	unsigned connection_count;
	struct strangers strangers; /* whose handshake is under way, and who wasn't told to go */
	struct fiber_cond changed;  /* a connection ended */
};

struct nbd_connection {
	struct nbd_server *server;
	struct stream *stream;
	struct nbd_transmission *transmission; /* NULL: not yet, or no more */
	struct link link;
	struct stranger stranger;
	struct job deadline; /* of the handshake */
	struct timer timer;
	struct job *deadline_over;
};

/* ---- one client ---- */

static void connection_deadline(struct job *job)
{
	struct nbd_connection *c = container_of(job, struct nbd_connection, deadline);
	if (job->status == 0) /* the time is really up */
		stream_shutdown(c->stream);
	job_put(c->deadline_over, 0);
}

static int connection_handshake(struct nbd_connection *c, struct nbd_agreed *ret_agreed) /* FIBER */
{
	struct env *env = c->server->export.env;
	struct job over;
	job_init(&over, &env->loop);
	job_hold(&over);
	c->deadline_over = &over;
	timer_init(&c->timer);
	job_init(&c->deadline, &env->loop);
	timer_start(env, &c->timer, HANDSHAKE_NS, &c->deadline);
	job_then(&c->deadline, connection_deadline);
	c->server->offer.size = c->server->export.node->info.size; /* it may have grown */
	int r = nbd_handshake(c->stream, &c->server->offer, ret_agreed);
	timer_cancel(env, &c->timer);
	fiber_wait(&over);
	return r;
}

static int connection_main(void *arg) /* FIBER */
{
	struct nbd_connection *c = arg;
	struct nbd_server *s = c->server;
	struct nbd_agreed agreed;
	int r = connection_handshake(c, &agreed);
	strangers_leave(&s->strangers, &c->stranger);
	if (r == 0 && !s->closing) {
		s->export.clients++;
		nbd_transmission_run(&s->service, c->stream, &agreed, &c->transmission);
		s->export.clients--;
	}
	stream_shutdown(c->stream);
	stream_close(c->stream);
	link_drop(&c->link);
	free(c);
	s->connection_count--;
	fiber_cond_wake(&s->changed);
	return 0;
}

/* There is a place for one more, or somebody who has shaken no hands is on his way out for it. */
static bool server_room(struct nbd_server *s)
{
	struct stranger *out = strangers_excess(&s->strangers);
	if (s->connection_count < CONNECTIONS_MAX)
		return true;
	if (!out)
		return false;
	strangers_leave(&s->strangers, out);
	stream_shutdown(container_of(out, struct nbd_connection, stranger)->stream);
	return true;
}

/* Takes the stream over, or turns the client away. */
static void connection_start(struct nbd_server *s, struct stream *stream)
{
	struct nbd_connection *c = server_room(s) ? calloc(1, sizeof *c) : NULL;
	if (c) {
		c->server = s;
		c->stream = stream;
		link_init(&c->link);
		link_init(&c->stranger.link);
		if (fiber_start(&s->export.env->loop, connection_main, c, NULL) == 0) {
			link_push(&s->connections, &c->link);
			strangers_enter(&s->strangers, &c->stranger, stream);
			s->connection_count++;
			return;
		}
	}
	free(c);
	stream_shutdown(stream);
	stream_close(stream);
}

static int server_accept(void *arg) /* FIBER */
{
	struct nbd_server *s = arg;
	while (!s->closing) {
		struct stream *stream;
		int r = stream_accept(s->listener, &stream);
		if (r == -ESHUTDOWN)
			break;
		if (r == 0)
			connection_start(s, stream);
		else if (fiber_sleep(&s->export.env->loop, ACCEPT_RETRY_NS) < 0) /* out of descriptors or memory */
			break;
	}
	return 0;
}

/* ---- opening ---- */

static uint32_t power_of_two_up(uint32_t v)
{
	return v <= 1 ? 1 : UINT32_C(1) << (32 - __builtin_clz(v - 1));
}

static uint16_t offer_flags(const struct blk_info *info, bool read_only)
{
	uint16_t flags = NBD_FLAG_HAS_FLAGS | NBD_FLAG_SEND_FLUSH | NBD_FLAG_SEND_FUA | NBD_FLAG_SEND_CACHE;
	if (info->rotational)
		flags |= NBD_FLAG_ROTATIONAL;
	if (info->multi_client)
		flags |= NBD_FLAG_CAN_MULTI_CONN;
	if (read_only)
		return flags | NBD_FLAG_READ_ONLY;
	flags |= NBD_FLAG_SEND_WRITE_ZEROES;
	if (info->can_zero)
		flags |= NBD_FLAG_SEND_FAST_ZERO;
	if (info->can_discard)
		flags |= NBD_FLAG_SEND_TRIM;
	return flags;
}

static void server_fill_offer(struct nbd_server *s)
{
	const struct blk_info *info = &s->export.node->info;
	uint32_t preferred = MIN(power_of_two_up(MAX(info->preferred_size, 4096u)), TRANSFER_MAX);
	snprintf(s->description, sizeof s->description, "Aquifer %s: %s", s->export.node->driver->name,
		 s->export.node->name);
	s->offer = (struct nbd_offer){
		.name = s->export.name,
		.description = s->description,
		.size = info->size,
		.block_size_min = info->block_size,
		.block_size_preferred = MAX(preferred, info->block_size),
		.transfer_max = TRANSFER_MAX,
		.flags = offer_flags(info, s->service.read_only),
	};
}

/* "tcp:PORT" and "tcp::PORT" mean loopback: the network only by name. 0 or -EINVAL, -ENAMETOOLONG. */
static int listen_address(const struct export_how *how, char *ret, size_t bytes, struct report *report)
{
	const char *a = how->address;
	int n;
	if (!a)
		n = snprintf(ret, bytes, "unix:%s/%s.nbd", how->run_dir, how->name);
	else if (strncmp(a, "tcp:", 4) == 0 && !strchr(a + 4 + (a[4] == ':'), ':'))
		n = snprintf(ret, bytes, "tcp:127.0.0.1:%s", a + 4 + (a[4] == ':'));
	else if (strncmp(a, "unix:/", 6) == 0 || strncmp(a, "tcp:", 4) == 0)
		n = snprintf(ret, bytes, "%s", a);
	else
		return report_set(report, -EINVAL, "'%s' is no address (give unix:/PATH or tcp:HOST:PORT)", a);
	size_t path_max = sizeof ((struct sockaddr_un *)0)->sun_path - 1;
	if (n < 0 || (size_t)n >= bytes || (ret[0] == 'u' && (size_t)n - 5 > path_max))
		return report_set(report, -ENAMETOOLONG, "the socket path %s has more than %zu characters (use a shorter one)",
				  ret + 5, path_max);
	return 0;
}

/* Everything but what a path is made of is percent-encoded. */
static void uri_encode(const char *path, char *ret, size_t bytes)
{
	static const char plain[] = "ABCDEFGHIJKLMNOPQRSTUVWXYZabcdefghijklmnopqrstuvwxyz0123456789._-~/";
	size_t used = 0;
	for (; *path && used + 4 <= bytes; path++)
		used += (size_t)snprintf(ret + used, bytes - used, strchr(plain, *path) ? "%c" : "%%%02X",
					 (unsigned char)*path);
}

static int server_name_device(struct nbd_server *s, struct report *report)
{
	const char *address = listener_address(s->listener);
	char *device = s->export.device;
	size_t bytes = sizeof s->export.device;
	int n;
	if (strncmp(address, "unix:", 5) == 0) {
		char path[3 * sizeof ((struct sockaddr_un *)0)->sun_path + 1] = "";
		uri_encode(address + 5, path, sizeof path);
		n = snprintf(device, bytes, "nbd+unix:///%s?socket=%s", s->export.name, path);
	} else {
		n = snprintf(device, bytes, "nbd://%s/%s", address + 4, s->export.name);
	}
	if (n < 0 || (size_t)n >= bytes)
		return report_set(report, -ENAMETOOLONG, "the URI of %s is too long (use a shorter socket path)", address);
	return 0;
}

static void server_free(struct nbd_server *s)
{
	slab_fini(&s->service.slab);
	free(s->service.zeroes);
	free(s);
}

static struct nbd_server *server_make(struct env *env, struct blk_node *node, const struct export_how *how)
{
	struct nbd_server *s = calloc(1, sizeof *s);
	if (!s)
		return NULL;
	s->export = (struct export){ .driver = &export_nbd, .env = env, .node = node };
	snprintf(s->export.name, sizeof s->export.name, "%s", how->name);
	s->service = (struct nbd_service){
		.env = env,
		.node = node,
		.read_only = how->read_only || node->info.read_only,
		.transfer_max = TRANSFER_MAX,
		.name = s->export.name,
		.log = how->log,
		.depth = how->queue_depth ? MIN(how->queue_depth, DEPTH_MAX) : DEPTH_DEFAULT,
	};
	slab_init(&s->service.slab, KEPT_MAX);
	link_init(&s->service.starved);
	link_init(&s->connections);
	strangers_init(&s->strangers);
	fiber_cond_init(&s->changed);
	server_fill_offer(s);
	if (s->service.read_only)
		return s;
	s->service.zeroes = env_alloc_aligned(NBD_ZEROES_BYTES);
	if (!s->service.zeroes) {
		server_free(s);
		return NULL;
	}
	memset(s->service.zeroes, 0, NBD_ZEROES_BYTES);
	return s;
}

static int nbd_open(struct env *env, struct blk_node *node, const struct export_how *how, struct export **ret_export,
		    struct report *report)
{
	char address[512];
	int r = listen_address(how, address, sizeof address, report);
	if (r < 0)
		return r;
	struct nbd_server *s = server_make(env, node, how);
	if (!s)
		return -ENOMEM;
	r = stream_listen(env, address, &s->listener);
	if (r < 0) {
		report_set(report, r, "listen on %s: %s", address,
			   r == -EADDRINUSE ? "somebody serves there already (choose another port, or name for a socket)"
			   : r == -EADDRNOTAVAIL || r == -ENXIO ? "this host has no such address (give one that it has)" : strerror(-r));
		goto err_server;
	}
	r = server_name_device(s, report);
	if (r < 0)
		goto err_listener;
	job_init(&s->accepting, &env->loop);
	job_hold(&s->accepting);
	r = fiber_start(&env->loop, server_accept, s, &s->accepting);
	if (r < 0)
		goto err_listener;
	*ret_export = &s->export;
	return 0;

err_listener:
	listener_close(s->listener);
err_server:
	server_free(s);
	return r;
}

/* ---- closing ---- */

/* A client may have many connections. */
static bool is_named(const struct nbd_server *s, const struct nbd_connection *until, uint32_t pid)
{
	link_for(l, &s->connections) {
		struct nbd_connection *c = container_of(l, struct nbd_connection, link);
		if (c == until)
			break;
		if (c->transmission && stream_peer_pid(c->stream) == pid)
			return true;
	}
	return false;
}

static int report_busy(const struct nbd_server *s, struct report *report)
{
	char pids[128] = "";
	size_t used = 0;
	link_for(l, &s->connections) {
		struct nbd_connection *c = container_of(l, struct nbd_connection, link);
		uint32_t pid = c->transmission ? stream_peer_pid(c->stream) : 0;
		if (pid && used < sizeof pids && !is_named(s, c, pid))
			used += (size_t)snprintf(pids + used, sizeof pids - used, "%s%u", used ? ", " : " (pid ", pid);
	}
	return report_set(report, -EBUSY, "%s is in use by %llu NBD client%s%s%s", s->export.name,
			  (unsigned long long)s->export.clients, s->export.clients == 1 ? "" : "s", pids, used ? ")" : "");
}

/* Asks every connection to end; `now` without waiting for anything. */
static void server_hurry(struct nbd_server *s, bool now)
{
	link_for(l, &s->connections) {
		struct nbd_connection *c = container_of(l, struct nbd_connection, link);
		if (c->transmission && !now)
			nbd_transmission_finish(c->transmission);
		else
			stream_shutdown(c->stream);
	}
}

struct patience {
	struct job job;
	struct timer timer;
	struct nbd_server *server;
	struct job over;
};

static void patience_ended(struct job *job)
{
	struct patience *p = container_of(job, struct patience, job);
	if (job->status == 0)
		server_hurry(p->server, /* now= */ true);
	job_put(&p->over, 0);
}

static void server_drain(struct nbd_server *s) /* FIBER */
{
	struct env *env = s->export.env;
	struct patience p = { .server = s };
	job_init(&p.over, &env->loop);
	job_hold(&p.over);
	job_init(&p.job, &env->loop);
	timer_init(&p.timer);
	timer_start(env, &p.timer, CLOSE_NS, &p.job);
	job_then(&p.job, patience_ended);
	while (s->connection_count)
		fiber_cond_wait(&env->loop, &s->changed);
	timer_cancel(env, &p.timer);
	fiber_wait(&p.over);
}

static int nbd_close(struct export *e, bool force, struct report *report)
{
	struct nbd_server *s = container_of(e, struct nbd_server, export);
	if (e->clients && !force)
		return report_busy(s, report);
	s->closing = true;
	listener_close(s->listener);
	fiber_wait(&s->accepting);
	server_hurry(s, /* now= */ false);
	server_drain(s);
	server_free(s);
	return 0;
}

/* The socket of a server that was killed; a tapdisk that somebody runs by hand may serve there by now. */
static void nbd_clean(const char *run_dir, const char *name)
{
	char path[1024];
	if ((size_t)snprintf(path, sizeof path, "%s/%s.nbd", run_dir, name) < sizeof path)
		env_linux_remove_stale_socket(path);
}

const struct export_driver export_nbd = {
	.name = "nbd",
	.listens = true,
	.summary = "network block device server on a unix socket or TCP",
	.open = nbd_open,
	.close = nbd_close,
	.clean = nbd_clean,
};
