#include "core/blk.h"

#include <errno.h>
#include <stdlib.h>

#include "core/bytes.h"
#include "core/fiber.h"

static const char *const op_names[BLK_OP_COUNT] = {
	[BLK_READ] = "read", [BLK_WRITE] = "write", [BLK_FLUSH] = "flush",
	[BLK_DISCARD] = "discard", [BLK_ZERO] = "zero", [BLK_MAP] = "map",
};

const char *blk_op_name(enum blk_op op) { return op_names[op]; }

void blk_waits_text(const struct blk_waits *w, char *ret_text, size_t bytes)
{
	unsigned kinds = 0, said = 0;
	size_t n = 0;
	for (unsigned op = 0; op < BLK_OP_COUNT; op++)
		kinds += w->requests[op] > 0;
	snprintf(ret_text, bytes, "nothing");
	for (unsigned op = 0; op < BLK_OP_COUNT && n < bytes; op++) {
		if (!w->requests[op])
			continue;
		const char *plural = w->requests[op] == 1 ? "" : op == BLK_FLUSH || op == BLK_ZERO ? "es" : "s";
		n += (size_t)snprintf(ret_text + n, bytes - n, "%s%u %s%s", said == 0 ? "" : said + 1 == kinds ? " and " : ", ", w->requests[op],
				      op_names[op], plural);
		said++;
	}
}

/* ---- opening and closing ---- */

static int frames_make(struct blk_node *n)
{
	unsigned depth = n->driver->depth ? n->driver->depth : BLK_DEFAULT_DEPTH;
	for (unsigned i = 0; n->driver->frame_size && i < depth; i++) {
		void *f = calloc(1, n->driver->frame_size);
		if (!f)
			return -ENOMEM;
		n->frames_total++;
		n->frames_free++;
		*(void **)f = n->frames;
		n->frames = f;
	}
	return 0;
}

static void node_free(struct blk_node *n)
{
	assert(n->frames_free == n->frames_total);
	while (n->frames) {
		void *f = n->frames;
		n->frames = *(void **)f;
		free(f);
	}
	free(n);
}

static int check_info(const struct blk_node *n, struct report *report)
{
	if (n->info.block_size == 0 || !is_power_of_two(n->info.block_size) || n->info.size % n->info.block_size)
		return report_set(report, -EINVAL, "%s: size %llu is not a multiple of the block size %u", n->name,
				  (unsigned long long)n->info.size, n->info.block_size);
	return 0;
}

int blk_open(struct env *env, const struct blk_driver *driver, const struct blk_open *how,
	     struct blk_node *const *children, unsigned child_count, struct blk_node **ret_node,
	     struct report *report)
{
	assert(child_count <= BLK_MAX_CHILDREN && driver->node_size >= sizeof(struct blk_node));
	struct blk_node *n = calloc(1, driver->node_size);
	if (!n)
		return -ENOMEM;
	n->driver = driver;
	n->env = env;
	n->loop = &env->loop;
	snprintf(n->name, sizeof n->name, "%s", how->node_name ? how->node_name : driver->name);
	link_init(&n->backlog);
	link_init(&n->drain_waiters);
	n->child_count = child_count;
	for (unsigned i = 0; i < child_count; i++)
		n->child[i] = children[i];
	if (child_count)
		n->info = children[0]->info;
	int r = frames_make(n);
	if (r == 0 && driver->open)
		r = driver->open(n, how, report);
	if (r == 0) {
		r = check_info(n, report);
		if (r < 0 && driver->close)
			driver->close(n);
	}
	if (r < 0) {
		node_free(n);
		return r;
	}
	n->info.read_only |= how->read_only;
	*ret_node = n;
	return 0;
}

struct drain_waiter {
	struct job job;
	struct link link;
};

int blk_close(struct blk_node *n)
{
	if (!n)
		return 0;
	while (n->counters.in_flight) {
		struct drain_waiter w;
		job_init(&w.job, n->loop);
		job_hold(&w.job);
		link_push(&n->drain_waiters, &w.link);
		fiber_wait(&w.job);
	}
	int r = n->driver->close ? n->driver->close(n) : 0;
	node_free(n);
	return r;
}

/* ---- requests ---- */

static int check_io(const struct blk_node *n, const struct blk_io *io)
{
	if (io->op == BLK_FLUSH)
		return 0;
	if (!range_within(io->offset, io->length, n->info.size))
		return io->op == BLK_READ ? -EINVAL : -ENOSPC;
	if ((io->offset | io->length) & (n->info.block_size - 1))
		return -EINVAL;
	if (n->info.read_only && (io->op == BLK_WRITE || io->op == BLK_DISCARD || io->op == BLK_ZERO))
		return -EROFS;
	if (io->op <= BLK_WRITE && n->info.max_transfer && io->length > n->info.max_transfer)
		return -EINVAL;
	return 0;
}

