/* aquifer-server: a block server, owning one data directory. Binds its socket first, so that a
 * port in use leaves no trace; then opens the directory (which registers it in the catalog, under the
 * socket's address and a new incarnation); then serves until SIGTERM or SIGINT. A clean stop
 * leaves a mark in the directory, so that the next start finds its copies whole. */
#include <argp.h>
#include <errno.h>
#include <inttypes.h>
#include <signal.h>
#include <stdarg.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/signalfd.h>
#include <sys/un.h>
#include <unistd.h>

#include "core/bytes.h"
#include "core/config.h"
#include "core/env.h"
#include "core/fiber.h"
#include "core/option.h"
#include "core/version.h"
#include "parallax/access/access.h"
#include "parallax/catalog/catalog.h"
#include "parallax/catalog/catalog_access.h"
#include "parallax/segment/placement.h"
#include "proto/identity.h"
#include "server/keeper.h"
#include "server/scrub.h"
#include "server/watch.h"

#define DRAIN_NS (10 * NS_PER_S)
#define ADDRESS_BYTES 512
#define SECONDS_MAX 100000000u /* three years */
#define UNIX_PATH_MAX ((int)sizeof((struct sockaddr_un *)0)->sun_path - 1)

struct program {
	char host[64];
	const char *data, *listen, *advertise, *catalog_url, *domain, *root, *token;
	uint64_t size_limit, files;       /* files: that may be open */
	struct server_limits limits;
	struct keeper_options keeps;
	struct scrub_options scrubs;
	const char *warn_full;            /* NULL: as configured */
	struct store_warn warn;
	char address[ADDRESS_BYTES];      /* to bind: "tcp:HOST:PORT" or "unix:/path" */
	char registered[ADDRESS_BYTES];   /* "" : as bound */
	bool loopback, plain_text;
	bool secure;                      /* TLS, with this host's certificate as a server */
	char elsewhere[ADDRESS_BYTES];    /* it was started there; "": it wasn't */
	struct env *env;
	int signal_fd;
	int next; /* the first word of the command line that isn't parsed yet */
};

enum { KEY_ADVERTISE = 256, KEY_CATALOG, KEY_DOMAIN, KEY_ROOT, KEY_SIZE_LIMIT, KEY_CONNECTIONS,
       KEY_REBUILD_RATE, KEY_REBUILD_EVERY, KEY_GC_EVERY, KEY_LOST_AFTER, KEY_TOKEN, KEY_PLAIN_TEXT, KEY_SCRUB_EVERY, KEY_SCRUB_RATE, KEY_WARN_FULL, KEY_HELP, KEY_VERSION };

static const struct argp argp;

static const struct argp_option options[] = {
	{ "data", 'd', "DIR", 0, "The data directory; made if it isn't there", 0 },
	{ "listen", 'l', "ADDR:PORT", 0,
	  "Where to listen: HOST:PORT, [ADDRESS]:PORT, :PORT (loopback), or unix:/PATH. Port 0: any that is free", 0 },
	{ "advertise", KEY_ADVERTISE, "ADDR:PORT", 0, "The address that clients are told (default: the one listened on)", 0 },
	{ "catalog", KEY_CATALOG, "URL", 0,
	  "The catalog: sqlite:PATH or etcd:http[s]://HOST:PORT[,HOST:PORT...] (default: `catalog' in etc/aquifer/aquifer.conf, else the embedded store's)", 0 },
	{ "domain", KEY_DOMAIN, "NAME", 0, "What fails together with this server: a host, a rack (default: this host's name)", 0 },
	{ "size-limit", KEY_SIZE_LIMIT, "SIZE", 0, "Use at most so much space (default: the file system's)", 0 },
	{ "connections", KEY_CONNECTIONS, "N", 0, "Connections at a time (default 1024)", 0 },
	{ "rebuild-rate", KEY_REBUILD_RATE, "SIZE", 0,
	  "Read at most SIZE a second from other servers to make copies that are missing here (default 200M; 0: no limit)", 0 },
	{ "rebuild-interval", KEY_REBUILD_EVERY, "SECONDS", 0, "Look for missing copies every so often (default 5)", 0 },
	{ "gc-interval", KEY_GC_EVERY, "SECONDS", 0, "Look for copies that nobody needs any more every so often (default 3600)", 0 },
	{ "token", KEY_TOKEN, "TOKEN", 0, "Enrol this host as a server first, unless it is (aquifer cluster token prints one)", 0 },
	{ "plain-text", KEY_PLAIN_TEXT, NULL, 0, "Ask for no certificates and encrypt nothing: whoever can connect can read and change segments", 0 },
	{ "scrub-interval", KEY_SCRUB_EVERY, "SECONDS", 0, "Read all that is here, and verify it, once in so long (default 1209600, 14 days)", 0 },
	{ "scrub-rate", KEY_SCRUB_RATE, "SIZE", 0, "Read at most SIZE a second when `aquifer cluster scrub' asks for it (default 64M)", 0 },
	{ "warn-full", KEY_WARN_FULL, "PERCENT,...", 0, "Say so when so much of the space is used (default: `warn-full' in etc/aquifer/aquifer.conf, else 80,90,95)", 0 },
	{ "lost-after", KEY_LOST_AFTER, "SECONDS", 0,
	  "As the manager, have the copies of a server that doesn't answer for so long made elsewhere (default 600)", 0 },
	{ "root", KEY_ROOT, "DIR", 0, "What would be below /etc, /run and /var/lib is below DIR (default: $AQUIFER_ROOT)", 0 },
	{ "help", KEY_HELP, NULL, 0, "Say all this", 0 },
	{ "version", KEY_VERSION, NULL, 0, "Print the version", 0 },
	{ 0 },
};

