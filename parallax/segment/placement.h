/* Where segments belong: the placement-group map ("pgmap" in the catalog). A segment's id gives its group, the group its servers
 * in order; a volume of n replicas uses the first n. The map is a hint for readers (any copy may answer, the pointer decides),
 * and binds whoever creates, rebuilds or deletes copies.
 *
 * A change moves as little as balance allows; servers that leave a group stay listed in it as `former` until its new ones
 * have everything, so that what was written before is found. */
#ifndef AQ_PLACEMENT_H
#define AQ_PLACEMENT_H
#include "parallax/catalog/meta.h"

enum {
	PLACEMENT_VERSION = 2, /* of a map with more groups, or servers, than version 1 may have; others are still written as that */
	PLACEMENT_GROUPS_MIN = 256, PLACEMENT_GROUPS_MAX = 8192, /* powers of two; the number grows with that of the servers, and never shrinks */
	PLACEMENT_SHARE_MIN = 16,                                /* groups of the smallest server, if there can be so many */
	PLACEMENT_SERVERS_MAX = 1024, PLACEMENT_SERVERS_MAX_1 = 256, /* of version 1 */
	PLACEMENT_FORMER_MAX = 5,
	PLACEMENT_CANDIDATES_MAX = META_REPLICAS_MAX + PLACEMENT_FORMER_MAX,
};

enum placed_state {
	PLACED_IN,
	PLACED_DRAINING, /* what it has goes elsewhere */
	PLACED_LOST,     /* it hasn't answered for long: what it had is made elsewhere */
};

struct placed_server {
	uuid id;
	char domain[64];   /* what fails together; "": this server alone */
	uint32_t weight;   /* GiB; 0 counts as 1 */
	enum placed_state state; /* only those that are in are targets */
};

struct placement_group {
	uint16_t target[META_REPLICAS_MAX], former[PLACEMENT_FORMER_MAX]; /* indices of servers */
	uint8_t target_count, former_count;
};

struct placement {
	uint64_t revision; /* grows with each change; 0: there is no map */
	uint32_t server_count, group_count;
	struct placed_server servers[PLACEMENT_SERVERS_MAX];
	struct placement_group groups[PLACEMENT_GROUPS_MAX];
};

bool placement_groups_valid(size_t count); /* can there be so many? */
/* A segment's, where there are so many. With twice as many it is the same, or that and the former number of groups: so each group becomes two. */
unsigned placement_group_number(unsigned groups, uint64_t segment);
/* ids come from a counter: neighbours should not share a group (splitmix64's finalizer, Steele et al. 2014) */
uint64_t placement_mix(uint64_t x);
bool placement_same_domain(const struct placed_server *a, const struct placed_server *b);
const struct placement_group *placement_group_of(const struct placement *p, uint64_t segment);
/* `to` (all zero, or a map before) becomes the same; what no map of that size has isn't touched, which saves a quarter of a megabyte where maps are small. */
void placement_copy(struct placement *to, const struct placement *from);
/* How many different domains there are: replicas can't be more. */
unsigned placement_domains(const struct placement *p);
/* The version that it is written as. */
unsigned placement_version(const struct placement *p);
/* The map with exactly these servers (at most PLACEMENT_SERVERS_MAX) made from `p`, in place. `newer`: all who will read it know the newest version;
 * otherwise it stays of version 1 if it is. -EXFULL: a group would have too many former servers (let the rebuilding that is under way end first).
 * -E2BIG: too many servers; -EOVERFLOW: too many for version 1. */
int placement_change(struct placement *p, const struct placed_server *servers, unsigned count, bool newer);
/* Would `newer` make a difference? */
bool placement_wants_newer(const struct placement *p, const struct placed_server *servers, unsigned count);

uint8_t *placement_encode(const struct placement *p, size_t *ret_length); /* malloc'd, or NULL */
int placement_decode(const void *bytes, size_t length, struct placement *ret); /* 0, -EUCLEAN, -EPROTONOSUPPORT, -ENOMEM */

#define PLACEMENT_KEY "pgmap"
/* FIBER. The map in the catalog; without one it is empty, revision 0. */
int placement_read(struct catalog *c, struct placement *ret, uint64_t *ret_revision);
/* FIBER. placement_change(), as far as what comes of it is known to all servers and agents in the catalog; also -errno of the catalog's. */
int placement_change_known(struct catalog *c, struct placement *p, const struct placed_server *servers, unsigned count);
/* FIBER. Puts it in the place of the one with that revision of the key. -EAGAIN: there is another by now. -EXFULL: it is too large for the catalog;
 * it is smaller once former servers are forgotten. */
int placement_write(struct catalog *c, const struct placement *p, uint64_t revision);
/* The servers in `gone` (a bit for each, by index) aren't former servers of that group any more. True if any was. */
bool placement_forget_former(struct placement *p, unsigned group, const uint8_t *gone);
/* FIBER. Adds a server to the map, or changes its domain or weight. 0 also if nothing had to change. */
int placement_join(struct catalog *c, const struct placed_server *server, struct report *report);
#endif
