/* Private to env_linux*.c: the real world's env and what its parts offer one another.
 *
 *   env_linux.c          creation, the turn of the loop, clock, random, fd watches
 *   env_linux_timer.c    timers: a binary heap
 *   env_linux_work.c     worker threads: offloads, and file operations that would block
 *   env_linux_file.c     files: libaio where O_DIRECT is in force, workers otherwise
 *   env_linux_path.c     directories, opening, locks: all on workers
 *   env_linux_net.c      streams
 *   env_linux_listen.c   listeners
 *   env_linux_address.c  addresses in words
 *   env_linux_http.c     HTTP, by libcurl
 *
 * A turn of the loop: some rounds of: run ready jobs → flush queued sends → submit queued
 * aio → hand queued work to the workers (each a system call or none) → reap the aio ring in
 * user space; then epoll_wait (not sleeping if anything is ready) → due timers. Everything that ends only
 * puts a job, so no handler ever runs code of the user's, and nothing can be closed while
 * a batch of events is being handled. */
#ifndef AQ_ENV_LINUX_H
#define AQ_ENV_LINUX_H
#include <libaio.h>
#include <pthread.h>
#include <semaphore.h>
#include <sys/socket.h>
#include <sys/un.h>

#include "core/env_ops.h"
#include "core/fiber.h"

/* Something epoll tells about. All are registered edge-triggered. */
struct source {
	void (*ready)(struct source *s, uint32_t events);
};

/* aio operations under way at most; more wait in user space. Small enough that 256
 * processes fit into the kernel's default fs.aio-max-nr. */
#define AIO_DEPTH 256
#define IOV_LIMIT 1024 /* the kernel's UIO_MAXIOV */

struct aio_slot {
	struct iocb control;
	struct file_io *io;
	struct aio_slot *next_free;
};

struct aio {
	bool started;
	io_context_t context; /* NULL: not started, or no aio to be had: workers do everything */
	int event_fd;
	struct source source;
	struct link queue; /* file_io.link: waiting for the end of the turn or for a slot */
	struct aio_slot *slots, *free;
	unsigned depth, in_flight;
};

/* Worker threads. The lock guards everything up to `stopping`. */
struct work {
	pthread_mutex_t lock;
	sem_t call; /* a condition variable would do, but glibc's lost signals until 2.41 (bug 25847) */
	struct link offloads, files;           /* for the workers */
	struct link offloads_done, files_done; /* for the loop */
	unsigned queued, idle, offloads_running;
	unsigned thread_count;
	bool waking; /* a worker is on its way to the queue: signalled or started */
	bool offload_last; /* which kind was taken last: they take turns */
	bool stopping;
	pthread_t *threads;

	/* the loop's own */
	struct link new_offloads, new_files; /* this turn's, not handed over yet */
	unsigned new_count;
	unsigned thread_limit;
	int event_fd;
	struct source source;
};

#define RANDOM_WORDS 32

struct env_linux {
	struct env env; /* first */
	int epoll_fd;
	bool no_pwait2; /* the kernel has no epoll_pwait2 */
	uint64_t now_ns;

	struct timer **timers; /* binary heap by due_ns; timer.index is the place in it */
	unsigned timer_count, timer_max;

	uint64_t random[RANDOM_WORDS];
	unsigned random_left;

	struct work work;
	unsigned lookups;                /* name look-ups that have a worker */
	struct fiber_cond lookup_ended;
	struct aio aio;
	struct link dirty_streams; /* streams with sends to flush at the end of the turn */
	struct iovec *send_iov;    /* IOV_LIMIT entries, scratch for one sendmsg */
};

static inline struct env_linux *env_linux_of(struct env *env) { return (struct env_linux *)env; }

/* env_linux.c */
uint64_t env_linux_clock_ns(void); /* monotonic, read anew */
int env_linux_watch(struct env_linux *el, int fd, uint32_t events, struct source *source);

/* env_linux_timer.c */
int env_linux_timers_create(struct env_linux *el);
void env_linux_timers_destroy(struct env_linux *el);
void env_linux_timer_start(struct env *env, struct timer *t, uint64_t delay_ns, struct job *parent);
void env_linux_timer_cancel(struct env *env, struct timer *t);
/* Puts the parents of timers that are due. */
void env_linux_timers_run(struct env_linux *el);

/* env_linux_work.c */
int env_linux_work_create(struct env_linux *el, unsigned threads);
void env_linux_work_destroy(struct env_linux *el); /* waits for what is running */
void env_linux_offload(struct env *env, struct offload *o, struct job *parent);
/* Has env_linux_file_work() called on a worker, then env_linux_file_worked() on the loop. */
void env_linux_work_file(struct env_linux *el, struct file_io *io);
/* Hands this turn's work to the workers. */
void env_linux_work_flush(struct env_linux *el);

