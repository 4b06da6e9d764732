/* Disks of simulated hosts: one file system each, in memory, that knows what is durable.
 *
 * A file has two images: `now`, what processes read, and `durable`, what a power loss leaves,
 * with the operations in between as a log. A directory likewise has two lists of entries;
 * the changes in between are in one log per host, because a rename concerns two directories.
 *
 *     write ──▶ now, log ──(sync: those up to its submission)──▶ durable
 *                     └──(power loss: any subset, by sectors)──▶ durable ──▶ now           */
#include <errno.h>
#include <stdlib.h>
#include <string.h>

#include "core/blk.h"
#include "core/bytes.h"
#include "core/env_sim_disk.h"
#include "core/fiber.h"

static struct sim_file *file_of(struct file *f) { return container_of(f, struct sim_file, file); }

/* ---- inodes ---- */

struct inode *inode_new(struct sim_host *h, bool directory)
{
	struct inode *n = sim_alloc(sizeof *n);
	n->number = ++h->next_inode;
	n->directory = directory;
	n->host = h;
	link_init(&n->log);
	link_init(&n->lockers);
	link_push(&h->inodes, &n->link);
	return n;
}

static void log_clear(struct inode *n)
{
	for (struct link *l; (l = link_pop(&n->log));)
		free(container_of(l, struct disk_op, link));
}

void inode_drop(struct inode *n)
{
	if (--n->refs)
		return;
	n->host->disk_used -= image_used(&n->now);
	link_drop(&n->link);
	log_clear(n);
	image_free(&n->now);
	image_free(&n->durable);
	entries_free(&n->entries_now);
	entries_free(&n->entries_durable);
	free(n);
}

/* Gives back the space of a file that nobody can reach. */
void inode_release(struct inode *n)
{
	if (!n->unlinked || n->open)
		return;
	n->host->disk_used -= image_used(&n->now);
	image_free(&n->now);
}

void dir_op_free(struct dir_op *op)
{
	link_drop(&op->link);
	inode_drop(op->dir);
	inode_drop(op->inode);
	if (op->to_dir)
		inode_drop(op->to_dir);
	free(op->name);
	free(op->to_name);
	free(op);
}

void sim_disk_init(struct sim_host *h)
{
	link_init(&h->inodes);
	link_init(&h->dir_ops);
	h->root = inode_new(h, /* directory= */ true);
	h->root->refs = 1;
}

void sim_disk_destroy(struct sim_host *h)
{
	while (!link_empty(&h->dir_ops))
		dir_op_free(container_of(h->dir_ops.next, struct dir_op, link));
	inode_drop(h->root);
	assert(link_empty(&h->inodes));
}

/* ---- the log of a file ---- */

static struct disk_op *log_add(struct inode *n, enum disk_op_kind kind, uint64_t offset, uint64_t length)
{
	struct disk_op *op = sim_alloc(sizeof *op + (kind == OP_WRITE ? length : 0));
	op->kind = kind;
	op->seq = ++n->log_seq;
	op->offset = offset;
	op->length = length;
	link_push(&n->log, &op->link);
	return op;
}

static void op_apply(struct image *m, const struct disk_op *op)
{
	if (op->kind == OP_WRITE)
		image_write(m, op->offset, op->data, op->length);
	else if (op->kind == OP_PUNCH)
		image_punch(m, op->offset, op->length);
	else
		image_truncate(m, op->offset);
}

/* Each sector happens with a chance of `odds` in 256; so does a change of the size. */
static void op_apply_torn(struct sim *sim, struct image *m, const struct disk_op *op, unsigned odds)
{
	if (op->kind == OP_TRUNCATE) {
		if (sim_below(sim, 256) < odds)
			image_truncate(m, op->offset);
		return;
	}
	uint64_t end = op->offset + op->length;
	if (op->kind == OP_WRITE && end > m->size && sim_below(sim, 256) < odds)
		m->size = end;
	for (uint64_t at = op->offset, n; at < end && at < m->size; at += n) {
		n = MIN(SECTOR_BYTES - at % SECTOR_BYTES, MIN(end, m->size) - at);
		if (sim_below(sim, 256) >= odds)
			continue;
		if (op->kind == OP_WRITE)
			image_write(m, at, op->data + (at - op->offset), n);
		else
			image_punch(m, at, n);
	}
}

