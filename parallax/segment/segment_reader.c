#include "parallax/segment/segment_reader.h"

#include <errno.h>
#include <inttypes.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>

#include "core/blk.h"
#include "core/bytes.h"
#include "core/fiber.h"
#include "parallax/segment/segment_dir.h"

enum { FILES_MAX = SEGMENT_READER_SETS * SEGMENT_READER_WAYS };

struct reader_file {
	uint64_t segment;       /* 0: it has another file by now; this one goes when its place is needed */
	struct file *file;
	struct copy_map *map;   /* packed */
	unsigned users;
	uint64_t used;   /* of the reader's clock, for the least recently used */
};

struct reader {
	struct segment_server server;
	char path[DIR_PATH_MAX];
	struct reader_file files[FILES_MAX]; /* the sets, one after the other */
	unsigned under_way;
	struct link waiting;   /* frames for which all files of their set are busy, in order */
	uint64_t clock;
};

struct reader_frame {
	struct job job;
	struct reader *reader;
	struct segment_io *io;
	struct reader_file *file;
	struct file_io file_io;
	struct link link;
};

static struct reader_file *set_of(struct reader *d, uint64_t segment)
{
	return &d->files[segment % SEGMENT_READER_SETS * SEGMENT_READER_WAYS];
}

static struct reader_file *find(struct reader *d, uint64_t segment)
{
	struct reader_file *set = set_of(d, segment);
	for (unsigned i = 0; i < SEGMENT_READER_WAYS; i++)
		if (set[i].segment == segment && set[i].file)
			return &set[i];
	return NULL;
}

/* Of `count` files an empty place, or (also if `filled`) the least recently used that is idle; NULL: all are busy. */
static struct reader_file *oldest_idle(struct reader_file *files, unsigned count, bool filled)
{
	struct reader_file *oldest = NULL;
	for (unsigned i = 0; i < count; i++) {
		struct reader_file *f = &files[i];
		if (!f->file && !filled)
			return f;
		if (f->file && f->users == 0 && (!oldest || f->used < oldest->used))
			oldest = f;
	}
	return oldest;
}

/* FIBER. When the process has no descriptors left: one that is idle is closed. False: there is none. */
static bool close_one(struct reader *d)
{
	struct reader_file *f = oldest_idle(d->files, FILES_MAX, /* filled= */ true);
	if (!f)
		return false;
	struct file *file = f->file;
	free(f->map);
	*f = (struct reader_file){ 0 };
	file_close(d->server.env, file);
	return true;
}

static int open_then_read(void *arg);

/* Its file may be idle now: the next one that waits for one tries again. */
static void frame_end(struct reader_frame *f, int status)
{
	struct reader *d = f->reader;
	if (f->file)
		f->file->users--;
	d->under_way--;
	f->io->status = status;
	job_put(f->io->parent, status);
	free(f);
	struct link *next = link_pop(&d->waiting);
	if (!next)
		return;
	f = container_of(next, struct reader_frame, link);
	if (fiber_start(&d->server.env->loop, open_then_read, f, NULL) < 0)
		frame_end(f, -ENOMEM);
}

static void read_done(struct job *j)
{
	struct reader_frame *f = container_of(j, struct reader_frame, job);
	int status = j->status;
	if (status == 0 && f->file_io.done != f->file_io.length)
		status = -EBADMSG; /* it was packed, and this was its old file: asked again, we look for the new one */
	frame_end(f, status);
}

static void read_start(struct reader_frame *f)
{
	struct segment_io *io = f->io;
	f->file->users++;
	f->file->used = ++f->reader->clock;
	uint64_t offset = COPY_BASE + (uint64_t)io->block * BLOCK_BYTES;
	int r = f->file->map ? copy_map_find(f->file->map, io->block, io->blocks, &offset) : 0;
	if (r < 0) {
		frame_end(f, r);
		return;
	}
	f->file_io = (struct file_io){ .op = FILE_READ, .offset = offset,
				       .length = (uint64_t)io->blocks * BLOCK_BYTES, .iov = io->iov, .iov_count = io->iov_count };
	job_init(&f->job, &f->reader->server.env->loop);
	file_submit(f->file->file, &f->file_io, &f->job);
	job_then(&f->job, read_done);
}

