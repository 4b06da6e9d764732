/* hammer: writes a block device, a file or an NBD export (PATH is then a URI) from many threads and demands that it
 * remembers.
 *
 *     hammer [options] PATH            write, read back, verify all at the end
 *     hammer --check --log LOG PATH    after a crash: is everything there that must be?
 *
 * Every block of 512 bytes says what it is: its offset, its generation (how often it has been
 * written), the run it belongs to, and filler made from these three. Each thread owns
 * every n-th zone and is the only one to change it, so it knows what each of its blocks must hold; and it
 * reads other threads' zones while they write, where it must find a generation between what had
 * been acknowledged before the read and what had been issued after it. In direct mode zones
 * are no multiple of a page, so that neighbours of different threads share pages.
 *
 * With --log FILE the generations issued, acknowledged and flushed live in that file (a shared mapping, so
 * it survives this process). After a crash --check demands of each block a generation from the flushed one
 * (with --acked: from the acknowledged one) to the issued one. A run with an existing log continues it.
 * A snapshot taken under load is checked with two copies of the log, one from before and one from after it: --log BEFORE
 * --until AFTER demands a generation from the one acknowledged before to the one issued after, and leaves both logs alone. */
#include <argp.h>
#include <errno.h>
#include <fcntl.h>
#include <pthread.h>
#include <signal.h>
#include <stdatomic.h>
#include <stdbool.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/mman.h>
#include <sys/stat.h>
#include <time.h>
#include <unistd.h>

#include "core/option.h"
#include "tests/tools/lib/target.h"

#define BLOCK 512u
#define MAGIC UINT64_C(0x72656d6d6168)
#define THREADS_MAX 64u
#define LOG_MAGIC UINT64_C(0x31676f6c72656d68)

/* ---- what is known of each block ---- */

struct known {
	_Atomic uint32_t issued, acked, flushed; /* generations */
	_Atomic uint32_t zeroed;                 /* the last generation that was a zeroing, not a write */
};

struct log_header {
	uint64_t magic, blocks, zone_bytes;
	uint32_t run, threads;
};

static struct {
	const char *path, *log, *until, *started;
	unsigned threads, seconds, flush_every, sector;
	uint64_t operations, size, max, seed;
	bool direct, buffered, discard, zero, check, acked, until_error, fresh;
	pid_t kill_pid;
	double kill_after;
} opt = { .threads = 4, .seconds = 5, .max = 256 << 10, .flush_every = 64 };

static struct log_header *header;
static struct known *known;
static uint64_t block_count;
static _Atomic bool stop;
static _Atomic int failed;
static _Atomic uint64_t count_write, count_read, count_flush, count_zero, count_discard, count_stranger;

/* ---- random numbers, blocks ---- */

static uint64_t next(uint64_t *s)
{
	uint64_t z = (*s += UINT64_C(0x9e3779b97f4a7c15));
	z = (z ^ (z >> 30)) * UINT64_C(0xbf58476d1ce4e5b9);
	z = (z ^ (z >> 27)) * UINT64_C(0x94d049bb133111eb);
	return z ^ (z >> 31);
}

struct block_head {
	uint64_t magic, offset;
	uint32_t generation, run;
};

static void block_make(void *to, uint64_t block, uint32_t generation)
{
	struct block_head h = { MAGIC, block * BLOCK, generation, header->run };
	uint64_t state = h.offset ^ ((uint64_t)generation << 40) ^ ((uint64_t)h.run << 8);
	memcpy(to, &h, sizeof h);
	for (size_t i = sizeof h; i < BLOCK; i += 8) {
		uint64_t v = next(&state);
		memcpy((char *)to + i, &v, 8);
	}
}

static bool all_zero(const char *p)
{
	return p[0] == 0 && memcmp(p, p + 1, BLOCK - 1) == 0;
}

