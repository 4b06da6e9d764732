/* catalogcheck [--root DIR] URL COMMAND…: a catalog by hand, for the tests of its engines. Prints what came of it on one line: ok and
 * what was asked for, or the name of the error and its reason. Fails unless ok.
 *
 *   make                       makes the store (in etcd, where nothing does so by itself)
 *   conform                    all that engines must do alike
 *   put KEY VALUE | get KEY | delete KEY
 *   aside VALUE FILE           store/moved has that, as of a catalog that moves, until there is that file: says "aside" then
 *   list PREFIX                how many
 *   count KEY N                takes N numbers, one by one; prints the last
 *   fill KEY BYTES             puts large values, KEY0 KEY1 …, until there is an error; prints how many
 *   flood KEY BYTES COUNT      as fill, COUNT at once, each its own keys, again while an outcome is unknown; EUCLEAN if one that was refused is
 *                              there all the same
 *   lease KEY SECONDS TTL      a key that lasts as long as we do, for that long
 *   watch PREFIX SECONDS       "woken" with a time for each waking
 *   after FILE COMMAND…        says "open", and does it as soon as there is that file: of the store that it opened before */
#include <errno.h>
#include <inttypes.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <unistd.h>

#include "core/bytes.h"
#include "core/fiber.h"
#include "parallax/catalog/catalog_access.h"
#include "tests/tools/lib/catalog_conformance.h"

struct program {
	struct env *env;
	struct catalog *catalog;
	const char *root, *url, *command;
	char **args;
	int arg_count;
};

static int said(struct program *p, int r, const char *what)
{
	if (r == 0)
		printf("ok %s\n", what);
	else
		printf("%s %s\n", strerrorname_np(-r), catalog_text(p->catalog, r));
	return r;
}

static int change(struct program *p, const char *key, const void *bytes, size_t length)
{
	struct catalog_txn t;
	catalog_txn_init(&t);
	if (bytes)
		catalog_txn_put(&t, key, bytes, length);
	else
		catalog_txn_delete(&t, key);
	return catalog_txn(p->catalog, &t, NULL);
}

static int count_one(void *arg, const char *key, const struct catalog_value *value)
{
	(void)key;
	(void)value;
	++*(unsigned *)arg;
	return 0;
}

static int do_count(struct program *p)
{
	uint64_t last = 0;
	char text[32];
	int r = 0;
	for (int i = 0; i < atoi(p->args[1]) && r == 0; i++)
		r = catalog_counter_take(p->catalog, p->args[0], 0, 1, &last);
	snprintf(text, sizeof text, "%" PRIu64, last);
	return said(p, r, text);
}

static int do_fill(struct program *p)
{
	size_t length = (size_t)atoi(p->args[1]);
	char *bytes = malloc(length + 1), key[64];
	unsigned n = 0;
	int r = 0;
	memset(bytes, 'f', length);
	for (; n < 10000 && r == 0; n++) {
		snprintf(key, sizeof key, "%s%u", p->args[0], n);
		r = change(p, key, bytes, length);
	}
	free(bytes);
	printf("%u then ", n - 1);
	return said(p, r, "");
}

struct flood {
	struct program *program;
	const char *bytes;
	size_t length;
	unsigned number, count; /* of it; of those that are there, so it was told */
	int status;             /* of the last */
};

static void flood_key(const struct flood *f, unsigned i, char ret_key[64]) { snprintf(ret_key, 64, "%s%u-%u", f->program->args[0], f->number, i); }

static int flood_put(void *arg)
{
	struct flood *f = arg;
	char key[64];
	for (f->status = 0; f->status == 0 && f->count < 10000; f->count += f->status == 0) {
		flood_key(f, f->count, key);
		f->status = -ETIMEDOUT;
		for (unsigned attempt = 0; f->status == -ETIMEDOUT && attempt < 100; attempt++)
			f->status = catalog_put_at(f->program->catalog, key, 0, f->bytes, f->length);
		if (f->status == -EAGAIN)
			f->status = 0; /* an attempt of unknown outcome had arrived */
	}
	return 0;
}