/* ---- the command line ---- */

static bool is_wildcard(const char *host)
{
	return strcmp(host, "0.0.0.0") == 0 || strcmp(host, "*") == 0 || strcmp(host, "[::]") == 0;
}

static bool is_loopback(const char *host)
{
	return strncmp(host, "127.", 4) == 0 || strcmp(host, "[::1]") == 0 || strcmp(host, "localhost") == 0;
}

/* "HOST:PORT" into "tcp:HOST:PORT". Returns what is wrong, or NULL. */
static const char *parse_address(const char *text, char *ret_address, char *ret_host)
{
	static char why[256];
	const char *colon = strrchr(text, ':');
	ret_host[0] = 0;
	if (strncmp(text, "unix:/", 6) == 0) {
		if (strlen(text + 5) > UNIX_PATH_MAX) {
			snprintf(why, sizeof why, "'%.100s...': the path of a socket has %d characters at most, and this one %zu", text, UNIX_PATH_MAX, strlen(text + 5));
			return why;
		}
		strcpy(ret_address, text);
		return NULL;
	}
	char *end = NULL;
	unsigned long port = colon ? strtoul(colon + 1, &end, 10) : 0;
	if (!colon || colon[1] < '0' || colon[1] > '9' || *end || port > 65535 || colon - text > 255 ||
	    (memchr(text, ':', (size_t)(colon - text)) && text[0] != '[')) {
		snprintf(why, sizeof why, "'%.100s' is not ADDR:PORT (for example 127.0.0.1:7700, [::1]:7700, :7700)", text);
		return why;
	}
	size_t n = (size_t)(colon - text);
	memcpy(ret_host, n ? text : "127.0.0.1", n ? n : 10);
	ret_host[n ? n : 9] = 0;
	snprintf(ret_address, ADDRESS_BYTES, "tcp:%s:%lu", strcmp(ret_host, "*") == 0 ? "0.0.0.0" : ret_host, port);
	return NULL;
}

/* One line, and the exit status of wrong usage. */
static void __attribute__((format(printf, 1, 2), noreturn)) usage(const char *format, ...)
{
	va_list ap;
	fputs("aquifer-server: start failed: ", stderr);
	va_start(ap, format);
	vfprintf(stderr, format, ap);
	va_end(ap);
	fputs(" (see aquifer-server --help)\n", stderr);
	exit(2);
}

/* --help or --version was printed. */
static void __attribute__((noreturn)) said(void)
{
	if (fflush(stdout) == 0 && !ferror(stdout))
		exit(0);
	fprintf(stderr, "aquifer-server: the output could not be written: %s\n", strerror(errno));
	exit(1);
}

