/* Where things live below AQUIFER_ROOT, and how to reach a socket whose path is too long. */
#ifndef AQ_PATHS_H
#define AQ_PATHS_H
#include <limits.h>
#include <stdbool.h>

#include "core/report.h"

/* Paths are built into buffers of this size; a root that leaves no room for what is below it is refused
 * by paths_resolve_root(), so nothing is ever cut off. */
#define PATHS_MAX 1024
#define PATHS_ROOT_MAX 512

/* The absolute form of what the user gave, "" for none and for "/". -ENAMETOOLONG: longer than PATHS_ROOT_MAX. */
int paths_resolve_root(const char *given, char ret_root[PATHS_MAX], struct report *report);

/* ROOT/run/aquifer and what is in it. */
void paths_run(const char *root, char ret[PATHS_MAX]);
void paths_agent_socket(const char *root, char ret[PATHS_MAX]);
void paths_agent_lock(const char *root, char ret[PATHS_MAX]);
void paths_agent_log(const char *root, char ret[PATHS_MAX]);
void paths_tapdisks(const char *root, char ret[PATHS_MAX]);
/* Sockets and mount points of exports. */
void paths_exports(const char *root, char ret[PATHS_MAX]);

/* Makes a directory and those above it (mode 0700 for the last, 0755 above), 0 also when it is there. */
int paths_make(const char *path, struct report *report);

/* The longest path of a unix socket, with its NUL. */
#define PATHS_SOCKET_MAX 108
/* A stream address for the socket `name` in `directory`, which may be too deep for a socket's address: then it
 * goes by way of a descriptor of the directory, which *ret_fd keeps open (else -1) as long as the address is used. */
int paths_socket_address(const char *directory, const char *name, char ret_address[PATHS_MAX], int *ret_fd,
			 struct report *report);

/* Where the program `name` is: beside this one, or in ../sbin or ../bin of it. 0 or -ENOENT. */
int paths_program(const char *name, char ret[PATHS_MAX], struct report *report);
#endif