/* Those that were put are there, and the one that was refused isn't. */
static int flood_judge(const struct flood *f)
{
	char key[64];
	for (unsigned i = 0; i <= f->count; i++) {
		struct catalog_value v;
		flood_key(f, i, key);
		int r = catalog_get(f->program->catalog, key, &v);
		catalog_value_free(&v);
		if (r == (i < f->count ? 0 : -ENOENT))
			continue;
		printf("%s: %s, but %s ", key, i < f->count ? "put" : strerrorname_np(-f->status), strerrorname_np(-r));
		return -EUCLEAN;
	}
	return f->status;
}

static int do_flood(struct program *p)
{
	enum { FLOODS_MAX = 64 };
	struct flood floods[FLOODS_MAX];
	struct job jobs[FLOODS_MAX];
	size_t length = (size_t)atoi(p->args[1]);
	unsigned count = MIN((unsigned)atoi(p->args[2]), (unsigned)FLOODS_MAX), put = 0;
	char *bytes = malloc(length + 1);
	int r = 0;
	memset(bytes, 'f', length);
	for (unsigned i = 0; i < count; i++) {
		floods[i] = (struct flood){ .program = p, .bytes = bytes, .length = length, .number = i };
		job_init(&jobs[i], &p->env->loop);
		job_hold(&jobs[i]);
		if (fiber_start(&p->env->loop, flood_put, &floods[i], &jobs[i]) < 0)
			job_put(&jobs[i], -ENOMEM);
	}
	for (unsigned i = 0; i < count; i++)
		fiber_wait(&jobs[i]);
	for (unsigned i = 0; i < count && r != -EUCLEAN; i++) {
		r = flood_judge(&floods[i]);
		put += floods[i].count;
	}
	free(bytes);
	printf("%u then ", put);
	return said(p, r, "");
}

static int do_lease(struct program *p)
{
	struct catalog_lease *l;
	int r = catalog_lease(p->catalog, (unsigned)atoi(p->args[2]), p->args[0], &l);
	if (r < 0)
		return said(p, r, "");
	said(p, r, "held");
	fflush(stdout);
	fiber_sleep(&p->env->loop, (uint64_t)(atof(p->args[1]) * 1e9));
	printf(catalog_lease_id(l) ? "ok kept\n" : "it has run out\n");
	catalog_lease_end(l);
	return r;
}

struct watching {
	struct program *p;
	struct fiber_cond changed;
	uint64_t begin_ns, until_ns;
	bool over;
	struct fiber_cond ended;
};

static int watch_it(void *arg)
{
	struct watching *w = arg;
	while (env_now_ns(w->p->env) < w->until_ns) {
		fiber_cond_wait(&w->p->env->loop, &w->changed);
		printf("woken %.1f\n", (double)(env_now_ns(w->p->env) - w->begin_ns) / 1e9);
		fflush(stdout);
	}
	w->over = true;
	fiber_cond_wake(&w->ended);
	return 0;
}

static int do_watch(struct program *p)
{
	struct watching w = { .p = p, .begin_ns = env_now_ns(p->env) };
	struct catalog_watch *watch;
	w.until_ns = w.begin_ns + (uint64_t)(atof(p->args[1]) * 1e9);
	fiber_cond_init(&w.changed);
	fiber_cond_init(&w.ended);
	int r = catalog_watch(p->catalog, p->args[0], &w.changed, &watch);
	if (r < 0 || fiber_start(&p->env->loop, watch_it, &w, NULL) < 0)
		return said(p, r, "");
	fiber_sleep(&p->env->loop, w.until_ns - w.begin_ns);
	catalog_watch_end(watch);
	while (!w.over) {
		fiber_cond_wake(&w.changed);
		fiber_sleep(&p->env->loop, NS_PER_MS);
	}
	return said(p, 0, "");
}

