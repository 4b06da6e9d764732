/* Three servers, each in a domain of its own, and a volume on all of them, min_replicas 2, whose blocks were written once; attached. */
#ifndef AQ_CLUSTERTEST_H
#define AQ_CLUSTERTEST_H
#include "parallax/segment/segment_scrub.h"
#include "parallax/volume/volume_private.h"
#include "server/keeper.h"
#include "server/scrub.h"
#include "server/server.h"
#include "tests/unit/between.h"
#include "tests/unit/volumetest.h"

enum { SERVERS = 3, BLOCKS = 40 };

struct one_server {
	struct cluster_rig *rig;
	char domain[8], address[24];
	struct sim_host *host;
	struct env *env;
	struct catalog *catalog;
	struct segment_server *dir;
	struct server *server;
	struct scrub *scrub;
	struct keeper *keeper; /* NULL: it rebuilds nothing */
};

struct cluster_rig {
	struct volume_rig g; /* first: its functions are used */
	struct one_server servers[SERVERS];
	struct segment_io io; /* what is asked of a directory, and the answer */
	struct scrub_slice slice;
	uint64_t segment;
	uint32_t end;
	int status;
	uint8_t *run; /* all blocks */
	unsigned shift; /* the first block's value */
};

struct cluster_rig *cluster_make(void);
void cluster_free(struct cluster_rig *c);
void cluster_server_begin(struct cluster_rig *c, unsigned i); /* a process of it */
void cluster_server_end(struct cluster_rig *c, unsigned i);   /* killed */
/* Attached by who is near the second server. */
void cluster_open(struct cluster_rig *c);
/* A function stands between all servers and who asks them (between.h). */
void cluster_between(struct cluster_rig *c, between_submit *submit);
/* Bodies for volume_rig_run(). */
int cluster_close(void *arg);
int cluster_read(void *arg); /* all of it: is it what was written? 0, or what a read said */

/* On the disks. */
struct place {
	char path[64];
	uint64_t segment, offset; /* of the page in the file */
};

/* Where a server has a block of the volume. */
struct place cluster_find(struct cluster_rig *c, unsigned server, unsigned block);
void cluster_flip(struct cluster_rig *c, unsigned server, const struct place *p); /* damages the page */
bool cluster_is_whole(struct cluster_rig *c, unsigned server, const struct place *p, unsigned block);
#endif
