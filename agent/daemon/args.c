#include "agent/daemon/args.h"

#include <errno.h>
#include <stdbool.h>
#include <string.h>

/* argp tells only that word `w` is wrong; say why. */
static int option_failed(const struct argp_option *options, const char *w, struct report *report)
{
	size_t n = strncmp(w, "--", 2) ? 0 : strcspn(w + 2, "=");
	for (const struct argp_option *o = options; n && o->name; o++) {
		if (strlen(o->name) != n || strncmp(o->name, w + 2, n))
			continue;
		if (o->arg)
			return report_set(report, -EINVAL, "option --%s needs a value, --%s=%s", o->name, o->name, o->arg);
		return report_set(report, -EINVAL, "option --%s takes no value", o->name);
	}
	return report_set(report, -EINVAL, "unknown option %s", w);
}

int args_parse(const struct argp *argp, int argc, char **argv, void *input, struct report *report)
{
	int next = argc;
	if (argp_parse(argp, argc, argv, ARGP_NO_ERRS | ARGP_NO_HELP | ARGP_NO_EXIT, &next, input) == 0)
		return 0;
	if (report->text[0])
		return -EINVAL;
	/* The parser stands behind the bad word, but for a letter in the middle of one. */
	bool behind = next >= argc || (next > 0 && argv[next - 1][0] == '-');
	return option_failed(argp->options, argv[behind ? next - 1 : next], report);
}
