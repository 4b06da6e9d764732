/* What a world implements. Only env.c, env_linux.c and env_sim include this.
 * Calls marked FIBER in env.h suspend inside the implementation. */
#ifndef AQ_ENV_OPS_H
#define AQ_ENV_OPS_H
#include "core/env.h"

struct env_ops {
	uint64_t (*now_ns)(struct env *env);
	uint64_t (*wall_ns)(struct env *env);
	uint64_t (*random)(struct env *env);
	void (*boot_id)(struct env *env, char ret_id[37]);
	uint64_t (*pids)(struct env *env); /* NULL: not known */
	void (*timer_start)(struct env *env, struct timer *t, uint64_t delay_ns, struct job *parent);
	void (*timer_cancel)(struct env *env, struct timer *t);
	void (*offload)(struct env *env, struct offload *o, struct job *parent);

	int (*file_open)(struct env *env, const char *path, int flags, struct file **ret_file);
	int (*file_close)(struct env *env, struct file *f);
	int (*file_stat)(struct file *f, struct file_info *ret_info);
	int (*file_lock)(struct file *f, bool exclusive);
	int (*file_claim)(struct file *f); /* may be NULL */
	int (*file_map)(struct file *f, uint64_t offset, uint64_t length, uint64_t *ret_length, bool *ret_data);
	void (*file_submit)(struct file *f, struct file_io *io, struct job *parent);
	int (*mkdir)(struct env *env, const char *path);
	int (*unlink)(struct env *env, const char *path);
	int (*rmdir)(struct env *env, const char *path);
	int (*rename)(struct env *env, const char *from, const char *to);
	int (*sync_dir)(struct env *env, const char *path);
	int (*real_path)(struct env *env, const char *path, char *ret_path, size_t bytes); /* NULL: there are no links */
	int (*list_dir)(struct env *env, const char *path, int (*entry)(void *arg, const char *name), void *arg);
	int (*space)(struct env *env, const char *path, uint64_t *ret_free, uint64_t *ret_total);

	int (*stream_connect)(struct env *env, const char *address, uint64_t timeout_ns, struct stream **ret_stream);
	int (*stream_listen)(struct env *env, const char *address, struct listener **ret_listener);
	int (*stream_accept)(struct listener *l, struct stream **ret_stream);
	void (*listener_close)(struct listener *l);
	const char *(*listener_address)(struct listener *l);
	void (*stream_recv)(struct stream *s, struct stream_io *io, struct job *parent);
	void (*stream_send)(struct stream *s, struct stream_io *io, struct job *parent);
	void (*stream_shutdown)(struct stream *s);
	void (*stream_close)(struct stream *s);
	uint32_t (*stream_peer_uid)(struct stream *s);
	uint32_t (*stream_peer_pid)(struct stream *s); /* may be NULL */
	bool (*own_address)(struct env *env, const char *host); /* may be NULL */
	void (*stream_peer)(struct stream *s, struct stream_peer *ret); /* zeroed; may be NULL */

	/* may be NULL, all together */
	int (*http_client_create)(struct env *env, const struct http_tls *tls, struct http_client **ret_client);
	int (*http_client_renew)(struct http_client *c, const struct http_tls *tls);
	void (*http_client_close)(struct http_client *c);
	void (*http_submit)(struct http_client *c, struct http_request *r);
	void (*http_cancel)(struct http_request *r);

	void (*fd_watch_start)(struct env *env, struct fd_watch *w, int fd, struct job *parent);
	void (*fd_watch_cancel)(struct env *env, struct fd_watch *w);
};

/* A world's `struct file`, `struct stream`, `struct listener` and `struct http_client` begin with these. */
struct file { struct env *env; };
struct stream { struct env *env; };
struct listener { struct env *env; };
struct http_client { struct env *env; };
#endif
