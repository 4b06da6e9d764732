/* cluster status. */
#include <errno.h>
#include <inttypes.h>

#include "agent/cli/cli.h"
#include "agent/cli/store_cli.h"
#include "core/bytes.h"
#include "core/option.h"
#include "core/version.h"
#include "parallax/format.h"
#include "parallax/store/store_status.h"
#include "proto/rpc.h"

enum { HELD_LINES = 12 }; /* one screen; the rest is counted, and --json has all */

/* ---- versions ---- */

/* The newest version of the protocol that all parts that run speak, this program included, and how many know none newer. */
struct common {
	uint32_t protocol;
	size_t servers, hosts;
};

static struct common common(const struct store_status *t)
{
	struct common c = { .protocol = rpc_protocol_newest };
	for (size_t i = 0; i < t->server_count; i++)
		c.protocol = t->servers[i].server.answers ? MIN(c.protocol, t->servers[i].server.protocol) : c.protocol;
	for (size_t i = 0; i < t->agent_count; i++)
		c.protocol = t->agents[i].alive ? MIN(c.protocol, t->agents[i].protocol) : c.protocol;
	for (size_t i = 0; i < t->server_count; i++)
		c.servers += t->servers[i].server.answers && t->servers[i].server.protocol == c.protocol;
	for (size_t i = 0; i < t->agent_count; i++)
		c.hosts += t->agents[i].alive && t->agents[i].protocol == c.protocol;
	return c;
}

static void print_versions(const struct store_status *t)
{
	struct common c = common(t);
	printf("%-10s aquifer %s, protocol %u, format of the store %u", "versions", AQ_VERSION, rpc_protocol_newest, FORMAT_VERSION);
	if (c.protocol < rpc_protocol_newest)
		printf("; %zu server%s and %zu host%s speak only protocol %u", c.servers, c.servers == 1 ? "" : "s", c.hosts, c.hosts == 1 ? "" : "s", c.protocol);
	printf("\n");
}

/* ---- JSON ---- */

static json_t *health_json(const struct store_health *h)
{
	return h->when_ns ? json_pack("{s:I, s:I, s:I}", "when_ns", (json_int_t)h->when_ns, "faults", (json_int_t)h->faults, "incomplete", (json_int_t)h->incomplete)
			  : json_null();
}

static json_t *members_json(const struct store_status *t)
{
	json_t *a = json_array();
	for (size_t i = 0; i < t->member_count; i++)
		json_array_append_new(a, json_pack("{s:s, s:b, s:I, s:s}", "url", t->members[i].url, "answers", t->members[i].answers, "answer_ns",
						   (json_int_t)t->members[i].answer_ns, "why", t->members[i].why));
	return a;
}

static json_t *servers_json(const struct store_status *t)
{
	json_t *a = json_array();
	for (size_t i = 0; i < t->server_count; i++) {
		const struct store_status_server *e = &t->servers[i];
		const struct store_server *s = &e->server;
		json_t *j = json_pack("{s:s, s:s, s:s, s:b, s:I, s:I, s:I, s:I, s:i, s:i, s:I}", "id", s->id, "address", s->address, "domain", s->domain, "answers",
						   s->answers, "away_since_ns", (json_int_t)e->away_since_ns, "free", (json_int_t)s->free_bytes, "total",
						   (json_int_t)s->total_bytes, "reserve", (json_int_t)e->reserve_bytes, "used_percent", (int)e->used_percent,
						   "warnings", (int)e->level, "incarnation", (json_int_t)s->incarnation);
		const struct store_server_work *k = &e->work;
		json_object_set_new(j, "software", json_string(k->software));
		json_object_set_new(j, "protocol", json_integer(s->protocol));
		json_object_set_new(j, "state", json_string(s->state));
		json_object_set_new(j, "why", json_string(s->why));
		if (k->status)
			json_object_set_new(j, "rebuild", json_pack("{s:b, s:I, s:I, s:I, s:I, s:I, s:I, s:s, s:I}", "settled", k->settled, "copies", (json_int_t)k->copies, "missing",
								    (json_int_t)k->missing, "missing_bytes", (json_int_t)k->missing_bytes, "bytes_per_s",
								    (json_int_t)k->bytes_per_s, "misplaced", (json_int_t)k->misplaced, "failures", (json_int_t)k->failures,
								    "failing", k->failing ? errno_text(k->failing) : "", "silent", (json_int_t)k->silent));
		if (k->scrub)
			json_object_set_new(j, "scrub", json_pack("{s:I, s:I, s:I, s:I, s:I, s:I}", "finished_ns", (json_int_t)k->scrub_finished_ns, "unrepaired", (json_int_t)k->scrub_unrepaired, "bad", (json_int_t)k->scrub_bad,
								  "repaired", (json_int_t)k->scrub_repaired, "read_bad", (json_int_t)k->read_bad, "read_repaired",
								  (json_int_t)k->read_repaired));
		json_array_append_new(a, j);
	}
	return a;
}

