#include "parallax/volume/volume_group.h"

#include <errno.h>
#include <inttypes.h>
#include <stdlib.h>
#include <string.h>

#include "core/bytes.h"
#include "core/plant.h"
#include "parallax/volume/volume_private.h"

#define LOOK_NS (10 * NS_PER_MS)
#define TIRED_NS (5 * NS_PER_S) /* after its release a volume waits so long for the outcome */
#define OUTCOME_NS (5 * NS_PER_MS) /* so long after its release it looks for the outcome, then after twice that … */
#define OUTCOME_NS_MAX (100 * NS_PER_MS)

/* ---- the hold ---- */

void group_hold(struct volume *v) { v->group.held = !v->group.over && !PLANTED(group_ack_in_hold); }

static void end_hold(struct volume *v, bool broken)
{
	if (v->group.over)
		return;
	v->group.over = true;
	v->group.broken = broken && !PLANTED(group_deadline_unbroken);
	v->group.held = false;
	/* either is enough: that a broken hold is reported, and that it voids the group at once */
	bool patient = !broken || PLANTED(group_deadline_unbroken) || PLANTED(group_commit_unchecked);
	v->group.tired_ns = patient ? env_now_ns(v->env) + TIRED_NS : 0;
	apply_run(v);
	log_pump(v);
}

/* ---- the outcome ---- */

/* Is group/G gone? If `tired`, it goes. 0, or -errno: not known yet. */
static int look_at_group(struct volume *v, uint64_t group, bool tired)
{
	char key[META_KEY_BYTES];
	struct catalog_value seen;
	meta_key_group(group, key);
	int r = catalog_get(v->catalog, key, &seen);
	uint64_t revision = seen.revision;
	catalog_value_free(&seen);
	if (r < 0)
		return r == -ENOENT ? 0 : r;
	if (!tired)
		return -EAGAIN;
	return catalog_delete_at(v->catalog, key, revision);
}

static int find_outcome(struct volume *v, bool tired, bool *ret_published)
{
	char key[META_KEY_BYTES];
	struct catalog_value seen;
	int r = PLANTED(group_assume_void) ? 0 : look_at_group(v, v->group.id, tired);
	if (r < 0)
		return r;
	meta_key_snapshot(v->id, v->group.seq, key);
	r = catalog_get(v->catalog, key, &seen);
	catalog_value_free(&seen);
	*ret_published = r == 0;
	return r == -ENOENT ? 0 : r;
}

/* As long as that takes: until it is known, nothing can be frozen. */
static bool settle(struct volume *v)
{
	bool published = false;
	for (uint64_t pause_ns = OUTCOME_NS; !v->failed; pause_ns = MIN(pause_ns * 2, OUTCOME_NS_MAX)) {
		bool tired = v->group.asked || v->close_by_ns || env_now_ns(v->env) >= v->group.tired_ns;
		int r = tired ? 0 : fiber_sleep(&v->env->loop, pause_ns);
		if (r == 0)
			r = find_outcome(v, tired, &published);
		if (r == 0)
			break;
		if (r != -ESHUTDOWN && tired)
			r = fiber_sleep(&v->env->loop, pause_ns);
		if (r == -ESHUTDOWN || volume_gives_up(v))
			volume_fail(v, r == -ESHUTDOWN ? r : -ETIMEDOUT);
	}
	return published;
}

static void sleep_until(struct volume *v, uint64_t until_ns)
{
	uint64_t now = env_now_ns(v->env);
	int r = fiber_sleep(&v->env->loop, MIN(LOOK_NS, until_ns > now ? until_ns - now : 0));
	if (r < 0)
		volume_fail(v, r);
}

/* From before the mark until its outcome is known. */
static int watch(void *arg)
{
	struct volume *v = arg;
	while (!v->failed && !v->group.over) {
		if (v->group.asked || v->close_by_ns || env_now_ns(v->env) >= v->group.deadline_ns)
			end_hold(v, /* broken= */ true);
		else
			sleep_until(v, v->group.deadline_ns);
	}
	while (v->group.marking)
		sleep_until(v, UINT64_MAX);
	if (v->group.seq)
		snapshot_settle(v, v->group.seq, settle(v));
	v->group.id = 0;
	v->log.fibers--;
	fiber_cond_wake(&v->log.changed);
	return 0;
}

/* ---- what is asked of it ---- */

