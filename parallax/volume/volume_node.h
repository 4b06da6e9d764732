/* The block driver of volumes, apart from how a volume is found and opened (parallax/store/volume_driver.c for
 * products, the simulator's own for tests). */
#ifndef AQ_VOLUME_NODE_H
#define AQ_VOLUME_NODE_H
#include "core/fiber.h"
#include "core/range.h"
#include "parallax/volume/volume.h"

struct volume_node {
	struct blk_node node;
	struct volume *volume;          /* a volume, or */
	struct volume_reader *reader;   /* a snapshot */
	struct range_lock lock;
	struct fiber_mutex resizing;
	struct {                        /* handing over: volume_handover.h */
		bool held;              /* requests wait; there may be no volume */
		bool clean;             /* held, and nothing was written here before: flushes don't wait */
		uint64_t former, next;  /* acquisitions: of the volume it had; of the one it takes */
		int gone;               /* not 0: they end with this, there is none */
		uint64_t since_ns;      /* held since then */
		unsigned in_flight;
		struct link waiting;    /* frames */
		struct fiber_cond changed;
		bool stuck;             /* the volume can't be had for now: what waits, waits for that */
	} intake;
	struct {                        /* how long requests wait: volume_wait.h */
		struct link frames;     /* frames in use, the oldest first */
		struct timer timer;
		struct job job;
		bool ticking, ending;
		uint64_t timed_out, last_ns; /* requests that were given up; the last one, since 1970 */
		enum blk_op last_op;
		char last_for[256];
		struct fiber_cond ended;
	} wait;
	uint64_t io_timeout_ns;         /* while there is no volume, and for snapshots; 0: for ever */
	void *open_state;               /* the opener's own */
};

enum { VOLUME_FRAME_READS = 16, VOLUME_FRAME_IOVS = 96 };

enum volume_phase { PHASE_HELD, PHASE_LOCK, PHASE_MAP, PHASE_READ, PHASE_LOG };

/* A request; here only so that drivers can say how large it is. */
struct volume_frame {
	struct job job;
	struct volume_node *n;
	struct link link;               /* waiting */
	struct link watched;            /* volume_node.wait.frames */
	enum volume_phase phase;        /* what it waits for */
	bool expired;                   /* it is given up, and ends as soon as it can */
	struct timer again;
	struct blk_io *io;
	struct range range;
	uint64_t first, blocks;         /* all blocks that the request touches */
	uint32_t head, tail;            /* bytes of the first and last block that it leaves alone */
	uint32_t at, attempts;
	struct pointer pointers[VOLUME_IO_BLOCKS];
	struct block_read reads[VOLUME_FRAME_READS];
	struct iovec iovs[VOLUME_FRAME_IOVS];
	uint8_t *edge[2];               /* partial blocks, made when first needed */
	struct iovec edge_iov[2];
	struct volume_write writes[3];
	unsigned write_count;
	uint64_t cleared;
	void *copy;                     /* of what is written from memory that can't be sent as it is; or of one block read */
	bool bounced;
	uint32_t bounced_block;
	struct iovec copy_iov;
	struct volume_flush flush;
};

/* Sets the node up over a volume or a reader, or (both NULL) over nothing yet. */
void volume_node_init(struct volume_node *n, struct volume *v, struct volume_reader *d);
/* FIBER. The last request has ended. After this the volume may be closed. */
void volume_node_end(struct volume_node *n);
void volume_node_submit(struct blk_node *node, struct blk_io *io);
void volume_node_start(struct volume_frame *f); /* a request that waited */
void volume_node_finish(struct volume_frame *f, int status);
void volume_node_describe(struct blk_node *node, void (*item)(void *arg, const char *key, uint64_t value), void *arg);
/* Verbs: "snapshot NAME", "checkpoint", "resize BYTES [force]", "io-timeout MS", and those of volume_group.h. FIBER; several at once. */
int volume_node_control(struct blk_node *node, const char *verb, const char *const *args, char **ret_json, struct report *report);
#endif