static void complain(uint64_t block, const char *data, uint32_t low, uint32_t high, const char *what)
{
	struct block_head h;
	memcpy(&h, data, sizeof h);
	fprintf(stderr, "hammer: offset %llu: want generation %u..%u, %s: ", (unsigned long long)block * BLOCK, low, high, what);
	if (all_zero(data))
		fprintf(stderr, "found zeroes\n");
	else if (h.magic != MAGIC)
		fprintf(stderr, "found nothing of ours, it begins with %016llx %016llx %016llx\n", (unsigned long long)h.magic,
			(unsigned long long)h.offset, (unsigned long long)h.generation | (unsigned long long)h.run << 32);
	else if (h.offset != block * BLOCK)
		fprintf(stderr, "found what belongs to offset %llu, generation %u\n", (unsigned long long)h.offset, h.generation);
	else
		fprintf(stderr, "found generation %u of run %u%s\n", h.generation, h.run, h.run == header->run ? "" : " (another run)");
	atomic_store(&failed, 1);
	atomic_store(&stop, true);
}

/* The block must hold a generation from low to high; *ret_generation is which. A block whose low
 * is 0 was never surely written: then anything from before this run may be there too. */
static bool block_check(uint64_t block, const char *data, uint32_t low, uint32_t high, uint32_t *ret_generation)
{
	struct block_head h;
	memcpy(&h, data, sizeof h);
	*ret_generation = low;
	if (all_zero(data)) {
		uint32_t zeroed = atomic_load(&known[block].zeroed);
		if (low == 0 || (zeroed >= low && zeroed <= high)) {
			*ret_generation = low == 0 && zeroed > high ? 0 : zeroed;
			return true;
		}
		complain(block, data, low, high, "not zeroes");
		return false;
	}
	if (low == 0 && !opt.fresh && (h.magic != MAGIC || h.run != header->run))
		return true;
	if (h.magic != MAGIC || h.offset != block * BLOCK || h.run != header->run || h.generation < low || h.generation > high) {
		complain(block, data, low, high, "a block of this run");
		return false;
	}
	char want[BLOCK];
	block_make(want, block, h.generation);
	if (memcmp(want, data, BLOCK) != 0) {
		complain(block, data, low, high, "whole (this one is torn or damaged inside)");
		return false;
	}
	*ret_generation = h.generation;
	return true;
}

/* ---- a thread ---- */

struct worker {
	pthread_t thread;
	unsigned index;
	uint64_t random;
	struct target *direct, *buffered; /* NULL: that kind isn't used */
	char *buffer;
	uint32_t *low;              /* per block of a stranger's read */
	uint64_t *unflushed;        /* blocks acknowledged since the last flush; a ring would only hide bugs */
	uint64_t unflushed_count, unflushed_max;
	unsigned since_flush;
};

static uint64_t zones(void) { return (block_count * BLOCK + header->zone_bytes - 1) / header->zone_bytes; }

/* A random range inside one zone: of this worker, or of another one. */
static bool pick(struct worker *w, bool own, uint64_t *ret_block, uint64_t *ret_count)
{
	uint64_t zone = next(&w->random) % zones();
	if (own)
		zone = zone / header->threads * header->threads + w->index;
	if (zone >= zones())
		return false;
	uint64_t unit = opt.sector / BLOCK;
	uint64_t first = zone * header->zone_bytes / BLOCK, end = first + header->zone_bytes / BLOCK;
	if (end > block_count)
		end = block_count;
	uint64_t units = (end - first) / unit;
	if (units == 0)
		return false;
	/* Small ones as often as large ones: the exponent is what is random. */
	uint64_t most = opt.max / opt.sector, length = 1 + next(&w->random) % (UINT64_C(1) << (next(&w->random) % 10));
	length = length > most ? most : length;
	length = length > units ? units : length;
	*ret_block = first + next(&w->random) % (units - length + 1) * unit;
	*ret_count = length * unit;
	return true;
}

static struct target *pick_target(struct worker *w)
{
	if (!w->direct || !w->buffered)
		return w->direct ? w->direct : w->buffered;
	return next(&w->random) % 2 ? w->direct : w->buffered;
}

static bool trouble(const struct target *t, const char *what, uint64_t block, uint64_t count)
{
	if (!atomic_exchange(&stop, true))
		fprintf(stderr, "hammer: %s of %llu bytes at %llu: %s\n", what, (unsigned long long)count * BLOCK,
			(unsigned long long)block * BLOCK, target_error(t));
	if (!opt.until_error)
		atomic_store(&failed, 1);
	return false;
}

