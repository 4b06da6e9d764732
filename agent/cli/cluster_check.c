/* cluster check. */
#include <errno.h>
#include <inttypes.h>

#include "agent/cli/cli.h"
#include "agent/cli/store_cli.h"
#include "core/bytes.h"
#include "core/option.h"
#include "parallax/store/store_check.h"

struct check_output {
	struct cli *c;
	struct progress progress;
	bool started;
	json_t *volumes, *faults; /* NULL: as text */
	uint64_t missing, away;   /* copies */
};

static void say_fault(void *arg, const char *volume, const char *text)
{
	struct check_output *o = arg;
	if (o->faults) {
		json_array_append_new(o->faults, json_pack("{s:s?, s:s}", "volume", volume, "text", text));
		return;
	}
	cli_say(o->c, &o->progress, "fault: %s%s: %s", volume ? "volume " : "the catalog", volume ? volume : "", text);
}

static void say_checked(void *arg, const struct store_checked *v)
{
	struct check_output *o = arg;
	o->missing += v->copies_missing;
	o->away += v->copies_away;
	if (o->volumes) {
		json_array_append_new(o->volumes, json_pack("{s:s, s:I, s:b, s:b, s:s, s:I, s:I, s:I, s:I, s:I}", "name", v->name, "id", (json_int_t)v->id, "attached",
							    v->attached, "complete", v->complete, "why", v->why, "segments", (json_int_t)v->segments, "live",
							    (json_int_t)v->live_bytes, "faults", (json_int_t)v->faults, "copies_missing",
							    (json_int_t)v->copies_missing, "copies_away", (json_int_t)v->copies_away));
		return;
	}
	if (v->complete)
		return;
	cli_say(o->c, &o->progress, "not checked: volume %s: %s", v->name, v->why);
}

static void say_progress(void *arg, uint64_t done, uint64_t total)
{
	struct check_output *o = arg;
	if (!o->started)
		progress_start(&o->progress, o->c, "checking", total);
	o->started = true;
	progress_set(&o->progress, env_now_ns(o->c->env), done);
}

static int finish_text(const struct check_output *o, const struct store_check *k)
{
	char bytes[24];
	if (o->missing || o->away)
		printf("copies that should be there too: %" PRIu64 " missing, %" PRIu64 " on servers that don't answer (see: aquifer cluster status)\n", o->missing, o->away);
	if (k->orphans)
		printf("copies that are nobody's: %" PRIu64 ", %s (freed by the servers' gc in time, or by: aquifer cluster gc)\n", k->orphans,
		       format_size_human(k->orphan_bytes, bytes));
	printf("%" PRIu64 " volume%s checked", k->volumes - k->incomplete, k->volumes - k->incomplete == 1 ? "" : "s");
	if (k->incomplete)
		printf(", %" PRIu64 " not", k->incomplete);
	printf("; %" PRIu64 " fault%s\n", k->faults, k->faults == 1 ? "" : "s");
	return 0;
}

int cli_cluster_check(struct cli *c)
{
	struct check_output o = { .c = c };
	struct store_check k = { .volume = c->arg_count ? c->arg[0] : NULL, .fault = say_fault, .checked = say_checked, .progress = say_progress, .arg = &o };
	struct store *s;
	int r = c->arg_count ? cli_name(c, "volume", c->arg[0]) : 0;
	if (r < 0 || (r = cli_store_open(c, false, &s)) < 0)
		return r;
	if (cli_flag(c, CLI_JSON)) {
		o.volumes = json_array();
		o.faults = json_array();
	}
	r = store_check(s, &k, &c->report);
	progress_end(&o.progress, r == 0);
	r = cli_store_close(c, s, r);
	if (r < 0) {
		json_decref(o.volumes);
		json_decref(o.faults);
		return r;
	}
	if (o.volumes)
		cli_print_json(json_pack("{s:o, s:o, s:b, s:I, s:I}", "volumes", o.volumes, "faults", o.faults, "complete", k.incomplete == 0, "orphans",
					 (json_int_t)k.orphans, "orphan_bytes", (json_int_t)k.orphan_bytes));
	else
		finish_text(&o, &k);
	return k.faults ? report_set(&c->report, -EUCLEAN, "%" PRIu64 " fault%s (see the lines above; %s)", k.faults, k.faults == 1 ? "" : "s",
				     o.away ? "what they name may be on the servers that don't answer: start those, and check again"
					    : "restore what they name from a backup or another copy") : 0;
}
