/* Simulated hosts for tests of drivers that stand on files. */
#ifndef AQ_SIMFILE_H
#define AQ_SIMFILE_H
#include "core/env_sim.h"

struct simfile {
	struct sim *sim;
	struct sim_host *host;
	struct env *env;
};

/* A host with one process. */
void simfile_start(struct simfile *s, uint64_t seed, uint32_t io_align);
void simfile_stop(struct simfile *s);
/* The machine loses power at once; the process's things must be closed before simfile_reboot(). */
void simfile_crash(struct simfile *s);
void simfile_reboot(struct simfile *s);
/* Makes a durable file of `size` zeroes (any old one is replaced). */
void simfile_make(struct simfile *s, const char *path, uint64_t size);
#endif
