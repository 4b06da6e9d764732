/* A local data directory as a segment server: opening and closing it, the table of copies in
 * memory, and where each operation goes. Rules R6–R9, R32, R34, R35 of store.md.
 *
 *   segment_dir_server.c   who it is, incarnations, what copies are worth after a start
 *   segment_dir_copy.c     a copy's slots, state, loading
 *   segment_dir_io.c       read, append, sync: jobs
 *   segment_dir_ahead.c    space ahead of the appends
 *   segment_dir_control.c  create, fence, stat, seal, repair, delete: fibers
 *   segment_dir_trim.c     what is free of a copy, and holes for it
 *   segment_dir_pack.c     sparse copies get smaller files
 *   segment_dir_share.c    what other servers are told of copies
 *   segment_dir_install.c  copies made from theirs
 *   segment_dir_rewrite.c  writing again what may not be durable
 *   segment_dir_pool.c     recycled files
 *   segment_dir_late.c     what is given back to the file system only a while later
 *   segment_scan.c         how long an unsealed copy is
 *
 * Nothing is scanned at the start; a copy is opened and looked at when it is first asked for,
 * and forgotten when it is idle, so 100,000 segments cost nothing. A killed process loses
 * nothing it answered; a power loss leaves what was synced, and the unsealed copies doubtful. */
#include <errno.h>
#include <inttypes.h>
#include <stdarg.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>

#include "core/array.h"
#include "core/bytes.h"
#include "parallax/segment/segment_dir.h"

#define LOCK_TRIES 3

void dir_path(const struct segment_dir *d, char ret_path[DIR_PATH_MAX], const char *format, ...)
{
	int n = snprintf(ret_path, DIR_PATH_MAX, "%s/", d->path);
	va_list args;
	va_start(args, format);
	vsnprintf(ret_path + n, (size_t)(DIR_PATH_MAX - n), format, args);
	va_end(args);
}

/* ---- the table ---- */

static struct link *table_bucket(struct segment_dir *d, uint64_t id)
{
	return &d->table[(id * UINT64_C(0x9E3779B97F4A7C15)) >> 54];
}

static struct copy *copy_new(struct segment_dir *d, uint64_t id)
{
	struct copy *c = calloc(1, sizeof *c);
	if (!c)
		return NULL;
	c->dir = d;
	c->id = id;
	fiber_mutex_init(&c->mutex);
	fiber_mutex_init(&c->slot_mutex);
	fiber_cond_init(&c->idle);
	link_init(&c->appends);
	link_init(&c->syncs);
	link_init(&c->waiting);
	link_init(&c->stalled);
	link_init(&c->open);
	link_init(&c->late);
	link_push(table_bucket(d, id), &c->hash);
	link_push(&d->lru, &c->lru);
	d->copies++;
	return c;
}

static void copy_free(struct copy *c)
{
	link_drop(&c->hash);
	link_drop(&c->lru);
	c->dir->copies--;
	copy_late_forget(c);
	copy_trim_forget(c);
	free(c->crcs);
	free(c);
}

struct copy *copy_hold(struct segment_dir *d, uint64_t id)
{
	struct copy *c = NULL;
	link_for (l, table_bucket(d, id))
		if (container_of(l, struct copy, hash)->id == id)
			c = container_of(l, struct copy, hash);
	if (!c)
		c = copy_new(d, id);
	if (!c)
		return NULL;
	c->users++;
	if (c->lru.next != &d->lru) {
		link_drop(&c->lru);
		link_push(&d->lru, &c->lru);
	}
	if (c->file) {
		link_drop(&c->open);
		link_push(&d->open, &c->open);
	}
	return c;
}

void copy_release(struct copy *c)
{
	assert(c->users);
	if (--c->users == 0 && c->dir->closing)
		fiber_cond_wake(&c->dir->quiet);
}

/* Nothing would be lost with its file, or (`memory`) with all of it. */
static bool copy_idle(const struct copy *c, bool memory)
{
	return c->users == 0 && !c->dirty && c->broken == c->slot.broken && (!memory || link_empty(&c->late));
}

