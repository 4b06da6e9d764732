/* The door of a server that asks for certificates: connections stand here until their handshake is over and
 * it is known who they are. Nobody stands here for longer than DOOR_NS; when DOOR_MAX do, one
 * makes place: the oldest of the address that has the most here (core/strangers.h), for an honest handshake takes milliseconds. */
#ifndef AQ_DOOR_H
#define AQ_DOOR_H
#include "proto/tls.h"

#define DOOR_MAX 64u
#define DOOR_NS (10 * NS_PER_S)

struct door;
/* `roles`: identity_role; with env->identity as ours, as it is when somebody comes. `admit` takes the connection over. NULL: no memory. */
struct door *door_new(struct env *env, unsigned roles, void (*admit)(void *arg, struct tls *tls), void *arg);
/* Takes the stream over. 0, or -errno: it was closed. */
int door_enter(struct door *d, struct stream *stream);
unsigned door_count(const struct door *d);
/* FIBER. Sends away who stands there. Accepts NULL. */
void door_close(struct door *d);
#endif
