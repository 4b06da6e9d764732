/* Catalogs by their URLs, as programs open them: in the simulator's program catalog_etcd_open() and catalog_sqlite_open() are those of
 * catalog_url.c (make/sim.mk), which find the simulated one. What is above them (places.c, store_open(), the driver `volume`) is the real code. */
#ifndef AQ_CATALOG_URL_H
#define AQ_CATALOG_URL_H
#include "tests/sim/catalog_sim.h"

/* `where`: what comes after etcd: or sqlite: in the URL; borrowed. In this world only, until catalog_url_forget(); `catalogs`
 * NULL: nothing is there any more. A file's catalog is
 * there once one who may make it has opened it, and has neither watches nor leases. */
void catalog_url_name(struct sim *sim, const char *where, struct catalog_sim *catalogs);
void catalog_url_forget(struct sim *sim);
#endif