static void acknowledged(struct worker *w, uint64_t block, uint64_t count)
{
	for (uint64_t b = block; b < block + count; b++)
		atomic_store(&known[b].acked, atomic_load(&known[b].issued));
	for (uint64_t b = block; b < block + count; b++) {
		if (w->unflushed_count == w->unflushed_max) {
			w->unflushed_max = w->unflushed_max ? 2 * w->unflushed_max : 4096;
			w->unflushed = realloc(w->unflushed, w->unflushed_max * sizeof *w->unflushed);
			if (!w->unflushed)
				abort();
		}
		w->unflushed[w->unflushed_count++] = b;
	}
}

static bool do_write(struct worker *w)
{
	uint64_t block, count;
	if (!pick(w, /* own= */ true, &block, &count))
		return true;
	for (uint64_t i = 0; i < count; i++) {
		uint32_t g = atomic_load(&known[block + i].issued) + 1;
		block_make(w->buffer + i * BLOCK, block + i, g);
		atomic_store(&known[block + i].issued, g);
	}
	struct target *t = pick_target(w);
	if (target_write(t, w->buffer, count * BLOCK, block * BLOCK) < 0)
		return trouble(t, "write", block, count);
	acknowledged(w, block, count);
	atomic_fetch_add(&count_write, 1);
	return true;
}

static bool do_clear(struct worker *w, bool discard)
{
	uint64_t block, count;
	struct target *t = pick_target(w);
	if (!pick(w, /* own= */ true, &block, &count))
		return true;
	for (uint64_t b = block; b < block + count; b++) {
		uint32_t g = atomic_load(&known[b].issued) + 1;
		atomic_store(&known[b].zeroed, g);
		atomic_store(&known[b].issued, g);
	}
	if ((discard ? target_discard : target_zero)(t, count * BLOCK, block * BLOCK) < 0)
		return trouble(t, discard ? "discard" : "zero", block, count);
	acknowledged(w, block, count);
	atomic_fetch_add(discard ? &count_discard : &count_zero, 1);
	return true;
}

static bool do_flush(struct worker *w)
{
	struct target *t = w->direct ? w->direct : w->buffered;
	if (target_flush(t) < 0)
		return trouble(t, "flush", 0, 0);
	for (uint64_t i = 0; i < w->unflushed_count; i++)
		atomic_store(&known[w->unflushed[i]].flushed, atomic_load(&known[w->unflushed[i]].acked));
	w->unflushed_count = 0;
	atomic_fetch_add(&count_flush, 1);
	return true;
}

static bool do_read(struct worker *w)
{
	uint64_t block, count;
	if (!pick(w, /* own= */ true, &block, &count))
		return true;
	struct target *t = pick_target(w);
	if (target_read(t, w->buffer, count * BLOCK, block * BLOCK) < 0)
		return trouble(t, "read", block, count);
	bool good = true;
	for (uint64_t i = 0; good && i < count; i++) {
		uint32_t g = atomic_load(&known[block + i].acked), found;
		good = block_check(block + i, w->buffer + i * BLOCK, g, g, &found);
	}
	atomic_fetch_add(&count_read, 1);
	return good;
}

/* Direct only: a page that a stranger's buffered read brings in while its owner writes past the cache
 * is between those two and the kernel. A zeroing under way is judged by do_read() of its owner. */
static bool do_stranger(struct worker *w)
{
	uint64_t block, count;
	if (!w->direct || !pick(w, /* own= */ false, &block, &count))
		return true;
	for (uint64_t i = 0; i < count; i++)
		w->low[i] = atomic_load(&known[block + i].acked);
	if (target_read(w->direct, w->buffer, count * BLOCK, block * BLOCK) < 0)
		return trouble(w->direct, "read", block, count);
	bool good = true;
	for (uint64_t i = 0; good && i < count; i++) {
		uint32_t found, high = atomic_load(&known[block + i].issued);
		/* `zeroed` remembers the last zeroing only: judge zeroes when no later one can have hidden it. */
		if (all_zero(w->buffer + i * BLOCK) && atomic_load(&known[block + i].zeroed) > w->low[i])
			continue;
		good = block_check(block + i, w->buffer + i * BLOCK, w->low[i], high, &found);
	}
	atomic_fetch_add(&count_stranger, 1);
	return good;
}

static bool do_something(struct worker *w)
{
	if (opt.flush_every && ++w->since_flush >= opt.flush_every) {
		w->since_flush = 0;
		return do_flush(w);
	}
	unsigned dice = (unsigned)(next(&w->random) % 100);
	if (dice < 4)
		return opt.zero ? do_clear(w, /* discard= */ false) : do_write(w);
	if (dice < 8)
		return opt.discard ? do_clear(w, /* discard= */ true) : do_write(w);
	if (dice < 60)
		return do_write(w);
	return dice < 85 ? do_read(w) : do_stranger(w);
}