/* What a power loss, or a failed sync, makes of the operations up to `seq`. */
static void log_settle(struct inode *n, uint64_t seq)
{
	struct sim *sim = n->host->sim;
	unsigned manner = (unsigned)sim_below(sim, 6), odds = (unsigned)sim_below(sim, 257);
	uint64_t count = 0;
	link_for (l, &n->log)
		count++;
	uint64_t prefix = sim_below(sim, count + 1), early = count - sim_below(sim, sim_below(sim, count + 1) + 1);
	link_for_safe (l, next, &n->log) {
		struct disk_op *op = container_of(l, struct disk_op, link);
		if (op->seq > seq)
			break;
		switch (manner) {
		case 0: break;                                               /* all lost */
		case 1: op_apply(&n->durable, op); break;                    /* all kept */
		case 2: if (sim_below(sim, 256) < odds) op_apply(&n->durable, op); break; /* some */
		case 3: op_apply_torn(sim, &n->durable, op, odds); break;    /* all in any mixture */
		case 4:                                                      /* a prefix, the last one torn */
			if (prefix > 1)
				op_apply(&n->durable, op);
			else if (prefix == 1)
				op_apply_torn(sim, &n->durable, op, odds);
			prefix -= prefix > 0;
			break;
		case 5:                                                      /* only the last ones, often few */
			if (early == 0)
				op_apply(&n->durable, op);
			early -= early > 0;
			break;
		}
		link_drop(l);
		free(op);
	}
}

/* ---- writing ---- */

static void used_change(struct inode *n, uint64_t before) { n->host->disk_used += image_used(&n->now) - before; }

static void rest_flip(struct inode *n, struct disk_op *op)
{
	struct sim *sim = n->host->sim;
	uint32_t own = n->now.size > CHUNK_BYTES ? n->host->rest_flip : 0;
	if (op->length == 0 || !sim_happens(sim, SIM_REST_FLIP, sim->doses.rest_flip + own))
		return;
	op->data[sim_below(sim, op->length)] ^= (uint8_t)(1u << sim_below(sim, 8));
}

uint64_t sim_disk_left(const struct sim_host *h) { return h->disk_bytes - MIN(h->disk_used + h->disk_others, h->disk_bytes); }

void sim_host_fill(struct sim_host *h, uint64_t left_bytes)
{
	h->disk_others = 0;
	uint64_t left = sim_disk_left(h);
	h->disk_others = left - MIN(left, left_bytes);
}

/* Writes the first `length` bytes of the request. */
static int write_happens(struct inode *n, const struct file_io *io, uint64_t length)
{
	struct sim_host *h = n->host;
	int status = 0;
	uint64_t needs = image_needs(&n->now, io->offset, length), before = 0;
	if (needs > sim_disk_left(h)) {
		status = -ENOSPC;
		sim_fault(h->sim, SIM_NO_SPACE);
		for (length = round_down(sim_below(h->sim, length), SECTOR_BYTES);
		     length && image_needs(&n->now, io->offset, length) > sim_disk_left(h);)
			length = round_down(length / 2, SECTOR_BYTES);
	}
	if (length == 0)
		return status;
	uint64_t offset = io->offset;
	if (n->now.size > length && sim_happens(h->sim, SIM_MISDIRECT, h->sim->doses.misdirect + h->misdirect))
		offset = round_down(sim_below(h->sim, n->now.size - length), h->io_align);
	struct disk_op *op = log_add(n, OP_WRITE, offset, length);
	iov_gather(io->iov, io->iov_count, 0, op->data, length);
	rest_flip(n, op);
	if (offset == io->offset) {
		h->disk_used += image_needs(&n->now, offset, length);
		op_apply(&n->now, op);
	} else {
		before = image_used(&n->now);
		op_apply(&n->now, op);
		used_change(n, before);
	}
	return status;
}

