/* What every engine of the catalog must do alike: transactions, revisions, order, pages, counters, several at once. */
#ifndef AQ_CATALOG_CONFORMANCE_H
#define AQ_CATALOG_CONFORMANCE_H
#include "parallax/catalog/catalog.h"

/* FIBER. Uses keys below test/, and removes them. 0, or -1 and what was wrong. */
int catalog_conformance(struct catalog *c, char *ret_why, size_t bytes);
#endif
