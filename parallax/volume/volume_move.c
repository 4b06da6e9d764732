#include "parallax/volume/volume_move.h"

#include <errno.h>
#include <inttypes.h>
#include <stdarg.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>

#include "core/fiber.h"
#include "core/plant.h"
#include "parallax/volume/volume_wait.h"

#define OFFER_NS (5 * NS_PER_S)     /* an offer that isn't taken in so long is taken back */
#define TICK_NS (100 * NS_PER_MS)
#define TICK_SOON_NS (5 * NS_PER_MS)
#define LOOK_NS NS_PER_S            /* INCOMING: beside the watch */
#define LOOK_SOON_NS (10 * NS_PER_MS) /* … while an offer is about to come and the catalog's engine has no watches; and the source */
static struct catalog *catalog_of(const struct volume_move *m) { return m->places->catalog; }
static uint64_t now_ns(const struct volume_move *m) { return env_now_ns(m->node->node.env); }
static struct loop *loop_of(const struct volume_move *m) { return m->node->node.loop; }

static void set_state(struct volume_move *m, enum move_state state)
{
	if (state == MOVE_SERVES)
		m->served_ns = now_ns(m);
	m->state = state;
	fiber_cond_wake(&m->changed);
}

/* ---- the target ---- */

/* The offer's stamp is in the owner record while it is offered: others ask by that whether its target lives. The same number is that of the
 * acquisition, so that what is had for the one serves the other; not if an attempt with another number has failed half-way. */
static void expect_offer(struct volume_move *m, uint64_t offer)
{
	if (offer == m->offer)
		return;
	volume_warm_end(m->node->node.env, &m->warm);
	m->offer = offer;
	if (!offer)
		return;
	if (!m->failed)
		m->node->intake.next = offer;
	m->warming = true; /* nobody takes it meanwhile, or gives it up */
	volume_warm_up(m->node->node.env, &m->open, offer, &m->warm);
	m->warming = false;
}

/* Is there something to be had? Never from a holder whose lease has run out: it may only have lost the catalog, and serve its guest still. To
 * rob it is for somebody to decide (attach). */
static bool may_take(const struct volume_move *m, const struct meta_owner *o, bool *ret_offered)
{
	bool ours = o->state == OWNER_HELD && o->stamp && o->stamp == m->node->intake.next; /* an attempt that failed half-way */
	*ret_offered = o->state == OWNER_OFFERED && m->offer && o->stamp == m->offer;
	return *ret_offered || ours || o->state == OWNER_FREE || PLANTED(move_robs_holder);
}

static void take_it(struct volume_move *m, const struct volume_open *how)
{
	struct report report = { "" };
	m->taking = true;
	int r = volume_handover_take(m->node, how, &report);
	m->taking = false;
	m->failed = r < 0 && r != -ESTALE && r != -EBUSY;
	if (r < 0 && r != -EBUSY && r != -ESTALE)
		snprintf(m->why, sizeof m->why, "%.200s", report_text(&report, r));
	if (r == 0)
		set_state(m, MOVE_SERVES);
}

/* ---- what the watch says ---- */

static void heard(void *arg, const char *key, const struct catalog_value *value)
{
	struct volume_move *m = arg;
	struct volume_seen *h = &m->heard;
	char owner[META_KEY_BYTES], log[META_KEY_BYTES];
	meta_key_owner(m->open.volume, owner);
	meta_key_log(m->open.volume, log);
	if (strcmp(key, owner) == 0) {
		bool good = value && meta_owner_decode(value->bytes, value->length, &h->owner) == 0;
		h->owner_revision = good ? value->revision : 0;
		m->owner_changed = true;
	} else if (strcmp(key, log) == 0) {
		bool good = value && meta_log_decode(value->bytes, value->length, &h->log) == 0;
		h->log_revision = good ? value->revision : 0;
		m->log_changed = true;
	}
}

/* Both records of the transaction that offered it to us: nothing need be asked. Once: if it isn't so any more, that is seen by asking. */
static bool heard_offer(struct volume_move *m)
{
	struct volume_seen *h = &m->heard;
	bool ours = h->owner_revision && h->owner_revision == h->log_revision && h->owner.state == OWNER_OFFERED && m->offer && h->owner.stamp == m->offer;
	if (ours)
		m->seen = *h;
	if (ours)
		h->owner_revision = 0;
	return ours;
}

