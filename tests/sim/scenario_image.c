/* Scenario "image": a random user of raw, or of cow over raw, through kills, power losses, clean ends and I/O errors.
 * The oracle (tests/unit/blktest.h): what was flushed is there, what wasn't is as before or as written, and what is
 * read while it runs is what was acknowledged last. At the end everything opens and works again. */
#include <errno.h>
#include <string.h>

#include "agent/components/cow_format.h"
#include "core/drivers.h"
#include "core/fiber.h"
#include "tests/sim/scenario.h"
#include "tests/unit/blktest.h"

#define IMAGE_BYTES (UINT64_C(70) << 20) /* two groups of a layer */
#define WINDOW_MAX (512 * 512u)
#define LIFE_STEPS_MAX 400000

struct world {
	struct scenario_run *run;
	struct sim *sim;
	struct sim_host *host;
	struct env *env;
	struct blktest test;
	struct blk_node *base, *top;
	struct report report;
	bool with_cow, direct, errors;
	bool brief; /* lives end while most of what is written is written for the first time */
};

/* FIBER. */
static int make_image(void *arg)
{
	struct world *w = arg;
	struct file *f;
	struct file_io io = { .op = FILE_TRUNCATE, .offset = IMAGE_BYTES };
	struct job j;
	int r = file_open(w->env, "/a.img", FILE_OPEN_WRITE | FILE_OPEN_CREATE, &f);
	if (r < 0)
		return r;
	job_init(&j, &w->env->loop);
	file_submit(f, &io, &j);
	r = fiber_wait(&j);
	if (r == 0)
		r = file_sync_wait(f);
	file_close(w->env, f);
	return r < 0 ? r : env_sync_dir(w->env, "/");
}

static void fill_image(struct world *w)
{
	uint8_t data[512];
	for (unsigned b = 0; b < w->test.base_count; b++)
		for (uint64_t at = w->test.base[b]; at < w->test.base[b] + w->test.window; at += sizeof data) {
			blktest_fill(data, at / 512, BLKTEST_PARENT);
			sim_disk_write(w->host, "/a.img", at, data, sizeof data);
		}
}

/* FIBER. */
static int open_nodes(void *arg)
{
	struct world *w = arg;
	const char *direct = w->direct ? "direct=on" : "direct=off";
	w->report.text[0] = '\0';
	w->base = w->top = NULL;
	int r = blktest_open(w->env, &driver_raw, NULL, w->with_cow, (const char *[]){ "/a.img", direct, NULL }, &w->base, &w->report);
	if (r == 0 && w->with_cow)
		r = blktest_open(w->env, &driver_cow, w->base, false, (const char *[]){ "/top.cow", direct, NULL }, &w->top, &w->report);
	w->test.node = w->with_cow ? w->top : w->base;
	return r;
}

/* FIBER. */
static int close_nodes(void *arg)
{
	struct world *w = arg;
	int r = blk_close(w->top), closed = blk_close(w->base);
	w->top = w->base = NULL;
	return r < 0 ? r : closed;
}

static void must(struct world *w, const char *what, int (*run)(void *), void *arg)
{
	if (w->run->failed)
		return;
	int r = sim_run_fiber(w->env, run, arg);
	SCENARIO_CHECK(w->run, r == 0, "%s: %s", what, r == -EILSEQ ? w->test.why : report_text(&w->report, r));
}

/* Opened again, everything is as it may be. */
static void check(struct world *w)
{
	must(w, "open to check", open_nodes, w);
	if (!w->run->failed)
		must(w, "check", blktest_check, &w->test);
	if (sim_run_fiber(w->env, close_nodes, w) < 0)
		scenario_fail(w->run, "close after a check failed");
}

static void set_errors(struct world *w, bool on)
{
	struct sim_doses *d = sim_doses(w->sim);
	d->read_error = on ? 2000 : 0;
	d->write_error = on && w->run->seed % 2 ? 3000 : 0;
	d->sync_error = on && w->test.syncs_fail ? 10000 : 0;
}

