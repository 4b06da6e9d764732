#include "parallax/segment_reader.h"

#include <errno.h>
#include <inttypes.h>
#include <stdio.h>
#include <stdlib.h>

#include "core/blk.h"
#include "core/bytes.h"
#include "core/fiber.h"
#include "parallax/segment_dir.h"

enum { FILES_MAX = 128 };

struct reader_file {
	uint64_t segment;
	struct file *file;
	unsigned users;
	uint64_t used;   /* of the reader's clock, for the least recently used */
};

struct reader {
	struct segment_server server;
	char path[DIR_PATH_MAX];
	struct reader_file files[FILES_MAX];
	unsigned count, under_way;
	uint64_t clock;
};

struct reader_frame {
	struct job job;
	struct reader *reader;
	struct segment_io *io;
	struct reader_file *file;
	struct file_io file_io;
};

static struct reader_file *find(struct reader *d, uint64_t segment)
{
	for (unsigned i = 0; i < d->count; i++)
		if (d->files[i].segment == segment && d->files[i].file)
			return &d->files[i];
	return NULL;
}

/* A place for one more: a fresh one, or the least recently used that is idle; NULL: all are busy. */
static struct reader_file *place(struct reader *d)
{
	if (d->count < FILES_MAX)
		return &d->files[d->count++];
	struct reader_file *oldest = NULL;
	for (unsigned i = 0; i < d->count; i++)
		if (d->files[i].users == 0 && (!oldest || d->files[i].used < oldest->used))
			oldest = &d->files[i];
	return oldest;
}

static void frame_end(struct reader_frame *f, int status)
{
	if (f->file)
		f->file->users--;
	f->reader->under_way--;
	f->io->status = status;
	job_put(f->io->parent, status);
	free(f);
}

static void read_done(struct job *j)
{
	struct reader_frame *f = container_of(j, struct reader_frame, job);
	int status = j->status;
	if (status == 0 && f->file_io.done != f->file_io.length)
		status = -EIO;
	frame_end(f, status);
}

static void read_start(struct reader_frame *f)
{
	struct segment_io *io = f->io;
	f->file->users++;
	f->file->used = ++f->reader->clock;
	f->file_io = (struct file_io){ .op = FILE_READ, .offset = COPY_BASE + (uint64_t)io->block * BLOCK_BYTES,
				       .length = (uint64_t)io->blocks * BLOCK_BYTES, .iov = io->iov, .iov_count = io->iov_count };
	job_init(&f->job, &f->reader->server.env->loop);
	file_submit(f->file->file, &f->file_io, &f->job);
	job_then(&f->job, read_done);
}

static int open_then_read(void *arg)
{
	struct reader_frame *f = arg;
	struct reader *d = f->reader;
	char path[DIR_PATH_MAX + 64];
	struct file *file = NULL;
	snprintf(path, sizeof path, "%s/segments/%02x/%012" PRIx64 ".seg", d->path, (unsigned)(f->io->segment & 0xff), f->io->segment);
	int r = file_open(d->server.env, path, FILE_OPEN_DIRECT, &file);
	if (r == 0 && (f->file = find(d, f->io->segment))) { /* somebody else opened it meanwhile */
		file_close(d->server.env, file);
	} else if (r == 0) {
		struct reader_file *at = place(d);
		if (!at) {
			file_close(d->server.env, file);
			frame_end(f, -EMFILE);
			return 0;
		}
		struct file *old = at->file;
		*at = (struct reader_file){ .segment = f->io->segment, .file = file };
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

static void reader_submit(struct segment_server *s, struct segment_io *io)
{
	struct reader *d = container_of(s, struct reader, server);
	struct reader_frame *f = io->op == SEGMENT_READ ? calloc(1, sizeof *f) : NULL;
	if (!f) {
		job_put(io->parent, io->op == SEGMENT_READ ? -ENOMEM : -EROFS);
		return;
	}
	f->reader = d;
	f->io = io;
	d->under_way++;
	struct reader_file *file = find(d, io->segment);
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
	for (unsigned i = 0; i < d->count; i++)
		file_close(s->env, d->files[i].file);
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
	snprintf(d->path, sizeof d->path, "%s", path);
	*ret_server = &d->server;
	return 0;
}