/* FIBER. Both at once. */
static int look(struct volume_move *m)
{
	return heard_offer(m) ? 0 : volume_look(m->node->node.env, catalog_of(m), m->open.volume, &m->seen);
}

static void look_for_it(struct volume_move *m)
{
	struct volume_seen *seen = &m->seen;
	int r = look(m);
	bool offered;
	if (r < 0) {
		m->failed &= r != -ENOENT; /* nobody gets a volume that was deleted */
		snprintf(m->why, sizeof m->why, r == -ENOENT ? "it was deleted" : "the catalog: %s", catalog_text(catalog_of(m), r));
		return;
	}
	m->why[0] = '\0';
	if (m->state != MOVE_INCOMING || m->cancel || m->warming)
		return;
	if (!may_take(m, &seen->owner, &offered)) {
		m->failed = false; /* no attempt of ours has got it */
		snprintf(m->whom, sizeof m->whom, "%s", seen->owner.host);
		return;
	}
	struct volume_open how = m->open;
	how.offer = offered ? m->offer : 0;
	how.seen = offered ? seen : NULL;
	how.force |= PLANTED(move_robs_holder);
	how.warm = m->node->intake.next == m->offer ? &m->warm : NULL;
	take_it(m, &how);
}

static void give_up(struct volume_move *m)
{
	m->cancel = false;
	m->due_ns = 0;
	expect_offer(m, 0);
	if (m->stays && !m->closing)
		return;
	volume_handover_leave(m->node, -EIO);
	set_state(m, m->returns ? MOVE_MOVED : MOVE_GIVEN_UP);
}

/* ---- the source ---- */

/* Who has it now: the one to whom it was offered, or (forced) somebody else. Nobody, or it was deleted: the one to whom it was offered had it. */
static void note_who_has_it(struct volume_move *m, const struct meta_owner *o)
{
	bool theirs = o->stamp == m->offer || (strcmp(o->host, m->whom) == 0 && (!m->whom_pid || o->pid == m->whom_pid));
	m->robbed = o->state != OWNER_FREE && !theirs;
	if (m->robbed)
		snprintf(m->whom, sizeof m->whom, "%s", o->host);
}

/* What the catalog says of an offer: 0: it stands; 1: another has the volume, or it was deleted; -errno: not known. */
static int look_at_offer(struct volume_move *m)
{
	struct meta_owner o;
	int r = meta_get_owner(catalog_of(m), m->open.volume, &o, NULL);
	if (r < 0)
		return r == -ENOENT ? 1 : r;
	bool stands = (o.state == OWNER_OFFERED && o.stamp == m->offer) ||
		      (o.state == OWNER_HELD && o.stamp && (o.stamp == m->node->intake.former || o.stamp == m->node->intake.next));
	if (!stands)
		note_who_has_it(m, &o);
	return stands ? 0 : 1;
}

static void take_back(struct volume_move *m)
{
	struct report report = { "" };
	struct volume_open how = m->open;
	how.offer = PLANTED(move_back_by_force) ? 0 : m->offer;
	how.force |= PLANTED(move_back_by_force);
	m->taking = true;
	int r = volume_handover_take(m->node, &how, &report);
	m->taking = false;
	if (r < 0 && r != -ESTALE)
		snprintf(m->why, sizeof m->why, "%.200s", report_text(&report, r));
	if (r == 0)
		set_state(m, MOVE_SERVES);
}

static void gone(struct volume_move *m)
{
	m->left_by = m->offer;
	volume_handover_leave(m->node, -EIO);
	set_state(m, MOVE_MOVED);
}

/* The offer may be made, and taken, while this side is still clearing out: who waits here hears of it at once. */
static void see_to_closing(struct volume_move *m)
{
	if (m->state == MOVE_LEAVING && !m->node->volume && m->node->intake.former && look_at_offer(m) == 1)
		gone(m);
}

