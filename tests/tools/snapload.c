/* How long snapshots take while something else loads the volume, beside what they are made of:
 *
 *     snapload ROOT VOLUME PREFIX FIRST COUNT GAP_MS    snapshots VOLUME@PREFIX<FIRST …>, each followed by one fdatasync and
 *                                                       one catalog transaction, GAP_MS apart; prints a table
 *     snapload ROOT V,W,… …                             of several volumes at one instant
 *     snapload ROOT - PREFIX 0 COUNT GAP_MS             without the snapshots: the same load otherwise
 *     snapload ROOT VOLUME PREFIX FIRST COUNT -         snapshots only, one after the other; prints seconds=S
 *     snapload … GAP_MS CATALOG                         the transactions are in that catalog, on a key of their own
 *
 * fdatasync: of a written file below ROOT, after 64 KiB of it were overwritten with O_DIRECT; only the fdatasync is timed.
 * Transaction: compares and puts one key of 4 KiB in a catalog of its own below ROOT, unless one is given. Snapshots are made by the
 * code of `aquifer snapshot create`, without a process for each. Output: "WHAT p50_us p99_us max_us count". */
#include <errno.h>
#include <fcntl.h>
#include <inttypes.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <time.h>
#include <unistd.h>

#include "agent/daemon/client.h"
#include "core/bytes.h"
#include "core/fiber.h"
#include "parallax/catalog/catalog.h"
#include "parallax/store/store.h"

enum { FILE_BYTES = 16 << 20, WRITE_BYTES = 64 << 10, VALUE_BYTES = 4096 };

struct samples {
	const char *what;
	uint64_t *ns;
	size_t count;
};

struct load {
	struct env *env;
	const char *root, *volume, *prefix, *url;
	unsigned first, count, gap_ms;
	bool alone;
	struct store *store;
	struct catalog *catalog;
	int fd;
	void *buffer;
	uint64_t revision;
	struct report report;
	struct samples snapshots, syncs, txns;
};

static uint64_t now_ns(void)
{
	struct timespec t;
	clock_gettime(CLOCK_MONOTONIC, &t);
	return (uint64_t)t.tv_sec * NS_PER_S + (uint64_t)t.tv_nsec;
}

static int by_size(const void *a, const void *b)
{
	uint64_t x = *(const uint64_t *)a, y = *(const uint64_t *)b;
	return x < y ? -1 : x > y;
}

static void print_samples(struct samples *s)
{
	if (!s->count)
		return;
	qsort(s->ns, s->count, sizeof *s->ns, by_size);
	printf("%s %" PRIu64 " %" PRIu64 " %" PRIu64 " %zu\n", s->what, s->ns[s->count / 2] / 1000,
	       s->ns[(s->count * 99 + 99) / 100 - 1] / 1000, s->ns[s->count - 1] / 1000, s->count);
}

static int forward(void *arg, const struct store_holder *holder, const char *verb, const char *const *args,
		   uint64_t deadline_ns, char **ret_json, struct report *report)
{
	struct load *l = arg;
	struct tapdisk_control call = { .driver = "volume", .subject = holder->volume, .verb = verb, .args = args,
					.deadline_ns = deadline_ns };
	return client_tapdisk_control(l->env, holder->control, &call, ret_json, report);
}

/* ---- what is timed ---- */

static int snapshot(struct load *l, unsigned i)
{
	char name[STORE_GROUP_MAX][STORE_SNAPSHOT_NAME_BYTES];
	const char *names[STORE_GROUP_MAX], *volume = l->volume;
	unsigned count = 0;
	while (*volume && count < STORE_GROUP_MAX) {
		size_t length = strcspn(volume, ",");
		snprintf(name[count], sizeof name[count], "%.*s@%s%u", (int)length, volume, l->prefix, l->first + i);
		names[count] = name[count];
		count++;
		volume += length + (volume[length] == ',');
	}
	return store_snapshot_create(l->store, names, count, &l->report);
}

static int overwrite(struct load *l, unsigned i)
{
	off_t at = (off_t)i * WRITE_BYTES % FILE_BYTES;
	return pwrite(l->fd, l->buffer, WRITE_BYTES, at) == WRITE_BYTES ? 0 : -errno;
}

static int transact(struct load *l)
{
	static struct catalog_txn t;
	static char value[VALUE_BYTES];
	char key[32];
	snprintf(key, sizeof key, "snapload/%d", (int)getpid());
	value[0]++;
	catalog_txn_init(&t);
	catalog_txn_compare(&t, key, l->revision);
	catalog_txn_put(&t, key, value, sizeof value);
	return catalog_txn(l->catalog, &t, &l->revision);
}