static void *worker_main(void *arg)
{
	struct worker *w = arg;
	for (uint64_t i = 0; !atomic_load(&stop) && (opt.operations == 0 || i < opt.operations); i++)
		if (!do_something(w))
			break;
	return NULL;
}

/* ---- set-up ---- */

static int die(const char *what, const char *object)
{
	fprintf(stderr, "hammer: %s %s: %s\n", what, object, strerror(errno));
	exit(1);
}

static struct target *open_or_die(bool buffered, bool read_only)
{
	struct target_options o = { .buffered = buffered, .read_only = read_only };
	struct target *t = NULL;
	if (target_open(opt.path, &o, &t) < 0)
		die("open", opt.path);
	return t;
}

static void measure(void)
{
	struct target *t = open_or_die(/* buffered= */ true, /* read_only= */ true);
	uint64_t bytes;
	if (target_measure(t, &bytes, &opt.sector) < 0)
		die("measure", opt.path);
	target_close(t);
	if (opt.size == 0 || opt.size > bytes)
		opt.size = bytes;
	block_count = opt.size / BLOCK;
	if (opt.max < opt.sector)
		opt.max = opt.sector;
}

/* Maps a log; an empty one (or, without a path, memory) gets its size. Returns whether it is new. */
static bool log_map(const char *path, struct log_header **ret_header)
{
	size_t bytes = sizeof *header + block_count * sizeof *known;
	int fd = path ? open(path, O_RDWR | O_CREAT | O_CLOEXEC, 0600) : -1;
	struct stat st = { 0 };
	if (path && (fd < 0 || fstat(fd, &st) < 0 || (st.st_size == 0 && ftruncate(fd, (off_t)bytes) < 0)))
		die("open", path);
	if (st.st_size != 0 && st.st_size != (off_t)bytes)
		goto not_ours;
	*ret_header = mmap(NULL, bytes, PROT_READ | PROT_WRITE, path ? MAP_SHARED : MAP_SHARED | MAP_ANONYMOUS, fd, 0);
	if (*ret_header == MAP_FAILED)
		die("map", path ? path : "memory");
	if (fd >= 0)
		close(fd);
	if (st.st_size == 0 || ((*ret_header)->magic == LOG_MAGIC && (*ret_header)->blocks == block_count))
		return st.st_size == 0;
not_ours:
	fprintf(stderr, "hammer: %s is not the log of a run over %llu bytes\n", path, (unsigned long long)opt.size);
	exit(1);
}

static void log_open(void)
{
	if (log_map(opt.log, &header)) {
		*header = (struct log_header){ .magic = LOG_MAGIC, .blocks = block_count, .run = (uint32_t)opt.seed | 1,
					       .threads = opt.threads };
		header->zone_bytes = opt.buffered ? 256u << 10 : (128u << 10) + 3 * opt.sector;
	}
	known = (struct known *)(void *)(header + 1);
	opt.threads = header->threads;
}

/* Of each block, what was acknowledged in the one log and issued in the other. */
static void log_join_until(void)
{
	struct log_header *later;
	if (log_map(opt.until, &later) || later->run != header->run) {
		fprintf(stderr, "hammer: %s is not a later state of %s\n", opt.until, opt.log);
		exit(1);
	}
	struct known *after = (struct known *)(void *)(later + 1);
	size_t bytes = sizeof *header + block_count * sizeof *known;
	struct log_header *joined = mmap(NULL, bytes, PROT_READ | PROT_WRITE, MAP_PRIVATE | MAP_ANONYMOUS, -1, 0);
	if (joined == MAP_FAILED)
		die("map", "memory");
	*joined = *header;
	struct known *k = (struct known *)(void *)(joined + 1);
	for (uint64_t i = 0; i < block_count; i++)
		k[i] = (struct known){ .issued = after[i].issued, .acked = known[i].acked, .flushed = known[i].flushed,
				       .zeroed = after[i].zeroed };
	header = joined;
	known = k;
}