static void see_to_offer(struct volume_move *m)
{
	int r = look_at_offer(m);
	m->why[0] = '\0';
	if (r < 0 && !PLANTED(move_gone_unknown)) {
		snprintf(m->why, sizeof m->why, "the catalog: %s", catalog_text(catalog_of(m), r));
	} else if (r != 0) {
		gone(m);
	} else if (r == 0 && (m->back || now_ns(m) >= m->due_ns)) {
		take_back(m);
	}
}

/* ---- both ---- */

/* What waits on the device doesn't wait for the other side, which is a matter of moments, but for what can't be reached. */
static void note_stuck(struct volume_move *m)
{
	m->node->intake.stuck = m->node->intake.held && m->why[0];
	if (m->node->intake.stuck)
		volume_wait_kick(m->node);
}

static bool is_waiting(const struct volume_move *m)
{
	return !m->node->node.env->dead && (m->state == MOVE_INCOMING || m->state == MOVE_OFFERED || m->deactivating);
}

/* Something is about to happen. */
static bool is_urgent(const struct volume_move *m) { return m->state != MOVE_INCOMING || (m->offer && !catalog_of(m)->ops->watch); }

static int tick(void *arg)
{
	struct volume_move *m = arg;
	while (m->running) {
		fiber_sleep(loop_of(m), is_urgent(m) ? TICK_SOON_NS : TICK_NS);
		m->tick = true;
		fiber_cond_wake(&m->changed);
	}
	m->ticking = false;
	fiber_cond_wake(&m->changed);
	return 0;
}

/* Until something may have changed, or it is time to look. What a holder publishes in the log alone is no news. */
static void wait_turn(struct volume_move *m)
{
	while (!m->hurry && !m->owner_changed && !m->cancel && !m->back && !m->closing && is_waiting(m)) {
		m->tick = m->log_changed = false;
		fiber_cond_wait(loop_of(m), &m->changed);
		if ((!m->tick && !m->log_changed) || now_ns(m) - m->looked_ns >= (is_urgent(m) ? LOOK_SOON_NS : LOOK_NS))
			break;
	}
	m->hurry = m->owner_changed = false;
}

/* Not while an attempt may have acquired it half-way: the other side counts on this one then, and nobody else would have it. */
static bool is_overdue(const struct volume_move *m)
{
	return m->due_ns && now_ns(m) >= m->due_ns && !m->failed;
}

static int run(void *arg)
{
	struct volume_move *m = arg;
	char prefix[META_KEY_BYTES];
	meta_key_volume(m->open.volume, prefix);
	m->heard.owner_revision = m->heard.log_revision = 0;
	if (m->state == MOVE_INCOMING)
		catalog_watch_seen(catalog_of(m), prefix, &m->changed, heard, m, &m->watch); /* without it, by looking */
	while (is_waiting(m)) {
		if (m->warming) {
			fiber_sleep(loop_of(m), TICK_SOON_NS);
			continue;
		}
		m->looked_ns = now_ns(m);
		if (m->deactivating)
			see_to_closing(m);
		else if (m->state == MOVE_OFFERED)
			see_to_offer(m);
		else if (m->cancel || m->closing || is_overdue(m))
			give_up(m);
		else
			look_for_it(m);
		note_stuck(m);
		if (m->back && is_waiting(m))
			fiber_sleep(loop_of(m), LOOK_SOON_NS); /* as often as that */
		else if (is_waiting(m))
			wait_turn(m);
	}
	catalog_watch_end(m->watch);
	m->watch = NULL;
	m->back = m->cancel = false;
	if (m->state == MOVE_SERVES) {
		expect_offer(m, 0);
		m->returns = m->stays = false;
	}
	m->running = false;
	fiber_cond_wake(&m->changed);
	return 0;
}

static int start(struct volume_move *m)
{
	while (m->running || m->ticking)
		fiber_cond_wait(loop_of(m), &m->changed);
	m->running = m->ticking = true;
	int r = fiber_start(loop_of(m), tick, m, NULL);
	m->ticking = r == 0;
	if (r == 0)
		r = fiber_start(loop_of(m), run, m, NULL);
	m->running = r == 0; /* the ticker ends with it */
	return r;
}