static void note(struct samples *s, uint64_t begin) { s->ns[s->count++] = now_ns() - begin; }

static int load_run(struct load *l)
{
	int r = 0;
	for (unsigned i = 0; r == 0 && i < l->count; i++) {
		uint64_t begin = now_ns();
		if (l->volume[0] != '-') {
			r = snapshot(l, i);
			note(&l->snapshots, begin);
		}
		if (l->alone || r < 0)
			continue;
		fiber_sleep(&l->env->loop, l->gap_ms * NS_PER_MS);
		r = overwrite(l, i);
		begin = now_ns();
		if (r == 0 && fdatasync(l->fd) < 0)
			r = -errno;
		note(&l->syncs, begin);
		fiber_sleep(&l->env->loop, l->gap_ms * NS_PER_MS);
		begin = now_ns();
		if (r == 0)
			r = transact(l);
		note(&l->txns, begin);
		fiber_sleep(&l->env->loop, l->gap_ms * NS_PER_MS);
	}
	return r;
}

/* ---- set-up ---- */

static int open_file(struct load *l)
{
	char path[4096];
	snprintf(path, sizeof path, "%s/snapload.%d", l->root, (int)getpid());
	l->fd = open(path, O_RDWR | O_CREAT | O_EXCL | O_DIRECT, 0600);
	if (l->fd < 0 || unlink(path) < 0)
		return -errno;
	l->buffer = env_alloc_aligned(WRITE_BYTES);
	if (!l->buffer)
		return -ENOMEM;
	memset(l->buffer, 's', WRITE_BYTES);
	int r = 0;
	for (unsigned i = 0; r == 0 && i < FILE_BYTES / WRITE_BYTES; i++)
		r = overwrite(l, i);
	return r < 0 ? r : fsync(l->fd) < 0 ? -errno : 0;
}

static int open_catalog(struct load *l)
{
	char url[4096];
	snprintf(url, sizeof url, "sqlite:%s/snapload.%d.db", l->root, (int)getpid());
	int r = catalog_open(l->env, l->url ? l->url : url, NULL, /* create= */ !l->url, &l->catalog, &l->report);
	return r < 0 ? r : transact(l);
}

static int run(void *arg)
{
	struct load *l = arg;
	struct store_options o = { .root = l->root, .forward = forward, .forward_arg = l };
	int r = store_open(l->env, &o, &l->store, &l->report);
	if (r == 0 && !l->alone)
		r = open_file(l);
	if (r == 0 && !l->alone)
		r = open_catalog(l);
	uint64_t begin = now_ns();
	if (r == 0)
		r = load_run(l);
	if (r < 0)
		fprintf(stderr, "snapload: %s\n", report_text(&l->report, r));
	print_samples(&l->snapshots);
	print_samples(&l->syncs);
	print_samples(&l->txns);
	if (l->alone)
		printf("seconds=%.2f\n", (double)(now_ns() - begin) / 1e9);
	catalog_close(l->catalog);
	store_close(l->store);
	return r;
}

int main(int argc, char **argv)
{
	static struct load l = { .snapshots.what = "snapshot", .syncs.what = "fdatasync", .txns.what = "transaction" };
	if (argc != 7 && argc != 8) {
		fprintf(stderr, "usage: snapload ROOT VOLUME|- PREFIX FIRST COUNT GAP_MS|- [CATALOG]\n");
		return 2;
	}
	l.root = argv[1];
	l.volume = argv[2];
	l.prefix = argv[3];
	l.first = (unsigned)atoi(argv[4]);
	l.count = (unsigned)atoi(argv[5]);
	l.alone = argv[6][0] == '-';
	l.gap_ms = (unsigned)atoi(argv[6]);
	l.url = argv[7];
	struct samples *all[] = { &l.snapshots, &l.syncs, &l.txns };
	for (size_t i = 0; i < ARRAY_COUNT(all); i++)
		if (!(all[i]->ns = calloc(l.count + 1, sizeof *all[i]->ns)))
			return 1;
	if (env_linux_create(0, &l.env) < 0)
		return 1;
	l.env->solitary = true; /* as the command is */
	int r = env_linux_run_fiber(l.env, run, &l);
	env_linux_destroy(l.env);
	for (size_t i = 0; i < ARRAY_COUNT(all); i++)
		free(all[i]->ns);
	free(l.buffer);
	return r == 0 ? 0 : 1;
}
