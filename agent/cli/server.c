/* server list. */
#include <errno.h>

#include "agent/cli/cli.h"
#include "agent/cli/store_cli.h"
#include "core/option.h"

struct listing {
	struct table *table;
	json_t *json;
};

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
	table_cell(l->table, "%s", s->answers ? "answers" : "doesn't answer");
	table_cell(l->table, "%s", s->answers ? format_size_human(s->free_bytes, size) : "-");
	table_cell(l->table, "%s", s->answers ? format_size_human(s->total_bytes, size) : "-");
	table_cell(l->table, "%u.%u %%", s->share / 10, s->share % 10);
	return 0;
}

int cli_server_list(struct cli *c)
{
	static const char *const headings[] = { "SERVER", "ADDRESS", "DOMAIN", "STATE", ">FREE", ">SIZE", ">SHARE", NULL };
	struct listing l = { 0 };
	struct store *s;
	int r = cli_store_open(c, false, &s);
	if (r == -ENOENT) { /* no store yet: no servers */
		if (cli_flag(c, CLI_JSON))
			cli_print_json(json_array());
		return 0;
	}
	if (r < 0)
		return r;
	if (cli_flag(c, CLI_JSON))
		l.json = json_array();
	else
		l.table = table_new(headings);
	r = cli_store_close(c, s, store_server_list(s, list_server, &l, &c->report));
	if (l.table)
		table_print(l.table, stdout);
	else if (r == 0)
		cli_print_json(l.json);
	else
		json_decref(l.json);
	return r;
}
