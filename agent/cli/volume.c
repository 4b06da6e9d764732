/* volume create, list, show, set, resize, rename, delete, import, export. */
#include <errno.h>
#include <inttypes.h>
#include <stdlib.h>
#include <string.h>

#include "agent/cli/cli.h"
#include "agent/cli/store_cli.h"
#include "agent/cli/transfer.h"
#include "core/bytes.h"
#include "core/option.h"
#include "parallax/volume/volume_status.h"

static int number_option(struct cli *c, enum cli_option key, const char *name, uint32_t *ret)
{
	const char *text = cli_option(c, key);
	*ret = 0;
	if (!text)
		return 0;
	char *end;
	unsigned long v = strtoul(text, &end, 10);
	if (!text[0] || *end || text[0] == '-' || v < 1 || v > STORE_REPLICAS_MAX)
		return cli_usage(c, "--%s=%s is not a number from 1 to %d", name, text, STORE_REPLICAS_MAX);
	*ret = (uint32_t)v;
	return 0;
}

static int size_of_volume(struct cli *c, const char *text, uint64_t *ret_bytes)
{
	return cli_size_of(c, text, 4096, STORE_VOLUME_BYTES_MAX, ret_bytes);
}

int cli_volume_create(struct cli *c)
{
	struct store_volume_options o = { 0 };
	struct store *s;
	int r;
	if ((r = cli_name(c, "volume", c->arg[0])) < 0 || (r = size_of_volume(c, c->arg[1], &o.size_bytes)) < 0 ||
	    (r = number_option(c, CLI_REPLICAS, "replicas", &o.replicas)) < 0 ||
	    (r = number_option(c, CLI_MIN_REPLICAS, "min-replicas", &o.min_replicas)) < 0)
		return r;
	const char *timeout = cli_option(c, CLI_IO_TIMEOUT);
	struct report why = { "" };
	if (timeout && store_parse_io_timeout(timeout, &o.io_timeout_ms, &why) < 0)
		return cli_usage(c, "%s", why.text);
	if (o.replicas && o.min_replicas > o.replicas)
		return cli_usage(c, "--min-replicas %u is more than --replicas %u", (unsigned)o.min_replicas, (unsigned)o.replicas);
	if ((r = cli_store_open(c, true, &s)) < 0)
		return r;
	return cli_store_close(c, s, store_volume_create(s, c->arg[0], &o, &c->report));
}

/* ---- list and show ---- */

static json_t *volume_json(const struct store_volume *v)
{
	json_t *holder = v->state == STORE_FREE ? json_null()
						: json_pack("{s:s, s:s}", "text", v->holder.text, "control", v->holder.control);
	return json_pack("{s:s, s:I, s:I, s:I, s:I, s:I, s:I, s:s, s:o, s:I, s:i, s:i, s:I, s:i, s:I, s:s, s:s, s:b}", "name", v->name, "id",
			 (json_int_t)v->id, "size", (json_int_t)v->size_bytes, "used", (json_int_t)v->used_bytes, "exclusive",
			 (json_int_t)v->exclusive_bytes, "kept_bytes", (json_int_t)v->kept_bytes, "snapshot_bytes", (json_int_t)v->snapshot_bytes, "state",
			 store_state_name(v->state), "holder", holder, "epoch", (json_int_t)v->epoch, "replicas",
			 (int)v->replicas, "min_replicas", (int)v->min_replicas, "io_timeout_ms", (json_int_t)v->io_timeout_ms, "snapshots", (int)v->snapshot_count,
			 "created_ns", (json_int_t)v->created_ns, "parent", v->parent, "health", v->health,
			 "embedded", v->embedded);
}

