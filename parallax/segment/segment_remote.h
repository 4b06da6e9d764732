/* Calls to an aquifer-server that aren't about one segment: how its own work goes. */
#ifndef AQ_SEGMENT_REMOTE_H
#define AQ_SEGMENT_REMOTE_H
#include "parallax/segment/segment.h"
#include "proto/rpc.h"
#include "proto/segment.pb-c.h"

/* FIBER. `server` is one of segment_remote_open() or segment_remote_start(). The call is filled here, and is the caller's to clean
 * (rpc_call_clean) whatever is returned. 0 or -errno with a report; -ENOSYS: a server of a version that doesn't know the method. */
int segment_remote_call(struct segment_server *server, Aquifer__Segment__Method method, const ProtobufCMessage *request,
			const ProtobufCMessageDescriptor *reply, struct rpc_call *ret_call, struct report *report);
#endif
