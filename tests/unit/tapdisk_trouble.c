/* What a tapdisk says of a node that has several kinds of trouble at once: the worst (agent/daemon/tapdisk_trouble.c). */
#include <criterion/criterion.h>
#include <errno.h>
#include <string.h>

#include "agent/daemon/tapdisk.h"
#include "core/env_sim.h"

static struct {
	uint64_t read_errors, checkpoint, failed;
	bool waits;
} ill;

static int ill_open(struct blk_node *node, const struct blk_open *how, struct report *report)
{
	(void)how;
	(void)report;
	node->info = (struct blk_info){ .size = 1 << 20, .block_size = 512 };
	return 0;
}

static int ill_close(struct blk_node *node)
{
	(void)node;
	return 0;
}

static void ill_submit(struct blk_node *node, struct blk_io *io)
{
	(void)node;
	blk_end(io, 0);
}

/* In a volume's order. */
static void ill_describe(struct blk_node *node, void (*item)(void *arg, const char *key, uint64_t value), void *arg)
{
	(void)node;
	item(arg, "read_errors", ill.read_errors);
	item(arg, "checkpoint_failed", ill.checkpoint);
	item(arg, "failed", ill.failed);
	item(arg, "timed_out", 1);
}

static bool ill_waits(struct blk_node *node, struct blk_waits *ret)
{
	(void)node;
	*ret = (struct blk_waits){ .what = "a server", .since_ns = 1 };
	return ill.waits;
}

static const struct option_spec options[] = { { .name = NULL } };
static const struct blk_driver ill_driver = { .name = "ill", .options = options, .node_size = sizeof(struct blk_node), .open = ill_open, .close = ill_close,
					       .submit = ill_submit, .describe = ill_describe, .waits = ill_waits };
static const struct blk_driver *const drivers[] = { &ill_driver, NULL };
static const struct export_driver *const exports[] = { NULL };
static const struct graph_tables tables = { drivers, exports };

static void says(struct graph_instance *g, const char *words)
{
	struct tapdisk t = { .graph = g };
	char text[256];
	tapdisk_trouble(&t, text, sizeof text);
	cr_expect(words ? strstr(text, words) != NULL : !text[0], "'%s' where '%s' is worse", text, words ? words : "nothing");
}

static int body(void *arg)
{
	struct graph *graph;
	struct graph_instance *g;
	struct graph_how how = { .root = "" };
	struct report why = { "" };
	cr_assert_eq(graph_parse("ill()", strlen("ill()"), &graph, &why), 0, "%s", why.text);
	cr_assert_eq(graph_check(graph, &tables, &why), 0, "%s", why.text);
	cr_assert_eq(graph_open(arg, graph, &how, &g, &why), 0, "%s", why.text);
	says(g, NULL);
	ill.read_errors = 3;
	says(g, "3 reads failed");
	ill.checkpoint = EFBIG;
	says(g, "(delete snapshots)");
	ill.waits = true;
	says(g, "for a server");
	ill.failed = EPERM;
	says(g, "taken over");
	ill.failed = EIO;
	says(g, "any more");
	return graph_close(g);
}

Test(tapdisk_trouble, the_worst_is_told)
{
	struct sim *sim = sim_create(1, NULL);
	struct env *env = sim_process_create(sim, sim_host_create(sim, "h", 1 << 20, 512));
	cr_assert_eq(sim_run_fiber(env, body, env), 0);
	sim_process_destroy(env);
	sim_destroy(sim);
}
