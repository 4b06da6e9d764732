/* server list. */
#include <errno.h>

#include "agent/cli/cli.h"
#include "agent/cli/store_cli.h"
#include "core/option.h"

static int list_server(void *arg, const struct store_server *s)
{
	struct listing *l = arg;
	char size[24];
	if (l->json)
		return json_array_append_new(l->json, json_pack("{s:s, s:s, s:s, s:b, s:I, s:I, s:I, s:i, s:f}", "id", s->id, "address", s->address,
								"domain", s->domain, "answers", s->answers, "free", (json_int_t)s->free_bytes,
								"total", (json_int_t)s->total_bytes, "incarnation", (json_int_t)s->incarnation,
								"weight", (int)s->weight, "share", s->share / 1000.0));
	table_cell(l->table, "%s", s->id);
	table_cell(l->table, "%s", s->address[0] ? s->address : "-");
	table_cell(l->table, "%s", s->domain[0] ? s->domain : "-");
	table_cell(l->table, "%s", s->answers ? "answers" : s->why[0] ? s->why : "doesn't answer");
	table_cell(l->table, "%s", s->answers ? format_size_human(s->free_bytes, size) : "-");
	table_cell(l->table, "%s", s->answers ? format_size_human(s->total_bytes, size) : "-");
	table_cell(l->table, "%u.%u %%", s->share / 10, s->share % 10);
	return 0;
}

int cli_server_list(struct cli *c)
{
	static const char *const headings[] = { "SERVER", "ADDRESS", "DOMAIN", "STATE", ">FREE", ">SIZE", ">SHARE", NULL };
	struct listing l;
	struct store *s;
	int r = cli_list_begin(c, headings, &l, &s);
	if (r < 0)
		return r == -ENOENT ? cli_list_empty(c) : r;
	return cli_list_end(c, &l, s, store_server_list(s, list_server, &l, &c->report));
}