/* FIBER. */
static int open_file(struct reader *d, const char *path, struct file **ret_file)
{
	int r;
	do
		r = file_open(d->server.env, path, FILE_OPEN_DIRECT, ret_file);
	while ((r == -EMFILE || r == -ENFILE) && close_one(d));
	return r;
}

/* Is it packed? -EBADMSG: its place can't be known. */
static int map_read(struct file *file, uint64_t segment, struct copy_map **ret_map)
{
	uint8_t *block = env_alloc_aligned(BLOCK_BYTES);
	struct copy_map *m = malloc(sizeof *m);
	size_t done = 0;
	int r = block && m ? file_read_wait(file, block, BLOCK_BYTES, MAP_BASE, &done) : -ENOMEM;
	if (r == 0)
		r = done == BLOCK_BYTES ? copy_map_decode(block, segment, m) : -EBADMSG;
	free(block);
	*ret_map = r == 0 ? m : NULL;
	if (r != 0)
		free(m);
	return r == -ENODATA ? 0 : r;
}

static int open_then_read(void *arg)
{
	struct reader_frame *f = arg;
	struct reader *d = f->reader;
	char path[DIR_PATH_MAX + 64];
	struct file *file = NULL;
	struct copy_map *map = NULL;
	snprintf(path, sizeof path, "%s/segments/%02x/%012" PRIx64 ".seg", d->path, (unsigned)(f->io->segment & 0xff), f->io->segment);
	int r = open_file(d, path, &file);
	if (r == 0 && (r = map_read(file, f->io->segment, &map)) < 0)
		file_close(d->server.env, file);
	if (r == 0 && (f->file = find(d, f->io->segment))) { /* somebody else opened it meanwhile */
		free(map);
		file_close(d->server.env, file);
	} else if (r == 0) {
		struct reader_file *at = oldest_idle(set_of(d, f->io->segment), SEGMENT_READER_WAYS, /* filled= */ false);
		if (!at) {
			free(map);
			file_close(d->server.env, file);
			link_push(&d->waiting, &f->link);
			return 0;
		}
		struct file *old = at->file;
		free(at->map);
		*at = (struct reader_file){ .segment = f->io->segment, .file = file, .map = map };
		f->file = at;
		read_start(f);
		file_close(d->server.env, old);
		return 0;
	}
	if (r < 0)
		frame_end(f, r);
	else
		read_start(f);
	return 0;
}

/* ---- what a copy's file says of itself ---- */

/* The newest slot, and the newest bitmap that isn't torn. -EBADMSG: neither slot can be read, or, unless `last`, the owner is writing them. One that
 * a power loss tore stays so until the owner writes another; it was never answered. */
static int slots_judge(const uint8_t *slots, uint64_t segment, bool last, struct copy_slot *ret, uint8_t *ret_bits)
{
	uint64_t newest = 0, bits_of = 0;
	bool torn = false;
	memset(ret_bits, 0, BITMAP_BYTES);
	for (unsigned i = 0; i < SLOT_COUNT; i++) {
		struct copy_slot s;
		int r = copy_slot_decode(slots + (size_t)i * BLOCK_BYTES, &s);
		if (r == -EPROTONOSUPPORT)
			return r;
		if (r < 0 || s.header.segment != segment)
			continue;
		if (s.generation >= bits_of && copy_slot_trim(slots + (size_t)i * BLOCK_BYTES, &s, ret_bits))
			bits_of = s.generation;
		else
			torn |= s.trimmed > 0 && s.generation > bits_of;
		if (s.generation > newest)
			*ret = s;
		newest = MAX(newest, s.generation);
	}
	return newest == 0 || (torn && !last) ? -EBADMSG : 0;
}

