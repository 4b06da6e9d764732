/* A store of one embedded volume, "v", on a simulated disk. */
#ifndef AQ_VOLUMETEST_H
#define AQ_VOLUMETEST_H
#include "core/env_sim.h"
#include "parallax/store/store_private.h"
#include "tests/sim/catalog_sim.h"

/* The volume's, where places.c has it, too. */
#define VOLUME_RIG_DIR "/volumes/0000000000000001"

struct volume_rig {
	struct sim *sim;
	struct sim_host *host;
	struct catalog_sim *catalogs;
	struct env *env;
	struct places places;
	struct store store;
	struct volume *volume;
	struct blk_driver driver;
	struct blk_node *node;
	struct report report;
	bool accept_flushed;
	uint64_t pid;            /* of who opens it; 0: not known */
	uint64_t size_bytes;
	uint32_t segment_blocks; /* 256; 0: as a volume chooses */
	uint8_t *buffer; /* a block */
};

/* A world, a process in it, and the volume, not open. */
struct volume_rig *volume_rig_make(uint64_t seed, uint64_t size_bytes);
struct volume_rig *volume_rig_make_on(uint64_t seed, uint64_t size_bytes, uint64_t disk_bytes);
/* Kills the process, takes all down. */
void volume_rig_free(struct volume_rig *g);
void volume_rig_begin(struct volume_rig *g); /* a process */
void volume_rig_kill(struct volume_rig *g);  /* its end */
/* FIBER. Deletes a snapshot of volume 1; its holder isn't told. */
void volume_rig_doom(struct volume_rig *g, uint64_t mark);
/* Opens the volume and a block node on it. 0 or -errno with g->report. */
int volume_rig_open(struct volume_rig *g);
/* Runs `body(g)` in a fiber of the process. */
int volume_rig_run(struct volume_rig *g, int (*body)(void *arg));
/* A body: it is closed, and nobody's any more from the beginning of that: the process may be killed meanwhile. */
int volume_rig_close(void *rig);
/* Bodies: so many writes to the first blocks, each of its own and FUA; are they there? */
enum { VOLUME_RIG_WRITES = 6 };
int volume_rig_write(void *rig);
int volume_rig_check(void *rig);
#endif