static void life(struct world *w)
{
	struct scenario_task task;
	enum { CLEAN, KILL, POWER } how = sim_random(w->sim) % 4 == 0 ? CLEAN : w->brief || sim_random(w->sim) % 3 ? POWER : KILL;
	must(w, "open", open_nodes, w);
	if (w->run->failed)
		return;
	set_errors(w, w->errors);
	scenario_task_start(&task, w->env, blktest_run, &w->test);
	bool ended = scenario_step_until(w->run, w->sim, &task.ended,
					 how == CLEAN ? LIFE_STEPS_MAX : 50 + sim_random(w->sim) % (w->brief ? 1000 : 4000));
	set_errors(w, false);
	/* What the kernel forgot when a sync failed is still read from its cache, and later syncs that succeed don't
	 * make it durable: only a power loss shows what there is. */
	if (w->test.lossy || (w->test.syncs_fail && w->test.syncing > 0))
		how = POWER;
	SCENARIO_CHECK(w->run, ended || how != CLEAN, "requests that never end");
	if (!ended && how == CLEAN)
		how = KILL;
	if (how == POWER)
		sim_power_loss(w->host);
	else if (how == KILL)
		sim_kill(w->env);
	if (how != CLEAN)
		sim_drain_dead(w->env);
	SCENARIO_CHECK(w->run, task.ended, "the user doesn't end although its process is dead");
	SCENARIO_CHECK(w->run, !w->test.failed, "%s", w->test.why);
	int r = sim_run_fiber(w->env, close_nodes, w);
	SCENARIO_CHECK(w->run, how != CLEAN || w->errors || r == 0, "a clean close failed: %s", strerror(-r));
	if (how != CLEAN) {
		sim_process_destroy(w->env);
		w->env = sim_process_create(w->sim, w->host);
	}
	check(w);
}

static void scenario_image_run(struct scenario_run *run)
{
	struct world w = { .run = run };
	w.sim = scenario_sim(run, NULL);
	w.with_cow = sim_random(w.sim) % 3 != 0;
	w.direct = sim_random(w.sim) % 4 != 0;
	w.errors = sim_random(w.sim) % 4 == 0;
	w.brief = sim_random(w.sim) % 2;
	sim_doses(w.sim)->slow = sim_random(w.sim) % 2 ? 20000 : 0;
	w.host = sim_host_create(w.sim, "host", UINT64_C(1) << 40, sim_random(w.sim) % 2 ? 512 : 4096);
	w.env = sim_process_create(w.sim, w.host);
	uint64_t window = w.brief ? WINDOW_MAX : WINDOW_MAX / 2;
	w.test = (struct blktest){ .seed = run->seed, .base = { 0, COW_GROUP_DATA - window / 2 }, .base_count = 2, .window = window,
				   .slots = 2 + (unsigned)(sim_random(w.sim) % 14), .operations = 300,
				   .length_max = sim_random(w.sim) % 2 ? 24 : 4, .unaligned_memory = sim_random(w.sim) % 2, .urgent = w.brief };
	/* A layer whose file has forgotten data has neither the old nor the new; tests/unit/cow.c has more on that. */
	w.test.syncs_fail = !w.with_cow && sim_random(w.sim) % 2;
	blktest_init(&w.test, BLKTEST_PARENT);
	must(&w, "make the image", make_image, &w);
	fill_image(&w);
	unsigned lives = 1 + (unsigned)(sim_random(w.sim) % (w.brief ? 6 : 4));
	for (unsigned i = 0; i < lives && !run->failed; i++)
		life(&w);
	blktest_free(&w.test);
	sim_process_destroy(w.env);
	scenario_end(run, w.sim);
}

const struct scenario scenario_image = {
	.name = "image",
	.summary = "raw, and cow over it, through kills, power losses and I/O errors",
	.run = scenario_image_run,
};