static void check_arguments(struct program *p)
{
	char host[256], advertised[256];
	if (!p->data || !*p->data)
		usage("--data DIR is missing (the directory that holds the segments)");
	if (!p->listen)
		usage("--listen ADDR:PORT is missing (for example --listen 127.0.0.1:7700)");
	const char *why = parse_address(p->listen, p->address, host);
	if (why)
		usage("--listen: %s", why);
	p->loopback = !*host || is_loopback(host);
	if (p->advertise && (why = parse_address(p->advertise, p->registered, advertised)))
		usage("--advertise: %s", why);
	if (!p->advertise && is_wildcard(host))
		usage("--listen %s: clients can't connect to that; say with --advertise ADDR:PORT what they can",
			   p->listen);
	struct report report = { "" };
	if (p->catalog_url && catalog_url_check(p->catalog_url, &report) < 0)
		usage("--catalog: %s", report.text);
	if (p->domain && !name_valid(p->domain))
		usage("--domain: '%s' is not a name (letters, digits, dots, dashes, at most 63)", p->domain);
}

static uint64_t parse_seconds(const char *option, const char *arg)
{
	uint64_t n;
	if (parse_size(arg, &n) < 0 || n == 0 || n > SECONDS_MAX)
		usage("%s: '%s' is not a number of seconds, from 1 to %u", option, arg, SECONDS_MAX);
	return n * NS_PER_S;
}

static error_t parse_option(int key, char *arg, struct argp_state *state)
{
	struct program *p = state->input;
	uint64_t n;
	if (key > 0 && key < ARGP_KEY_END)
		p->next = state->next;
	switch (key) {
	case 'd': p->data = arg; break;
	case 'l': p->listen = arg; break;
	case KEY_ADVERTISE: p->advertise = arg; break;
	case KEY_CATALOG: p->catalog_url = arg; break;
	case KEY_DOMAIN: p->domain = arg; break;
	case KEY_ROOT:
		if (!arg[0])
			usage("--root: it needs a value; the host itself is /");
		p->root = arg;
		break;
	case KEY_TOKEN: p->token = arg; break;
	case KEY_PLAIN_TEXT: p->plain_text = true; break;
	case KEY_SIZE_LIMIT:
		if (parse_size(arg, &p->size_limit) < 0 || p->size_limit == 0)
			usage("--size-limit: '%s' is not a size (for example 500G)", arg);
		break;
	case KEY_CONNECTIONS:
		if (parse_size(arg, &n) < 0 || n == 0 || n > 65536)
			usage("--connections: '%s' is not a number from 1 to 65536", arg);
		p->limits.connections_max = (unsigned)n;
		break;
	case KEY_HELP:
		argp_help(&argp, stdout, ARGP_HELP_STD_HELP & ~(unsigned)ARGP_HELP_EXIT_OK, (char *)(uintptr_t)"aquifer-server");
		said();
	case KEY_VERSION:
		puts("aquifer-server " AQ_VERSION);
		said();
	case KEY_REBUILD_RATE:
		if (parse_size(arg, &p->keeps.bytes_per_s) < 0)
			usage("--rebuild-rate: '%s' is not a size (for example 100M; 0: no limit)", arg);
		break;
	case KEY_REBUILD_EVERY: p->keeps.round_ns = parse_seconds("--rebuild-interval", arg); break;
	case KEY_GC_EVERY: p->keeps.gc_ns = parse_seconds("--gc-interval", arg); break;
	case KEY_SCRUB_EVERY: p->scrubs.period_ns = parse_seconds("--scrub-interval", arg); break;
	case KEY_SCRUB_RATE:
		if (parse_size(arg, &p->scrubs.bytes_per_s) < 0 || p->scrubs.bytes_per_s < BLOCK_BYTES)
			usage("--scrub-rate: '%s' is not a size of at least 4K (for example 100M)", arg);
		break;
	case KEY_WARN_FULL:
		p->warn_full = arg;
		if (store_warn_parse(arg, &p->warn) < 0)
			usage("--warn-full: '%s' is not a list of rising percentages (for example 80,90,95)", arg);
		break;
	case KEY_LOST_AFTER: p->keeps.lost_ns = parse_seconds("--lost-after", arg); break;
	case ARGP_KEY_ARG: usage("what is '%s'? there are only options", arg);
	case ARGP_KEY_END: check_arguments(p); break;
	default: return ARGP_ERR_UNKNOWN;
	}
	return 0;
}

/* Says what argp found wrong, in one line; its own message has two. */
static void __attribute__((noreturn)) usage_unparsed(char **argv, int next)
{
	while (argv[next] && argv[next][0] != '-')
		next++;
	const char *word = argv[next] ? argv[next] : "an option";
	for (const struct argp_option *o = options; o->name; o++)
		if (strncmp(word, "--", 2) == 0 ? !strcmp(word + 2, o->name) : word[1] == o->key && !word[2])
			usage("%s lacks its %s", word, o->arg);
	usage("unknown option %s", word);
}