static json_t *volumes_json(const struct store_status *t)
{
	json_t *a = json_array();
	for (size_t i = 0; i < t->volume_count; i++) {
		const struct store_status_volume *v = &t->volumes[i];
		json_t *j = json_pack("{s:s, s:s, s:s, s:I, s:s, s:i, s:i}", "name", v->volume.name, "state", store_state_name(v->volume.state), "holder",
				      v->volume.state == STORE_FREE ? "" : v->volume.holder.text, "epoch", (json_int_t)v->volume.epoch, "health", v->volume.health,
				      "replicas", (int)v->volume.replicas, "min_replicas", (int)v->volume.min_replicas);
		if (v->asked)
			json_object_update_new(j, json_pack("{s:i, s:s, s:I, s:i, s:i, s:b, s:i}", "failed", v->status.failed, "waits_for", v->status.waits_for, "waits_since_ns",
							    (json_int_t)v->status.waits_since_ns, "segments", (int)v->status.segments, "segments_below",
							    (int)v->status.below, "full", v->status.full, "checkpoint", v->status.checkpoint));
		json_array_append_new(a, j);
	}
	return a;
}

static json_t *hosts_json(const struct store_status *t)
{
	json_t *a = json_array();
	for (size_t i = 0; i < t->agent_count; i++)
		json_array_append_new(a, json_pack("{s:s, s:s, s:s, s:i, s:b, s:I}", "host", t->agents[i].host, "address", t->agents[i].address, "version", t->agents[i].version,
						   "protocol", (int)t->agents[i].protocol, "alive", t->agents[i].alive, "since_ns", (json_int_t)t->agents[i].since_ns));
	return a;
}

static int print_json(const struct store_status *t)
{
	json_t *problems = json_array();
	for (size_t i = 0; i < t->problem_count; i++)
		json_array_append_new(problems, json_string(t->problems[i]));
	return cli_print_json(json_pack("{s:b, s:o, s:{s:s, s:I, s:b, s:s, s:o}, s:o, s:o, s:o, s:{s:i, s:i, s:i, s:i, s:i, s:i, s:I}, s:o, s:o, s:{s:s, s:I, s:I}, s:o, s:{s:s, s:i, s:i, s:i}}",
					"healthy", t->problem_count == 0, "problems", problems, "catalog", "url", t->catalog_url, "answer_ns", (json_int_t)t->catalog_ns,
					"read_only", t->catalog_read_only, "restored", t->restored, "members", members_json(t), "checked", health_json(&t->check), "scrubbed", health_json(&t->scrub), "servers", servers_json(t),
					"groups", "all", (int)t->groups, "complete", (int)t->complete, "degraded", (int)t->degraded, "lost", (int)t->lost, "short",
					(int)t->short_of, "moving", (int)t->moving, "map", (json_int_t)t->map_revision, "volumes", volumes_json(t), "hosts",
					hosts_json(t), "directory", "path", t->directory, "free", (json_int_t)t->free_bytes, "total", (json_int_t)t->total_bytes,
					"warn_full", json_integer(t->warn.count ? t->warn.percent[0] : 0), "versions", "aquifer", AQ_VERSION, "store_format",
					(int)FORMAT_VERSION, "protocol", (int)rpc_protocol_newest, "protocol_of_all", (int)common(t).protocol));
}

/* ---- text ---- */

static void print_health(const char *what, const struct store_health *h)
{
	char when[32];
	if (!h->when_ns) {
		printf("%-10s never\n", what);
		return;
	}
	printf("%-10s %s: ", what, cli_time(h->when_ns, when));
	if (h->faults)
		printf("%" PRIu64 " fault%s", h->faults, h->faults == 1 ? "" : "s");
	else
		printf("all was right");
	if (h->incomplete)
		printf(", and %" PRIu64 " could not be looked at", h->incomplete);
	printf("\n");
}

