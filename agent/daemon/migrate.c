/* Moving a volume that is attached here to another host, while it is in use.
 *
 *   agent here: find the tapdisk ─▶ publish most ─▶ target's agent: incoming ─▶ tapdisk here: offer ─▶ target: activate ─▶ here: moved
 *                                                        └─ fails: cancel ◀────────┴─ fails: take back ◀──┘ fails
 *
 * The tapdisks decide by themselves what becomes of an offer (parallax/volume/volume_move.h): this only moves them along, so it can die anywhere. */
#include <errno.h>
#include <inttypes.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>

#include "agent/daemon/agent.h"
#include "agent/daemon/log.h"
#include "agent/daemon/peer.h"

#define EXPECT_MS 10000     /* so long a target waits for the offer it was made for */
#define ATTACH_NS (60 * NS_PER_S)
#define OFFER_NS (60 * NS_PER_S)
#define ACTIVATE_MS 4000    /* less than what an offer lasts */
#define BACK_MS 20000
#define MARGIN_NS NS_PER_S

struct migration {
	struct agent *a;
	struct store_agent target;
	struct rpc_client *peer;
	struct store_holder holder;
	const char *volume;
	char device[64];
	uint64_t offer, waited_ns;
	uint64_t held_ns;        /* since when requests wait at the source, on this host's clock (env_now_ns) */
	json_t *there;          /* who the target is */
};

static const char *text_of(const json_t *j, const char *key)
{
	const char *s = json_string_value(json_object_get(j, key));
	return s ? s : "";
}

/* FIBER. A verb of the volume's node in a tapdisk of this host. *ret (may be NULL): its JSON. */
static int ask_node(struct agent *a, const char *control, const char *volume, const char *verb, const char *const *args, uint64_t deadline_ns, json_t **ret,
		    struct report *report)
{
	char *text = NULL;
	struct tapdisk_control call = { .driver = "volume", .subject = volume, .verb = verb, .args = args, .deadline_ns = deadline_ns };
	int r = client_tapdisk_control(a->env, control, &call, &text, report);
	if (r == 0 && ret && !(*ret = json_loads(text ? text : "", 0, NULL)))
		r = report_set(report, -EPROTO, "the tapdisk's answer makes no sense (is it another version?)");
	free(text);
	return r;
}

static const char *hex(uint64_t n, char buffer[24])
{
	snprintf(buffer, 24, "%016" PRIx64, n);
	return buffer;
}

static const char *decimal(uint64_t n, char buffer[24])
{
	snprintf(buffer, 24, "%" PRIu64, n);
	return buffer;
}

/* The volume that a tap's graph is, nothing else; malloc'd, or NULL. */
static char *volume_of(const struct tap *tap)
{
	struct plan plan;
	struct plan_how how = { .name = tap->state.device_count ? tap->state.device[0].name : "x" };
	if (!tap->state.graph || plan_make(tap->state.graph, strlen(tap->state.graph), &how, &plan, NULL) < 0)
		return NULL;
	const char *name = plan_volume(plan.graph);
	char *copy = name ? strdup(name) : NULL;
	plan_free(&plan);
	return copy;
}

static void control_of(const struct tap *tap, char ret[PATHS_MAX + 32]) { snprintf(ret, PATHS_MAX + 32, "unix:%s/control.sock", tap->directory); }

/* ---- the source ---- */

static int find_source(struct migration *m, struct tap **ret_tap, struct report *report)
{
	struct store *s = registry_store(&m->a->registry, report);
	int r = s ? store_volume_holder(s, m->volume, &m->holder, report) : -ENOTCONN;
	if (r == -ENXIO)
		return report_set(report, r, "it isn't attached (attach it there: aquifer attach %s)", m->volume);
	if (r < 0)
		return r;
	struct tap *tap = m->holder.elsewhere ? NULL : agent_tap_of(m->a, m->holder.control);
	if (!tap || tap->phase != TAP_RUNNING)
		return report_set(report, -EBUSY, "it is attached as %s, which isn't this host's agent's (try again)", m->holder.text);
	char *volume = volume_of(tap);
	bool alone = volume, same = volume && strcmp(volume, m->volume) == 0;
	free(volume);
	if (!same)
		return report_set(report, -EINVAL, alone ? "it was renamed since it was attached (detach it and attach it again)"
			: "it is a part of the device %s, which has files of this host in its graph", tap->state.name);
	*ret_tap = tap;
	return 0;
}

