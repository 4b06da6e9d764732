/* How long requests on a volume wait for what can't be reached: servers, or the catalog. For ever, or as the volume says for
 * a set time (meta_log.io_timeout_ms); then they end with -EIO, each once, and others go on.
 *
 * What takes long without anything being away (a busy disk, a snapshot of several volumes) isn't given up. */
#ifndef AQ_VOLUME_WAIT_H
#define AQ_VOLUME_WAIT_H
#include "parallax/volume/volume_node.h"

void volume_wait_init(struct volume_node *n);
void volume_wait_end(struct volume_node *n);         /* FIBER */
void volume_wait_begin(struct volume_frame *f);      /* a frame is in use, */
void volume_wait_over(struct volume_frame *f, int status); /* … and isn't any more */
void volume_wait_kick(struct volume_node *n);        /* there may be a limit now */
bool volume_wait_tell(struct blk_node *node, struct blk_waits *ret); /* a blk_driver.waits */
#endif