/* env_linux_file.c */
#define WORK_BUFFER_BYTES ((size_t)256 << 10)
struct file_linux {
	struct file file; /* first */
	int fd, claim_fd; /* claim_fd -1: not claimed */
	uint32_t io_align, memory_align; /* bytes; see struct file_info */
	bool direct, is_block_device, writable;
	bool no_nowait_read, no_nowait_write; /* the file system has no RWF_NOWAIT */
	uint64_t slow_until_ns; /* buffered writes are the workers' until then */
	unsigned in_flight;
};
static inline struct file_linux *file_linux_of(struct file *f) { return (struct file_linux *)f; }
void env_linux_aio_init(struct env_linux *el);
/* Once, when a file is opened that will use it: to take it down waits for the kernel's readers (RCU), 20 to 30 ms, which a command that
 * reads its configuration and asks a catalog shouldn't pay for. Without it workers do everything. */
void env_linux_aio_start(struct env_linux *el);
void env_linux_aio_destroy(struct env_linux *el);
void env_linux_file_submit(struct file *f, struct file_io *io, struct job *parent);
/* Submits some of what is queued; true if there is more that could be submitted at once. */
bool env_linux_aio_flush(struct env_linux *el);
/* Takes completions from the ring, without a system call; true if there were any. */
bool env_linux_aio_reap(struct env_linux *el);
/* Worker: carries out `io` from io->done on. `*buffer` is the worker's own, for unaligned
 * memory: WORK_BUFFER_BYTES, allocated at the first need, freed by the worker at its end. */
void env_linux_file_work(struct file_io *io, void **buffer);
void env_linux_file_worked(struct file_io *io);

/* env_linux_path.c */
int env_linux_file_open(struct env *env, const char *path, int flags, struct file **ret_file);
int env_linux_file_close(struct env *env, struct file *f);
int env_linux_file_stat(struct file *f, struct file_info *ret_info);
int env_linux_file_lock(struct file *f, bool exclusive);
int env_linux_file_claim(struct file *f);
int env_linux_file_map(struct file *f, uint64_t offset, uint64_t length, uint64_t *ret_length, bool *ret_data);
int env_linux_mkdir(struct env *env, const char *path);
int env_linux_unlink(struct env *env, const char *path);
int env_linux_rmdir(struct env *env, const char *path);
int env_linux_rename(struct env *env, const char *from, const char *to);
int env_linux_real_path(struct env *env, const char *path, char *ret_path, size_t bytes);
int env_linux_sync_dir(struct env *env, const char *path);
int env_linux_list_dir(struct env *env, const char *path, int (*entry)(void *arg, const char *name), void *arg);
int env_linux_space(struct env *env, const char *path, uint64_t *ret_free, uint64_t *ret_total);

/* env_linux_net.c */
int env_linux_stream_connect(struct env *env, const char *address, uint64_t timeout_ns, struct stream **ret_stream);
void env_linux_stream_recv(struct stream *s, struct stream_io *io, struct job *parent);
void env_linux_stream_send(struct stream *s, struct stream_io *io, struct job *parent);
void env_linux_stream_shutdown(struct stream *s);
void env_linux_stream_close(struct stream *s);
uint32_t env_linux_stream_peer_uid(struct stream *s);
uint32_t env_linux_stream_peer_pid(struct stream *s);
void env_linux_stream_peer(struct stream *s, struct stream_peer *ret);
/* Makes a stream of a non-blocking socket; takes over `fd`, also on failure. */
int env_linux_stream_make(struct env *env, int fd, struct stream **ret_stream);
/* Sends what was queued in this turn, one system call per stream. */
void env_linux_streams_flush(struct env_linux *el);

/* env_linux_listen.c */
int env_linux_stream_listen(struct env *env, const char *address, struct listener **ret_listener);
int env_linux_stream_accept(struct listener *l, struct stream **ret_stream);
void env_linux_listener_close(struct listener *l);
const char *env_linux_listener_address(struct listener *l);

/* env_linux_http.c */
int env_linux_http_client_create(struct env *env, const struct http_tls *tls, struct http_client **ret_client);
int env_linux_http_client_renew(struct http_client *c, const struct http_tls *tls);
void env_linux_http_client_close(struct http_client *c);
void env_linux_http_submit(struct http_client *c, struct http_request *r);
void env_linux_http_cancel(struct http_request *r);

/* env_linux_address.c */
bool env_linux_own_address(struct env *env, const char *host);
#define ADDRESS_MAX 8
struct address {
	struct sockaddr_storage name;
	socklen_t length;
};
/* Largest text: "unix:" and a path, or "tcp:[…]:65535". */
#define ADDRESS_TEXT_MAX 300
/* FIBER (names are resolved by a worker). Fills up to ADDRESS_MAX socket addresses.
 * -EINVAL: not an address; -ENAMETOOLONG: path longer than a unix socket's may be;
 * -ENXIO: no such host; -EHOSTUNREACH: the resolver has no answer now. */
int env_linux_resolve(struct env *env, const char *text, bool passive, struct address *ret, unsigned *ret_count);
void env_linux_address_format(const struct address *a, char ret_text[ADDRESS_TEXT_MAX]);
#endif