static const struct argp argp = {
	.options = options,
	.parser = parse_option,
	.doc = "Serves segments of the store from a data directory to the hosts of the cluster."
	       "\vSIGTERM ends it cleanly. Where the host is enrolled (aquifer cluster join, or --token) only who has a certificate of the "
	       "cluster can connect. Plain text is for loopback and unix sockets, elsewhere only with --plain-text.",
};

/* ---- serving ---- */

static int fail(const char *what, const char *why)
{
	fprintf(stderr, "aquifer-server: %s failed: %s\n", what, why);
	return 1;
}

/* FIBER. Waits for SIGTERM or SIGINT. */
static const char *wait_for_signal(struct program *p)
{
	struct signalfd_siginfo info;
	for (;;) {
		struct fd_watch w = { 0 };
		struct job j;
		link_init(&w.link);
		job_init(&j, &p->env->loop);
		fd_watch_start(p->env, &w, p->signal_fd, &j);
		fiber_wait(&j);
		if (read(p->signal_fd, &info, sizeof info) == sizeof info)
			return info.ssi_signo == SIGINT ? "SIGINT" : "SIGTERM";
	}
}

static void started_elsewhere(void *arg, const char *address)
{
	struct program *p = arg;
	snprintf(p->elsewhere, sizeof p->elsewhere, "%s", address);
	raise(SIGTERM);
}

static void log_line(void *arg, const char *text)
{
	(void)arg;
	printf("aquifer-server: %s\n", text);
}

static void say_ready(const struct program *p, const struct segment_server *segments, const char *address)
{
	char id[33], space[24];
	for (unsigned i = 0; i < sizeof segments->id.bytes; i++)
		snprintf(id + 2 * i, 3, "%02x", segments->id.bytes[i]);
	printf("aquifer-server: ready: %s at %s, server %s, incarnation %" PRIu64 ", %s free\n", p->data, address, id,
	       segments->incarnation, format_size_human(segments->free_bytes, space));
	if (!p->loopback && !p->secure)
		printf("aquifer-server: warning: %s is not loopback, and the protocol is plain text: "
		       "anybody who can connect can read and change segments\n", address);
	uint64_t now_s = env_wall_ns(p->env) / NS_PER_S;
	if (p->secure && p->env->identity->name.expires_s < now_s + ACCESS_WARN_S)
		printf("aquifer-server: warning: this host's certificate runs out in %" PRIu64 " days (the agent renews it; or: aquifer cluster renew)\n",
		       (p->env->identity->name.expires_s - MIN(now_s, p->env->identity->name.expires_s)) / 86400);
}

/* FIBER. It is in the map from now on: segments are placed here. */
static int join(struct catalog *catalog, const struct segment_server *segments, const char *domain, struct report *report)
{
	uint64_t gib = segments->total_bytes >> 30;
	struct placed_server s = { .id = segments->id, .weight = (uint32_t)MIN(MAX(gib, UINT64_C(1)), (uint64_t)UINT32_MAX) };
	snprintf(s.domain, sizeof s.domain, "%s", domain);
	return placement_join(catalog, &s, report);
}

static void revoked_changed(void *arg) { rpc_server_check_peers(server_rpc(arg)); }

/* What runs, in the order in which it is started. */
struct service {
	char host[IDENTITY_HOST_BYTES]; /* it may have another certificate across a suspension */
	struct segment_server *segments;
	struct server *server;
	struct keeper *keeper;
	struct access_keeper *access;
	struct scrub *scrub;
	struct watch *watch;
};

/* FIBER. All that was started. What came of closing the directory. */
static int service_stop(struct service *s)
{
	watch_stop(s->watch);
	scrub_stop(s->scrub);
	access_keeper_stop(s->access);
	keeper_stop(s->keeper);
	server_stop(s->server, DRAIN_NS);
	return segment_server_close(s->segments);
}