/* ---- steps ---- */

static int ask_target(struct migration *m, uint32_t method, const ProtobufCMessage *request, const char *text, uint64_t deadline_ns, char **ret_text,
		      struct report *report)
{
	struct client_call call = { .method = method, .request = request, .text = text, .deadline_ns = deadline_ns, .answer_max = CLIENT_PEER_ANSWER_MAX };
	int r = client_call(m->peer, &call, ret_text, report);
	return r < 0 ? report_prefix(report, r, "host %s", m->target.host) : 0;
}

static int prepare_target(struct migration *m, const struct tap *tap, const char *name, struct report *report)
{
	Aquifer__PeerIncomingCall q = AQUIFER__PEER_INCOMING_CALL__INIT;
	char *text = NULL;
	q.token = peer_token(&m->target);
	q.volume = (char *)(uintptr_t)m->volume;
	q.name = (char *)(uintptr_t)(name[0] ? name : tap->state.device[0].name);
	q.export = (char *)(uintptr_t)tap->state.device[0].export;
	q.offer = m->offer;
	q.from = (char *)(uintptr_t)store_host(m->a->registry.store);
	int r = ask_target(m, AQUIFER__PEER_METHOD__PEER_INCOMING, &q.base, tap->state.graph, ATTACH_NS, &text, report);
	m->there = r == 0 ? json_loads(text, 0, NULL) : NULL;
	free(text);
	if (r == 0 && !m->there)
		r = report_set(report, -EPROTO, "host %s: its answer makes no sense (is it another version?)", m->target.host);
	snprintf(m->device, sizeof m->device, "%s", text_of(m->there, "name"));
	return r;
}

static Aquifer__PeerOfferCall offer_call(struct migration *m, uint64_t deadline_ms)
{
	Aquifer__PeerOfferCall q = AQUIFER__PEER_OFFER_CALL__INIT;
	q.token = peer_token(&m->target);
	q.device = m->device;
	q.offer = m->offer;
	q.deadline_ms = deadline_ms;
	return q;
}

static int offer(struct migration *m, struct report *report)
{
	char id[24], pid[24];
	json_t *j = NULL;
	const char *args[] = { hex(m->offer, id), m->target.host, text_of(m->there, "holder"), text_of(m->there, "control"),
			       decimal((uint64_t)json_integer_value(json_object_get(m->there, "pid")), pid), NULL };
	int r = ask_node(m->a, m->holder.control, m->volume, "handover-offer", args, OFFER_NS, &j, report);
	m->held_ns = (uint64_t)json_integer_value(json_object_get(j, "held_ns"));
	if (!m->held_ns) /* an older tapdisk's */
		m->held_ns = env_now_ns(m->a->env) - (uint64_t)json_integer_value(json_object_get(j, "waited_ns"));
	json_decref(j);
	return r;
}

static int activate(struct migration *m, struct report *report)
{
	Aquifer__PeerOfferCall q = offer_call(m, ACTIVATE_MS);
	char *text = NULL;
	int r = ask_target(m, AQUIFER__PEER_METHOD__PEER_ACTIVATE, &q.base, NULL, ACTIVATE_MS * NS_PER_MS + MARGIN_NS, &text, report);
	/* it may have served for a while before it was asked: it finds the offer by itself */
	json_t *j = r == 0 ? json_loads(text, 0, NULL) : NULL;
	uint64_t served_ns = (uint64_t)json_integer_value(json_object_get(j, "serves_ns")), passed_ns = env_now_ns(m->a->env) - m->held_ns;
	m->waited_ns = passed_ns > served_ns ? passed_ns - served_ns : 0;
	json_decref(j);
	free(text);
	return r;
}

/* Nothing of it stays there, unless it serves. Best effort: the target gives up by itself. */
static void cancel(struct migration *m)
{
	Aquifer__PeerOfferCall q = offer_call(m, 0);
	if (m->there)
		ask_target(m, AQUIFER__PEER_METHOD__PEER_CANCEL, &q.base, NULL, ACTIVATE_MS * NS_PER_MS, NULL, NULL);
}