static int list_volume(void *arg, const struct store_volume *v)
{
	struct listing *l = arg;
	char size[24], used[24];
	struct store_volume told = *v;
	if (strcmp(told.health, "good") == 0)
		volume_table_long(told.table_bytes, told.health, sizeof told.health);
	if (l->json)
		return json_array_append_new(l->json, volume_json(&told));
	table_cell(l->table, "%s", v->name);
	table_cell(l->table, "%s", format_size(v->size_bytes, size));
	table_cell(l->table, "%s", format_size_human(v->used_bytes, used));
	table_cell(l->table, "%u", v->snapshot_count);
	table_cell(l->table, "%s", store_state_name(v->state));
	table_cell(l->table, "%s", v->state == STORE_FREE ? "-" : v->holder.text);
	table_cell(l->table, "%s", v->parent[0] ? v->parent : "-");
	table_cell(l->table, "%s", told.health);
	return 0;
}

int cli_volume_list(struct cli *c)
{
	static const char *const headings[] = { "NAME", ">SIZE", ">USED", ">SNAPSHOTS", "STATE", "HOLDER", "CLONE OF", "HEALTH", NULL };
	struct listing l;
	struct store *s;
	int r = cli_list_begin(c, headings, &l, &s);
	if (r < 0)
		return r == -ENOENT ? cli_list_empty(c) : r;
	return cli_list_end(c, &l, s, store_volume_list(s, list_volume, &l, &c->report));
}

static void print_bytes(const char *what, uint64_t bytes)
{
	char text[24];
	printf("%-22s %" PRIu64 " (%s)\n", what, bytes, format_size_human(bytes, text));
}

int cli_volume_show(struct cli *c)
{
	struct store_volume v;
	struct store *s;
	int r;
	if ((r = cli_name(c, "volume", c->arg[0])) < 0 || (r = cli_store_open(c, false, &s)) < 0)
		return r;
	r = cli_store_close(c, s, store_volume_show(s, c->arg[0], &v, &c->report));
	if (r < 0)
		return r;
	if (cli_flag(c, CLI_JSON))
		return cli_print_json(volume_json(&v));
	char created[32], timeout[24];
	printf("%-22s %s\n", "name", v.name);
	print_bytes("size", v.size_bytes);
	print_bytes("used", v.used_bytes);
	print_bytes("exclusive", v.exclusive_bytes);
	print_bytes("held by snapshots", v.snapshot_bytes);
	if (v.kept_bytes)
		print_bytes("kept of deleted", v.kept_bytes);
	printf("%-22s %u\n", "snapshots", v.snapshot_count);
	printf("%-22s %s\n", "clone of", v.parent[0] ? v.parent : "-");
	printf("%-22s %s\n", "created", cli_time(v.created_ns, created));
	printf("%-22s %s\n", "data", v.embedded ? "embedded: a directory of this host, beside the catalog" : v.replicas == 1 ? "on a server" : "on servers");
	printf("%-22s %u (writes need %u)\n", "replicas", v.replicas, v.min_replicas);
	store_io_timeout_text(v.io_timeout_ms, timeout);
	printf("%-22s %s\n", "io-timeout", timeout);
	printf("%-22s %s\n", "state", store_state_name(v.state));
	printf("%-22s %s\n", "holder", v.state == STORE_FREE ? "-" : v.holder.text);
	printf("%-22s %" PRIu64 "\n", "epoch", v.epoch);
	printf("%-22s %s\n", "health", v.health);
	return 0;
}

/* ---- changes ---- */

int cli_volume_set(struct cli *c)
{
	char key[64];
	const char *equals = strchr(c->arg[1], '=');
	size_t n = equals ? (size_t)(equals - c->arg[1]) : 0;
	if (n == 0 || n >= sizeof key)
		return cli_usage(c, "'%s' is not KEY=VALUE", c->arg[1]);
	memcpy(key, c->arg[1], n);
	key[n] = 0;
	struct store *s;
	struct report why = { "" };
	uint32_t ms;
	int r = cli_name(c, "volume", c->arg[0]);
	if (r == 0 && strcmp(key, "io-timeout") != 0)
		return cli_usage(c, "a volume has no setting '%s' in this version: there is io-timeout", key);
	if (r == 0 && store_parse_io_timeout(equals + 1, &ms, &why) < 0)
		return cli_usage(c, "%s", why.text);
	if (r < 0 || (r = cli_store_open(c, false, &s)) < 0)
		return r;
	return cli_store_close(c, s, store_volume_set(s, c->arg[0], key, equals + 1, &c->report));
}

