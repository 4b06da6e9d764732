/* The world is an argument: clock, random numbers, timers, files, streams and worker
 * threads are reached through `struct env` only, so that the simulator (env_sim) can run
 * whole clusters in one thread from one seed. env_linux is the real world: epoll, libaio
 * with O_DIRECT, a few worker threads.
 *
 * Each simulated (or real) process has an env of its own. When a process is killed in the
 * simulator its env is *dead*: every operation fails with -ESHUTDOWN and has no effect,
 * also those under way; the code then unwinds by its ordinary error paths.
 *
 * All operations complete by a put on a job: hold semantics as in blk_submit(), i.e. the
 * call itself does job_hold(parent). Buffers and paths are borrowed until completion. */
#ifndef AQ_ENV_H
#define AQ_ENV_H
#include <stdbool.h>
#include <stddef.h>
#include <stdint.h>
#include <sys/uio.h>

#include "core/job.h"
#include "core/report.h"

struct env;

/* ---- timers ---- */

struct timer {
	struct job *parent; /* NULL when not running */
	uint64_t due_ns;    /* on env_now_ns()'s clock */
	struct link link;
	unsigned index;     /* the env's own */
};
static inline void timer_init(struct timer *t)
{
	*t = (struct timer){ 0 };
	link_init(&t->link);
}
/* Holds `parent` and puts it with 0 after `delay_ns`. One start at a time. */
void timer_start(struct env *env, struct timer *t, uint64_t delay_ns, struct job *parent);
/* Ends a running timer now: its parent is put with -ECANCELED. No effect on a timer that isn't running. */
void timer_cancel(struct env *env, struct timer *t);
static inline bool timer_running(const struct timer *t) { return t->parent != NULL; }

/* ---- worker threads ---- */

/* `run` is called on a worker thread (in the simulator: on this one, later), then parent is
 * put with what it returned. It must not touch anything of the loop's. */
struct offload {
	int (*run)(struct offload *o);
	struct job *parent;
	int status;
	struct link link;
};
void env_offload(struct env *env, struct offload *o, struct job *parent);
/* FIBER. Runs `run(arg)` on a worker thread and returns its result. */
int env_offload_wait(struct env *env, int (*run)(void *arg), void *arg);
/* FIBER. The same for what ends soon (a look at a file of this host, a transaction of a local catalog): at once where env->solitary
 * says that nothing of this process would be kept waiting. Two changes of threads take longer than such a call. */
int env_brief_wait(struct env *env, int (*run)(void *arg), void *arg);

/* ---- files ---- */

enum file_op {
	FILE_READ,     /* short only at end of file, see `done` */
	FILE_WRITE,    /* extends the file if need be */
	FILE_SYNC,     /* fdatasync: data and what is needed to read it are durable */
	FILE_DISCARD,  /* punch a hole; reads as zeroes afterwards; size unchanged */
	FILE_ZERO,     /* write zeroes, keeping the space allocated */
	FILE_ALLOCATE, /* reserve [offset, offset + length), size unchanged, content unchanged */
	FILE_TRUNCATE, /* file size := offset */
};

struct file_io {
	enum file_op op;
	uint64_t offset; /* bytes */
	uint64_t length; /* bytes; for READ and WRITE the sum of the iovec */
	const struct iovec *iov;
	int iov_count;
	int status;      /* 0 or -errno; READ, WRITE, SYNC: -EIO for whatever a disk fails with */
	size_t done;     /* READ: bytes read, less than length only at end of file */
	struct job *parent;
	struct link link; /* the env's own until completion */
	struct file *file;
};

enum {
	FILE_OPEN_WRITE = 1,   /* read and write; without it read only */
	FILE_OPEN_CREATE = 2,  /* create if missing */
	FILE_OPEN_NEW = 4,     /* with CREATE: -EEXIST if it is there */
	FILE_OPEN_DIRECT = 8,  /* O_DIRECT; see file_align. Falls back to buffered where the file system has none */
};

