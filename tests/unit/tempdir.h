/* The end of a directory that a test made with mkdtemp(). */
#ifndef AQ_TEMPDIR_H
#define AQ_TEMPDIR_H
#include <criterion/criterion.h>
#include <stdio.h>
#include <stdlib.h>

static inline void tempdir_remove(const char *dir)
{
	char command[128];
	cr_assert_lt((size_t)snprintf(command, sizeof command, "rm -rf %s", dir), sizeof command);
	cr_assert_eq(system(command), 0);
}
#endif
