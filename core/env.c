/* The part of env that is the same in every world: dispatch, and waiting forms. */
#include "core/env.h"

#include <errno.h>
#include <stdlib.h>
#include <string.h>

#include "core/bytes.h"
#include "core/env_ops.h"
#include "core/fiber.h"

uint64_t env_now_ns(struct env *env) { return env->ops->now_ns(env); }
uint64_t env_wall_ns(struct env *env) { return env->ops->wall_ns(env); }
uint64_t env_random(struct env *env) { return env->ops->random(env); }
void env_boot_id(struct env *env, char ret_id[37]) { env->ops->boot_id(env, ret_id); }
uint64_t env_pids(struct env *env) { return env->ops->pids ? env->ops->pids(env) : 0; }

void timer_start(struct env *env, struct timer *t, uint64_t delay_ns, struct job *parent)
{
	assert(!t->parent);
	job_hold(parent);
	env->ops->timer_start(env, t, delay_ns, parent);
}

void timer_cancel(struct env *env, struct timer *t)
{
	if (t->parent)
		env->ops->timer_cancel(env, t);
}

void env_offload(struct env *env, struct offload *o, struct job *parent)
{
	job_hold(parent);
	env->ops->offload(env, o, parent);
}

struct offload_call {
	struct offload offload;
	int (*run)(void *arg);
	void *arg;
};

static int offload_call_run(struct offload *o)
{
	struct offload_call *c = container_of(o, struct offload_call, offload);
	return c->run(c->arg);
}

int env_offload_wait(struct env *env, int (*run)(void *arg), void *arg)
{
	struct offload_call c = { .offload.run = offload_call_run, .run = run, .arg = arg };
	struct job j;
	job_init(&j, &env->loop);
	env_offload(env, &c.offload, &j);
	return fiber_wait(&j);
}

int env_brief_wait(struct env *env, int (*run)(void *arg), void *arg)
{
	return env->solitary ? run(arg) : env_offload_wait(env, run, arg);
}

int file_open(struct env *env, const char *path, int flags, struct file **ret_file)
{
	return env->ops->file_open(env, path, flags, ret_file);
}
int file_close(struct env *env, struct file *f) { return f ? env->ops->file_close(env, f) : 0; }
int file_stat(struct file *f, struct file_info *ret_info) { return f->env->ops->file_stat(f, ret_info); }
int file_lock(struct file *f, bool exclusive) { return f->env->ops->file_lock(f, exclusive); }
int file_claim(struct file *f) { return f->env->ops->file_claim ? f->env->ops->file_claim(f) : 0; }
int file_map(struct file *f, uint64_t offset, uint64_t length, uint64_t *ret_length, bool *ret_data)
{
	return f->env->ops->file_map(f, offset, length, ret_length, ret_data);
}
int env_mkdir(struct env *env, const char *path) { return env->ops->mkdir(env, path); }
int env_unlink(struct env *env, const char *path) { return env->ops->unlink(env, path); }
int env_rmdir(struct env *env, const char *path) { return env->ops->rmdir(env, path); }
int env_rename(struct env *env, const char *from, const char *to) { return env->ops->rename(env, from, to); }

int env_real_path(struct env *env, const char *path, char *ret_path, size_t bytes)
{
	if (env->ops->real_path)
		return env->ops->real_path(env, path, ret_path, bytes);
	if (strlen(path) >= bytes)
		return -ENAMETOOLONG;
	strcpy(ret_path, path);
	return 0;
}

int env_sync_dir(struct env *env, const char *path) { return env->ops->sync_dir(env, path); }
int env_list_dir(struct env *env, const char *path, int (*entry)(void *arg, const char *name), void *arg)
{
	return env->ops->list_dir(env, path, entry, arg);
}
int env_space(struct env *env, const char *path, uint64_t *ret_free, uint64_t *ret_total)
{
	return env->ops->space(env, path, ret_free, ret_total);
}

void file_submit(struct file *f, struct file_io *io, struct job *parent)
{
	job_hold(parent);
	io->file = f;
	io->parent = parent;
	f->env->ops->file_submit(f, io, parent);
}

static int file_io_wait(struct file *f, struct file_io *io)
{
	struct job j;
	job_init(&j, &f->env->loop);
	file_submit(f, io, &j);
	return fiber_wait(&j);
}

int file_read_wait(struct file *f, void *buffer, size_t length, uint64_t offset, size_t *ret_done)
{
	struct iovec v = { buffer, length };
	struct file_io io = { .op = FILE_READ, .offset = offset, .length = length, .iov = &v, .iov_count = 1 };
	int r = file_io_wait(f, &io);
	if (ret_done)
		*ret_done = io.done;
	else if (r == 0 && io.done != length)
		r = -EIO;
	return r;
}

int file_write_wait(struct file *f, const void *buffer, size_t length, uint64_t offset)
{
	struct iovec v = { (void *)(uintptr_t)buffer, length };
	struct file_io io = { .op = FILE_WRITE, .offset = offset, .length = length, .iov = &v, .iov_count = 1 };
	return file_io_wait(f, &io);
}

int file_sync_wait(struct file *f)
{
	struct file_io io = { .op = FILE_SYNC };
	return file_io_wait(f, &io);
}