/* The least recently used copy whose file may go, or (`memory`) all of it. */
static struct copy *evict_pick(struct segment_dir *d, bool memory)
{
	link_for (l, memory ? &d->lru : &d->open) {
		struct copy *c = memory ? container_of(l, struct copy, lru) : container_of(l, struct copy, open);
		if (copy_idle(c, memory))
			return c;
	}
	return NULL;
}

void dir_evict(struct segment_dir *d)
{
	struct copy *c;
	fiber_mutex_lock(&d->env->loop, &d->evict);
	while (d->files > d->files_max && (c = evict_pick(d, false))) {
		c->users++;
		copy_forget(c);
		copy_release(c);
	}
	while (d->copies > COPIES_MAX && (c = evict_pick(d, true))) {
		c->users++;
		copy_forget(c);
		copy_release(c);
		if (copy_idle(c, /* memory= */ true) && !c->file)
			copy_free(c);
	}
	fiber_mutex_unlock(&d->evict);
}

/* ---- frames ---- */

/* NULL: no memory. */
static struct dir_frame *dir_frame_get(struct segment_dir *d, struct segment_io *io)
{
	struct link *l = link_pop(&d->frames_free);
	struct dir_frame *f = l ? container_of(l, struct dir_frame, link) : malloc(sizeof *f);
	if (!f)
		return NULL;
	*f = (struct dir_frame){ .dir = d, .io = io };
	link_init(&f->link);
	job_init(&f->job, &d->env->loop);
	d->under_way++;
	return f;
}

void dir_frame_end(struct dir_frame *f, int status)
{
	struct segment_dir *d = f->dir;
	free(f->bounce);
	if (f->io) {
		f->io->status = status;
		job_put(f->io->parent, status);
	}
	if (f->copy)
		copy_release(f->copy);
	link_push_front(&d->frames_free, &f->link);
	if (--d->under_way == 0)
		fiber_cond_wake(&d->quiet);
}

int dir_load(struct copy *c)
{
	struct segment_dir *d = c->dir;
	int r = copy_load(c);
	if (r == -EMFILE || r == -ENFILE) {
		d->files_max = d->files / 2;
		dir_evict(d);
		r = copy_load(c);
	}
	if (r == -EIO)
		index_doubt(c);
	return r;
}

/* ---- operations ---- */

static void frame_start(struct dir_frame *f)
{
	if (f->io->op == SEGMENT_READ)
		copy_read_start(f);
	else if (f->io->op == SEGMENT_APPEND)
		copy_append_start(f);
	else
		copy_sync_start(f);
}

/* FIBER. Opens a copy, and scans it if that is needed, for those that wait; they start in their order. */
static int copy_open_run(void *arg)
{
	struct copy *c = arg;
	dir_evict(c->dir);
	fiber_mutex_lock(&c->dir->env->loop, &c->mutex);
	while (!link_empty(&c->waiting)) {
		enum segment_op op = container_of(c->waiting.next, struct dir_frame, link)->io->op;
		int r = dir_load(c);
		if (r == 0 && op != SEGMENT_READ)
			r = copy_scan(c);
		struct dir_frame *f = container_of(link_pop(&c->waiting), struct dir_frame, link);
		if (r < 0)
			dir_frame_end(f, r);
		else
			frame_start(f);
	}
	c->opening = false;
	fiber_mutex_unlock(&c->mutex);
	copy_release(c);
	return 0;
}

static void frame_wait(struct dir_frame *f)
{
	struct copy *c = f->copy;
	link_push(&c->waiting, &f->link);
	if (c->opening)
		return;
	c->opening = true;
	c->users++;
	if (fiber_start(&c->dir->env->loop, copy_open_run, c, NULL) == 0)
		return;
	c->opening = false;
	link_drop(&f->link);
	copy_release(c);
	dir_frame_end(f, -ENOMEM);
}

