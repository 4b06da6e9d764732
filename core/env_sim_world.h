/* What the files env_sim*.c share; but for them only the simulated catalog of the tests includes this. */
#ifndef AQ_ENV_SIM_WORLD_H
#define AQ_ENV_SIM_WORLD_H
#include "core/env_ops.h"
#include "core/env_sim.h"

struct sim_process;

/* Something that happens at a time. Embedded; whoever made it frees it in fire() or kill(). */
struct sim_event {
	uint64_t due_ns, tie;
	unsigned index;                    /* heap slot + 1; 0: not queued */
	const char *name;                  /* for the trace */
	void (*fire)(struct sim_event *e);
	void (*kill)(struct sim_event *e); /* its process is being killed */
	struct sim_process *owner;         /* NULL: the world's */
	struct link owned;
};

struct sim_process {
	struct env env; /* first */
	struct sim *sim;
	struct sim_host *host;
	unsigned number;
	uint64_t rng;
	bool paused;
	struct link link;     /* sim.processes */
	struct link events, files, streams, listeners;
	struct link deferred; /* offloads that came due while it was paused */
};

struct inode;

struct sim_host {
	struct sim *sim;
	struct link link;      /* sim.hosts */
	char name[32];
	char boot_id[37];
	int64_t wall_offset_ns;
	/* disk */
	uint64_t disk_bytes, disk_used, syncs_failed;
	uint64_t disk_others; /* sim_host_fill() */
	uint32_t io_align, misdirect, rest_flip;
	bool no_holes;
	uint64_t next_inode;
	struct inode *root;
	struct link inodes;    /* all of them */
	struct link dir_ops;   /* directory changes that aren't synced, oldest first */
};

struct sim_cut {
	struct sim_host *from, *to;
	struct link link;
};

struct sim {
	uint64_t rng, now_ns, steps, hash;
	uint64_t faults[SIM_FAULTS];
	struct sim_doses doses;
	struct sim_event **heap;
	unsigned heap_count, heap_room;
	struct link hosts, processes, listeners, cuts;
	unsigned next_process, next_port;
	FILE *trace;
};

static inline struct sim_process *process_of(struct env *env) { return container_of(env, struct sim_process, env); }

/* env_sim.c */
void *sim_alloc(size_t bytes); /* zeroed; never NULL (the simulator isn't tested for lack of memory) */
void sim_event_add(struct sim *sim, struct sim_event *e, struct sim_process *owner, uint64_t delay_ns);
void sim_event_remove(struct sim *sim, struct sim_event *e);
bool sim_happens(struct sim *sim, enum sim_fault fault, uint32_t in_a_million); /* sim_chance(), counted */
uint64_t sim_below(struct sim *sim, uint64_t limit); /* 0 … limit - 1; 0 if limit is 0 */
uint64_t sim_latency(struct sim *sim, uint64_t dose_ns, uint64_t default_ns);
void sim_trace(struct sim *sim, const struct sim_process *p, const char *what, uint64_t a, uint64_t b);
/* FIBER. -ESHUTDOWN if the process is dead afterwards: then nothing may have an effect any more. */
int sim_sleep(struct sim_process *p, uint64_t ns);
/* FIBER. A system call takes its time. -ESHUTDOWN if the process died. */
int sim_call_wait(struct sim_process *p);

/* env_sim_disk.c */
uint64_t sim_disk_left(const struct sim_host *host); /* bytes */
void sim_disk_init(struct sim_host *host);
void sim_disk_destroy(struct sim_host *host);
void sim_disk_process_died(struct sim_process *p);
void sim_disk_power_loss(struct sim_host *host);
int sim_file_open(struct env *env, const char *path, int flags, struct file **ret_file);
int sim_file_close(struct env *env, struct file *f);
int sim_file_stat(struct file *f, struct file_info *ret_info);
int sim_file_lock(struct file *f, bool exclusive);
int sim_file_map(struct file *f, uint64_t offset, uint64_t length, uint64_t *ret_length, bool *ret_data);
void sim_file_submit(struct file *f, struct file_io *io, struct job *parent);

/* env_sim_dirs.c */
int sim_mkdir(struct env *env, const char *path);
int sim_unlink(struct env *env, const char *path);
int sim_rmdir(struct env *env, const char *path);
int sim_rename(struct env *env, const char *from, const char *to);
int sim_sync_dir(struct env *env, const char *path);
int sim_list_dir(struct env *env, const char *path, int (*entry)(void *arg, const char *name), void *arg);
int sim_space(struct env *env, const char *path, uint64_t *ret_free, uint64_t *ret_total);

/* env_sim_files.c: the contents of files */
#define CHUNK_BYTES 4096u
#define SECTOR_BYTES 512u
struct chunk;
struct image {
	struct chunk **chunks;
	size_t count;  /* room for chunks */
	uint64_t used; /* chunks that there are */
	uint64_t size; /* bytes */
};
void image_free(struct image *m);
void image_share(struct image *to, const struct image *from); /* `to` becomes a copy; chunks are shared */
void image_share_range(struct image *to, const struct image *from, uint64_t offset, uint64_t length); /* whole chunks */
void image_read(const struct image *m, uint64_t offset, void *to, uint64_t length); /* zeroes where there is nothing */
void image_write(struct image *m, uint64_t offset, const void *from, uint64_t length);
void image_punch(struct image *m, uint64_t offset, uint64_t length);
void image_reserve(struct image *m, uint64_t offset, uint64_t length);
void image_truncate(struct image *m, uint64_t size);
uint64_t image_used(const struct image *m); /* bytes */
/* Bytes that [offset, offset + length) would newly take. */
uint64_t image_needs(const struct image *m, uint64_t offset, uint64_t length);
bool image_has_data(const struct image *m, uint64_t offset);

/* env_sim_net.c */
void sim_net_process_died(struct sim_process *p, bool power);
int sim_stream_connect(struct env *env, const char *address, uint64_t timeout_ns, struct stream **ret_stream);
int sim_stream_listen(struct env *env, const char *address, struct listener **ret_listener);
int sim_stream_accept(struct listener *l, struct stream **ret_stream);
void sim_listener_close(struct listener *l);
const char *sim_listener_address(struct listener *l);
void sim_stream_recv(struct stream *s, struct stream_io *io, struct job *parent);
void sim_stream_send(struct stream *s, struct stream_io *io, struct job *parent);
void sim_stream_shutdown(struct stream *s);
void sim_stream_close(struct stream *s);
uint32_t sim_stream_peer_uid(struct stream *s);
void sim_stream_peer(struct stream *s, struct stream_peer *ret);
#endif