/* What is known of an open file. */
struct file_info {
	uint64_t size;          /* bytes; of a block device too */
	uint64_t allocated;     /* bytes that it takes: less than the size where there are holes, about (file systems count a little of their own) */
	uint32_t io_align;      /* offset and length of direct I/O are multiples of this (1: buffered) */
	uint32_t memory_align;  /* buffer addresses are multiples of this */
	bool is_block_device;
	bool direct;            /* O_DIRECT is really in force */
	uint64_t device, inode; /* identity */
};

struct file; /* owned by who opened it */

/* All of these are FIBER; each returns 0 or -errno. Directory changes (create, unlink,
 * rename) are durable only after env_sync_dir() on the directory. */
int file_open(struct env *env, const char *path, int flags, struct file **ret_file);
int file_close(struct env *env, struct file *f); /* accepts NULL */
int file_stat(struct file *f, struct file_info *ret_info);
int env_mkdir(struct env *env, const char *path); /* 0 also when it is there already */
int env_unlink(struct env *env, const char *path);
int env_rmdir(struct env *env, const char *path);
int env_rename(struct env *env, const char *from, const char *to);
int env_sync_dir(struct env *env, const char *path);
/* Where the file is that opening `path` leads to, through symbolic links; at most `bytes` with its NUL. -ENOENT, -ENAMETOOLONG … */
int env_real_path(struct env *env, const char *path, char *ret_path, size_t bytes);
/* Calls `entry` for each name in the directory but . and .., in byte order; a non-zero result ends and is returned. */
int env_list_dir(struct env *env, const char *path, int (*entry)(void *arg, const char *name), void *arg);
/* Free and total bytes of the file system that holds `path`. */
int env_space(struct env *env, const char *path, uint64_t *ret_free, uint64_t *ret_total);
/* Takes (or tries to) an exclusive or shared lock on the file as a whole that lives as long as
 * the open file (an OFD lock; lost when the process dies). -EAGAIN: somebody else has it. */
int file_lock(struct file *f, bool exclusive);

/* Of a block device: the kernel has it for nobody (mounted, swap, a part of dm or md), and gives it to nobody until it is closed. -EBUSY. Of
 * other files: nothing. */
int file_claim(struct file *f);

/* Extents for allocation maps: the next run of data or hole at `offset`; `ret_length` > 0 and cut at
 * `length`. What is behind the end of the file is data: nobody reads zeroes there. FIBER-free: completes by a put on parent via an offload inside. */
int file_map(struct file *f, uint64_t offset, uint64_t length, uint64_t *ret_length, bool *ret_data); /* FIBER */

/* Never suspends. The file I/O starts at the latest when the loop comes round; several
 * submitted in one turn go to the kernel in one call. */
void file_submit(struct file *f, struct file_io *io, struct job *parent);
/* FIBER: the same for one operation, waiting for it. `done` may be NULL. */
int file_read_wait(struct file *f, void *buffer, size_t length, uint64_t offset, size_t *ret_done);
int file_write_wait(struct file *f, const void *buffer, size_t length, uint64_t offset);
int file_sync_wait(struct file *f);

/* ---- streams: TCP and unix sockets ---- */

/* Addresses: "unix:/path", "tcp:HOST:PORT" (numeric, or a name resolved by a worker),
 * "tcp:[::1]:PORT". Port 0 listens on any; listener_address() tells which. */
struct stream;
struct listener;

struct stream_io {
	const struct iovec *iov;
	int iov_count;
	size_t minimum; /* RECV: complete as soon as this many bytes have come (at most the iovec's sum) */
	size_t done;    /* bytes received */
	int status;     /* -ECONNRESET also for end of file before `minimum` (done tells how much came) */
	struct job *parent;
	struct link link;
	size_t sent;
};

