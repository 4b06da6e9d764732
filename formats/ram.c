/* ram: a disk in this process's memory, gone when it closes.
 *
 * Pages of 4 KiB come into being when they are first written and go when they are discarded. How many there may
 * be is limited by `memory`; writes beyond fail with -ENOSPC, as on a thin disk that is full. */
#include <errno.h>
#include <stdlib.h>

#include "core/bytes.h"
#include "core/drivers.h"

#define PAGE UINT64_C(4096)
#define LEAF_PAGES 512u
#define LEAF_BYTES (PAGE * LEAF_PAGES)
#define RAM_SIZE_MAX (UINT64_C(1) << 42)
#define RAM_MEMORY_DEFAULT (UINT64_C(1) << 30)

struct leaf {
	char *page[LEAF_PAGES]; /* NULL: zeroes */
};

struct ram {
	struct blk_node node;
	struct leaf **leaf; /* NULL: zeroes */
	uint64_t leaf_count;
	uint64_t pages, pages_max;
};

static char **ram_slot(struct ram *r, uint64_t offset, bool make)
{
	struct leaf **leaf = &r->leaf[offset / LEAF_BYTES];
	if (!*leaf && make)
		*leaf = calloc(1, sizeof **leaf);
	return *leaf ? &(*leaf)->page[offset % LEAF_BYTES / PAGE] : NULL;
}

/* The page at `offset`, made if there is none yet; NULL if the limit is reached. */
static char *ram_page_make(struct ram *r, uint64_t offset)
{
	char **slot = ram_slot(r, offset, /* make= */ true);
	if (!slot)
		return NULL;
	if (!*slot && r->pages < r->pages_max) {
		*slot = calloc(1, PAGE);
		r->pages += *slot != NULL;
	}
	return *slot;
}

static uint64_t ram_piece(const struct blk_io *io, uint64_t done)
{
	return MIN(PAGE - (io->offset + done) % PAGE, io->length - done);
}

static int ram_read(struct ram *r, struct blk_io *io)
{
	uint64_t n;
	for (uint64_t done = 0; done < io->length; done += n) {
		uint64_t at = io->offset + done;
		char **slot = ram_slot(r, at, /* make= */ false);
		n = ram_piece(io, done);
		if (slot && *slot)
			iov_scatter(io->iov, io->iov_count, done, *slot + at % PAGE, n);
		else
			iov_zero(io->iov, io->iov_count, done, n);
	}
	return 0;
}

static int ram_write(struct ram *r, struct blk_io *io)
{
	uint64_t n;
	for (uint64_t done = 0; done < io->length; done += n) {
		uint64_t at = io->offset + done;
		char *page = ram_page_make(r, at);
		if (!page)
			return -ENOSPC;
		n = ram_piece(io, done);
		iov_gather(io->iov, io->iov_count, done, page + at % PAGE, n);
	}
	return 0;
}

/* DISCARD and ZERO: whole pages go, parts are zeroed. */
static int ram_clear(struct ram *r, struct blk_io *io)
{
	uint64_t n;
	for (uint64_t done = 0; done < io->length; done += n) {
		uint64_t at = io->offset + done;
		if (!r->leaf[at / LEAF_BYTES]) {
			n = MIN(LEAF_BYTES - at % LEAF_BYTES, io->length - done);
			continue;
		}
		char **slot = ram_slot(r, at, /* make= */ false);
		n = ram_piece(io, done);
		if (*slot && n == PAGE) {
			free(*slot);
			*slot = NULL;
			r->pages--;
		} else if (*slot) {
			memset(*slot + at % PAGE, 0, n);
		}
	}
	return 0;
}

static int ram_map(struct ram *r, struct blk_io *io)
{
	struct blk_map *map = io->map;
	uint64_t n;
	map->count = 0;
	for (uint64_t done = 0; done < io->length; done += n) {
		uint64_t at = io->offset + done;
		char **slot = ram_slot(r, at, /* make= */ false);
		uint32_t flags = slot && *slot ? BLK_EXTENT_DATA : BLK_EXTENT_HOLE | BLK_EXTENT_ZERO;
		n = slot ? ram_piece(io, done) : MIN(LEAF_BYTES - at % LEAF_BYTES, io->length - done);
		if (map->count && map->extents[map->count - 1].flags == flags)
			map->extents[map->count - 1].length += n;
		else if (map->count < map->max)
			map->extents[map->count++] = (struct blk_extent){ n, flags };
		else
			break;
	}
	return 0;
}

static void ram_submit(struct blk_node *node, struct blk_io *io)
{
	struct ram *r = container_of(node, struct ram, node);
	switch (io->op) {
	case BLK_READ: blk_end(io, ram_read(r, io)); break;
	case BLK_WRITE: blk_end(io, ram_write(r, io)); break;
	case BLK_DISCARD:
	case BLK_ZERO: blk_end(io, ram_clear(r, io)); break;
	case BLK_MAP: blk_end(io, ram_map(r, io)); break;
	case BLK_FLUSH: blk_end(io, 0); break;
	case BLK_OP_COUNT: abort();
	}
}

static int ram_open(struct blk_node *node, const struct blk_open *how, struct report *report)
{
	struct ram *r = container_of(node, struct ram, node);
	uint64_t size = option_number(how->options, "size");
	if (size % 512)
		return report_set(report, -EINVAL, "size=%s is not a multiple of 512", option_string(how->options, "size"));
	r->leaf_count = div_up(size, LEAF_BYTES);
	r->pages_max = div_up(option_number(how->options, "memory"), PAGE);
	r->leaf = calloc(r->leaf_count, sizeof(struct leaf *));
	if (!r->leaf)
		return report_set(report, -ENOMEM, "no memory for a page table of %llu entries",
				  (unsigned long long)r->leaf_count);
	node->info = (struct blk_info){
		.size = size, .block_size = 512, .preferred_size = PAGE, .memory_align = 1, .can_discard = true,
		.can_zero = true, .can_map = true, .discard_zeroes = true, .multi_client = true,
	};
	return 0;
}

static int ram_close(struct blk_node *node)
{
	struct ram *r = container_of(node, struct ram, node);
	for (uint64_t i = 0; i < r->leaf_count; i++) {
		for (unsigned p = 0; r->leaf[i] && p < LEAF_PAGES; p++)
			free(r->leaf[i]->page[p]);
		free(r->leaf[i]);
	}
	free(r->leaf);
	return 0;
}

static void ram_describe(struct blk_node *node, void (*item)(void *arg, const char *key, uint64_t value), void *arg)
{
	const struct ram *r = container_of(node, struct ram, node);
	item(arg, "memory_bytes", r->pages * PAGE);
	item(arg, "memory_bytes_max", r->pages_max * PAGE);
}

static const struct option_spec ram_options[] = {
	{ "memory", OPTION_SIZE, .help = "bytes that may be in use; writes beyond fail with ENOSPC (default 1G)",
	  .number_default = RAM_MEMORY_DEFAULT, .number_min = PAGE },
	{ "size", OPTION_SIZE, .positional = true, .required = true, .help = "of the disk, a multiple of 512",
	  .number_min = 512, .number_max = RAM_SIZE_MAX },
	{ NULL },
};

const struct blk_driver driver_ram = {
	.name = "ram",
	.summary = "a disk in memory, gone when it closes",
	.options = ram_options,
	.node_size = sizeof(struct ram),
	.open = ram_open,
	.close = ram_close,
	.submit = ram_submit,
	.describe = ram_describe,
};
