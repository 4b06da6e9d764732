/* null: swallows writes, reads zeroes, at once. The ceiling of whatever is above it. */
#include <errno.h>

#include "core/bytes.h"
#include "core/drivers.h"

static void null_submit(struct blk_node *node, struct blk_io *io)
{
	(void)node;
	if (io->op == BLK_READ)
		iov_zero(io->iov, io->iov_count, 0, io->length);
	if (io->op == BLK_MAP) {
		io->map->extents[0] = (struct blk_extent){ io->length, BLK_EXTENT_HOLE | BLK_EXTENT_ZERO };
		io->map->count = 1;
	}
	blk_end(io, 0);
}

static int null_open(struct blk_node *node, const struct blk_open *how, struct report *report)
{
	uint64_t size = option_number(how->options, "size");
	if (size % 512)
		return report_set(report, -EINVAL, "size=%s is not a multiple of 512", option_string(how->options, "size"));
	node->info = (struct blk_info){
		.size = size, .block_size = 512, .preferred_size = 4096, .memory_align = 1, .can_discard = true,
		.can_zero = true, .can_map = true, .discard_zeroes = true, .multi_client = true,
	};
	return 0;
}

static const struct option_spec null_options[] = {
	{ "size", OPTION_SIZE, .positional = true, .required = true, .help = "of the device, a multiple of 512",
	  .number_min = 512, .number_max = UINT64_C(1) << 60 },
	{ NULL },
};

const struct blk_driver driver_null = {
	.name = "null",
	.summary = "discards what is written, reads as zeroes",
	.options = null_options,
	.node_size = sizeof(struct blk_node),
	.open = null_open,
	.submit = null_submit,
};