static void punch_happens(struct inode *n, const struct file_io *io, bool keep_space)
{
	uint64_t end = MIN(io->offset + io->length, n->now.size);
	if (io->offset >= end)
		return;
	uint64_t before = image_used(&n->now);
	struct disk_op *op = log_add(n, OP_PUNCH, io->offset, end - io->offset);
	op_apply(&n->now, op);
	if (keep_space)
		image_reserve(&n->now, io->offset, end - io->offset);
	used_change(n, before);
}

static int allocate_happens(struct inode *n, const struct file_io *io)
{
	struct sim_host *h = n->host;
	uint64_t needs = image_needs(&n->now, io->offset, io->length);
	if (needs > sim_disk_left(h))
		return -ENOSPC;
	image_reserve(&n->now, io->offset, io->length);
	h->disk_used += needs;
	return 0;
}

static void truncate_happens(struct inode *n, uint64_t size)
{
	uint64_t before = image_used(&n->now);
	op_apply(&n->now, log_add(n, OP_TRUNCATE, size, 0));
	used_change(n, before);
}

/* ---- syncing ---- */

static void sync_happens(struct inode *n, uint64_t seq)
{
	/* With nothing left unsynced the two images are the same bytes: keep one copy. */
	bool share = n->log_seq <= seq && !n->diverged;
	link_for_safe (l, next, &n->log) {
		struct disk_op *op = container_of(l, struct disk_op, link);
		if (op->seq > seq)
			return;
		link_drop(l);
		if (share && op->kind != OP_TRUNCATE)
			image_share_range(&n->durable, &n->now, op->offset, op->length);
		else
			op_apply(&n->durable, op);
		free(op);
	}
	if (share)
		n->durable.size = n->now.size;
}

/* The kernel drops what it could not write. It may stay readable, but no sync covers it again. */
static void sync_fails(struct inode *n)
{
	struct sim *sim = n->host->sim;
	n->host->syncs_failed++;
	if (n->failing)
		return; /* what was written since didn't happen */
	n->failing = sim->doses.sync_error_stays && sim_chance(sim, sim->doses.sync_error_stays);
	log_settle(n, UINT64_MAX); /* also what was written since it was submitted */
	n->diverged = sim_random(sim) & 1;
	if (n->diverged)
		return;
	uint64_t before = image_used(&n->now);
	image_share(&n->now, &n->durable);
	link_for (l, &n->log)
		op_apply(&n->now, container_of(l, struct disk_op, link));
	used_change(n, before);
}

/* ---- file I/O ---- */

struct disk_event {
	struct sim_event event;
	struct sim_file *file;
	struct file_io *io;
	uint64_t seq; /* SYNC: covers operations up to this */
};

static void io_end(struct disk_event *de, int status)
{
	struct file_io *io = de->io;
	de->file->under_way--;
	free(de);
	io->status = status;
	job_put(io->parent, status);
}

static int read_happens(struct inode *n, struct file_io *io)
{
	struct sim *sim = n->host->sim;
	if (sim_happens(sim, SIM_READ_ERROR, sim->doses.read_error))
		return -EIO;
	io->done = io->offset >= n->now.size ? 0 : MIN(io->length, n->now.size - io->offset);
	if (io->done == 0)
		return 0;
	uint8_t *bytes = sim_alloc(io->done);
	image_read(&n->now, io->offset, bytes, io->done);
	if (sim_happens(sim, SIM_READ_FLIP, sim->doses.read_flip))
		bytes[sim_below(sim, io->done)] ^= (uint8_t)(1u << sim_below(sim, 8));
	iov_scatter(io->iov, io->iov_count, 0, bytes, io->done);
	free(bytes);
	return 0;
}