static int control_fiber(void *arg) { return dir_control(arg); }
static int list_fiber(void *arg) { return dir_list(arg); }

static void dir_submit(struct segment_server *s, struct segment_io *io)
{
	struct segment_dir *d = dir_of(s);
	struct dir_frame *f = d->closing ? NULL : dir_frame_get(d, io);
	if (!f) {
		io->status = d->closing ? -ESHUTDOWN : -ENOMEM;
		job_put(io->parent, io->status);
		return;
	}
	if (io->op == SEGMENT_LIST) {
		if (fiber_start(&d->env->loop, list_fiber, f, NULL) < 0)
			dir_frame_end(f, -ENOMEM);
		return;
	}
	bool sound = io->segment && io->segment >> 48 == 0;
	f->copy = sound ? copy_hold(d, io->segment) : NULL;
	if (!f->copy)
		dir_frame_end(f, sound ? -ENOMEM : -EINVAL);
	else if (io->op != SEGMENT_READ && io->op != SEGMENT_APPEND && io->op != SEGMENT_SYNC) {
		if (fiber_start(&d->env->loop, control_fiber, f, NULL) < 0)
			dir_frame_end(f, -ENOMEM);
	} else if (copy_ready(f->copy, io->op))
		frame_start(f);
	else
		frame_wait(f);
}

/* ---- closing ---- */

static bool dir_busy(const struct segment_dir *d)
{
	if (d->under_way)
		return true;
	link_for (l, &d->lru)
		if (container_of(l, struct copy, lru)->users)
			return true;
	return false;
}

static void dir_free(struct segment_dir *d)
{
	while (!link_empty(&d->lru))
		copy_free(container_of(d->lru.next, struct copy, lru));
	for (struct link *l; (l = link_pop(&d->frames_free));)
		free(container_of(l, struct dir_frame, link));
	if (d->lock)
		file_close(d->env, d->lock);
	index_free(d->index);
	pool_free(d);
	free(d->zeroes);
	free(d);
}

/* Makes everything durable that was answered; only then may the directory say it stopped in order. */
static int dir_close(struct segment_server *s)
{
	struct segment_dir *d = dir_of(s);
	int status = 0;
	d->closing = true;
	dir_late_stop(d);
	while (dir_busy(d))
		fiber_cond_wait(&d->env->loop, &d->quiet);
	dir_late_end(d);
	link_for (l, &d->lru) {
		struct copy *c = container_of(l, struct copy, lru);
		int r = c->dirty && c->file && !c->broken ? copy_fdatasync(c) : 0;
		if (c->broken && !c->slot.broken && c->exists) {
			copy_break(c); /* once more; whoever comes later must know, or know that nobody knows */
			r = c->slot.broken ? 0 : -EIO;
		}
		if (r < 0 && status == 0)
			status = r;
		copy_forget(c);
	}
	if (status == 0) {
		d->state.clean = true;
		status = dir_server_write(d);
	}
	dir_free(d);
	return status;
}

static const struct segment_server_ops dir_ops = { .submit = dir_submit, .close = dir_close };

/* ---- opening ---- */

/* Makes the directory, durably; what is above it must be there. */
static int dir_make(struct segment_dir *d)
{
	char parent[DIR_PATH_MAX];
	int r = env_mkdir(d->env, d->path);
	snprintf(parent, sizeof parent, "%s", d->path);
	char *slash = strrchr(parent, '/');
	if (slash)
		slash[slash == parent] = '\0';
	return r < 0 ? r : env_sync_dir(d->env, slash ? parent : ".");
}