static void print_rebuild(const struct store_status *t)
{
	uint64_t missing = 0, bytes = 0, rate = 0, misplaced = 0;
	char a[24], b[24], left[32] = "";
	for (size_t i = 0; i < t->server_count; i++) {
		const struct store_server_work *k = &t->servers[i].work;
		missing += k->missing;
		bytes += k->missing_bytes;
		rate += k->missing ? k->bytes_per_s : 0;
		misplaced += k->misplaced;
	}
	if (missing == 0 && misplaced == 0)
		return;
	if (rate)
		snprintf(left, sizeof left, ", about %" PRIu64 " s left", bytes / rate);
	printf("%-10s %" PRIu64 " %s, %s, to be made (%s/s%s); %" PRIu64 " to go from where they don't belong\n", "rebuilding", missing, missing == 1 ? "copy" : "copies", format_size_human(bytes, a),
	       format_size_human(rate, b), left, misplaced);
}

/* What reads have found since the servers were started. */
static void print_found(const struct store_status *t)
{
	uint64_t bad = 0, repaired = 0;
	for (size_t i = 0; i < t->server_count; i++) {
		bad += t->servers[i].work.read_bad;
		repaired += t->servers[i].work.read_repaired;
	}
	if (bad)
		printf("%-10s %" PRIu64 " damaged block%s found by reading; repaired: %" PRIu64 "\n", "reads", bad, bad == 1 ? "" : "s", repaired);
}

static void print_servers(const struct store_status *t)
{
	static const char *const headings[] = { "  SERVER", "DOMAIN", "STATE", ">FREE", ">SIZE", ">USED", ">STARTS", "VERSION", ">PROTOCOL", NULL };
	uint64_t free_bytes = 0, total = 0;
	unsigned up = 0;
	char a[24], b[24], when[32];
	for (size_t i = 0; i < t->server_count; i++) {
		up += t->servers[i].server.answers;
		free_bytes += t->servers[i].server.free_bytes;
		total += t->servers[i].server.total_bytes;
	}
	if (t->server_count == 0)
		return;
	printf("%-10s %zu, %u answer%s; %s of %s free\n", "servers", t->server_count, up, up == 1 ? "s" : "", format_size_human(free_bytes, a),
	       format_size_human(total, b));
	struct table *table = table_new(headings);
	for (size_t i = 0; i < t->server_count; i++) {
		const struct store_status_server *e = &t->servers[i];
		const struct store_server *s = &e->server;
		table_cell(table, "  %s", s->address[0] ? s->address : s->id);
		table_cell(table, "%s", s->domain[0] ? s->domain : "-");
		if (s->answers)
			table_cell(table, "answers");
		else
			table_cell(table, "away since %s", cli_time(e->away_since_ns, when));
		table_cell(table, "%s", s->answers ? format_size_human(s->free_bytes, a) : "-");
		table_cell(table, "%s", s->answers ? format_size_human(s->total_bytes, a) : "-");
		if (s->answers)
			table_cell(table, "%u %%%s", e->used_percent, e->level ? " !" : "");
		else
			table_cell(table, "-");
		table_cell(table, "%" PRIu64, s->incarnation);
		table_cell(table, "%s", e->work.software[0] ? e->work.software : "-");
		if (s->answers)
			table_cell(table, "%u", s->protocol);
		else
			table_cell(table, "-");
	}
	table_print(table, stdout);
	print_rebuild(t);
	printf("%-10s %u: %u complete, %u degraded, %u lost, %u short of servers; %u are moving\n", "groups", t->groups, t->complete, t->degraded, t->lost, t->short_of,
	       t->moving);
}

static void print_held(const struct store_status *t)
{
	static const char *const headings[] = { "  VOLUME", "HOLDER", ">EPOCH", "STATE", NULL };
	struct table *table = table_new(headings);
	char when[32];
	size_t held = 0;
	for (size_t i = 0; i < t->volume_count; i++) {
		const struct store_status_volume *v = &t->volumes[i];
		if (v->volume.state == STORE_FREE || held++ >= HELD_LINES)
			continue;
		table_cell(table, "  %s", v->volume.name);
		table_cell(table, "%s", v->volume.holder.text);
		table_cell(table, "%" PRIu64, v->volume.epoch);
		if (v->asked && v->status.waits_for[0])
			table_cell(table, "waits since %s", cli_time(v->status.waits_since_ns, when));
		else
			table_cell(table, "%s", v->volume.lapsed ? "no lease" : !v->asked ? "can't be asked" : v->status.failed ? "fails" : v->status.full ? "no space" : v->status.checkpoint ? "checkpoints fail" : v->status.below ? "short of copies" : "good");
	}
	table_print(table, stdout);
	if (held > HELD_LINES)
		printf("  and %zu more\n", held - HELD_LINES);
}