static int io_happens(struct disk_event *de)
{
	struct inode *n = de->file->inode;
	struct sim *sim = n->host->sim;
	struct file_io *io = de->io;
	bool fails = io->op != FILE_READ && io->op != FILE_SYNC && (n->failing || sim_happens(sim, SIM_WRITE_ERROR, sim->doses.write_error));
	switch (io->op) {
	case FILE_READ:
		return read_happens(n, io);
	case FILE_WRITE:
		if (fails && n->failing)
			return -EIO;
		if (fails) {
			write_happens(n, io, round_down(sim_below(sim, io->length + 1), SECTOR_BYTES));
			return -EIO;
		}
		return write_happens(n, io, io->length);
	case FILE_SYNC:
		if (n->failing || sim_happens(sim, SIM_SYNC_ERROR, sim->doses.sync_error)) {
			sync_fails(n);
			return -EIO;
		}
		sync_happens(n, de->seq);
		return 0;
	case FILE_DISCARD:
		if (n->host->no_holes)
			return -EOPNOTSUPP;
		/* fall through */
	case FILE_ZERO:
		if (!fails)
			punch_happens(n, io, io->op == FILE_ZERO);
		return fails ? -EIO : 0;
	case FILE_ALLOCATE:
		return fails ? -EIO : allocate_happens(n, io);
	case FILE_TRUNCATE:
		if (!fails)
			truncate_happens(n, io->offset);
		return fails ? -EIO : 0;
	}
	return -EINVAL;
}

static void disk_fire(struct sim_event *e)
{
	struct disk_event *de = container_of(e, struct disk_event, event);
	sim_trace(e->owner->sim, e->owner, "disk", (uint64_t)de->io->op << 32 | de->file->inode->number, de->io->offset);
	io_end(de, io_happens(de));
}

static void disk_kill(struct sim_event *e)
{
	struct disk_event *de = container_of(e, struct disk_event, event);
	struct sim *sim = e->owner->sim;
	uint64_t how = sim_below(sim, 3);
	if (de->io->op == FILE_WRITE && how == 2)
		write_happens(de->file->inode, de->io,
			      round_down(sim_below(sim, de->io->length + 1), SECTOR_BYTES));
	else if (de->io->op != FILE_READ && how == 1)
		io_happens(de);
	io_end(de, -ESHUTDOWN);
}

/* What the kernel refuses at once. */
static int io_check(const struct sim_file *f, const struct file_io *io)
{
	bool reads = io->op == FILE_READ, moves = reads || io->op == FILE_WRITE;
	if (f->process->env.dead)
		return -ESHUTDOWN;
	if (!reads && io->op != FILE_SYNC && !f->writable)
		return -EBADF;
	if (io->offset + io->length < io->offset || io->offset + io->length > INT64_MAX)
		return -EFBIG;
	if (moves && iov_bytes(io->iov, io->iov_count) != io->length)
		return -EINVAL;
	if (!moves || !f->direct)
		return 0;
	if ((io->offset | io->length) % f->inode->host->io_align ||
	    !iov_aligned(io->iov, io->iov_count, SECTOR_BYTES, SECTOR_BYTES))
		return -EINVAL;
	return 0;
}

void sim_file_submit(struct file *file, struct file_io *io, struct job *parent)
{
	struct sim_file *f = file_of(file);
	struct sim *sim = f->process->sim;
	io->done = 0;
	int r = io_check(f, io);
	if (r < 0) {
		io->status = r;
		job_put(parent, r);
		return;
	}
	struct disk_event *de = sim_alloc(sizeof *de);
	de->event = (struct sim_event){ .name = "disk done", .fire = disk_fire, .kill = disk_kill };
	de->file = f;
	de->io = io;
	de->seq = f->inode->log_seq;
	f->under_way++;
	sim_event_add(sim, &de->event, f->process, sim_latency(sim, sim->doses.disk_ns, 200000));
}

/* ---- open files ---- */