static int mark_now(struct volume *v, struct volume_mark *ret_mark, struct report *report)
{
	struct log_append mark = { .hold = true };
	snapshot_lock(v);
	uint64_t size_bytes = v->meta.size_bytes;
	int r = v->group.over ? -ETIME : snapshot_mark(v, &mark);
	if (r < 0) {
		fiber_mutex_unlock(&v->marking);
		return report_set(report, r, r == -ETIME ? "its writes were held for as long as they may be, before it was marked (is the disk slow? try again)" :
				  "it can't be marked: %s", errno_text(r));
	}
	*ret_mark = (struct volume_mark){ mark.seq, mark.position, size_bytes, v->owner_revision };
	v->group.seq = mark.seq; /* the watcher unlocks */
	return v->group.over ? report_set(report, -ETIME, "its writes were held for as long as they may be, before the mark was durable (is the disk slow? try again)") : 0;
}

int volume_group_mark(struct volume *v, uint64_t group, uint64_t hold_ns, struct volume_mark *ret_mark, struct report *report)
{
	if (v->failed || v->closing)
		return report_set(report, -EIO, "it can't be written");
	if (v->group.id)
		return report_set(report, -EBUSY, "another snapshot of several volumes is being taken of it (try again)");
	v->group = (struct volume_group){ .id = group, .deadline_ns = env_now_ns(v->env) + hold_ns, .marking = true };
	v->log.fibers++;
	int r = fiber_start(&v->env->loop, watch, v, NULL);
	if (r < 0) {
		v->log.fibers--;
		v->group.id = 0;
		return r;
	}
	r = mark_now(v, ret_mark, report);
	if (r < 0)
		end_hold(v, /* broken= */ true);
	v->group.marking = false;
	return r;
}

int volume_group_release(struct volume *v, uint64_t group, struct report *report)
{
	if (v->group.id != group)
		return report_set(report, -ENOENT, "it is not held for this snapshot any more");
	bool unbroken = !v->group.over || (PLANTED(group_deadline_unbroken) && !v->group.broken);
	end_hold(v, /* broken= */ false);
	return unbroken && !v->failed ? 0 : report_set(report, -ETIME, "its writes couldn't be held until all volumes were marked (is a disk slow? try again)");
}

int volume_group_end(struct volume *v, uint64_t group)
{
	if (v->group.id == group)
		v->group.asked = true;
	return 0;
}

/* ---- as verbs ---- */

#define MARK_FORMAT(conversion) \
	"{\"seq\":%" conversion ",\"position\":%" conversion ",\"size\":%" conversion ",\"owner\":%" conversion "}"

int volume_mark_decode(const char *json, struct volume_mark *ret_mark)
{
	struct volume_mark m;
	if (sscanf(json, MARK_FORMAT(SCNu64), &m.seq, &m.position, &m.size_bytes, &m.owner_revision) != 4 || !m.seq)
		return -EPROTO;
	*ret_mark = m;
	return 0;
}

static int mark_verb(struct volume *v, uint64_t group, const char *hold_ms, char **ret_json, struct report *report)
{
	struct volume_mark m;
	uint64_t ms = hold_ms ? strtoull(hold_ms, NULL, 10) : 0;
	if (ms == 0 || ms > VOLUME_HOLD_MS_MAX)
		return report_set(report, -EINVAL, "a hold lasts from 1 to %d ms", VOLUME_HOLD_MS_MAX);
	int r = volume_group_mark(v, group, ms * NS_PER_MS, &m, report);
	if (r == 0 && asprintf(ret_json, MARK_FORMAT(PRIu64), m.seq, m.position, m.size_bytes, m.owner_revision) < 0) {
		*ret_json = NULL;
		r = -ENOMEM; /* who asked gives the group up */
	}
	return r;
}

int volume_group_control(struct volume *v, const char *verb, const char *const *args, char **ret_json, struct report *report)
{
	uint64_t group = args[0] ? strtoull(args[0], NULL, 16) : 0;
	if (strncmp(verb, "group-", 6) != 0)
		return -EOPNOTSUPP;
	if (group == 0)
		return report_set(report, -EINVAL, "%s needs a group's number", verb);
	if (strcmp(verb, "group-mark") == 0)
		return mark_verb(v, group, args[1], ret_json, report);
	if (strcmp(verb, "group-release") == 0)
		return volume_group_release(v, group, report);
	if (strcmp(verb, "group-end") == 0)
		return volume_group_end(v, group);
	return -EOPNOTSUPP;
}