int stream_connect(struct env *env, const char *address, uint64_t timeout_ns, struct stream **ret_stream)
{
	return env->ops->stream_connect(env, address, timeout_ns, ret_stream);
}
int stream_listen(struct env *env, const char *address, struct listener **ret_listener)
{
	return env->ops->stream_listen(env, address, ret_listener);
}
int stream_accept(struct listener *l, struct stream **ret_stream)
{
	return l->env->ops->stream_accept(l, ret_stream);
}
void listener_close(struct listener *l)
{
	if (l)
		l->env->ops->listener_close(l);
}
const char *listener_address(struct listener *l) { return l->env->ops->listener_address(l); }

void stream_recv(struct stream *s, struct stream_io *io, struct job *parent)
{
	job_hold(parent);
	io->parent = parent;
	io->done = 0;
	io->status = 0;
	s->env->ops->stream_recv(s, io, parent);
}

void stream_send(struct stream *s, struct stream_io *io, struct job *parent)
{
	job_hold(parent);
	io->parent = parent;
	io->sent = 0;
	io->status = 0;
	s->env->ops->stream_send(s, io, parent);
}

void stream_shutdown(struct stream *s) { s->env->ops->stream_shutdown(s); }
void stream_close(struct stream *s)
{
	if (s)
		s->env->ops->stream_close(s);
}
uint32_t stream_peer_uid(struct stream *s) { return s->env->ops->stream_peer_uid(s); }
uint32_t stream_peer_pid(struct stream *s) { return s->env->ops->stream_peer_pid ? s->env->ops->stream_peer_pid(s) : 0; }
bool env_own_address(struct env *env, const char *host) { return env->ops->own_address && env->ops->own_address(env, host); }

void stream_peer(struct stream *s, struct stream_peer *ret)
{
	memset(ret, 0, sizeof *ret);
	if (s->env->ops->stream_peer)
		s->env->ops->stream_peer(s, ret);
}

int stream_recv_wait(struct stream *s, void *buffer, size_t length)
{
	struct iovec v = { buffer, length };
	struct stream_io io = { .iov = &v, .iov_count = 1, .minimum = length };
	struct job j;
	job_init(&j, &s->env->loop);
	stream_recv(s, &io, &j);
	return fiber_wait(&j);
}

int stream_send_wait(struct stream *s, const void *buffer, size_t length)
{
	struct iovec v = { (void *)(uintptr_t)buffer, length };
	struct stream_io io = { .iov = &v, .iov_count = 1 };
	struct job j;
	job_init(&j, &s->env->loop);
	stream_send(s, &io, &j);
	return fiber_wait(&j);
}

int http_client_create(struct env *env, const struct http_tls *tls, struct http_client **ret_client)
{
	return env->ops->http_client_create ? env->ops->http_client_create(env, tls, ret_client) : -ENOSYS;
}

int http_client_renew(struct http_client *c, const struct http_tls *tls) { return c->env->ops->http_client_renew(c, tls); }

void http_client_close(struct http_client *c)
{
	if (c)
		c->env->ops->http_client_close(c);
}

void http_submit(struct http_client *c, struct http_request *r, struct job *parent)
{
	job_hold(parent);
	r->parent = parent;
	r->client = c;
	r->more = NULL;
	r->status = 0;
	r->http_status = 0;
	r->reply = NULL;
	r->reply_length = r->reply_room = r->reply_seen = 0;
	r->sent = r->too_long = false;
	r->why[0] = 0;
	c->env->ops->http_submit(c, r);
}

void http_more(struct http_request *r, struct job *parent)
{
	job_hold(parent);
	if (r->reply_length == r->reply_seen && r->parent) {
		r->more = parent;
		return;
	}
	r->reply_seen = r->reply_length;
	job_put(parent, 0);
}

void http_take(struct http_request *r, size_t bytes)
{
	assert(bytes <= r->reply_length);
	if (bytes == 0)
		return;
	memmove(r->reply, r->reply + bytes, r->reply_length - bytes + 1);
	r->reply_length -= bytes;
	r->reply_seen -= MIN(r->reply_seen, bytes);
}

void http_cancel(struct http_request *r)
{
	if (r->parent)
		r->client->env->ops->http_cancel(r);
}

void http_request_free(struct http_request *r)
{
	free(r->reply);
	r->reply = NULL;
	r->reply_length = 0;
}

int http_wait(struct http_client *c, struct http_request *r)
{
	struct job j;
	job_init(&j, &c->env->loop);
	http_submit(c, r, &j);
	return fiber_wait(&j);
}

void fd_watch_start(struct env *env, struct fd_watch *w, int fd, struct job *parent)
{
	job_hold(parent);
	w->kept = w->registered = false;
	env->ops->fd_watch_start(env, w, fd, parent);
}
void fd_watch_start_kept(struct env *env, struct fd_watch *w, int fd, struct job *parent)
{
	job_hold(parent);
	w->kept = true;
	env->ops->fd_watch_start(env, w, fd, parent);
}
void fd_watch_cancel(struct env *env, struct fd_watch *w)
{
	if (w->parent || (w->kept && w->registered))
		env->ops->fd_watch_cancel(env, w);
}

void *env_alloc_aligned(size_t bytes)
{
	return aligned_alloc(4096, (bytes + 4095) / 4096 * 4096);
}
