/* The block driver of volumes, apart from how a volume is found and opened (parallax/volume_driver.c for
 * products, the simulator's own for tests). */
#ifndef AQ_VOLUME_NODE_H
#define AQ_VOLUME_NODE_H
#include "core/range.h"
#include "parallax/volume.h"

struct volume_node {
	struct blk_node node;
	struct volume *volume;          /* a volume, or */
	struct volume_reader *reader;   /* a snapshot */
	struct range_lock lock;
	void *open_state;               /* the opener's own */
};

extern const size_t volume_frame_size;
/* Sets the node up over a volume or a reader. */
void volume_node_init(struct volume_node *n, struct volume *v, struct volume_reader *d);
void volume_node_submit(struct blk_node *node, struct blk_io *io);
void volume_node_describe(struct blk_node *node, void (*item)(void *arg, const char *key, uint64_t value), void *arg);
/* Verbs: "snapshot NAME", "checkpoint", "resize BYTES [force]". FIBER. */
int volume_node_control(struct blk_node *node, const char *verb, const char *const *args, char **ret_json, struct report *report);
#endif