static int dir_lock(struct segment_dir *d, bool create, struct report *report)
{
	char path[DIR_PATH_MAX];
	int r = create ? dir_make(d) : 0;
	dir_path(d, path, "lock");
	if (r == -ENOENT)
		return report_set(report, r, "data directory %s can't be made: what it should be in isn't there (make that first)", d->path);
	if (r == 0)
		r = file_open(d->env, path, FILE_OPEN_WRITE | (create ? FILE_OPEN_CREATE : 0), &d->lock);
	if (r == -ENOENT)
		return report_set(report, r, "%s is not a data directory (it isn't there, or has no file 'lock')", d->path);
	if (r < 0)
		return report_set(report, r, "open data directory %s: %s", d->path, errno_text(r));
	for (int i = 0; i < LOCK_TRIES; i++) {
		r = file_lock(d->lock, /* exclusive= */ true);
		if (r != -EAGAIN || fiber_sleep(&d->env->loop, 10 * NS_PER_MS) < 0)
			break; /* a process that is dying lets go when its writes have ended */
	}
	if (r == -EAGAIN)
		return report_set(report, -EBUSY, "data directory %s is in use by another process", d->path);
	return r < 0 ? report_set(report, r, "lock data directory %s: %s", d->path, errno_text(r)) : 0;
}

struct id_list {
	const char *suffix; /* of the names */
	uint64_t *ids;
	size_t count;
};

static int id_entry(void *arg, const char *name)
{
	struct id_list *list = arg;
	char *end;
	uint64_t id = strtoull(name, &end, 16);
	if (end != name + 12 || strcmp(end, list->suffix) || id == 0)
		return 0;
	if (array_more(&list->ids, list->count) < 0)
		return -ENOMEM;
	list->ids[list->count++] = id;
	return 0;
}

static int id_compare(const void *a, const void *b)
{
	uint64_t x = *(const uint64_t *)a, y = *(const uint64_t *)b;
	return x < y ? -1 : x > y;
}

/* Which of the 256 directories there are. */
static int parent_entry(void *arg, const char *name)
{
	bool *there = arg;
	char *end;
	unsigned long i = strtoul(name, &end, 16);
	if (end == name + 2 && *end == '\0' && i < 256)
		there[i] = true;
	return 0;
}

static int dir_ids(struct env *env, const char *dir, struct id_list *list)
{
	char path[DIR_PATH_MAX + 16];
	bool there[256] = { false };
	snprintf(path, sizeof path, "%s/segments", dir);
	int r = env_list_dir(env, path, parent_entry, there);
	for (unsigned i = 0; i < 256 && r == 0; i++) {
		snprintf(path, sizeof path, "%s/segments/%02x", dir, i);
		r = there[i] ? env_list_dir(env, path, id_entry, list) : 0;
		if (r == -ENOENT)
			r = 0;
	}
	if (r < 0 && r != -ENOENT)
		return r;
	if (list->count)
		qsort(list->ids, list->count, sizeof *list->ids, id_compare);
	return 0;
}

int dir_space(struct segment_dir *d)
{
	uint64_t free_bytes, total;
	int r = env_space(d->env, d->path, &free_bytes, &total);
	if (r < 0)
		return r;
	if (d->size_limit) {
		total = MIN(total, d->size_limit);
		free_bytes = MIN(free_bytes, d->size_limit - MIN(d->size_limit, d->size_used));
	}
	d->server.free_bytes = free_bytes;
	d->server.total_bytes = total;
	return 0;
}

int segment_dir_space(struct segment_server *s) { return dir_space(dir_of(s)); }

int segment_dir_there(struct segment_server *s)
{
	char path[DIR_PATH_MAX];
	uint64_t free_bytes, total;
	dir_path(dir_of(s), path, "segments");
	int r = env_space(dir_of(s)->env, path, &free_bytes, &total);
	s->gone = r == -ESHUTDOWN ? s->gone : r;
	return s->gone;
}

/* With a limit, what is there counts from the start. One that can't be looked into (its slots can't be read, or are of a newer version) doesn't keep the others from being
 * served: it counts as long as its file. */
