/* The block driver `volume`: a volume of the store, or NAME@SNAP to read a snapshot. */
#include <errno.h>
#include <stdlib.h>
#include <string.h>
#include <unistd.h>

#include "core/drivers.h"
#include "parallax/store/store.h"
#include "parallax/store/store_private.h"
#include "parallax/volume/places.h"
#include "parallax/volume/volume_move.h"
#include "parallax/volume/volume_wait.h"

struct opened {
	struct places *places;
	struct snapshot_hold hold; /* a snapshot's */
	struct volume_move move; /* a volume's */
};

static const struct option_spec volume_options[] = {
	{ .name = "name", .type = OPTION_STRING, .positional = true, .required = true, .help = "VOLUME or VOLUME@SNAPSHOT",
	  .valid = name_valid_volume, .form = "no volume's or snapshot's name (letters, digits, '.', '_' and '-', at most 63)" },
	{ .name = "cache", .type = OPTION_SIZE, .help = "memory for the volume's map (default 64M)", .number_default = 64 << 20,
	  .number_min = 1 << 20, .number_max = UINT64_C(64) << 30 },
	{ 0 },
};

static int open_volume(struct volume_node *n, struct opened *o, const struct blk_open *how, const char *name, struct report *report)
{
	uint64_t id;
	struct volume *v;
	int r = store_find_volume(o->places, name, &id, report);
	if (r < 0)
		return r;
	struct volume_open open = { .catalog = o->places->catalog, .places = &o->places->ops, .volume = id, .holder = how->holder,
				    .control = how->control, .host = o->places->host, .pid = (uint64_t)getpid(), .force = how->force,
				    .accept_flushed = how->accept_flushed,
				    .limits.cache_bytes = option_number(how->options, "cache") };
	r = how->incoming ? 0 : volume_open(n->node.env, &open, &v, report);
	if (r < 0)
		return r;
	volume_node_init(n, how->incoming ? NULL : v, NULL);
	volume_move_init(&o->move, n, o->places, &open);
	if (how->incoming && (r = volume_move_begin(&o->move, how->incoming_ms * NS_PER_MS, report)) < 0)
		volume_move_end(&o->move);
	return r;
}

static int open_snapshot(struct volume_node *n, struct opened *o, const struct blk_open *how, const char *name, const char *snapshot,
			 struct report *report)
{
	uint64_t id, mark;
	struct volume_reader *d;
	if (!how->read_only)
		return report_set(report, -EROFS, "a snapshot can only be read (attach it with --read-only, or clone it: aquifer clone %s@%s NEW)", name,
				  snapshot);
	int r = store_find_snapshot(o->places, name, snapshot, &id, &mark, report);
	if (r == 0)
		r = store_want_root(o->places, id, mark, NULL, report);
	if (r == 0 && (r = places_hold_snapshot(o->places, id, mark, &o->hold)) < 0 && o->hold.file)
		report_set(report, r, "the catalog gives no lease: %s", catalog_text(o->places->catalog, r));
	if (r < 0)
		return report_set(report, r, "%s", errno_text(r));
	struct volume_reader_open open = { .catalog = o->places->catalog, .places = &o->places->ops, .volume = id, .mark_seq = mark,
					   .cache_bytes = option_number(how->options, "cache") };
	r = volume_reader_open(n->node.env, &open, &d, report);
	if (r == 0)
		volume_node_init(n, NULL, d);
	return r;
}

static void opened_free(struct opened *o)
{
	if (o->places)
		places_let_go(o->places, &o->hold);
	places_close(o->places);
	free(o);
}

static int driver_volume_open(struct blk_node *node, const struct blk_open *how, struct report *report)
{
	struct volume_node *n = container_of(node, struct volume_node, node);
	char name[STORE_NAME_BYTES], snapshot[STORE_NAME_BYTES];
	struct opened *o = calloc(1, sizeof *o);
	if (!o)
		return -ENOMEM;
	int r = store_name_split(option_string(how->options, "name"), name, snapshot, report);
	if (r == 0)
		r = places_open(node->env, how->root ? how->root : "", NULL, /* create= */ false, &o->places, report);
	if (r == 0)
		r = snapshot[0] ? open_snapshot(n, o, how, name, snapshot, report) : open_volume(n, o, how, name, report);
	if (r < 0) {
		opened_free(o);
		return r;
	}
	n->open_state = o;
	return 0;
}

static int driver_volume_close(struct blk_node *node)
{
	struct volume_node *n = container_of(node, struct volume_node, node);
	struct opened *o = n->open_state;
	if (!n->reader)
		volume_move_end(&o->move);
	volume_node_end(n);
	int r = volume_close(n->volume);
	if (r == -ENOSPC || r == -ETIMEDOUT) /* the flush was good, only the last checkpoint isn't: the next opener replays, nothing is lost */
		r = 0;
	volume_reader_close(n->reader);
	opened_free(o);
	return r;
}

static int driver_volume_control(struct blk_node *node, const char *verb, const char *const *args, char **ret_json, struct report *report)
{
	struct volume_node *n = container_of(node, struct volume_node, node);
	struct opened *o = n->open_state;
	return n->reader ? volume_node_control(node, verb, args, ret_json, report) : volume_move_control(&o->move, verb, args, ret_json, report);
}

static bool driver_volume_condition(struct blk_node *node, char ret_state[16], char *ret_why, size_t bytes)
{
	struct volume_node *n = container_of(node, struct volume_node, node);
	struct opened *o = n->open_state;
	return !n->reader && volume_move_condition(&o->move, ret_state, ret_why, bytes);
}

const struct blk_driver driver_volume = {
	.name = "volume",
	.summary = "a volume of the store, or a snapshot of one",
	.options = volume_options,
	.node_size = sizeof(struct volume_node),
	.frame_size = sizeof(struct volume_frame),
	.open = driver_volume_open,
	.close = driver_volume_close,
	.submit = volume_node_submit,
	.describe = volume_node_describe,
	.condition = driver_volume_condition,
	.waits = volume_wait_tell,
	.control = driver_volume_control,
};
