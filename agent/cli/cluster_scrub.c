/* cluster scrub. */
#include <errno.h>
#include <inttypes.h>

#include "agent/cli/cli.h"
#include "agent/cli/store_cli.h"
#include "core/option.h"
#include "parallax/store/store_scrub.h"

struct scrub_output {
	struct cli *c;
	struct progress progress;
	bool started;
	json_t *faults, *skipped; /* NULL: as text */
};

static void say_fault(void *arg, const char *where, const char *text, bool repaired)
{
	struct scrub_output *o = arg;
	if (o->faults) {
		json_array_append_new(o->faults, json_pack("{s:s, s:s, s:b}", "where", where, "text", text, "repaired", repaired));
		return;
	}
	cli_say(o->c, &o->progress, "%s: %s: %s", repaired ? "repaired" : "damaged", where, text);
}

static void say_skipped(void *arg, const char *where, const char *why)
{
	struct scrub_output *o = arg;
	if (o->skipped) {
		json_array_append_new(o->skipped, json_pack("{s:s, s:s}", "where", where, "why", why));
		return;
	}
	cli_say(o->c, &o->progress, "not scrubbed: %s: %s", where, why);
}

static void say_progress(void *arg, uint64_t done, uint64_t total)
{
	struct scrub_output *o = arg;
	if (!o->started)
		progress_start(&o->progress, o->c, "scrubbing", total);
	o->started = true;
	o->progress.total = total; /* servers find out as they go */
	progress_set(&o->progress, env_now_ns(o->c->env), done);
}

int cli_cluster_scrub(struct cli *c)
{
	struct scrub_output o = { .c = c };
	struct store_scrub k = { .volume = c->arg_count ? c->arg[0] : NULL, .fault = say_fault, .skipped = say_skipped, .progress = say_progress, .arg = &o };
	struct store *s;
	char bytes[24];
	int r = c->arg_count ? cli_name(c, "volume", c->arg[0]) : 0;
	if (r < 0 || (r = cli_store_open(c, false, &s)) < 0)
		return r;
	if (cli_flag(c, CLI_JSON)) {
		o.faults = json_array();
		o.skipped = json_array();
	}
	r = store_scrub(s, &k, &c->report);
	progress_end(&o.progress, r == 0);
	r = cli_store_close(c, s, r);
	if (r < 0) {
		json_decref(o.faults);
		json_decref(o.skipped);
		return r;
	}
	if (o.faults)
		cli_print_json(json_pack("{s:I, s:I, s:I, s:I, s:o, s:o, s:b}", "copies", (json_int_t)k.copies, "bytes", (json_int_t)k.bytes, "bad", (json_int_t)k.bad,
					 "repaired", (json_int_t)k.repaired, "faults", o.faults, "skipped", o.skipped, "complete", k.incomplete == 0));
	else
		printf("%" PRIu64 " cop%s read, %s; %" PRIu64 " damaged, %" PRIu64 " of these repaired\n", k.copies, k.copies == 1 ? "y" : "ies",
		       format_size_human(k.bytes, bytes), k.bad, k.repaired);
	return k.bad > k.repaired ? report_set(&c->report, -EUCLEAN, "%" PRIu64 " damaged block%s could not be repaired (restore the volumes from a backup; aquifer cluster check "
					       "says which are in use)", k.bad - k.repaired, k.bad - k.repaired == 1 ? "" : "s") : 0;
}