/* FIBER. `timeout_ns` 0: for ever. -ETIMEDOUT, -ECONNREFUSED … A name's addresses are tried one after the other, each for its share of the time. */
int stream_connect(struct env *env, const char *address, uint64_t timeout_ns, struct stream **ret_stream);
/* FIBER. A unix socket is created with mode 0600; a stale one (nobody answers) is replaced, -EADDRINUSE otherwise. */
int stream_listen(struct env *env, const char *address, struct listener **ret_listener);
/* FIBER. Waits for a peer; -ESHUTDOWN after listener_close. */
int stream_accept(struct listener *l, struct stream **ret_stream);
void listener_close(struct listener *l); /* accepts NULL; a waiting accept ends first with -ESHUTDOWN */
const char *listener_address(struct listener *l);
/* One receive at a time; sends are queued, each ends when all of it went to the kernel.
 * Sends of one turn of the loop leave in one system call. */
void stream_recv(struct stream *s, struct stream_io *io, struct job *parent);
void stream_send(struct stream *s, struct stream_io *io, struct job *parent);
/* All queued and later operations end with -ECONNRESET; the stream stays valid until stream_close. */
void stream_shutdown(struct stream *s);
/* Nothing may be under way any more (shut down, wait, then close). Accepts NULL. */
void stream_close(struct stream *s);
/* uid of the peer of a unix socket, or (uint32_t)-1. */
uint32_t stream_peer_uid(struct stream *s);
/* pid of the peer of a unix socket, or 0 where it isn't known; for messages only. */
uint32_t stream_peer_pid(struct stream *s);
/* Who is at the other end, as far as limits go: of TCP its address, without the port, of a unix socket its user. All zero: not known. */
struct stream_peer { uint8_t bytes[20]; };
void stream_peer(struct stream *s, struct stream_peer *ret);
/* FIBER: whole-buffer forms. */
int stream_recv_wait(struct stream *s, void *buffer, size_t length);
int stream_send_wait(struct stream *s, const void *buffer, size_t length);

/* Is `host`, a number ("10.0.0.1", "::1") or "localhost", an address of this machine's own? A name is none. False where that isn't known. Never suspends. */
bool env_own_address(struct env *env, const char *host);

/* ---- HTTP requests: only in env_linux; elsewhere -ENOSYS ---- */

/* For https. PEM texts, copied; NULL: the system's authorities, no certificate of ours. */
struct http_tls {
	const char *authorities, *certificate, *key;
};
/* Requests of one client share connections, which are kept; those of another never wait for them. */
struct http_client;
int http_client_create(struct env *env, const struct http_tls *tls, struct http_client **ret_client);
/* Others from now on; what is under way, and kept connections of the same, go on. 0 or -ENOMEM: nothing has changed. */
int http_client_renew(struct http_client *c, const struct http_tls *tls);
void http_client_close(struct http_client *c); /* FIBER; accepts NULL; nothing may be under way */

enum { HTTP_WHY_BYTES = 256 };
/* One request, by POST if there is a body. Everything is borrowed until completion. */
struct http_request {
	const char *url;
	const char *const *headers;  /* "Name: value" …, ends with NULL; may be NULL */
	const void *body;
	size_t body_length;
	size_t reply_max;            /* bytes kept at a time; more ends the request with -EMSGSIZE */
	uint64_t connect_timeout_ns; /* 0: curl's own. So long, too, the machine may acknowledge nothing of what it is sent; that is of the connection, so by whoever made it */
	uint64_t timeout_ns;         /* for all of it; 0: none */
	bool repeatable;             /* may be sent again on a new connection when a kept one turns out to be dead */

