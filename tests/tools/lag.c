/* lag FILE ADDRESS:PORT ADDRESS:PORT: a slow network. Passes what arrives at the first address on to the second, and back, late: FILE holds "MS JITTER",
 * and each piece is passed on MS milliseconds after it came, and up to JITTER more, in order, each way. FILE is looked at every 20 ms, so the delay changes
 * while connections last. An end travels as late as bytes do; a broken connection is broken on the other side at once. IPv4 only.
 *
 *     client ──▶ fd[0] ── way[0]: pieces, each with its time ──▶ fd[1] ──▶ server,   and back through way[1]
 *
 * At most PAIRS_MAX connections, and HELD_MAX bytes each way of each: then it reads no further, and the sender's window closes. */
#include <arpa/inet.h>
#include <errno.h>
#include <netinet/in.h>
#include <netinet/tcp.h>
#include <poll.h>
#include <signal.h>
#include <stdbool.h>
#include <stdint.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/socket.h>
#include <time.h>
#include <unistd.h>

enum { PAIRS_MAX = 256, PIECE = 64 << 10, HELD_MAX = 16 << 20, LOOK_MS = 20 };

struct piece {
	struct piece *next;
	double due;
	size_t length, sent;    /* length 0: the end */
	uint8_t bytes[];
};

struct way {
	struct piece *first, *last;
	size_t held;
	double last_due;        /* what comes later leaves later */
	bool ended, shut;       /* nothing comes any more; the other side was told */
};

struct pair {
	int fd[2];              /* -1: unused */
	struct way way[2];      /* from fd[i] to fd[1 - i] */
};

static struct pair pairs[PAIRS_MAX];
static double delay_ms, jitter_ms;
static uint64_t random_state = 88172645463325252u;

static double now_ms(void)
{
	struct timespec t;
	clock_gettime(CLOCK_MONOTONIC, &t);
	return (double)t.tv_sec * 1000 + (double)t.tv_nsec / 1e6;
}

static double draw(void) /* from 0 to 1 */
{
	random_state ^= random_state << 13;
	random_state ^= random_state >> 7;
	random_state ^= random_state << 17;
	return (double)(random_state >> 11) / 9007199254740992.0;
}

static void look(const char *file)
{
	double ms, jitter;
	FILE *f = fopen(file, "re");
	if (!f)
		return;
	if (fscanf(f, "%lf %lf", &ms, &jitter) == 2 && ms >= 0 && jitter >= 0) {
		delay_ms = ms;
		jitter_ms = jitter;
	}
	fclose(f);
}

static struct sockaddr_in address(const char *text)
{
	struct sockaddr_in a = { .sin_family = AF_INET };
	char host[INET_ADDRSTRLEN] = "";
	const char *colon = strrchr(text, ':');
	if (colon && (size_t)(colon - text) < sizeof host)
		memcpy(host, text, (size_t)(colon - text));
	if (!colon || inet_pton(AF_INET, host, &a.sin_addr) != 1 || atoi(colon + 1) <= 0 || atoi(colon + 1) > 65535) {
		fprintf(stderr, "lag: %s is no ADDRESS:PORT\n", text);
		exit(2);
	}
	a.sin_port = htons((uint16_t)atoi(colon + 1));
	return a;
}

/* Both sides hear at once that it is broken: no FIN, a reset. */
static void pair_break(struct pair *p)
{
	static const struct linger at_once = { 1, 0 };
	for (int i = 0; i < 2; i++) {
		setsockopt(p->fd[i], SOL_SOCKET, SO_LINGER, &at_once, sizeof at_once);
		close(p->fd[i]);
		p->fd[i] = -1;
		while (p->way[i].first) {
			struct piece *gone = p->way[i].first;
			p->way[i].first = gone->next;
			free(gone);
		}
	}
}

static void pair_make(int listener, const struct sockaddr_in *to)
{
	static const int one = 1;
	int client = accept4(listener, NULL, NULL, SOCK_NONBLOCK | SOCK_CLOEXEC);
	if (client < 0)
		return;
	struct pair *p = pairs;
	while (p < pairs + PAIRS_MAX && p->fd[0] >= 0)
		p++;
	int server = p < pairs + PAIRS_MAX ? socket(AF_INET, SOCK_STREAM | SOCK_NONBLOCK | SOCK_CLOEXEC, 0) : -1;
	if (server < 0) {
		close(client);
		return;
	}
	*p = (struct pair){ .fd = { client, server } };
	for (int i = 0; i < 2; i++)
		setsockopt(p->fd[i], IPPROTO_TCP, TCP_NODELAY, &one, sizeof one);
	/* until it is connected it can't be written; if it can't be, reading says so */
	if (connect(server, (const struct sockaddr *)to, sizeof *to) < 0 && errno != EINPROGRESS)
		pair_break(p);
}