static int open_happens(struct sim_process *p, const char *path, int flags, struct inode **ret_inode)
{
	struct inode *dir;
	char name[256];
	int r = path_parent(p->host, path, &dir, name);
	if (r < 0)
		return r;
	struct inode *n = name[0] ? entries_get(&dir->entries_now, name) : dir;
	if (!n && !(flags & FILE_OPEN_CREATE))
		return -ENOENT;
	if (n && flags & FILE_OPEN_CREATE && flags & FILE_OPEN_NEW)
		return -EEXIST;
	if (n && n->directory)
		return -EISDIR;
	if (!n) {
		n = inode_new(p->host, /* directory= */ false);
		dir_link(p->host, dir, name, n);
	}
	n->refs++;
	n->open++;
	*ret_inode = n;
	return 0;
}

static void inode_close(struct inode *n)
{
	if (--n->open == 0)
		n->failing = false;
	inode_release(n);
	inode_drop(n);
}

int sim_file_open(struct env *env, const char *path, int flags, struct file **ret_file)
{
	struct call c;
	struct inode *n = NULL;
	int r = sim_call_begin(&c, env);
	if (r < 0)
		return r;
	r = sim_call_end(&c, open_happens(c.process, path, flags, &n));
	if (r < 0) {
		if (n)
			inode_close(n);
		return r;
	}
	struct sim_file *f = sim_alloc(sizeof *f);
	f->file.env = env;
	f->process = c.process;
	f->inode = n;
	f->writable = flags & FILE_OPEN_WRITE;
	f->direct = flags & FILE_OPEN_DIRECT;
	link_init(&f->lock_link);
	link_push(&f->process->files, &f->link);
	*ret_file = &f->file;
	return 0;
}

int sim_file_close(struct env *env, struct file *file)
{
	struct sim_file *f = file_of(file);
	assert(f->under_way == 0 && file->env == env);
	link_drop(&f->lock_link);
	link_drop(&f->link);
	inode_close(f->inode);
	free(f);
	return env->dead ? -ESHUTDOWN : 0;
}

int sim_file_stat(struct file *file, struct file_info *ret_info)
{
	struct sim_file *f = file_of(file);
	int r = sim_call_wait(f->process);
	if (r < 0)
		return r;
	*ret_info = (struct file_info){
		.size = f->inode->now.size,
		.allocated = image_used(&f->inode->now),
		.io_align = f->direct ? f->inode->host->io_align : 1,
		.memory_align = f->direct ? SECTOR_BYTES : 1,
		.direct = f->direct,
		.device = 1,
		.inode = f->inode->number,
	};
	return 0;
}

int sim_file_lock(struct file *file, bool exclusive)
{
	struct sim_file *f = file_of(file);
	int r = sim_call_wait(f->process);
	if (r < 0)
		return r;
	link_for (l, &f->inode->lockers) {
		const struct sim_file *other = container_of(l, struct sim_file, lock_link);
		if (other != f && (exclusive || other->exclusive))
			return -EAGAIN;
	}
	link_drop(&f->lock_link);
	link_push(&f->inode->lockers, &f->lock_link);
	f->exclusive = exclusive;
	return 0;
}

int sim_file_map(struct file *file, uint64_t offset, uint64_t length, uint64_t *ret_length, bool *ret_data)
{
	struct sim_file *f = file_of(file);
	int r = sim_call_wait(f->process);
	if (r < 0)
		return r;
	const struct image *m = &f->inode->now;
	uint64_t at = offset, end = offset + length;
	bool data = offset >= m->size || image_has_data(m, offset);
	do {
		at = MIN(end, round_down(at, CHUNK_BYTES) + CHUNK_BYTES);
	} while (at < end && (at >= m->size || image_has_data(m, at)) == data);
	if (!data)
		at = MIN(at, m->size);
	*ret_length = at - offset;
	*ret_data = data;
	return 0;
}

/* ---- faults ---- */

void sim_disk_process_died(struct sim_process *p)
{
	link_for (l, &p->files)
		link_drop(&container_of(l, struct sim_file, link)->lock_link);
}

