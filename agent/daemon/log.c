#include "agent/daemon/log.h"

#include <stdarg.h>
#include <stdio.h>
#include <time.h>

static struct env *clock_env;
static const char *speaker = "aquifer";

void log_start(struct env *env, const char *who)
{
	clock_env = env;
	speaker = who;
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
	fprintf(stderr, "%s%s: %s\n", stamp, speaker, text);
}
