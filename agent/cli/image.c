/* image create, info, check, convert. */
#include <errno.h>
#include <inttypes.h>
#include <stdlib.h>
#include <string.h>

#include "agent/cli/copy.h"
#include "agent/cli/transfer.h"
#include "core/option.h"

int cli_image_create(struct cli *c)
{
	const struct blk_driver *driver;
	uint64_t size;
	snprintf(c->what, sizeof c->what, "image create %s", c->arg[1]);
	int r = transfer_format(c, c->arg[0], &driver);
	if (r == 0)
		r = cli_size_of(c, c->arg[2], 512, INT64_MAX / 512 * 512, &size);
	if (r < 0)
		return r;
	return driver->create(c->env, c->arg[1], size, cli_option(c, CLI_BACKING), &c->report);
}

/* FIBER. Bytes that the map doesn't call a hole. */
static int count_allocated(struct blk_node *n, uint64_t *ret_bytes)
{
	struct blk_extent extents[64];
	*ret_bytes = 0;
	for (uint64_t at = 0; at < n->info.size;) {
		struct blk_map map = { .extents = extents, .max = 64 };
		int r = blk_map_wait(n, at, n->info.size - at, &map);
		if (r < 0)
			return r;
		for (unsigned i = 0; i < map.count && at < n->info.size; i++) {
			if (!(extents[i].flags & BLK_EXTENT_HOLE))
				*ret_bytes += extents[i].length;
			at += extents[i].length;
		}
	}
	return 0;
}

int cli_image_info(struct cli *c)
{
	struct graph_instance *graph;
	struct blk_node *n;
	uint64_t allocated = 0;
	char bytes[24];
	int r = transfer_open(c, c->arg[0], &graph, &n);
	if (r < 0)
		return r;
	char *text = graph_print(graph_of(graph));
	r = count_allocated(n, &allocated);
	if (r < 0) {
		report_set(&c->report, r, "reading its allocation map: %s", strerror(-r));
	} else if (cli_flag(c, CLI_JSON)) {
		cli_print_json(json_pack("{s:s, s:s, s:I, s:i, s:I}", "graph", text ? text : "", "format", n->driver->name, "size",
					 (json_int_t)n->info.size, "block_size", (int)n->info.block_size, "allocated",
					 (json_int_t)allocated));
	} else {
		printf("%-12s %s\n", "graph", text ? text : "");
		printf("%-12s %s\n", "format", n->driver->name);
		printf("%-12s %" PRIu64 " (%s)\n", "size", n->info.size, format_size_human(n->info.size, bytes));
		printf("%-12s %u\n", "block size", n->info.block_size);
		printf("%-12s %" PRIu64 " (%s)\n", "allocated", allocated, format_size_human(allocated, bytes));
	}
	free(text);
	graph_close(graph);
	return r;
}

int cli_image_check(struct cli *c)
{
	struct graph_instance *graph;
	struct copy copy = { .keep_going = true };
	char bytes[24];
	int r = transfer_open(c, c->arg[0], &graph, &copy.from);
	if (r < 0)
		return r;
	r = transfer_read(c, &copy);
	graph_close(graph);
	if (r < 0)
		return r;
	if (cli_flag(c, CLI_JSON))
		cli_print_json(json_pack("{s:I, s:I}", "read", (json_int_t)copy.read_bytes, "unreadable", (json_int_t)copy.bad_bytes));
	else if (copy.bad_bytes == 0)
		printf("%s of data read, no errors\n", format_size_human(copy.read_bytes, bytes));
	if (copy.bad_bytes)
		return report_set(&c->report, -EIO, "%" PRIu64 " bytes can't be read, the first in the piece at offset %" PRIu64 " (copy what can be read elsewhere, or restore a backup)",
				  copy.bad_bytes, copy.bad_offset);
	return 0;
}

int cli_image_convert(struct cli *c)
{
	snprintf(c->what, sizeof c->what, "image convert %.100s %.100s", c->arg[0], c->arg[1]);
	return transfer_to_file(c, c->arg[0], c->arg[1]);
}
