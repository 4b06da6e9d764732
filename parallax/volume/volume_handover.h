/* Handing a volume over between two block nodes, each in a process of its own, without an error and without a break in what is there.
 *
 *   target   prepare: a node over nothing, whose requests wait ───────────▶ activate ─▶ serves
 *   source   serves ─▶ deactivate: checkpoint, hold, drain, close, offer ─▶ leave, or abort ─▶ serves again
 *
 * The offer is one transaction that also publishes all there is: before it a crash of either side is an ordinary takeover,
 * after it a clean open. Taking an offer, by the target or back by the source, is one transaction too, and one of them wins:
 * the other's gets -ESTALE. Requests at the source wait from deactivate to abort or leave; at the target until it serves or leaves.
 *
 * All FIBER, one at a time per node. */
#ifndef AQ_VOLUME_HANDOVER_H
#define AQ_VOLUME_HANDOVER_H
#include "parallax/volume/volume_node.h"

/* The node was opened over nothing; size and limit are as its record says now: they may be others when it is activated. */
void volume_handover_prepare(struct volume_node *n, uint64_t size_bytes, uint64_t io_timeout_ns);
/* Target, or (to take it back) source: `how->offer` says which offer. 0: it serves. -ESTALE: the offer is gone, somebody else has it.
 * Other failures: it may be tried again, and must be, by this side or the other, before anybody else can have the volume without force. */
int volume_handover_take(struct volume_node *n, const struct volume_open *how, struct report *report);
/* Source. 0: it is offered. Otherwise it isn't, or that isn't known. If it has its volume still, it serves as before; else, and when it is
 * offered, requests wait: for take, which also gets back what never was offered, or for leave. */
int volume_handover_deactivate(struct volume_node *n, const struct volume_offer *to, struct report *report);
/* It won't serve any more: what waits, and all that comes, ends with `status`; but flushes succeed, for what was acknowledged is durable. */
void volume_handover_leave(struct volume_node *n, int status);
#endif
