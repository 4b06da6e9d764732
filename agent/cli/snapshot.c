/* snapshot create, list, delete, rollback; clone; diff. */
#include <errno.h>
#include <inttypes.h>
#include <string.h>

#include "agent/cli/cli.h"
#include "agent/cli/store_cli.h"
#include "core/option.h"

/* VOLUME@SNAP, both there and both names. */
static int check_snapshot(struct cli *c, const char *text)
{
	const char *at = strchr(text, '@');
	size_t n = at ? (size_t)(at - text) : 0;
	char volume[STORE_NAME_BYTES];
	if (!at || n >= sizeof volume)
		return cli_usage(c, "'%s' is not VOLUME@SNAP", text);
	memcpy(volume, text, n);
	volume[n] = 0;
	int r = cli_name(c, "volume", volume);
	return r < 0 ? r : cli_name(c, "snapshot", at + 1);
}

static int check_point(struct cli *c, const char *text)
{
	return strchr(text, '@') ? check_snapshot(c, text) : cli_name(c, "volume", text);
}

int cli_point_name(struct cli *c, const char *text) { return check_point(c, text); }

/* One instant is one snapshot of each volume: those before the i-th are of others. */
static int check_other_volume(struct cli *c, int i)
{
	size_t n = strcspn(c->arg[i], "@") + 1;
	for (int k = 0; k < i; k++)
		if (!strncmp(c->arg[i], c->arg[k], n))
			return cli_usage(c, "volume %.*s is given twice: one snapshot of each", (int)n - 1, c->arg[i]);
	return 0;
}

int cli_snapshot_create(struct cli *c)
{
	struct store *s;
	int r = 0;
	for (int i = 0; r == 0 && i < c->arg_count; i++)
		if ((r = check_snapshot(c, c->arg[i])) == 0)
			r = check_other_volume(c, i);
	if (r == 0 && c->arg_count > STORE_GROUP_MAX)
		r = cli_usage(c, "more than %d snapshots at one instant", STORE_GROUP_MAX);
	if (r < 0 || (r = cli_store_by_agent(c, "snapshot")) != -EOPNOTSUPP || (r = cli_store_open(c, false, &s)) < 0)
		return r;
	return cli_store_close(c, s, store_snapshot_create(s, c->arg, (unsigned)c->arg_count, &c->report));
}

struct snapshots {
	struct listing list;
	bool frees; /* is told */
};

static int list_snapshot(void *arg, const struct store_snapshot *p)
{
	struct snapshots *l = arg;
	char size[24], created[32];
	if (l->list.json) {
		json_t *o = json_pack("{s:s, s:s, s:I, s:I, s:i}", "volume", p->volume, "name", p->name, "size", (json_int_t)p->size_bytes,
				      "created_ns", (json_int_t)p->created_ns, "clones", (int)p->clones);
		if (l->frees)
			json_object_set_new(o, "frees", json_integer((json_int_t)p->frees_bytes));
		return json_array_append_new(l->list.json, o);
	}
	table_cell(l->list.table, "%s@%s", p->volume, p->name);
	table_cell(l->list.table, "%s", format_size(p->size_bytes, size));
	table_cell(l->list.table, "%s", cli_time(p->created_ns, created));
	table_cell(l->list.table, "%u", p->clones);
	if (l->frees)
		table_cell(l->list.table, "%s", format_size_human(p->frees_bytes, size));
	return 0;
}

int cli_snapshot_list(struct cli *c)
{
	static const char *const headings[] = { "SNAPSHOT", ">SIZE", "CREATED", ">CLONES", NULL };
	static const char *const headings_of_one[] = { "SNAPSHOT", ">SIZE", "CREATED", ">CLONES", ">FREES", NULL };
	const char *volume = c->arg_count ? c->arg[0] : NULL;
	struct snapshots l = { .frees = volume };
	struct store *s;
	int r = volume ? cli_name(c, "volume", volume) : 0;
	if (r == 0)
		r = cli_list_begin(c, volume ? headings_of_one : headings, &l.list, &s);
	if (r < 0)
		return r == -ENOENT && !volume ? cli_list_empty(c) : r;
	return cli_list_end(c, &l.list, s, store_snapshot_list(s, volume, list_snapshot, &l, &c->report));
}

int cli_snapshot_delete(struct cli *c)
{
	struct store *s;
	int r = 0;
	for (int i = 0; r == 0 && i < c->arg_count; i++)
		r = check_snapshot(c, c->arg[i]);
	if (r < 0 || (r = cli_store_open(c, false, &s)) < 0)
		return r;
	return cli_store_close(c, s, store_snapshots_delete(s, c->arg, (unsigned)c->arg_count, &c->report));
}

int cli_snapshot_rollback(struct cli *c)
{
	struct store *s;
	int r;
	if ((r = check_snapshot(c, c->arg[0])) < 0 || (r = cli_store_open(c, false, &s)) < 0)
		return r;
	return cli_store_close(c, s, store_snapshot_rollback(s, c->arg[0], &c->report));
}

int cli_clone(struct cli *c)
{
	struct store *s;
	int r;
	if ((r = check_snapshot(c, c->arg[0])) < 0 || (r = cli_name(c, "volume", c->arg[1])) < 0 ||
	    (r = cli_store_by_agent(c, "clone")) != -EOPNOTSUPP || (r = cli_store_open(c, false, &s)) < 0)
		return r;
	return cli_store_close(c, s, store_clone(s, c->arg[0], c->arg[1], &c->report));
}

static int diff_extent(void *arg, const struct store_extent *e)
{
	json_t *j = arg;
	if (j)
		return json_array_append_new(j, json_pack("{s:I, s:I, s:b}", "offset", (json_int_t)e->offset, "length",
							  (json_int_t)e->length, "data", e->data));
	printf("%" PRIu64 " %" PRIu64 " %s\n", e->offset, e->length, e->data ? "data" : "zero");
	return 0;
}

int cli_diff(struct cli *c)
{
	struct store *s;
	int r;
	if ((r = check_snapshot(c, c->arg[0])) < 0 || (r = check_point(c, c->arg[1])) < 0 || (r = cli_store_open(c, false, &s)) < 0)
		return r;
	json_t *j = cli_flag(c, CLI_JSON) ? json_array() : NULL;
	r = cli_store_close(c, s, store_diff(s, c->arg[0], c->arg[1], diff_extent, j, &c->report));
	if (r == 0 && j)
		return cli_print_json(j);
	json_decref(j);
	return r;
}
