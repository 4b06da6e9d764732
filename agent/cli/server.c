/* server list, drain, remove; cluster gc. */
#include <errno.h>
#include <inttypes.h>

#include "agent/cli/cli.h"
#include "agent/cli/store_cli.h"
#include "core/bytes.h"
#include "core/fiber.h"
#include "core/option.h"

#define LOOK_NS (500 * NS_PER_MS)
enum { RELEASE_LOOKS = 10 }; /* so often the volumes that nobody has are looked at */

/* ---- list ---- */

/* "in 3 min", or "" if nothing is known. */
static const char *estimate(const struct store_server *s, char text[32])
{
	uint64_t seconds = s->bytes_per_s ? s->missing_bytes / s->bytes_per_s : 0;
	text[0] = '\0';
	if (s->bytes_per_s && s->missing_bytes)
		snprintf(text, 32, seconds < 90 ? ", %" PRIu64 " s" : ", %" PRIu64 " min", seconds < 90 ? seconds + 1 : seconds / 60 + 1);
	return text;
}

static void state_text(const struct store_server *s, char *text, size_t bytes)
{
	char time[32];
	const char *why = s->why[0] ? s->why : "doesn't answer";
	if (!s->answers && strcmp(s->state, "in") == 0)
		snprintf(text, bytes, "%s", why);
	else if (!s->answers)
		snprintf(text, bytes, "%s, %s", s->state, why);
	else if (s->missing)
		snprintf(text, bytes, "rebuilding, %" PRIu64 " missing%s", s->missing, estimate(s, time));
	else if (strcmp(s->state, "draining") == 0)
		snprintf(text, bytes, "draining, %" PRIu64 " left", s->copies);
	else
		snprintf(text, bytes, "%s", strcmp(s->state, "in") == 0 ? "answers" : s->state);
}

static int list_server(void *arg, const struct store_server *s)
{
	struct listing *l = arg;
	char size[24], state[160];
	if (l->json)
		return json_array_append_new(l->json, json_pack("{s:s, s:s, s:s, s:s, s:b, s:I, s:I, s:I, s:i, s:f, s:I, s:I, s:I, s:I, s:I, s:I, s:b, s:i, s:s}", "id", s->id,
								"address", s->address, "domain", s->domain, "state", s->state, "answers", s->answers,
								"free", (json_int_t)s->free_bytes, "total", (json_int_t)s->total_bytes, "incarnation",
								(json_int_t)s->incarnation, "weight", (int)s->weight, "share", s->share / 1000.0, "copies",
								(json_int_t)s->copies, "unsealed", (json_int_t)s->unsealed, "missing", (json_int_t)s->missing,
								"missing_bytes", (json_int_t)s->missing_bytes, "rebuild_bytes_per_s", (json_int_t)s->bytes_per_s,
								"misplaced", (json_int_t)s->misplaced, "settled", s->settled, "protocol", (int)s->protocol, "why",
								s->why));
	state_text(s, state, sizeof state);
	table_cell(l->table, "%s", s->id);
	table_cell(l->table, "%s", s->address[0] ? s->address : "-");
	table_cell(l->table, "%s", s->domain[0] ? s->domain : "-");
	table_cell(l->table, "%s", state);
	table_cell(l->table, "%s", s->answers ? format_size_human(s->free_bytes, size) : "-");
	table_cell(l->table, "%s", s->answers ? format_size_human(s->total_bytes, size) : "-");
	table_cell(l->table, "%u.%u %%", s->share / 10, s->share % 10);
	if (s->answers)
		table_cell(l->table, "%u", s->protocol);
	else
		table_cell(l->table, "-");
	return 0;
}

int cli_server_list(struct cli *c)
{
	static const char *const headings[] = { "SERVER", "ADDRESS", "DOMAIN", "STATE", ">FREE", ">SIZE", ">SHARE", ">PROTOCOL", NULL };
	struct listing l;
	struct store *s;
	int r = cli_list_begin(c, headings, &l, &s);
	if (r < 0)
		return r == -ENOENT ? cli_list_empty(c) : r;
	cli_waits(c, "servers that don't answer");
	return cli_list_end(c, &l, s, store_server_list(s, list_server, &l, &c->report));
}

/* ---- drain ---- */

struct others {
	const char *id;
	unsigned in;
};

static int count_other(void *arg, const struct store_server *s)
{
	struct others *o = arg;
	o->in += strcmp(s->id, o->id) != 0 && strcmp(s->state, "in") == 0;
	return 0;
}

/* FIBER. Until nothing is on it. */
static int wait_drained(struct cli *c, struct store *s, const struct store_server *server)
{
	struct store_server now = *server;
	struct progress p;
	struct report held = { "" };
	bool said = false;
	int r = 0;
	progress_start(&p, c, "draining", 0);
	p.unit = "copies";
	cli_waits(c, "the server to answer");
	for (unsigned looks = 0; r == 0 && strcmp(now.state, "drained") != 0; looks++) {
		if (looks % RELEASE_LOOKS == 0 && store_server_release(s, server->id, &held) && !said) {
			cli_say(c, &p, "waiting: %s", held.text);
			said = true;
		}
		r = fiber_sleep(&c->env->loop, LOOK_NS);
		if (r == 0)
			r = store_server_find(s, server->id, &now, &c->report);
		if (r == 0 && strcmp(now.state, "in") == 0)
			r = report_set(&c->report, -ECANCELED, "somebody took that back");
		if (r == 0 && strcmp(now.state, "lost") == 0)
			r = report_set(&c->report, -ENOTCONN, "it doesn't answer any more, and is lost");
		p.total = MAX(p.total, now.copies);
		if (r == 0 && now.answers && p.total)
			progress_set(&p, env_now_ns(c->env), p.total - now.copies);
	}
	progress_end(&p, r == 0);
	return r;
}