static void dir_ops_settle(struct sim_host *h)
{
	struct sim *sim = h->sim;
	unsigned manner = (unsigned)sim_below(sim, 4);
	bool prefix_over = false;
	link_for (l, &h->dir_ops) {
		bool coin = sim_random(sim) & 1;
		prefix_over |= sim_below(sim, 4) == 0;
		container_of(l, struct dir_op, link)->chosen =
			manner == 1 || (manner == 2 && coin) || (manner == 3 && !prefix_over);
	}
	dir_ops_apply(h);
	while (!link_empty(&h->dir_ops))
		dir_op_free(container_of(h->dir_ops.next, struct dir_op, link));
}

void sim_disk_power_loss(struct sim_host *h)
{
	dir_ops_settle(h);
	link_for (l, &h->inodes) {
		struct inode *n = container_of(l, struct inode, link);
		log_settle(n, UINT64_MAX);
		image_share(&n->now, &n->durable);
		n->diverged = n->unlinked = false;
		n->refs++; /* so that none goes while the entries change */
	}
	link_for (l, &h->inodes) {
		struct inode *n = container_of(l, struct inode, link);
		entries_copy(&n->entries_now, &n->entries_durable);
	}
	h->disk_used = 0;
	link_for (l, &h->inodes)
		h->disk_used += image_used(&container_of(l, struct inode, link)->now);
	struct link held; /* dropping one may free others, so from a list of its own */
	link_init(&held);
	link_splice(&held, &h->inodes);
	while (!link_empty(&held)) {
		struct link *l = link_pop(&held);
		link_push(&h->inodes, l);
		inode_drop(container_of(l, struct inode, link));
	}
}

/* ---- damage and inspection by tests ---- */

int sim_disk_flip(struct sim_host *host, const char *path, uint64_t offset, uint8_t mask)
{
	struct inode *n;
	int r = path_find(host, path, &n);
	if (r < 0)
		return r;
	if (offset >= n->now.size)
		return -EINVAL;
	uint8_t byte;
	image_read(&n->now, offset, &byte, 1);
	byte ^= mask;
	image_write(&n->now, offset, &byte, 1);
	if (offset < n->durable.size) {
		image_read(&n->durable, offset, &byte, 1);
		byte ^= mask;
		image_write(&n->durable, offset, &byte, 1);
	}
	return 0;
}

int sim_disk_read(struct sim_host *host, const char *path, uint64_t offset, void *buffer, size_t length)
{
	struct inode *n;
	int r = path_find(host, path, &n);
	if (r < 0)
		return r;
	if (!range_within(offset, length, n->now.size))
		return -EINVAL;
	image_read(&n->now, offset, buffer, length);
	return 0;
}

int sim_disk_write(struct sim_host *host, const char *path, uint64_t offset, const void *bytes, size_t length)
{
	struct inode *n, *dir;
	char name[256];
	int r = path_find(host, path, &n);
	if (r == -ENOENT) {
		r = path_parent(host, path, &dir, name);
		if (r < 0)
			return r;
		n = inode_new(host, /* directory= */ false);
		entries_put(&dir->entries_now, name, n);
		entries_put(&dir->entries_durable, name, n);
	}
	if (r < 0)
		return r;
	uint64_t before = image_used(&n->now);
	image_write(&n->now, offset, bytes, length);
	image_write(&n->durable, offset, bytes, length);
	used_change(n, before);
	return 0;
}

int sim_disk_remove(struct sim_host *host, const char *path)
{
	struct inode *dir;
	char name[256];
	int r = path_parent(host, path, &dir, name);
	if (r < 0)
		return r;
	if (!entries_get(&dir->entries_now, name))
		return -ENOENT;
	entries_remove(&dir->entries_now, name);
	entries_remove(&dir->entries_durable, name);
	return 0;
}

void sim_host_no_holes(struct sim_host *host) { host->no_holes = true; }

void sim_host_damages(struct sim_host *host, uint32_t misdirect, uint32_t rest_flip)
{
	host->misdirect = misdirect;
	host->rest_flip = rest_flip;
}

uint64_t sim_disk_used(const struct sim_host *host) { return host->disk_used; }
uint64_t sim_disk_syncs_failed(const struct sim_host *host) { return host->syncs_failed; }
