#include "agent/daemon/paths.h"

#include <errno.h>
#include <fcntl.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/stat.h>
#include <unistd.h>

static int check_root(const char *root, struct report *report)
{
	if (strlen(root) > PATHS_ROOT_MAX)
		return report_set(report, -ENAMETOOLONG, "the root directory's path is longer than %d bytes (choose a shorter one)",
				  PATHS_ROOT_MAX);
	return 0;
}

int paths_resolve_root(const char *given, char ret_root[PATHS_MAX], struct report *report)
{
	ret_root[0] = 0;
	if (!given || !given[0] || !strcmp(given, "/"))
		return 0;
	int r = check_root(given, report);
	if (r == 0 && given[0] != '/') {
		char *here = getcwd(NULL, 0);
		if (!here)
			return report_set(report, -errno, "the working directory is gone: %m");
		snprintf(ret_root, PATHS_MAX, "%s/%s", here, given);
		free(here);
	} else if (r == 0) {
		snprintf(ret_root, PATHS_MAX, "%s", given);
	}
	if (r < 0)
		return r;
	for (size_t n = strlen(ret_root); n && ret_root[n - 1] == '/';)
		ret_root[--n] = 0;
	return check_root(ret_root, report);
}

void paths_run(const char *root, char ret[PATHS_MAX]) { snprintf(ret, PATHS_MAX, "%s/run/aquifer", root); }
void paths_agent_socket(const char *root, char ret[PATHS_MAX])
{
	snprintf(ret, PATHS_MAX, "%s/run/aquifer/agent.sock", root);
}
void paths_agent_lock(const char *root, char ret[PATHS_MAX])
{
	snprintf(ret, PATHS_MAX, "%s/run/aquifer/agent.lock", root);
}
void paths_agent_log(const char *root, char ret[PATHS_MAX])
{
	snprintf(ret, PATHS_MAX, "%s/run/aquifer/agent.log", root);
}
void paths_tapdisks(const char *root, char ret[PATHS_MAX])
{
	snprintf(ret, PATHS_MAX, "%s/run/aquifer/tapdisks", root);
}
void paths_exports(const char *root, char ret[PATHS_MAX])
{
	snprintf(ret, PATHS_MAX, "%s/run/aquifer/exports", root);
}

int paths_make(const char *path, struct report *report)
{
	char part[PATHS_MAX];
	int n = snprintf(part, sizeof part, "%s", path);
	if (n < 0 || (size_t)n >= sizeof part)
		return report_set(report, -ENAMETOOLONG, "the path %.60s… is too long", path);
	for (char *p = part + 1;; p++) {
		if (*p != '/' && *p)
			continue;
		char end = *p;
		*p = 0;
		if (mkdir(part, end ? 0755 : 0700) < 0 && errno != EEXIST)
			return report_path(report, -errno, "make the directory", part);
		if (!end)
			return 0;
		*p = end;
	}
}

int paths_socket_address(const char *directory, const char *name, char ret_address[PATHS_MAX], int *ret_fd,
			 struct report *report)
{
	*ret_fd = -1;
	if (strlen(directory) + 1 + strlen(name) < PATHS_SOCKET_MAX) {
		snprintf(ret_address, PATHS_MAX, "unix:%s/%s", directory, name);
		return 0;
	}
	int fd = open(directory, O_PATH | O_DIRECTORY | O_CLOEXEC);
	if (fd < 0)
		return report_path(report, -errno, "open the directory", directory);
	snprintf(ret_address, PATHS_MAX, "unix:/proc/self/fd/%d/%s", fd, name);
	*ret_fd = fd;
	return 0;
}

int paths_program(const char *name, char ret[PATHS_MAX], struct report *report)
{
	static const char *const places[] = { "", "../sbin/", "../bin/" };
	char self[PATHS_MAX];
	ssize_t n = readlink("/proc/self/exe", self, sizeof self - 1);
	if (n < 0)
		return report_set(report, -errno, "/proc/self/exe: %m (is /proc mounted?)");
	self[n] = 0;
	char *slash = strrchr(self, '/');
	if (slash)
		slash[1] = 0;
	for (size_t i = 0; i < sizeof places / sizeof *places; i++) {
		int length = snprintf(ret, PATHS_MAX, "%s%s%s", self, places[i], name);
		if (length > 0 && length < PATHS_MAX && access(ret, X_OK) == 0)
			return 0;
	}
	return report_set(report, -ENOENT, "the program %s is neither in %s nor beside it (install it there)", name, self);
}