static void print_problems(const struct store_status *t)
{
	if (t->problem_count == 0)
		printf("%-10s good\n", "health");
	for (size_t i = 0; i < t->problem_count; i++)
		printf("%-10s %s\n", i ? "" : "problems", t->problems[i]);
}

static size_t members_alive(const struct store_status *t)
{
	size_t n = 0;
	for (size_t i = 0; i < t->member_count; i++)
		n += t->members[i].answers;
	return n;
}

static void print_text(const struct store_status *t)
{
	size_t held = 0, alive = 0;
	char a[24], b[24];
	for (size_t i = 0; i < t->volume_count; i++)
		held += t->volumes[i].volume.state != STORE_FREE;
	for (size_t i = 0; i < t->agent_count; i++)
		alive += t->agents[i].alive;
	print_problems(t);
	printf("%-10s %s, answers in %.1f ms", "catalog", t->catalog_url, (double)t->catalog_ns / NS_PER_MS);
	if (t->member_count > 1)
		printf("; %zu of %zu members do", members_alive(t), t->member_count);
	printf("%s\n", t->catalog_read_only ? "; whether it takes changes isn't known: its user here may only read" : "");
	print_health("checked", &t->check);
	print_health("scrubbed", &t->scrub);
	print_found(t);
	print_servers(t);
	if (t->total_bytes)
		printf("%-10s %s: %s of %s free\n", "directory", t->directory, format_size_human(t->free_bytes, a), format_size_human(t->total_bytes, b));
	if (t->agent_count)
		printf("%-10s %zu, %zu with an agent that lives\n", "hosts", t->agent_count, alive);
	printf("%-10s %zu, %zu attached\n", "volumes", t->volume_count, held);
	if (held)
		print_held(t);
	print_versions(t);
}

/* FIBER. Where the catalog is on etcd and nobody, or no majority, can be asked: its members, at least. */
static int without_catalog(struct cli *c, int status)
{
	struct store_status *t = NULL;
	struct report why = c->report, report = { "" };
	cli_waits(c, "the catalog's members");
	int r = store_status_unreachable(c->env, c->root, report_text(&why, status), &t, &report);
	if (r < 0 || t->member_count == 0) {
		store_status_free(t);
		return status;
	}
	if (cli_flag(c, CLI_JSON)) {
		json_t *problems = json_array();
		for (size_t i = 0; i < t->problem_count; i++)
			json_array_append_new(problems, json_string(t->problems[i]));
		cli_print_json(json_pack("{s:b, s:o, s:{s:s, s:o}}", "healthy", 0, "problems", problems, "catalog", "url", t->catalog_url, "members", members_json(t)));
	} else {
		print_problems(t);
		printf("%-10s %s; %zu of %zu members answer\n", "catalog", t->catalog_url, members_alive(t), t->member_count);
	}
	c->report.text[0] = '\0';
	report_set(&c->report, status, "the catalog can't be used (start what is named; most of etcd's members must run)");
	store_status_free(t);
	return status;
}

int cli_cluster_status(struct cli *c)
{
	struct store_status *t = NULL;
	struct store *s;
	int r = cli_store_open(c, false, &s);
	if (r == -ENOTCONN || r == -ETIMEDOUT)
		return without_catalog(c, r);
	if (r < 0)
		return r;
	cli_waits(c, "servers and holders that don't answer");
	r = store_status(s, &t, &c->report);
	r = cli_store_close(c, s, r);
	if (r == 0 && cli_flag(c, CLI_JSON))
		print_json(t);
	else if (r == 0)
		print_text(t);
	if (r == 0 && t->problem_count)
		r = report_set(&c->report, -EUCLEAN, "not all is well: %zu problem%s (see what is printed)", t->problem_count, t->problem_count == 1 ? "" : "s");
	store_status_free(t);
	return r;
}
