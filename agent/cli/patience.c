/* What a command that waits says. A terminal's line is shared by this, the bar of progress and the output: the output is kept back until the
 * command ends, or cli_say() has it go, and a bar ends this for good. */
#include <stdarg.h>
#include <string.h>
#include <sys/ioctl.h>
#include <unistd.h>

#include "agent/cli/cli.h"
#include "core/bytes.h"
#include "core/fiber.h"

#define PATIENCE_NS (2 * NS_PER_S)
#define EVERY_NS NS_PER_S
#define OUTPUT_BYTES (64u << 10)

static unsigned line_width(void)
{
	struct winsize w;
	return ioctl(STDERR_FILENO, TIOCGWINSZ, &w) == 0 && w.ws_col > 1 ? w.ws_col - 1u : 79;
}

static void show(struct patience *p)
{
	const struct cli *c = p->c;
	char line[sizeof c->what + sizeof c->waits + 64];
	unsigned width = line_width();
	snprintf(line, sizeof line, "%s: %u s so far%s%s", c->what, (unsigned)((env_now_ns(c->env) - p->began_ns) / NS_PER_S), c->waits[0] ? ", waiting for " : "", c->waits);
	for (char *s = line; *s; s++)
		if ((unsigned char)*s < ' ')
			*s = ' ';
	fprintf(stderr, "\r\033[K%.*s", (int)width, line);
	fflush(stderr);
	p->shown = true;
}

static int watch(void *arg)
{
	struct patience *p = arg;
	for (uint64_t pause = PATIENCE_NS; !p->over; pause = EVERY_NS) {
		struct job j;
		job_init(&j, &p->c->env->loop);
		timer_start(p->c->env, &p->timer, pause, &j);
		fiber_wait(&j);
		if (!p->over && !p->quiet)
			show(p);
	}
	return 0;
}

void patience_begin(struct patience *p, struct cli *c)
{
	*p = (struct patience){ .c = c, .began_ns = env_now_ns(c->env) };
	if (!isatty(STDERR_FILENO))
		return;
	timer_init(&p->timer);
	job_init(&p->done, &c->env->loop);
	job_hold(&p->done);
	if (fiber_start(&c->env->loop, watch, p, &p->done) < 0) {
		job_put(&p->done, 0);
		fiber_wait(&p->done);
		return;
	}
	p->watching = true;
	c->patience = p;
	if (isatty(STDOUT_FILENO))
		setvbuf(stdout, NULL, _IOFBF, OUTPUT_BYTES);
}

void patience_end(struct patience *p)
{
	if (!p->watching)
		return;
	p->over = true;
	timer_cancel(p->c->env, &p->timer);
	fiber_wait(&p->done);
	patience_clear(p, true);
	p->c->patience = NULL;
}

void patience_clear(struct patience *p, bool quiet)
{
	if (!p)
		return;
	p->quiet |= quiet;
	if (p->shown)
		fputs("\r\033[K", stderr);
	p->shown = false;
}

void cli_waits(struct cli *c, const char *format, ...)
{
	va_list ap;
	va_start(ap, format);
	vsnprintf(c->waits, sizeof c->waits, format, ap);
	va_end(ap);
}