int cli_volume_resize(struct cli *c)
{
	uint64_t size;
	struct store *s;
	int r;
	if ((r = cli_name(c, "volume", c->arg[0])) < 0 || (r = size_of_volume(c, c->arg[1], &size)) < 0 || (r = cli_store_open(c, false, &s)) < 0)
		return r;
	return cli_store_close(c, s, store_volume_resize(s, c->arg[0], size, cli_flag(c, CLI_FORCE), &c->report));
}

int cli_volume_rename(struct cli *c)
{
	struct store *s;
	int r;
	if ((r = cli_name(c, "volume", c->arg[0])) < 0 || (r = cli_name(c, "volume", c->arg[1])) < 0 ||
	    (r = cli_store_open(c, false, &s)) < 0)
		return r;
	return cli_store_close(c, s, store_volume_rename(s, c->arg[0], c->arg[1], &c->report));
}

int cli_volume_delete(struct cli *c)
{
	struct store *s;
	int r;
	if ((r = cli_name(c, "volume", c->arg[0])) < 0 || (r = cli_store_open(c, false, &s)) < 0)
		return r;
	return cli_store_close(c, s, store_volume_delete(s, c->arg[0], cli_flag(c, CLI_WITH_SNAPSHOTS), &c->report));
}

/* ---- in and out ---- */

/* FIBER. What it is known by where the catalog was lost, and a backup is from before; complete it is in any case. */
static void call_it(struct blk_node *volume, const char *name)
{
	const char *args[] = { name, NULL };
	char *json = NULL;
	volume->driver->control(volume, "called", args, &json, NULL);
	free(json);
}

/* FIBER. Fills a volume that was just created, and gives it its name. */
static int import_into(struct cli *c, struct store *s, const char *temporary, const char *name, struct blk_node *from)
{
	struct graph_instance *graph;
	struct blk_node *to;
	char text[STORE_NAME_BYTES + 16];
	snprintf(text, sizeof text, "volume(%s)", temporary);
	int r = transfer_open_text(c, text, /* read_only= */ false, &graph, &to);
	if (r < 0)
		return r;
	r = transfer_copy(c, from, to);
	if (r == 0)
		r = store_import_end(s, temporary, name, &c->report); /* it is flushed; and as long as it is open nobody takes it for a dead one's */
	if (r == 0)
		call_it(to, name);
	int closed = graph_close(graph);
	if (r == 0 && closed < 0)
		r = report_set(&c->report, closed, "closing the volume: %s", strerror(-closed));
	return r;
}

int cli_volume_import(struct cli *c)
{
	struct store_volume_options o = { 0 };
	struct graph_instance *graph;
	struct blk_node *from;
	struct store *s;
	int r = cli_name(c, "volume", c->arg[1]);
	if (r < 0 || (r = transfer_open(c, c->arg[0], &graph, &from)) < 0)
		return r;
	o.size_bytes = round_up(from->info.size, 4096);
	r = cli_store_open(c, true, &s);
	if (r == 0) {
		char temporary[STORE_NAME_BYTES];
		struct transfer_signals before;
		transfer_catch(&before); /* from now on something can be left behind */
		r = store_import_begin(s, c->arg[1], &o, temporary, &c->report);
		if (r == 0 && (r = import_into(c, s, temporary, c->arg[1], from)) < 0)
			store_import_cancel(s, temporary);
		transfer_restore(&before);
		r = cli_store_close(c, s, r);
	}
	graph_close(graph);
	return r;
}

int cli_volume_export(struct cli *c)
{
	int r = cli_point_name(c, c->arg[0]);
	return r < 0 ? r : transfer_to_file(c, c->arg[0], c->arg[1]);
}