static int do_get(struct program *p)
{
	struct catalog_value v;
	int r = catalog_get(p->catalog, p->args[0], &v);
	said(p, r, (const char *)v.bytes); /* engines put a NUL behind it, or not: texts of this program have none inside */
	catalog_value_free(&v);
	return r;
}

static int do_put(struct program *p) { return said(p, change(p, p->args[0], p->args[1], strlen(p->args[1]) + 1), ""); }
static int do_delete(struct program *p) { return said(p, change(p, p->args[0], NULL, 0), ""); }
static void await(struct program *p, const char *path)
{
	while (access(path, F_OK) < 0)
		fiber_sleep(&p->env->loop, 20 * NS_PER_MS);
}

static int do_aside(struct program *p)
{
	const struct catalog_ops *ops = p->catalog->ops;
	int r = ops->set_aside ? ops->set_aside(p->catalog, "store/moved", p->args[0]) : -ENOTSUP;
	if (r < 0)
		return said(p, r, "");
	printf("aside\n");
	fflush(stdout);
	await(p, p->args[1]);
	return said(p, ops->set_aside(p->catalog, "store/moved", NULL), "");
}
static int do_make(struct program *p) { return said(p, 0, ""); }

static int do_list(struct program *p)
{
	unsigned n = 0;
	char text[16];
	int r = catalog_list(p->catalog, p->args[0], count_one, &n);
	snprintf(text, sizeof text, "%u", n);
	return said(p, r, text);
}

static int do_conform(struct program *p)
{
	char why[256] = "";
	int r = catalog_conformance(p->catalog, why, sizeof why);
	printf("%s%s\n", r ? "WRONG " : "ok", why);
	return r;
}

static const struct {
	const char *name;
	int args;
	int (*run)(struct program *p);
} commands[] = {
	{ "make", 0, do_make }, { "conform", 0, do_conform }, { "put", 2, do_put }, { "get", 1, do_get }, { "delete", 1, do_delete },
	{ "aside", 2, do_aside },
	{ "list", 1, do_list }, { "count", 2, do_count }, { "fill", 2, do_fill }, { "flood", 3, do_flood }, { "lease", 3, do_lease }, { "watch", 2, do_watch },
};

static void wait_for_file(struct program *p)
{
	printf("open\n");
	fflush(stdout);
	await(p, p->args[0]);
	p->command = p->args[1];
	p->args += 2;
	p->arg_count -= 2;
}

static int run(void *arg)
{
	struct program *p = arg;
	struct report report = { "" };
	struct catalog_access access;
	int r = catalog_access_load(p->env, p->root, p->url, &access, &report);
	if (r == 0)
		r = catalog_open(p->env, p->url, &access, strcmp(p->command, "make") == 0 || catalog_is_file(p->url), &p->catalog, &report);
	catalog_access_free(&access);
	if (r < 0) {
		printf("%s %s\n", strerrorname_np(-r), report_text(&report, r));
		return r;
	}
	r = -EINVAL;
	if (strcmp(p->command, "after") == 0 && p->arg_count >= 2)
		wait_for_file(p);
	for (unsigned i = 0; i < ARRAY_COUNT(commands); i++)
		if (strcmp(commands[i].name, p->command) == 0 && commands[i].args == p->arg_count)
			r = commands[i].run(p);
	catalog_close(p->catalog);
	return r;
}

int main(int argc, char **argv)
{
	struct program p = { .root = "" };
	if (argc > 2 && strcmp(argv[1], "--root") == 0) {
		p.root = argv[2];
		argv += 2;
		argc -= 2;
	}
	if (argc < 3) {
		fputs("catalogcheck: see the top of its source\n", stderr);
		return 2;
	}
	p.url = argv[1];
	p.command = argv[2];
	p.args = argv + 3;
	p.arg_count = argc - 3;
	if (env_linux_create(0, &p.env) < 0)
		return 1;
	int r = env_linux_run_fiber(p.env, run, &p);
	env_linux_destroy(p.env);
	return r == 0 ? 0 : 1;
}