/* False: it is broken. */
static bool way_take(struct way *w, int from)
{
	struct piece *p = malloc(sizeof *p + PIECE);
	if (!p)
		return false;
	ssize_t n = recv(from, p->bytes, PIECE, 0);
	if (n < 0) {
		free(p);
		return errno == EAGAIN || errno == EINTR;
	}
	double due = now_ms() + delay_ms + draw() * jitter_ms;
	w->last_due = due > w->last_due ? due : w->last_due;
	*p = (struct piece){ .due = w->last_due, .length = (size_t)n };
	struct piece *smaller = realloc(p, sizeof *p + p->length);
	p = smaller ? smaller : p;
	w->ended = n == 0;
	w->held += p->length;
	if (w->last)
		w->last->next = p;
	else
		w->first = p;
	w->last = p;
	return true;
}

static bool way_give(struct way *w, int to)
{
	while (w->first && w->first->due <= now_ms()) {
		struct piece *p = w->first;
		if (p->length == 0) {
			w->shut = true;
			shutdown(to, SHUT_WR);
		} else {
			ssize_t n = send(to, p->bytes + p->sent, p->length - p->sent, MSG_NOSIGNAL);
			if (n < 0)
				return errno == EAGAIN || errno == EINTR;
			p->sent += (size_t)n;
			w->held -= (size_t)n;
		}
		if (p->sent < p->length)
			return true;
		w->first = p->next;
		if (!w->first)
			w->last = NULL;
		free(p);
	}
	return true;
}

/* ---- the loop ---- */

static unsigned pairs_watch(struct pollfd *fds, struct pair **of, double now, int *timeout_ms)
{
	unsigned n = 0;
	for (struct pair *p = pairs; p < pairs + PAIRS_MAX; p++) {
		if (p->fd[0] < 0)
			continue;
		for (int i = 0; i < 2; i++) {
			const struct way *in = &p->way[i], *out = &p->way[1 - i];
			bool due = out->first && out->first->due <= now;
			if (out->first && !due && out->first->due - now < *timeout_ms)
				*timeout_ms = (int)(out->first->due - now) + 1;
			of[n] = p;
			fds[n++] = (struct pollfd){ in->ended && out->shut ? -1 : p->fd[i], /* or it would say "hung up" until the other side is done */
						    (short)((!in->ended && in->held < HELD_MAX ? POLLIN : 0) | (due ? POLLOUT : 0)), 0 };
		}
	}
	return n;
}

static void pair_step(struct pair *p, const struct pollfd fds[2])
{
	bool good = true;
	for (int i = 0; good && i < 2; i++) {
		if (fds[i].revents & (POLLERR | POLLNVAL))
			good = false;
		else if (!p->way[i].ended && (fds[i].revents & (POLLIN | POLLHUP)))
			good = way_take(&p->way[i], p->fd[i]);
		if (good && (fds[i].revents & POLLOUT))
			good = way_give(&p->way[1 - i], p->fd[i]);
	}
	if (!good || (p->way[0].shut && p->way[1].shut))
		pair_break(p);
}

int main(int argc, char **argv)
{
	static struct pollfd fds[1 + 2 * PAIRS_MAX];
	static struct pair *of[2 * PAIRS_MAX];
	static const int one = 1;
	if (argc != 4) {
		fprintf(stderr, "usage: lag FILE ADDRESS:PORT ADDRESS:PORT\n");
		return 2;
	}
	struct sockaddr_in at = address(argv[2]), to = address(argv[3]);
	int listener = socket(AF_INET, SOCK_STREAM | SOCK_NONBLOCK | SOCK_CLOEXEC, 0);
	setsockopt(listener, SOL_SOCKET, SO_REUSEADDR, &one, sizeof one);
	if (listener < 0 || bind(listener, (struct sockaddr *)&at, sizeof at) < 0 || listen(listener, 128) < 0) {
		fprintf(stderr, "lag: listen at %s: %s\n", argv[2], strerror(errno));
		return 1;
	}
	for (struct pair *p = pairs; p < pairs + PAIRS_MAX; p++)
		p->fd[0] = -1;
	signal(SIGPIPE, SIG_IGN);
	for (double looked = 0;;) {
		int timeout_ms = LOOK_MS;
		double now = now_ms();
		if (now - looked >= LOOK_MS) {
			look(argv[1]);
			looked = now;
		}
		fds[0] = (struct pollfd){ listener, POLLIN, 0 };
		unsigned n = pairs_watch(fds + 1, of, now, &timeout_ms);
		if (poll(fds, n + 1, timeout_ms) < 0)
			continue;
		for (unsigned i = 0; i < n; i += 2)
			pair_step(of[i], fds + 1 + i);
		if (fds[0].revents)
			pair_make(listener, &to);
	}
}