static void stat_fill(struct segment_io *io, const struct copy_slot *s, uint8_t *bits)
{
	io->sealed = s->sealed;
	io->state = s->broken ? COPY_BROKEN : s->sealed ? COPY_WHOLE : COPY_DOUBTFUL;
	io->length = s->sealed ? s->length : 0;
	io->last_crc = s->sealed ? s->prev : 0;
	io->last_seq = s->sealed ? s->last_seq : 0;
	io->fenced_epoch = s->fenced_epoch;
	io->trimmed = 0;
	for (uint32_t b = s->sealed ? s->length : s->header.size_blocks; b < BITMAP_BYTES * 8; b++)
		bits[b / 8] &= (uint8_t)~(1u << b % 8); /* what is beyond the cut doesn't count */
	for (uint32_t i = 0; i < BITMAP_BYTES; i++)
		io->trimmed += (uint32_t)__builtin_popcount(bits[i]);
	if (io->free_bits)
		memcpy(io->free_bits, bits, BITMAP_BYTES);
}

/* FIBER. */
static int stat_run(void *arg)
{
	struct reader_frame *f = arg;
	struct reader *d = f->reader;
	struct env *env = d->server.env;
	char path[DIR_PATH_MAX + 64];
	struct file *file = NULL;
	struct copy_slot slot = { 0 };
	uint8_t bits[BITMAP_BYTES], *slots = env_alloc_aligned(SLOT_COUNT * BLOCK_BYTES);
	snprintf(path, sizeof path, "%s/segments/%02x/%012" PRIx64 ".seg", d->path, (unsigned)(f->io->segment & 0xff), f->io->segment);
	int r = slots ? open_file(d, path, &file) : -ENOMEM;
	f->io->state = COPY_ABSENT;
	if (r == 0) {
		r = -EBADMSG;
		for (int try = 0; try < 3 && r == -EBADMSG; try++) { /* its owner may be writing one */
			size_t done = 0;
			r = file_read_wait(file, slots, SLOT_COUNT * BLOCK_BYTES, 0, &done);
			if (r == 0)
				r = done == SLOT_COUNT * BLOCK_BYTES ? slots_judge(slots, f->io->segment, /* last= */ try == 2, &slot, bits) : -EBADMSG;
		}
		file_close(env, file);
	}
	if (r == 0)
		stat_fill(f->io, &slot, bits);
	else if (r == -EBADMSG)
		f->io->state = COPY_BROKEN;
	free(slots);
	frame_end(f, r == -ENOENT || r == -ENOTDIR || r == -EBADMSG ? 0 : r);
	return 0;
}

static void reader_submit(struct segment_server *s, struct segment_io *io)
{
	struct reader *d = container_of(s, struct reader, server);
	bool known = io->op == SEGMENT_READ || io->op == SEGMENT_STAT;
	struct reader_frame *f = known ? calloc(1, sizeof *f) : NULL;
	if (!f) {
		io->status = known ? -ENOMEM : -EROFS;
		job_put(io->parent, io->status);
		return;
	}
	f->reader = d;
	f->io = io;
	d->under_way++;
	if (io->op == SEGMENT_STAT) {
		if (fiber_start(&s->env->loop, stat_run, f, NULL) < 0)
			frame_end(f, -ENOMEM);
		return;
	}
	struct reader_file *file = find(d, io->segment);
	if (file && io->again) {
		file->segment = 0;
		file = NULL;
	}
	if (file) {
		f->file = file;
		read_start(f);
	} else if (fiber_start(&s->env->loop, open_then_read, f, NULL) < 0) {
		frame_end(f, -ENOMEM);
	}
}

static int reader_close(struct segment_server *s)
{
	struct reader *d = container_of(s, struct reader, server);
	assert(d->under_way == 0);
	for (unsigned i = 0; i < FILES_MAX; i++) {
		free(d->files[i].map);
		file_close(s->env, d->files[i].file);
	}
	free(d);
	return 0;
}

static const struct segment_server_ops reader_ops = { .submit = reader_submit, .close = reader_close };

int segment_reader_open(struct env *env, const char *path, struct segment_server **ret_server)
{
	struct reader *d = calloc(1, sizeof *d);
	if (!d)
		return -ENOMEM;
	d->server = (struct segment_server){ .ops = &reader_ops, .env = env };
	link_init(&d->waiting);
	snprintf(d->path, sizeof d->path, "%s", path);
	*ret_server = &d->server;
	return 0;
}