/* 1: this side serves; 0: the target has it; -errno: not known. */
static int settle(struct migration *m, const char *verb, struct report *report)
{
	char id[24], ms[24];
	json_t *j = NULL;
	const char *args[] = { hex(m->offer, id), decimal(BACK_MS, ms), NULL };
	int r = ask_node(m->a, m->holder.control, m->volume, verb, args, BACK_MS * NS_PER_MS + MARGIN_NS, &j, report);
	if (r == 0)
		r = json_is_true(json_object_get(j, "serves"));
	json_decref(j);
	return r;
}

/* Both sides are there. 0: it has moved. */
static int hand_over(struct migration *m, struct report *report)
{
	struct report why = { "" };
	int r = offer(m, report);
	if (r == 0)
		r = activate(m, report);
	if (r == 0) {
		settle(m, "handover-moved", NULL);
		return 0;
	}
	int back = settle(m, "handover-back", &why);
	if (back == 0) {
		log_line("%s has moved to host %s, although: %s", m->volume, m->target.host, report_text(report, r));
		return 0;
	}
	cancel(m);
	if (back < 0)
		snprintf(report->text + strlen(report->text), sizeof report->text - strlen(report->text), "; and here: %s", report_text(&why, back));
	else
		snprintf(report->text + strlen(report->text), sizeof report->text - strlen(report->text), " (it is served here as before)");
	return r;
}

/* Most of what is to be written, before anybody waits. What users wrote and closed may be in the kernel's memory only, since the tapdisk itself has the device open; an
 * older one doesn't know how to ask for that. */
static int write_out(struct migration *m, struct report *report)
{
	static const char *const none[] = { NULL };
	int r = ask_node(m->a, m->holder.control, m->volume, "write-out", none, OFFER_NS, NULL, report);
	if (r == -EOPNOTSUPP && report)
		report->text[0] = '\0';
	if (r == 0 || r == -EOPNOTSUPP)
		r = ask_node(m->a, m->holder.control, m->volume, "checkpoint", none, OFFER_NS, NULL, report);
	return r;
}

static int migrate_to(struct migration *m, const Aquifer__MigrateCall *q, json_t **ret, struct report *report)
{
	struct tap *tap = NULL;
	int r = find_source(m, &tap, report);
	if (r < 0)
		return r;
	struct store *s = m->a->registry.store;
	if (strcmp(q->to, store_host(s)) == 0)
		return report_set(report, -EALREADY, "it is attached on host %s already", q->to);
	tap_use(tap);
	r = store_agent_find(s, q->to, &m->target, report);
	if (r == 0)
		r = peer_connect(m->a->env, &m->target, &m->peer, report);
	if (r == 0)
		r = write_out(m, report);
	if (r == 0 && (r = prepare_target(m, tap, q->name, report)) < 0)
		cancel(m);
	if (r == 0)
		r = hand_over(m, report);
	if (r == 0) {
		log_line("%s moved to host %s; requests waited %.1f ms", m->volume, q->to, (double)m->waited_ns / 1e6);
		*ret = json_pack("{s:s, s:s, s:s, s:s, s:s, s:I}", "volume", m->volume, "from", store_host(s), "to", q->to, "name", m->device, "device",
				 text_of(m->there, "device"), "waited_ns", (json_int_t)m->waited_ns);
	}
	rpc_close(m->peer);
	json_decref(m->there);
	tap_unuse(tap);
	return r;
}

int agent_migrate(struct agent *a, const Aquifer__MigrateCall *q, json_t **ret, struct report *report)
{
	struct migration *m = calloc(1, sizeof *m);
	if (!m)
		return -ENOMEM;
	m->a = a;
	m->volume = q->volume;
	m->offer = env_random(a->env) | 1;
	int r = migrate_to(m, q, ret, report);
	free(m);
	return r;
}

/* ---- the target ---- */

