/* A catalog in memory that all simulated processes share, with the guarantees of etcd:
 * linearizable, durable, and, as seen from a process:
 *
 *   - every call takes its time; an outage makes calls fail until it ends;
 *   - a transaction may end with -ETIMEDOUT although it was applied, was not, or will be
 *     applied later (at any time, also after its sender died): its compares are evaluated then;
 *   - reads may end with -ETIMEDOUT and are otherwise linearizable;
 *   - nothing is ever lost or changed by itself;
 *   - where `leases` are wanted, one lasts as long as its process says so in time, and its keys with it: an outage, or a process that is stopped
 *     for long, ends it; without, engines have none;
 *   - where `watches` are wanted a watch tells of a transaction's changes later, or never; without, engines look every second.
 *
 * Doses are chances in a million per call. */
#ifndef AQ_CATALOG_SIM_H
#define AQ_CATALOG_SIM_H
#include "core/env_sim.h"
#include "parallax/catalog/catalog.h"

struct catalog_sim;

struct catalog_sim_doses {
	uint32_t timeout;      /* -ETIMEDOUT: of a transaction, a third each applied, not applied, applied late */
	uint64_t latency_ns;   /* up to; 0: a default */
	uint64_t late_ns;      /* a late one is applied up to so much later; 0: 10 s */
	bool watches;          /* clients opened from now on have them */
	uint32_t deaf;         /* a watch doesn't hear of a transaction */
	bool leases;           /* clients opened from now on have them */
};

struct catalog_sim *catalog_sim_create(struct sim *sim);
/* No client may be open any more. What is still to be applied late is dropped. */
void catalog_sim_destroy(struct catalog_sim *s);
struct catalog_sim_doses *catalog_sim_doses(struct catalog_sim *s);
void catalog_sim_outage(struct catalog_sim *s, bool down);
/* A client for the process `env`; close it with catalog_close(). */
struct catalog *catalog_sim_open(struct catalog_sim *s, struct env *env);

/* For oracles: what is in it now, without a process. Values are borrowed. */
void catalog_sim_each(struct catalog_sim *s, const char *prefix,
		      void (*entry)(void *arg, const char *key, const struct catalog_value *value), void *arg);
uint64_t catalog_sim_revision(const struct catalog_sim *s);
/* Called after each transaction that was applied, with the keys it changed; NULL: nobody. */
void catalog_sim_watch(struct catalog_sim *s, void (*applied)(void *arg, const struct catalog_txn *t), void *arg);
#endif