/* FIBER. The directory and the server over it, and takes the listener over. 0; else it said what failed, and what was started until then is to be stopped. */
static int service_start(struct service *s, struct program *p, struct catalog *catalog, struct listener *listener)
{
	struct report report = { 0 };
	struct segment_dir_options o = {
		.files_max = server_share_files(p->files, &p->limits),
		.host = s->host,
		.create = true,
		.size_limit = p->size_limit,
		.address = p->registered,
		.domain = p->domain,
	};
	if (!*p->registered)
		snprintf(p->registered, sizeof p->registered, "%s", listener_address(listener));
	if (p->secure) {
		memcpy(p->registered, "tls:", 4); /* of as many letters as "tcp:" */
		strcpy(s->host, p->env->identity->name.host);
	}
	int r = segment_dir_open(p->env, p->data, catalog, &o, &s->segments, &report);
	if (r < 0) {
		listener_close(listener);
		return fail("opening the data directory", report_text(&report, r));
	}
	r = server_start(p->env, listener, s->segments, &p->limits, &s->server);
	if (r < 0)
		return fail("starting to serve", strerror(-r));
	r = join(catalog, s->segments, p->domain, &report);
	if (r < 0)
		return fail("joining the cluster", report_text(&report, r));
	p->keeps.elsewhere = started_elsewhere;
	p->keeps.arg = p;
	r = keeper_start(p->env, catalog, s->segments, s->server, &p->keeps, &s->keeper, &report);
	if (r < 0)
		return fail("reading the map of servers", report_text(&report, r));
	s->access = access_keeper_start(catalog, p->root, ROLE_SERVER, p->secure ? revoked_changed : NULL, s->server);
	if (!s->access)
		return fail("starting", strerror(ENOMEM));
	p->scrubs.directory = p->data;
	p->scrubs.log = log_line;
	r = scrub_start(p->env, catalog, s->segments, s->server, &p->scrubs, &s->scrub);
	if (r == 0)
		r = watch_start(p->env, s->segments, &p->warn, log_line, NULL, &s->watch);
	return r < 0 ? fail("starting to serve", strerror(-r)) : 0;
}

/* FIBER. Until a signal. Takes the listener over. */
static int run_server(struct program *p, struct catalog *catalog, struct listener *listener)
{
	struct report report = { 0 };
	struct service s = { 0 };
	uint64_t wants = server_wants_files(&p->limits);
	if (service_start(&s, p, catalog, listener)) {
		service_stop(&s);
		return 1;
	}
	say_ready(p, s.segments, p->registered);
	if (p->files < wants)
		printf("aquifer-server: warning: this process may have %" PRIu64 " files open, of %" PRIu64 " that it could use: it takes %u connections at a time "
		       "(raise LimitNOFILE in the systemd unit, or ulimit -Hn)\n", p->files, wants, p->limits.connections_max);
	const char *why = wait_for_signal(p);
	printf("aquifer-server: %s: stopping\n", *p->elsewhere ? "started elsewhere" : why);
	int r = service_stop(&s);
	if (r < 0)
		return fail("stopping cleanly", strerror(-r));
	if (*p->elsewhere) {
		report_set(&report, -ESTALE, "this server was started at %s, from another copy of its data directory (of the two one is left)", p->elsewhere);
		return fail("serving", report.text);
	}
	printf("aquifer-server: stopped cleanly\n");
	return 0;
}

/* FIBER. Makes the directory of the embedded store's catalog, which nobody named. */
static void make_store_directory(struct program *p)
{
	static const char *const parts[] = { "", "/var", "/var/lib", "/var/lib/aquifer" };
	char path[4096];
	int r = 0;
	for (unsigned i = *p->root ? 0 : 1; i < ARRAY_COUNT(parts) && r == 0; i++) {
		snprintf(path, sizeof path, "%s%s", p->root, parts[i]);
		r = env_mkdir(p->env, path);
	}
}

/* FIBER. With the token, unless this host has a certificate. */
static int enrol(struct program *p)
{
	struct report report = { 0 };
	struct catalog *catalog;
	char *there;
	int r = access_read(p->env, p->root, access_file(ROLE_SERVER), &there, &report);
	if (r == 0) {
		certificate_wipe(there);
		return 0;
	}
	if (r == -ENOENT) {
		char url[CONFIG_VALUE_BYTES];
		struct report none = { 0 };
		r = catalog_open_configured(p->env, p->root, p->catalog_url, &catalog, &report);
		if (r == -ENOENT && !p->catalog_url && config_get(p->env, p->root, "catalog", url, &none) == -ENOENT)
			return fail("enrolling", "no catalog is named (give --catalog URL, or write `catalog = URL` into etc/aquifer/aquifer.conf)");
	}
	if (r == 0) {
		r = access_join(catalog, p->root, p->token, ROLE_SERVER, &report);
		catalog_close(catalog);
	}
	return r < 0 ? fail("enrolling", report_text(&report, r)) : 0;
}