/* What the core answers for a driver that can't: */
static int default_answer(const struct blk_node *n, struct blk_io *io, bool *ret_ended)
{
	*ret_ended = true;
	if (io->op != BLK_FLUSH && io->length == 0)
		return 0;
	if (io->op == BLK_DISCARD && !n->info.can_discard)
		return 0;
	if (io->op == BLK_ZERO && !n->info.can_zero)
		return -ENOTSUP;
	if (io->op == BLK_MAP && !n->info.can_map) {
		io->map->extents[0] = (struct blk_extent){ io->length, BLK_EXTENT_DATA };
		io->map->count = 1;
		return 0;
	}
	*ret_ended = false;
	return 0;
}

void blk_submit(struct blk_node *n, struct blk_io *io, struct job *parent)
{
	assert(!io->busy);
	job_hold(parent);
	io->parent = parent;
	io->node = n;
	io->busy = true;
	io->status = 0;
	io->start_ns = env_now_ns(n->env);
	struct blk_counters *c = &n->counters;
	if (++c->in_flight > c->in_flight_max)
		c->in_flight_max = c->in_flight;
	bool ended = true;
	int r = check_io(n, io);
	if (r == 0)
		r = default_answer(n, io, &ended);
	if (ended) {
		blk_end(io, r);
		return;
	}
	assert(io->op > BLK_WRITE || iov_bytes(io->iov, io->iov_count) == io->length);
	if (n->driver->frame_size && (!n->frames || !link_empty(&n->backlog))) {
		link_push(&n->backlog, &io->link);
		return;
	}
	n->driver->submit(n, io);
}

void blk_end(struct blk_io *io, int status)
{
	struct blk_node *n = io->node;
	assert(io->busy);
	io->busy = false;
	io->status = status;
	struct blk_counters *c = &n->counters;
	c->requests[io->op]++;
	c->bytes[io->op] += io->op == BLK_FLUSH ? 0 : io->length;
	c->busy_ns[io->op] += env_now_ns(n->env) - io->start_ns;
	if (status)
		c->errors[io->op]++;
	c->in_flight--;
	struct job *parent = io->parent;
	job_put(parent, status);
	if (c->in_flight == 0)
		for (struct link *l; (l = link_pop(&n->drain_waiters));)
			job_put(&container_of(l, struct drain_waiter, link)->job, 0);
}

void *blk_frame_get(struct blk_node *n)
{
	void *f = n->frames;
	assert(f);
	n->frames = *(void **)f;
	n->frames_free--;
	return f;
}

void blk_frame_put(struct blk_node *n, void *frame)
{
	*(void **)frame = n->frames;
	n->frames = frame;
	n->frames_free++;
	struct link *l = link_pop(&n->backlog);
	if (l)
		n->driver->submit(n, container_of(l, struct blk_io, link));
}

/* ---- waited-for requests ---- */

static int io_wait(struct blk_node *n, struct blk_io *io)
{
	struct job j;
	job_init(&j, n->loop);
	blk_submit(n, io, &j);
	return fiber_wait(&j);
}

int blk_read_wait(struct blk_node *n, void *buffer, uint64_t length, uint64_t offset)
{
	struct iovec v = { buffer, length };
	struct blk_io io = { .op = BLK_READ, .offset = offset, .length = length, .iov = &v, .iov_count = 1 };
	return io_wait(n, &io);
}

int blk_write_wait(struct blk_node *n, const void *buffer, uint64_t length, uint64_t offset, unsigned flags)
{
	struct iovec v = { (void *)(uintptr_t)buffer, length };
	struct blk_io io = { .op = BLK_WRITE, .flags = flags, .offset = offset, .length = length, .iov = &v, .iov_count = 1 };
	return io_wait(n, &io);
}

int blk_op_wait(struct blk_node *n, enum blk_op op, uint64_t offset, uint64_t length, unsigned flags)
{
	struct blk_io io = { .op = op, .flags = flags, .offset = offset, .length = length };
	return io_wait(n, &io);
}

int blk_map_wait(struct blk_node *n, uint64_t offset, uint64_t length, struct blk_map *map)
{
	struct blk_io io = { .op = BLK_MAP, .offset = offset, .length = length, .map = map };
	map->count = 0;
	return io_wait(n, &io);
}