void volume_move_init(struct volume_move *m, struct volume_node *n, struct places *p, const struct volume_open *how)
{
	*m = (struct volume_move){ .node = n, .places = p, .open = *how };
	snprintf(m->holder, sizeof m->holder, "%s", how->holder ? how->holder : "");
	snprintf(m->control, sizeof m->control, "%s", how->control ? how->control : "");
	m->open.holder = m->holder;
	m->open.control = m->control;
	m->open.host = p->host;
	m->open.force = m->open.accept_flushed = false; /* that was for the first time */
	fiber_cond_init(&m->changed);
}

/* As large as its record says now. */
static int prepare(struct volume_move *m, struct report *report)
{
	struct meta_log *log = malloc(sizeof *log);
	int r = log ? meta_get_log(catalog_of(m), m->open.volume, log, NULL) : -ENOMEM;
	if (r == 0)
		volume_handover_prepare(m->node, log->size_bytes, log->io_timeout_ms * NS_PER_MS);
	free(log);
	return r < 0 ? report_set(report, r, "its record in the catalog can't be read: %s", catalog_text(catalog_of(m), r)) : 0;
}

int volume_move_begin(struct volume_move *m, uint64_t lasts_ns, struct report *report)
{
	struct meta_owner o = { 0 };
	int r = prepare(m, report);
	if (r == 0 && meta_get_owner(catalog_of(m), m->open.volume, &o, NULL) == 0)
		snprintf(m->whom, sizeof m->whom, "%s", o.host);
	m->state = MOVE_INCOMING;
	m->stays = lasts_ns == 0;
	m->due_ns = lasts_ns ? now_ns(m) + lasts_ns : 0;
	return r < 0 ? r : start(m);
}

/* ---- verbs ---- */

static int words(const char *const *args)
{
	int n = 0;
	while (args[n])
		n++;
	return n;
}

static int answer(char **ret_json, const char *format, ...) __attribute__((format(printf, 2, 3)));
static int answer(char **ret_json, const char *format, ...)
{
	va_list ap;
	va_start(ap, format);
	int n = vasprintf(ret_json, format, ap);
	va_end(ap);
	if (n < 0)
		*ret_json = NULL;
	return n < 0 ? -ENOMEM : 0;
}

/* Waits while it is in `state`, at most so long. */
static int await(struct volume_move *m, enum move_state state, uint64_t timeout_ns)
{
	uint64_t until_ns = now_ns(m) + timeout_ns;
	while (m->state == state && !m->closing && !m->node->node.env->dead && now_ns(m) < until_ns)
		fiber_cond_wait(loop_of(m), &m->changed);
	return m->state == state ? -ETIMEDOUT : 0;
}

/* It has moved, and is to come back. */
static int return_begin(struct volume_move *m, struct report *report)
{
	while (m->running || m->ticking) /* which end with the state */
		fiber_cond_wait(loop_of(m), &m->changed);
	int r = prepare(m, report);
	if (r < 0)
		return r;
	m->node->intake.gone = 0;
	m->node->intake.former = m->node->intake.next = 0;
	m->returns = true;
	m->stays = false;
	m->state = MOVE_INCOMING;
	r = start(m);
	if (r < 0)
		give_up(m);
	return r;
}

static int expect(struct volume_move *m, uint64_t offer, uint64_t lasts_ns, const char *from, char **ret_json, struct report *report)
{
	while (m->returning) /* said twice, it must not begin once more when the first has got the volume */
		fiber_cond_wait(loop_of(m), &m->changed);
	if (m->state != MOVE_INCOMING && m->state != MOVE_MOVED)
		return report_set(report, -EBUSY, m->state == MOVE_SERVES ? "it is served here already" : "it is being handed over already (try again)");
	if (m->offer && m->offer != offer && m->state == MOVE_INCOMING)
		return report_set(report, -EBUSY, "it waits for another hand-over, for some seconds at most (try again)");
	if (m->state == MOVE_MOVED) {
		m->returning = true;
		int r = return_begin(m, report);
		m->returning = false;
		fiber_cond_wake(&m->changed);
		if (r < 0)
			return r;
	}
	while (m->taking || m->warming)
		fiber_cond_wait(loop_of(m), &m->changed);
	if (m->state != MOVE_INCOMING)
		return report_set(report, -EBUSY, m->state == MOVE_SERVES ? "it is served here already" : "it was given up");
	snprintf(m->whom, sizeof m->whom, "%.63s", from);
	expect_offer(m, offer);
	m->due_ns = now_ns(m) + lasts_ns;
	m->hurry = true;
	fiber_cond_wake(&m->changed);
	return answer(ret_json, "{\"pid\":%" PRIu64 "}", m->open.pid);
}

