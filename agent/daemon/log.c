#include "agent/daemon/log.h"

#include <fcntl.h>
#include <stdarg.h>
#include <stdio.h>
#include <sys/stat.h>
#include <time.h>
#include <unistd.h>

#include "agent/daemon/paths.h"

static struct env *clock_env;
static const char *speaker = "aquifer";
static char limited[PATHS_MAX]; /* "": it isn't */

void log_start(struct env *env, const char *who)
{
	clock_env = env;
	speaker = who;
}

void log_limit(const char *path) { snprintf(limited, sizeof limited, "%s", path); }

static bool is_file(int fd, const struct stat *file)
{
	struct stat st;
	return fstat(fd, &st) == 0 && st.st_dev == file->st_dev && st.st_ino == file->st_ino;
}

/* What can't be done now is tried again with the next line. */
static void turn_over(void)
{
	char before[PATHS_MAX + 2], next[PATHS_MAX + 4];
	struct stat st;
	if (!limited[0] || stat(limited, &st) < 0 || !S_ISREG(st.st_mode) || st.st_size < LOG_BYTES_MAX || !is_file(STDERR_FILENO, &st))
		return;
	snprintf(before, sizeof before, "%s.1", limited);
	snprintf(next, sizeof next, "%s.new", limited);
	int fd = open(next, O_WRONLY | O_CREAT | O_TRUNC | O_APPEND | O_CLOEXEC, 0600);
	if (fd < 0)
		return; /* the one before stays */
	if (rename(limited, before) < 0 || rename(next, limited) < 0) {
		unlink(next);
		close(fd);
		return;
	}
	if (is_file(STDOUT_FILENO, &st))
		dup2(fd, STDOUT_FILENO);
	dup2(fd, STDERR_FILENO);
	close(fd);
}

void log_line(const char *format, ...)
{
	char stamp[32] = "", text[1024];
	time_t now = clock_env ? (time_t)(env_wall_ns(clock_env) / NS_PER_S) : 0;
	struct tm tm;
	if (now && localtime_r(&now, &tm))
		strftime(stamp, sizeof stamp, "%Y-%m-%d %H:%M:%S ", &tm);
	va_list ap;
	va_start(ap, format);
	vsnprintf(text, sizeof text, format, ap);
	va_end(ap);
	turn_over();
	fprintf(stderr, "%s%s: %s\n", stamp, speaker, text);
}
