/* delay(child): a slow disk. Each request waits for a time before it goes to the child; the time depends on the operation
 * and, with jitter, on chance, so that requests also overtake one another.
 *
 * As many requests as there are frames wait at once, the others queue behind them; closing the node waits for all. */
#include <errno.h>
#include <stdlib.h>
#include <string.h>

#include "agent/components/pass.h"
#include "core/bytes.h"
#include "core/drivers.h"

#define DELAY_MAX_NS (60 * NS_PER_S) /* closing waits for it */

struct delay {
	struct blk_node node;
	uint64_t ns[BLK_OP_COUNT]; /* by operation */
	uint64_t jitter_ns;
	uint64_t delayed, delayed_ns;
};

/* delay_submit ─(timer)─▶ delay_pass ─▶ delay_finish */
struct delay_frame {
	struct job job;
	struct blk_io *io, child_io;
	struct timer timer;
};

/* "250us", "10ms", "1s"; ms if no unit is given. False: it is none, or longer than DELAY_MAX_NS. */
static bool delay_parse(const char *text, uint64_t *ret_ns)
{
	static const struct {
		const char *name;
		uint64_t ns;
	} units[] = { { "", NS_PER_MS }, { "ms", NS_PER_MS }, { "ns", 1 }, { "s", NS_PER_S }, { "us", 1000 } };
	size_t digits = strspn(text, "0123456789");
	uint64_t value = digits && digits < 12 ? strtoull(text, NULL, 10) : UINT64_MAX;
	for (unsigned i = 0; digits && i < ARRAY_COUNT(units); i++) {
		if (strcmp(text + digits, units[i].name) != 0)
			continue;
		*ret_ns = value <= DELAY_MAX_NS / units[i].ns ? value * units[i].ns : 0;
		return value <= DELAY_MAX_NS / units[i].ns;
	}
	return false;
}

static bool delay_valid(const char *text)
{
	uint64_t ns;
	return delay_parse(text, &ns);
}

/* 0 if it isn't given; else the table has seen to it that it is a time. */
static uint64_t delay_option(const struct option_values *o, const char *name)
{
	uint64_t ns = 0;
	const char *text = option_string(o, name);
	return text && delay_parse(text, &ns) ? ns : 0;
}

static int delay_open(struct blk_node *node, const struct blk_open *how, struct report *report)
{
	struct delay *d = container_of(node, struct delay, node);
	static const char *const names[BLK_OP_COUNT] = { [BLK_READ] = "read", [BLK_WRITE] = "write", [BLK_FLUSH] = "flush",
							 [BLK_DISCARD] = "write", [BLK_ZERO] = "write", [BLK_MAP] = "read" };
	(void)report;
	d->jitter_ns = delay_option(how->options, "jitter");
	for (unsigned op = 0; op < BLK_OP_COUNT; op++)
		d->ns[op] = delay_option(how->options, names[op]);
	return 0;
}

static void delay_finish(struct job *job)
{
	struct delay_frame *f = container_of(job, struct delay_frame, job);
	struct blk_io *io = f->io;
	int status = job->status;
	blk_frame_put(io->node, f);
	blk_end(io, status);
}

static void delay_pass(struct job *job)
{
	struct delay_frame *f = container_of(job, struct delay_frame, job);
	if (job->status == 0) { /* else the world is ending */
		f->child_io = pass_copy(f->io);
		blk_submit(f->io->node->child[0], &f->child_io, job);
	}
	job_then(job, delay_finish);
}

static void delay_submit(struct blk_node *node, struct blk_io *io)
{
	struct delay *d = container_of(node, struct delay, node);
	struct delay_frame *f = blk_frame_get(node);
	uint64_t ns = d->ns[io->op] + (d->jitter_ns ? env_random(node->env) % (d->jitter_ns + 1) : 0);
	job_init(&f->job, node->loop);
	f->io = io;
	if (ns) {
		d->delayed++;
		d->delayed_ns += ns;
		timer_init(&f->timer);
		timer_start(node->env, &f->timer, ns, &f->job);
	}
	job_then(&f->job, delay_pass);
}

static void delay_describe(struct blk_node *node, void (*item)(void *arg, const char *key, uint64_t value), void *arg)
{
	const struct delay *d = container_of(node, struct delay, node);
	item(arg, "delayed", d->delayed);
	item(arg, "delayed_ms", d->delayed_ns / NS_PER_MS);
}

#define DELAY_TIME .valid = delay_valid, .form = "no time of at most 60s (give digits and us, ms or s)"

static const struct option_spec delay_options[] = {
	{ "flush", OPTION_STRING, DELAY_TIME, .help = "time a flush waits, like 250us, 10ms or 1s (default 0)" },
	{ "jitter", OPTION_STRING, DELAY_TIME, .help = "random time, from 0 to this, that every request waits in addition (default 0)" },
	{ "read", OPTION_STRING, DELAY_TIME, .help = "time a read waits (default 0)" },
	{ "write", OPTION_STRING, DELAY_TIME, .help = "time a write, discard or write-zeroes waits (default 0)" },
	{ .name = NULL },
};

const struct blk_driver driver_delay = {
	.name = "delay",
	.follows_size = true,
	.summary = "makes requests wait",
	.options = delay_options,
	.children_min = 1,
	.children_max = 1,
	.writes_child = true,
	.node_size = sizeof(struct delay),
	.frame_size = sizeof(struct delay_frame),
	.open = delay_open,
	.submit = delay_submit,
	.describe = delay_describe,
};