static int activate(struct volume_move *m, uint64_t offer, uint64_t timeout_ns, char **ret_json, struct report *report)
{
	if (m->state == MOVE_INCOMING && m->offer != offer)
		return report_set(report, -ESTALE, "it waits for another offer");
	m->hurry = true;
	fiber_cond_wake(&m->changed);
	int r = await(m, MOVE_INCOMING, timeout_ns);
	if (r < 0)
		return report_set(report, r, "it isn't there in time%s%s", m->why[0] ? ": " : "", m->why);
	return m->state == MOVE_SERVES ? answer(ret_json, "{\"serves_ns\":%" PRIu64 "}", now_ns(m) - m->served_ns) : report_set(report, -ESTALE, "it was given up");
}

static int cancel(struct volume_move *m, uint64_t offer, char **ret_json, struct report *report)
{
	if (m->state == MOVE_INCOMING && offer && m->offer != offer)
		return report_set(report, -ESTALE, "it waits for another offer");
	m->cancel = m->state == MOVE_INCOMING;
	m->stays &= offer != 0;
	fiber_cond_wake(&m->changed);
	while (m->cancel && m->state == MOVE_INCOMING)
		fiber_cond_wait(loop_of(m), &m->changed);
	if (m->state == MOVE_SERVES && offer)
		return report_set(report, -EALREADY, "it serves already");
	return answer(ret_json, "{\"over\":%s}", m->state == MOVE_GIVEN_UP ? "true" : "false");
}

static int offer_it(struct volume_move *m, uint64_t offer, const char *const *args, char **ret_json, struct report *report)
{
	struct volume_offer to = { .id = offer, .host = args[1], .holder = args[2], .control = args[3], .pid = strtoull(args[4], NULL, 10) };
	if (m->state != MOVE_SERVES)
		return report_set(report, -EBUSY, "it doesn't serve its volume, which %s", m->state == MOVE_MOVED ? "has moved away" : "is being handed over");
	m->state = MOVE_LEAVING;
	while (m->running || m->ticking) /* of the move before */
		fiber_cond_wait(loop_of(m), &m->changed);
	m->offer = offer;
	m->back = m->robbed = false;
	m->whom_pid = to.pid;
	snprintf(m->whom, sizeof m->whom, "%.63s", args[1]);
	/* most of it while requests go on, however long that takes */
	int r = volume_checkpoint(m->node->volume);
	while (r == 0 && m->commands > 0 && !m->back)
		fiber_cond_wait(loop_of(m), &m->changed);
	if (r == 0 && m->back)
		r = report_set(report, -ECANCELED, "it was called back");
	m->node->intake.former = 0;
	m->deactivating = r == 0;
	if (r == 0 && (r = start(m)) < 0)
		m->deactivating = false;
	if (r == 0)
		r = volume_handover_deactivate(m->node, &to, report);
	uint64_t held_ns = m->node->intake.since_ns, waited_ns = now_ns(m) - held_ns;
	m->due_ns = now_ns(m) + OFFER_NS;
	m->deactivating = false;
	if (m->node->volume) {
		m->back = false;
		set_state(m, MOVE_SERVES);
		return report_set(report, r, "what was written can't be published: %s", errno_text(r));
	}
	if (m->state == MOVE_LEAVING) {
		m->back |= r < 0; /* not offered, or nobody knows: it is taken back */
		set_state(m, MOVE_OFFERED);
	}
	return r < 0 ? r : answer(ret_json, "{\"held_ns\":%" PRIu64 ",\"waited_ns\":%" PRIu64 "}", held_ns, waited_ns);
}

