/* A store of its own for a test, in a directory of the real file system. */
#ifndef AQ_STORETEST_H
#define AQ_STORETEST_H
#include <criterion/criterion.h>
#include <string.h>

#include "parallax/store/store_private.h"

struct rig {
	struct env *env;
	char dir[64];
	struct store *store;
	struct report report;
	int (*body)(struct rig *r);
	uint64_t random, id; /* the test's own; random is 1 at first */
};

/* Works; a failure says why. */
#define OK(r, call)                                                                    \
	do {                                                                           \
		(r)->report.text[0] = '\0';                                            \
		int status_ = (call);                                                  \
		cr_assert_eq(status_, 0, "%s: %d %s", #call, status_, (r)->report.text); \
	} while (0)
/* Fails so, with one line that says `why`. */
#define FAILS(r, call, status, why)                                                                 \
	do {                                                                                        \
		(r)->report.text[0] = '\0';                                                         \
		int status_ = (call);                                                               \
		cr_assert_eq(status_, status, "%s: %d %s", #call, status_, (r)->report.text);       \
		cr_assert(strstr((r)->report.text, why) && !strchr((r)->report.text, '\n'), "%s: '%s'", #call, (r)->report.text); \
	} while (0)
#define REPORT(r) (&(r)->report)

/* Makes it, runs `body(r)` in a fiber, takes it away; blktest_root is its directory. */
void rig_test(int (*body)(struct rig *r));
/* The rest is for bodies. How many keys the catalog has with that prefix; that `cluster check` finds no fault. */
unsigned rig_keys(struct rig *r, const char *prefix);
void rig_check(struct rig *r);
#endif