static int dir_count_used(struct segment_dir *d)
{
	struct id_list list = { .suffix = ".seg" };
	int r = d->size_limit ? dir_ids(d->env, d->path, &list) : 0;
	for (size_t i = 0; r == 0 && i < list.count; i++) {
		struct copy *c = copy_hold(d, list.ids[i]);
		if (!c) {
			r = -ENOMEM;
			break;
		}
		r = dir_load(c);
		if (r != -ENOMEM && r != -ESHUTDOWN) {
			d->size_used += c->charged;
			r = 0;
		}
		copy_release(c);
		dir_evict(d);
	}
	free(list.ids);
	return r;
}

int segment_dir_open(struct env *env, const char *path, struct catalog *catalog,
		     const struct segment_dir_options *options, struct segment_server **ret_server,
		     struct report *report)
{
	if (strlen(path) > DIR_PATH_MAX - 64)
		return report_set(report, -ENAMETOOLONG, "data directory '%s': the path is longer than %u bytes", path,
				  DIR_PATH_MAX - 64);
	struct segment_dir *d = calloc(1, sizeof *d);
	if (!d)
		return -ENOMEM;
	d->server = (struct segment_server){ .ops = &dir_ops, .env = env };
	d->env = env;
	d->catalog = catalog;
	d->size_limit = options->size_limit;
	d->files_max = options->files_max ? options->files_max : SEGMENT_FILES_DEFAULT;
	snprintf(d->path, sizeof d->path, "%s", path);
	for (size_t i = 0; i < TABLE_BUCKETS; i++)
		link_init(&d->table[i]);
	link_init(&d->lru);
	link_init(&d->open);
	link_init(&d->late);
	timer_init(&d->late_timer);
	d->embedded = options->address == NULL;
	link_init(&d->frames_free);
	fiber_cond_init(&d->quiet);
	fiber_mutex_init(&d->evict);
	fiber_mutex_init(&d->pack_mutex);
	fiber_cond_init(&d->scan_ended);
	int r = dir_lock(d, options->create, report);
	if (r == 0)
		r = dir_server_start(d, options, report);
	if (r == 0) {
		r = pool_open(d);
		if (r == 0)
			r = dir_space(d); /* copies that are looked at want to know how much there is */
		if (r == 0)
			r = dir_count_used(d);
		if (r == 0)
			r = dir_space(d);
		if (r == 0 && d->size_limit)
			d->server.total_bytes = MIN(d->server.total_bytes, d->size_limit);
		if (r < 0)
			report_set(report, r, "read data directory %s: %s", d->path, errno_text(r));
	}
	if (r < 0) {
		d->closing = true;
		dir_late_stop(d);
		link_for (l, &d->lru)
			copy_forget(container_of(l, struct copy, lru));
		dir_free(d);
		return r;
	}
	d->server.id = d->state.id;
	d->server.incarnation = d->state.incarnation;
	*ret_server = &d->server;
	return 0;
}

/* ---- listing ---- */

int segment_dir_ids(struct segment_server *s, int (*entry)(void *arg, uint64_t segment), void *arg)
{
	return segment_path_ids(s->env, dir_of(s)->path, entry, arg);
}

static int each_id(struct env *env, const char *path, const char *suffix, int (*entry)(void *arg, uint64_t segment), void *arg)
{
	struct id_list list = { .suffix = suffix };
	int r = dir_ids(env, path, &list);
	for (size_t i = 0; r == 0 && i < list.count; i++)
		r = entry(arg, list.ids[i]);
	free(list.ids);
	return r;
}

int segment_path_ids(struct env *env, const char *path, int (*entry)(void *arg, uint64_t segment), void *arg)
{
	return each_id(env, path, ".seg", entry, arg);
}

int segment_dir_fences(struct segment_server *s, int (*entry)(void *arg, uint64_t segment), void *arg)
{
	return each_id(s->env, dir_of(s)->path, ".fence", entry, arg);
}

static int drop_unwritten(void *arg, uint64_t segment) { return dir_drop_unwritten_fence(arg, segment); }

int segment_dir_tidy(struct segment_server *s)
{
	return each_id(s->env, dir_of(s)->path, ".new", drop_unwritten, dir_of(s));
}
