#include "agent/daemon/args.h"

#include <errno.h>
#include <stdbool.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>

/* The option that the `n` characters at `name` mean, as getopt_long() sees it: exactly, or as the only beginning. */
static const struct argp_option *find(const struct argp_option *options, const char *name, size_t n)
{
	const struct argp_option *found = NULL;
	for (const struct argp_option *o = options; o->name; o++) {
		if (strncmp(o->name, name, n))
			continue;
		if (strlen(o->name) == n)
			return o;
		if (found)
			return NULL;
		found = o;
	}
	return found;
}

/* argp says only that something is wrong; say what. There are no short options. */
static int say_why(const struct argp_option *options, int argc, char **argv, struct report *report)
{
	for (int i = 1; i < argc && strcmp(argv[i], "--"); i++) {
		const char *w = argv[i];
		if (w[0] != '-' || !w[1])
			continue;
		size_t n = strcspn(w + 2, "=");
		const struct argp_option *o = w[1] == '-' ? find(options, w + 2, n) : NULL;
		if (!o)
			return report_set(report, -EINVAL, "unknown option %s%s", w, w[1] >= '0' && w[1] <= '9' ? " (there are no negative sizes)" : "");
		if (!o->arg && w[2 + n])
			return report_set(report, -EINVAL, "option --%s takes no value", o->name);
		if (o->arg && !w[2 + n] && ++i == argc)
			return report_set(report, -EINVAL, "option --%s needs a value, --%s=%s", o->name, o->name, o->arg);
	}
	return report_set(report, -EINVAL, "an option is wrong");
}

void args_said(const char *program)
{
	if (fflush(stdout) == 0 && !ferror(stdout))
		exit(0);
	fprintf(stderr, "%s: the output could not be written: %s\n", program, strerror(errno));
	exit(1);
}

int args_parse(const struct argp *argp, int argc, char **argv, void *input, struct report *report)
{
	if (argp_parse(argp, argc, argv, ARGP_NO_ERRS | ARGP_NO_HELP | ARGP_NO_EXIT, NULL, input) == 0)
		return 0;
	return report->text[0] ? -EINVAL : say_why(argp->options, argc, argv, report);
}