/* A device that waits for this volume, or from which it once went away. */
static struct tap *find_waiting(struct agent *a, const char *volume)
{
	char state[16], why[8];
	link_for(l, &a->taps.list) {
		struct tap *tap = container_of(l, struct tap, link);
		if (!tap_condition(tap, state, why, sizeof why) || (strcmp(state, "incoming") != 0 && strcmp(state, "moved") != 0))
			continue;
		char *name = volume_of(tap);
		bool same = name && strcmp(name, volume) == 0;
		free(name);
		if (same)
			return tap;
	}
	return NULL;
}

static int attach_incoming(struct agent *a, const Aquifer__PeerIncomingCall *q, const char *graph, size_t length, struct tap **ret_tap, struct report *report)
{
	Aquifer__AttachCall attach = AQUIFER__ATTACH_CALL__INIT;
	attach.name = q->name;
	attach.export = q->export;
	attach.incoming = true;
	attach.incoming_ms = EXPECT_MS;
	return agent_attach(a, &attach, graph, length, ret_tap, report);
}

static int expect(struct agent *a, const Aquifer__PeerIncomingCall *q, struct tap *tap, json_t **ret, struct report *report)
{
	char id[24], ms[24], control[PATHS_MAX + 32], holder[128];
	const char *args[] = { hex(q->offer, id), decimal(EXPECT_MS, ms), q->from, NULL };
	control_of(tap, control);
	json_t *j = NULL;
	int r = ask_node(a, control, q->volume, "handover-expect", args, ATTACH_NS, &j, report);
	json_decref(j);
	if (r < 0 || tap->state.device_count == 0)
		return r < 0 ? r : -ESRCH;
	snprintf(holder, sizeof holder, "device %s (tapdisk pid %d)", tap->state.name, (int)tap->state.pid);
	*ret = json_pack("{s:s, s:s, s:s, s:s, s:i}", "name", tap->state.device[0].name, "device", tap->state.device[0].device, "holder", holder, "control",
			 control, "pid", (int)tap->state.pid);
	return *ret ? 0 : -ENOMEM;
}

int agent_incoming(struct agent *a, const Aquifer__PeerIncomingCall *q, const char *graph, size_t length, json_t **ret, struct report *report)
{
	char name[64] = "";
	struct tap *tap = find_waiting(a, q->volume);
	bool made = !tap;
	if (tap)
		tap_use(tap);
	int r = tap ? 0 : attach_incoming(a, q, graph, length, &tap, report);
	if (r < 0)
		return r;
	r = expect(a, q, tap, ret, report);
	if (r < 0 && made && tap->state.device_count)
		snprintf(name, sizeof name, "%s", tap->state.device[0].name);
	tap_unuse(tap);
	if (name[0])
		agent_detach(a, name, /* force= */ true, NULL);
	return r;
}

static int ask_device(struct agent *a, const Aquifer__PeerOfferCall *q, const char *verb, bool timed, json_t **ret, struct report *report)
{
	char id[24], ms[24], control[PATHS_MAX + 32];
	const char *args[] = { hex(q->offer, id), timed ? decimal(q->deadline_ms, ms) : NULL, NULL };
	struct tap *tap = taps_find(&a->taps, q->device, NULL);
	char *volume = tap && tap->phase == TAP_RUNNING ? volume_of(tap) : NULL;
	if (!volume)
		return report_set(report, -ESRCH, "the device %s isn't there any more", q->device);
	control_of(tap, control);
	tap_use(tap);
	int r = ask_node(a, control, volume, verb, args, (q->deadline_ms + 2000) * NS_PER_MS, ret, report);
	tap_unuse(tap);
	free(volume);
	return r;
}

int agent_activate(struct agent *a, const Aquifer__PeerOfferCall *q, json_t **ret, struct report *report)
{
	return ask_device(a, q, "handover-activate", /* timed= */ true, ret, report);
}

int agent_cancel(struct agent *a, const Aquifer__PeerOfferCall *q, struct report *report)
{
	json_t *j = NULL;
	int r = ask_device(a, q, "handover-cancel", /* timed= */ false, &j, report);
	bool over = json_is_true(json_object_get(j, "over"));
	json_decref(j);
	return over ? agent_detach(a, q->device, /* force= */ true, report) : r;
}