/* Who has it in the end. */
static int settled(struct volume_move *m, uint64_t timeout_ns, char **ret_json, struct report *report)
{
	uint64_t until_ns = now_ns(m) + timeout_ns;
	fiber_cond_wake(&m->changed);
	while ((m->state == MOVE_OFFERED || m->state == MOVE_LEAVING) && now_ns(m) < until_ns && fiber_sleep(loop_of(m), NS_PER_MS) == 0)
		;
	if (m->state == MOVE_OFFERED || m->state == MOVE_LEAVING)
		return report_set(report, -ETIMEDOUT, "it isn't known yet who has it%s%s (it goes on by itself when it is)", m->why[0] ? ": " : "", m->why);
	if (m->state == MOVE_MOVED && m->robbed)
		return report_set(report, -ESTALE, "it was taken away meanwhile: host %s has it", m->whom[0] ? m->whom : "?");
	return answer(ret_json, "{\"serves\":%s}", m->state == MOVE_SERVES ? "true" : "false");
}

static int move_verb(struct volume_move *m, const char *what, const char *const *args, char **ret_json, struct report *report)
{
	int n = words(args);
	uint64_t offer = n ? strtoull(args[0], NULL, 16) : 0, ns = n > 1 ? strtoull(args[1], NULL, 10) * NS_PER_MS : 0;
	if (strcmp(what, "expect") == 0 && n == 3 && offer)
		return expect(m, offer, ns, args[2], ret_json, report);
	if (strcmp(what, "activate") == 0 && n == 2)
		return activate(m, offer, ns, ret_json, report);
	if (strcmp(what, "cancel") == 0 && n == 1)
		return cancel(m, offer, ret_json, report);
	if (strcmp(what, "offer") == 0 && n == 5 && offer)
		return offer_it(m, offer, args, ret_json, report);
	if ((strcmp(what, "back") == 0 || strcmp(what, "moved") == 0) && n == 2) {
		bool pending = m->offer == offer && (m->state == MOVE_OFFERED || m->state == MOVE_LEAVING);
		if (m->state == MOVE_MOVED && m->left_by != offer) /* who asks would take it for his target's */
			return report_set(report, -ESTALE, "its volume has moved to host %s (ask there)", m->whom);
		m->hurry = true;
		m->back |= pending && what[0] == 'b';
		return settled(m, pending ? ns : 0, ret_json, report);
	}
	return -EOPNOTSUPP;
}

int volume_move_control(struct volume_move *m, const char *verb, const char *const *args, char **ret_json, struct report *report)
{
	*ret_json = NULL;
	if (strncmp(verb, "handover-", 9) == 0)
		return move_verb(m, verb + 9, args, ret_json, report);
	if (m->state != MOVE_SERVES)
		return report_set(report, -ESTALE, m->state == MOVE_MOVED ? "its volume has moved to host %s (ask there)" : "its volume is being handed over (try again)",
				  m->whom);
	m->commands++;
	int r = volume_node_control(&m->node->node, verb, args, ret_json, report);
	m->commands--;
	fiber_cond_wake(&m->changed);
	return r;
}

/* ---- the end ---- */

void volume_move_end(struct volume_move *m)
{
	m->closing = true;
	m->back = m->state == MOVE_OFFERED;
	while (m->running || m->ticking) {
		fiber_cond_wake(&m->changed);
		fiber_sleep(loop_of(m), NS_PER_MS);
	}
	if (m->state == MOVE_INCOMING)
		give_up(m);
	expect_offer(m, 0);
}

bool volume_move_condition(const struct volume_move *m, char ret_state[16], char *ret_why, size_t bytes)
{
	static const char *const names[] = { "", "leaving", "leaving", "moved", "incoming", "given-up" };
	static const char *const texts[] = { "", "to host ", "to host ", "to host ", "waiting for host ", "its volume didn't come from host " };
	snprintf(ret_state, 16, "%s", names[m->state]);
	snprintf(ret_why, bytes, "%s%s%s%s", texts[m->state], m->whom[0] ? m->whom : "?", m->why[0] && m->state == MOVE_INCOMING ? ": " : "",
		 m->state == MOVE_INCOMING ? m->why : "");
	return m->state != MOVE_SERVES;
}