/* Reads all of it. After a crash what is found becomes what is known, so that a next run can go on. */
static void verify_all(bool after_crash)
{
	struct target *t = open_or_die(opt.buffered && !opt.direct, /* read_only= */ true);
	size_t room = 1 << 20;
	char *buffer = aligned_alloc(4096, room);
	uint64_t kept = 0;
	for (uint64_t block = 0; buffer && block < block_count && !atomic_load(&failed); block += room / BLOCK) {
		uint64_t count = block_count - block < room / BLOCK ? block_count - block : room / BLOCK;
		if (target_read(t, buffer, count * BLOCK, block * BLOCK) < 0)
			die("read back", opt.path);
		for (uint64_t i = 0; i < count && !atomic_load(&failed); i++) {
			struct known *k = &known[block + i];
			uint32_t low = after_crash && !opt.acked ? k->flushed : k->acked, found;
			if (block_check(block + i, buffer + i * BLOCK, low, after_crash ? k->issued : k->acked, &found) && after_crash) {
				kept += found > 0;
				k->acked = k->flushed = found;
				/* Generations must not be used twice: what was lost may yet turn up. */
				k->zeroed = all_zero(buffer + i * BLOCK) ? found : 0;
			}
		}
	}
	free(buffer);
	target_close(t);
	if (after_crash && !atomic_load(&failed))
		printf("hammer: checked %llu blocks of 512, %llu of them written\n", (unsigned long long)block_count,
		       (unsigned long long)kept);
}

static const struct argp_option options[] = {
	{ "threads", 't', "N", 0, "writers (4)", 0 },
	{ "seconds", 's', "N", 0, "how long (5)", 0 },
	{ "operations", 'n', "N", 0, "of each thread, instead of seconds", 0 },
	{ "size", 'S', "SIZE", 0, "use only this much (all)", 0 },
	{ "max", 'm', "SIZE", 0, "largest request (256K)", 0 },
	{ "seed", 'r', "N", 0, "of the random numbers (the time)", 0 },
	{ "flush-every", 'f', "N", 0, "operations of a thread between flushes (64; 0: never)", 0 },
	{ "direct", 'd', NULL, 0, "O_DIRECT (the default)", 0 },
	{ "buffered", 'b', NULL, 0, "through the page cache; with --direct: both, by turns", 0 },
	{ "zero", 'z', NULL, 0, "write zeroes, too", 0 },
	{ "discard", 'D', NULL, 0, "discard, too, and demand zeroes afterwards", 0 },
	{ "fresh", 'F', NULL, 0, "the device holds only zeroes to begin with: demand them", 0 },
	{ "log", 'l', "FILE", 0, "keep what is known there", 0 },
	{ "check", 'c', NULL, 0, "compare with the log after a crash", 0 },
	{ "until", 'u', "FILE", 0, "with --check: a later copy of the log, for a snapshot taken between", 0 },
	{ "acked", 'a', NULL, 0, "with --check: demand all that was acknowledged, flushed or not", 0 },
	{ "until-error", 'e', NULL, 0, "an I/O error ends the run, and is no failure", 0 },
	{ "started", 'o', "FILE", 0, "made when every thread is about to begin", 0 },
	{ "kill", 'k', "PID:SECONDS", 0, "kill -9 that process after about that time", 0 },
	{ 0 },
};

static uint64_t number(struct argp_state *state, const char *text)
{
	uint64_t v = 0;
	if (parse_size(text, &v) < 0)
		argp_error(state, "%s is no number or size", text);
	return v;
}

static error_t parse_option(int key, char *arg, struct argp_state *state)
{
	switch (key) {
	case 't': opt.threads = (unsigned)number(state, arg); break;
	case 's': opt.seconds = (unsigned)number(state, arg); break;
	case 'n': opt.operations = number(state, arg); break;
	case 'S': opt.size = number(state, arg); break;
	case 'm': opt.max = number(state, arg); break;
	case 'r': opt.seed = number(state, arg); break;
	case 'f': opt.flush_every = (unsigned)number(state, arg); break;
	case 'd': opt.direct = true; break;
	case 'b': opt.buffered = true; break;
	case 'z': opt.zero = true; break;
	case 'D': opt.discard = true; break;
	case 'F': opt.fresh = true; break;
	case 'l': opt.log = arg; break;
	case 'c': opt.check = true; break;
	case 'u': opt.until = arg; break;
	case 'a': opt.acked = true; break;
	case 'e': opt.until_error = true; break;
	case 'o': opt.started = arg; break;
	case 'k':
		if (sscanf(arg, "%d:%lf", &opt.kill_pid, &opt.kill_after) != 2 || opt.kill_pid < 2)
			argp_error(state, "%s is not PID:SECONDS", arg);
		break;
	case ARGP_KEY_ARG:
		if (opt.path)
			argp_usage(state);
		opt.path = arg;
		break;
	case ARGP_KEY_END:
		if (!opt.path || opt.threads == 0 || opt.threads > THREADS_MAX || opt.max == 0 || opt.max > 16 << 20)
			argp_usage(state);
		if ((opt.check && !opt.log) || (opt.until && !opt.check))
			argp_error(state, "--check needs --log, and --until needs --check");
		break;
	default: return ARGP_ERR_UNKNOWN;
	}
	return 0;
}