/* FIBER. TLS or plain text? */
static int decide_access(struct program *p)
{
	struct report report = { 0 };
	bool tcp = strncmp(p->address, "tcp:", 4) == 0;
	int r = p->token ? enrol(p) : 0;
	if (r != 0)
		return r;
	r = access_load(p->env, p->root, ROLE_SERVER, &report); /* in any case: other servers may ask for it */
	if (r < 0 && r != -ENOENT)
		return fail("reading this host's certificate", report_text(&report, r));
	p->secure = r == 0 && tcp && !p->plain_text;
	p->limits.roles = p->secure ? ROLE_ANY : 0;
	if (p->secure || !tcp || p->loopback || p->plain_text)
		return 0;
	char what[ADDRESS_BYTES + 32];
	snprintf(what, sizeof what, "listening on %s", p->address);
	return fail(what, "it isn't loopback, and this host isn't enrolled as a server (aquifer cluster join, or --token TOKEN; --plain-text lets anybody in)");
}

/* FIBER. */
static int run(void *arg)
{
	struct program *p = arg;
	struct report report = { 0 };
	struct catalog *catalog;
	struct listener *listener;
	char url[CONFIG_VALUE_BYTES];
	int r = config_catalog_url(p->env, p->root, p->catalog_url, url, &report);
	if (r < 0)
		return fail("reading the configuration", report_text(&report, r));
	r = decide_access(p);
	if (r != 0)
		return r;
	r = p->warn_full ? 0 : store_warn_read(p->env, p->root, &p->warn, &report);
	if (r < 0)
		return fail("reading the configuration", report_text(&report, r));
	r = stream_listen(p->env, p->address, &listener);
	if (r < 0) {
		char what[ADDRESS_BYTES + 32];
		struct report why = { 0 };
		snprintf(what, sizeof what, "listening on %s", p->address);
		report_set(&why, r, "%s (give --listen an address of this host%s)", strerror(-r),
			   r == -EADDRINUSE ? " with a port that is free" : "");
		return fail(what, why.text);
	}
	if (!p->catalog_url)
		make_store_directory(p); /* if that fails, so does what follows, and says it better */
	struct catalog_access access;
	r = catalog_access_load(p->env, p->root, url, &access, &report);
	if (r == 0)
		r = catalog_open(p->env, url, &access, /* create= */ catalog_is_file(url), &catalog, &report);
	catalog_access_free(&access);
	if (r < 0) {
		listener_close(listener);
		return fail("opening the catalog", report_text(&report, r));
	}
	r = run_server(p, catalog, listener);
	catalog_close(catalog);
	return r;
}

int main(int argc, char **argv)
{
	const char *root = getenv("AQUIFER_ROOT");
	struct program p = { .root = root ? root : "", .keeps.bytes_per_s = KEEPER_REBUILD_RATE };
	sigset_t set;
	p.next = 1;
	if (argp_parse(&argp, argc, argv, ARGP_NO_ERRS | ARGP_NO_HELP, NULL, &p) != 0) /* they would say it in two lines */
		usage_unparsed(argv, p.next);
	if (!p.domain) /* a name that can't be one makes each server a domain of its own */
		p.domain = gethostname(p.host, sizeof p.host - 1) == 0 && name_valid(p.host) ? p.host : "";
	/* before there are threads, so that none of them takes the signal the ordinary way */
	sigemptyset(&set);
	sigaddset(&set, SIGTERM);
	sigaddset(&set, SIGINT);
	sigprocmask(SIG_BLOCK, &set, NULL);
	signal(SIGPIPE, SIG_IGN);
	signal(SIGHUP, SIG_IGN); /* there is nothing to reload: certificates and the map are looked at all the time */
	setlinebuf(stdout);
	p.signal_fd = signalfd(-1, &set, SFD_CLOEXEC | SFD_NONBLOCK);
	if (p.signal_fd < 0)
		return fail("starting", strerror(errno));
	p.files = env_linux_raise_files();
	int r = env_linux_create(0, &p.env);
	if (r < 0)
		return fail("starting", strerror(-r));
	r = env_linux_run_fiber(p.env, run, &p);
	identity_put(p.env->identity);
	env_linux_destroy(p.env);
	close(p.signal_fd);
	return r == 0 ? 0 : 1;
}