static int drain(struct cli *c, struct store *s)
{
	struct store_server server;
	struct others o = { .id = server.id };
	bool undo = cli_flag(c, CLI_UNDO);
	int r = store_server_find(s, c->arg[0], &server, &c->report);
	if (r == 0)
		r = store_server_list(s, count_other, &o, &c->report);
	if (r == 0 && !undo && o.in == 0)
		r = report_set(&c->report, -EBUSY, "there is no other server where its copies could go (start one first)");
	if (r == 0)
		r = store_server_drain(s, server.id, undo, cli_flag(c, CLI_FORCE), &c->report);
	if (r == 0 && !undo && cli_flag(c, CLI_WAIT))
		r = wait_drained(c, s, &server);
	if (r < 0)
		return r;
	if (undo)
		printf("server %s is used again\n", server.id);
	else if (cli_flag(c, CLI_WAIT))
		printf("server %s is drained: nothing is on it (aquifer server remove %.8s)\n", server.id, server.id);
	else if (!server.answers)
		printf("server %s drains; it doesn't answer, so how many copies are on it isn't known (see aquifer server list)\n", server.id);
	else
		printf("server %s drains: %" PRIu64 " cop%s on it (see aquifer server list)\n", server.id, server.copies, server.copies == 1 ? "y is" : "ies are");
	return 0;
}

static int with_store(struct cli *c, int (*run)(struct cli *c, struct store *s))
{
	struct store *s;
	int r = cli_store_open(c, /* create= */ false, &s);
	cli_waits(c, "servers that don't answer");
	return r < 0 ? r : cli_store_close(c, s, run(c, s));
}

enum { ID_DIGITS_MIN = 4 };

/* An address has a colon. */
static int check_id(struct cli *c)
{
	if (strlen(c->arg[0]) >= ID_DIGITS_MIN)
		return 0;
	return cli_usage(c, "'%s' is too short for a server: give at least %d digits of its id, or its address", c->arg[0], ID_DIGITS_MIN);
}

int cli_server_drain(struct cli *c)
{
	if (check_id(c) < 0)
		return -EINVAL;
	if (cli_flag(c, CLI_UNDO) && (cli_flag(c, CLI_WAIT) || cli_flag(c, CLI_FORCE)))
		return cli_usage(c, "--undo needs no %s", cli_flag(c, CLI_WAIT) ? "--wait" : "--force");
	return with_store(c, drain);
}

/* ---- remove ---- */

static int remove_server(struct cli *c, struct store *s)
{
	struct store_server server;
	bool force = cli_flag(c, CLI_FORCE);
	int r = store_server_find(s, c->arg[0], &server, &c->report);
	if (r == 0 && !force && server.answers && strcmp(server.state, "drained") != 0)
		r = report_set(&c->report, -EBUSY, "%" PRIu64 " cop%s on it (drain it first: aquifer server drain %.8s --wait; or give --force)", server.copies,
			       server.copies == 1 ? "y is" : "ies are", server.id);
	if (r == 0)
		r = store_server_remove(s, server.id, force, &c->report);
	if (r == 0)
		printf("server %s is removed%s\n", server.id, server.answers ? " (stop it; started again, it would come back)" : "");
	return r;
}

int cli_server_remove(struct cli *c) { return check_id(c) < 0 ? -EINVAL : with_store(c, remove_server); }

/* ---- gc ---- */

static int gc(struct cli *c, struct store *s)
{
	struct store_gc g;
	char size[24];
	int r = store_gc(s, &g, &c->report);
	if (r < 0)
		return r;
	if (cli_flag(c, CLI_JSON)) {
		cli_print_json(json_pack("{s:i, s:i, s:i, s:I, s:I, s:I}", "servers", (int)g.servers, "silent", (int)g.silent, "refused", (int)g.refused, "freed",
					 (json_int_t)g.freed, "freed_bytes", (json_int_t)g.freed_bytes, "unanswered", (json_int_t)g.unanswered));
	} else {
		printf(g.freed == 1 ? "%" PRIu64 " copy that nobody needs was deleted: %s\n" : "%" PRIu64 " copies that nobody needs were deleted: %s\n", g.freed,
		       format_size_human(g.freed_bytes, size));
		if (g.unanswered)
			printf("%" PRIu64 " copies are kept, because it isn't known yet whether anybody needs them\n", g.unanswered);
	}
	if (g.refused)
		return report_set(&c->report, -EPERM, "the catalog was restored from a backup, or a server came that had another: nothing is deleted until aquifer cluster restore --confirm");
	return g.silent ? report_set(&c->report, -ENOTCONN, "%u of %u servers didn't answer, and weren't looked at (aquifer server list shows which; try again when they do)", g.silent, g.servers) : 0;
}

int cli_cluster_gc(struct cli *c) { return with_store(c, gc); }
