/* What store_check*.c share. */
#ifndef AQ_STORE_CHECK_PRIVATE_H
#define AQ_STORE_CHECK_PRIVATE_H
#include "parallax/store/store_check.h"
#include "parallax/store/store_private.h"

/* Lines that are kept back until it is sure that they mean something. */
struct fault_lines {
	char **text; /* malloc'd, each too */
	size_t count;
	uint64_t all; /* more may have been added than are kept */
};
int fault_lines_add(struct fault_lines *l, const char *format, ...) __attribute__((format(printf, 2, 3))); /* 0 or -ENOMEM */

/* FIBER. Copies on servers, and their bytes, that are nobody's. 0 or -errno. */
int store_check_orphans(struct store *s, uint64_t *ret_copies, uint64_t *ret_bytes);
/* FIBER. Now, for `cluster status`. As catalog_txn(). */
int store_health_write(struct store *s, const char *what, uint64_t faults, uint64_t incomplete);
/* FIBER. Is every reference in the catalog sound? Adds to `ret` what isn't. 0 or -errno: it can't be read. */
int store_check_catalog(struct store *s, struct fault_lines *ret);
#endif