	/* Results. status 0: an answer came, whatever it says. Otherwise -ECONNREFUSED (no connection), -EHOSTUNREACH
	 * (no such host), -ETIMEDOUT, -ECONNRESET, -EPROTO (TLS, or not HTTP), -EMSGSIZE, -ECANCELED. */
	int status;
	unsigned http_status;        /* 200 … */
	uint8_t *reply;              /* malloc'd, a NUL behind it; http_request_free() */
	size_t reply_length;
	bool sent;                   /* some of it may have reached the peer; false: certainly nothing has */
	char why[HTTP_WHY_BYTES];    /* one clause for people when status isn't 0 */
	struct job *parent, *more;
	struct link link;            /* the rest is the env's own */
	struct http_client *client;
	void *handle, *header_list;
	size_t reply_room, reply_seen;
	uint64_t sent_ns;
	bool too_long;
};
/* Never suspends. Put with `status`. */
void http_submit(struct http_client *c, struct http_request *r, struct job *parent);
/* For answers that don't end: `parent` is put with 0 as soon as there are more bytes in `reply` than when it was put the last
 * time, or the request has ended. One at a time. */
void http_more(struct http_request *r, struct job *parent);
void http_take(struct http_request *r, size_t bytes); /* forgets the first so many of `reply` */
/* Ends it now, with -ECANCELED. No effect on one that has ended. */
void http_cancel(struct http_request *r);
void http_request_free(struct http_request *r);
int http_wait(struct http_client *c, struct http_request *r); /* FIBER: submit and wait; `status` */

/* ---- file descriptors of other kinds (FUSE, signals, pidfds): only in env_linux ---- */

/* Watches `fd` for input: holds parent and puts it once when readable (or on hang-up). */
struct fd_watch {
	int fd;
	struct job *parent;
	struct link link;
	bool kept, registered; /* the env's own */
};
void fd_watch_start(struct env *env, struct fd_watch *w, int fd, struct job *parent);
/* The same for one that is started again and again: between starts the kernel goes on watching, which saves a
 * system call for each. `w` must be zeroed before the first start, stay with one fd, and be
 * cancelled before it or its fd goes, even when nothing waits. */
void fd_watch_start_kept(struct env *env, struct fd_watch *w, int fd, struct job *parent);
void fd_watch_cancel(struct env *env, struct fd_watch *w); /* parent, if there is one, is put with -ECANCELED */

/* ---- the env itself ---- */

struct env_ops; /* core/env_ops.h: what a world implements */
struct identity; /* proto/identity.h */

struct env {
	const struct env_ops *ops;
	struct loop loop;
	struct identity *identity; /* who this process is to others; NULL: nobody */
	bool solitary; /* it does one thing at a time and serves nobody: a command */
	bool dead; /* simulator: killed; nothing has any effect any more */
};

/* Monotonic, nanoseconds; read once per turn of the loop, so cheap. */
uint64_t env_now_ns(struct env *env);
/* Nanoseconds since 1970, for people only: safety never depends on it. */
uint64_t env_wall_ns(struct env *env);
uint64_t env_random(struct env *env);
/* An id of the running kernel: changes when the machine lost power. 36 characters and a NUL. */
void env_boot_id(struct env *env, char ret_id[37]);
/* The number of this process' pid namespace, in which pids say something: containers have their own, and one kernel's boot id. 0: not known. */
uint64_t env_pids(struct env *env);

/* The real world. Owned by the caller, freed by env_linux_destroy. `threads` workers (0: a default). */
int env_linux_create(unsigned threads, struct env **ret_env);
void env_linux_destroy(struct env *env);
/* This process may have as many descriptors open as it is allowed to allow itself; returns how many these are. */
uint64_t env_linux_raise_files(void);
/* Runs the loop until *stop is true (checked every turn). */
void env_linux_run(struct env *env, const bool *stop);
/* Runs `run(arg)` in a fiber, and the loop until it has ended; returns its result. */
int env_linux_run_fiber(struct env *env, int (*run)(void *arg), void *arg);

/* Removes the name of a unix socket that nobody listens at any more; one that is served stays. Never suspends. */
void env_linux_remove_stale_socket(const char *path);

/* Aligned memory for direct I/O, page aligned; free() frees it. */
void *env_alloc_aligned(size_t bytes);

#define NS_PER_MS UINT64_C(1000000)
#define NS_PER_S UINT64_C(1000000000)
#endif
