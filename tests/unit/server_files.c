/* What a server does with the files that it may have open (server/server.c). */
#include <criterion/criterion.h>

#include "server/server.h"

static void share(uint64_t files, unsigned wanted, unsigned segments, unsigned connections)
{
	struct server_limits l = { .connections_max = wanted };
	cr_expect_eq(server_share_files(files, &l), segments, "of %llu", (unsigned long long)files);
	cr_expect_eq(l.connections_max, connections, "of %llu: %u", (unsigned long long)files, l.connections_max);
}

Test(server_files, connections_come_before_segments)
{
	struct server_limits none = { 0 };
	cr_expect_eq(server_wants_files(&none), 3200u);
	share(UINT64_MAX, 0, SEGMENT_FILES_DEFAULT, SERVER_CONNECTIONS_DEFAULT);
	share(524288, 65536, SEGMENT_FILES_DEFAULT, 65536);
	share(3200, 0, SEGMENT_FILES_DEFAULT, SERVER_CONNECTIONS_DEFAULT);
	share(2100, 0, 948, SERVER_CONNECTIONS_DEFAULT);
	share(1024, 0, 224, 672);
	share(1024, 20, 876, 20);
	share(2, 0, 1, 1);
}