static void workers_start(struct worker *workers)
{
	for (unsigned i = 0; i < opt.threads; i++) {
		struct worker *w = &workers[i];
		w->index = i;
		w->random = opt.seed * 1000003 + i;
		w->direct = opt.direct ? open_or_die(/* buffered= */ false, /* read_only= */ false) : NULL;
		w->buffered = opt.buffered ? open_or_die(/* buffered= */ true, /* read_only= */ false) : NULL;
		w->buffer = aligned_alloc(4096, (opt.max + 4095) / 4096 * 4096);
		w->low = calloc(opt.max / BLOCK + 1, sizeof *w->low);
		if (!w->buffer || !w->low || pthread_create(&w->thread, NULL, worker_main, w) != 0)
			die("start", "a thread");
	}
}

static void workers_end(struct worker *workers)
{
	for (unsigned i = 0; i < opt.threads; i++) {
		struct worker *w = &workers[i];
		pthread_join(w->thread, NULL);
		target_close(w->direct);
		target_close(w->buffered);
		free(w->buffer);
		free(w->low);
		free(w->unflushed);
	}
}

/* SIGTERM: an end like that of time. */
static void on_term(int signal)
{
	(void)signal;
	atomic_store(&stop, true);
}

static double now_s(void)
{
	struct timespec t;
	clock_gettime(CLOCK_MONOTONIC, &t);
	return (double)t.tv_sec + (double)t.tv_nsec / 1e9;
}

/* Until the time is over or a thread found something. */
static void wait_for_end(void)
{
	double start = now_s();
	double kill_at = opt.kill_after * (0.5 + (double)(opt.seed % 1000) / 1000);
	while (!atomic_load(&stop) && now_s() - start < opt.seconds) {
		if (opt.kill_pid && now_s() - start >= kill_at) {
			kill(opt.kill_pid, SIGKILL);
			opt.kill_pid = 0;
		}
		usleep(2000);
	}
	atomic_store(&stop, true);
}

int main(int argc, char **argv)
{
	static const struct argp argp = { options, parse_option, "PATH", "Writes a block device or file from many threads and verifies it.",
					  NULL, NULL, NULL };
	opt.seed = (uint64_t)time(NULL) * 1000 + (uint64_t)getpid() % 1000;
	argp_parse(&argp, argc, argv, 0, NULL, NULL);
	opt.direct |= !opt.buffered;
	measure();
	log_open();
	if (opt.check) {
		if (opt.until)
			log_join_until();
		verify_all(/* after_crash= */ true);
		return atomic_load(&failed);
	}
	static struct worker workers[THREADS_MAX];
	signal(SIGTERM, on_term);
	workers_start(workers);
	if (opt.started && creat(opt.started, 0600) < 0)
		die("make", opt.started);
	if (opt.operations == 0)
		wait_for_end();
	workers_end(workers);
	if (!atomic_load(&failed) && !opt.until_error)
		verify_all(/* after_crash= */ false);
	printf("hammer: seed %llu: %llu writes, %llu reads, %llu of others' zones, %llu flushes, %llu zeroings, %llu discards: %s\n",
	       (unsigned long long)opt.seed, (unsigned long long)count_write, (unsigned long long)count_read,
	       (unsigned long long)count_stranger, (unsigned long long)count_flush, (unsigned long long)count_zero,
	       (unsigned long long)count_discard, atomic_load(&failed) ? "FAILED" : "all verified");
	return atomic_load(&failed);
}
