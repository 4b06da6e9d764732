/* cluster recover. */
#include <errno.h>
#include <inttypes.h>

#include "agent/cli/cli.h"
#include "agent/cli/store_cli.h"
#include "core/option.h"
#include "parallax/store/store_recover.h"

struct recover_output {
	struct cli *c;
	struct progress progress;
	bool started;
	json_t *volumes; /* NULL: as text */
};

static const char *const hows[] = { [STORE_RECOVERED_SAME] = "same", [STORE_RECOVERED_NEWER] = "newer", [STORE_RECOVERED_BACK] = "back",
				    [STORE_RECOVERED_GONE] = "deleted", [STORE_RECOVERED_LEFT] = "left over", [STORE_RECOVERED_NOT] = "failed" };

static void say_json(struct recover_output *o, const struct store_recovered *v)
{
	json_array_append_new(o->volumes, json_pack("{s:s, s:I, s:s, s:b, s:o, s:I, s:b, s:I, s:I, s:s, s:s, s:s}", "name", v->name, "id", (json_int_t)v->id, "is", hows[v->how], "behind", v->behind,
						    "checkpoint_ns", v->checkpoint_ns ? json_integer((json_int_t)v->checkpoint_ns) : json_null(),
						    "lost_blocks", (json_int_t)v->lost_blocks, "lost_more", v->lost_more,
						    "snapshots_back", (json_int_t)v->snapshots_back, "snapshots_deleted", (json_int_t)v->snapshots_gone, "replaced", v->replaced, "rolled_back", v->rolled_back, "why", v->why ? v->why : ""));
}

static const char *say_snapshots(const struct store_recovered *v, char text[96])
{
	int n = 0;
	text[0] = '\0';
	if (v->snapshots_back)
		n = snprintf(text, 96, ", with %u snapshot%s made since", v->snapshots_back, v->snapshots_back == 1 ? "" : "s");
	if (v->snapshots_gone)
		snprintf(text + n, 96 - (size_t)n, ", without %u deleted since", v->snapshots_gone);
	return text;
}

static void say_volume(void *arg, const struct store_recovered *v)
{
	struct recover_output *o = arg;
	char snapshots[96], when[32] = "", name[STORE_NAME_BYTES + 16];
	if (o->volumes) {
		say_json(o, v);
		return;
	}
	snprintf(name, sizeof name, "%s", v->name);
	if (!name[0])
		snprintf(name, sizeof name, "volume %" PRIu64, v->id);
	if (v->checkpoint_ns)
		cli_time(v->checkpoint_ns, when);
	say_snapshots(v, snapshots);
	switch (v->how) {
	case STORE_RECOVERED_SAME: break;
	case STORE_RECOVERED_NEWER:
		if (v->rolled_back[0]) {
			cli_say(o->c, &o->progress, "%s: was rolled back or deleted since the backup, and is as in its newest snapshot, %s@%s", name, name, v->rolled_back);
			break;
		}
		cli_say(o->c, &o->progress, "%s: has what was written since the backup%s%s%s", name, when[0] ? ", last checkpoint " : "", when, snapshots);
		break;
	case STORE_RECOVERED_BACK:
		cli_say(o->c, &o->progress, "%s: was made since the backup, and is back, last checkpoint %s%s", name, when, snapshots);
		if (v->replaced[0])
			cli_say(o->c, &o->progress, "%s: is what was called %s at the time of the backup, and was rolled back, renamed or deleted since", v->replaced, name);
		break;
	case STORE_RECOVERED_GONE: cli_say(o->c, &o->progress, "%s: was deleted since the backup, and is forgotten", name); break;
	case STORE_RECOVERED_LEFT: cli_say(o->c, &o->progress, "%s: left over from a volume made since the backup, which was deleted or just made: %s", name, v->why); break;
	case STORE_RECOVERED_NOT: cli_say(o->c, &o->progress, "%s: not recovered: %s", name, v->why); break;
	}
	if (v->behind && v->how != STORE_RECOVERED_NOT)
		cli_say(o->c, &o->progress, "%s: WITHOUT what was written last, as a segment before that is missing", name);
	if (v->lost_blocks || v->lost_more)
		cli_say(o->c, &o->progress, "%s: WITHOUT %" PRIu64 " blocks of 4 KiB%s, which no server has that answers, as a checkpoint that is lost had freed them: reading those fails that weren't written since", name,
			v->lost_blocks, v->lost_more ? " and more" : "");
}

static void say_progress(void *arg, uint64_t done, uint64_t total)
{
	struct recover_output *o = arg;
	if (!o->started)
		progress_start(&o->progress, o->c, "recovering", total);
	o->started = true;
	o->progress.total = total; /* those made since are found on the way */
	progress_set(&o->progress, env_now_ns(o->c->env), done);
}

int cli_cluster_recover(struct cli *c)
{
	struct recover_output o = { .c = c };
	struct store_recover how = { .force = cli_flag(c, CLI_FORCE), .volume = say_volume, .progress = say_progress, .arg = &o };
	struct store *s;
	int r = cli_store_open(c, false, &s);
	if (r < 0)
		return r;
	if (cli_flag(c, CLI_JSON))
		o.volumes = json_array();
	r = store_recover(s, &how, &c->report);
	progress_end(&o.progress, r == 0);
	r = cli_store_close(c, s, r);
	if (r < 0) {
		json_decref(o.volumes);
		return r;
	}
	uint64_t failed = how.counts[STORE_RECOVERED_NOT];
	if (o.volumes) {
		cli_print_json(json_pack("{s:o, s:b}", "volumes", o.volumes, "complete", failed == 0));
	} else {
		if (how.counts[STORE_RECOVERED_LEFT])
			printf("%" PRIu64 " left over, of which only segments are there: they are deleted once that is confirmed\n", how.counts[STORE_RECOVERED_LEFT]);
		printf("%" PRIu64 " as they were in the backup, %" PRIu64 " newer, %" PRIu64 " made since, %" PRIu64 " deleted since, %" PRIu64 " not recovered "
		       "(look at them; then: aquifer cluster restore --confirm)\n", how.counts[STORE_RECOVERED_SAME], how.counts[STORE_RECOVERED_NEWER],
		       how.counts[STORE_RECOVERED_BACK], how.counts[STORE_RECOVERED_GONE], failed);
	}
	return failed ? report_set(&c->report, -EUCLEAN, "%" PRIu64 " volume%s could not be recovered, and can't be opened (mend what is said above, and recover again)", failed,
				   failed == 1 ? "" : "s") : 0;
}
