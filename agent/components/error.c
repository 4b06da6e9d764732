/* error(child): fails requests, as disks and networks do, to see what those above do about it.
 *
 * A request *matches* if its operation was named and it touches the range. Of those that match, the first `after` pass,
 * then every `every`-th (or `rate` of 1000, at random) fails, until `count` have failed. One that fails never reaches
 * the child, or with late=on it is carried out and fails all the same: users must cope with both. */
#include <errno.h>
#include <string.h>

#include "agent/components/pass.h"
#include "core/bytes.h"
#include "core/drivers.h"

struct error {
	struct blk_node node;
	unsigned ops;           /* a bit per enum blk_op */
	uint64_t start, end;    /* bytes; a flush has no range and matches any */
	uint64_t after, every, rate, count;
	int status;             /* -errno */
	bool late;
	uint64_t matched, failed;
};

/* error_submit ─▶ error_finish */
struct error_frame {
	struct job job;
	struct blk_io *io, child_io;
	int status;             /* what to answer; 0: what the child does */
};

/* ---- options ---- */

static const struct {
	const char *name;
	int value;
} error_names[] = {
	{ "EACCES", EACCES }, { "EAGAIN", EAGAIN }, { "EBADMSG", EBADMSG }, { "EBUSY", EBUSY }, { "ECONNRESET", ECONNRESET },
	{ "EFBIG", EFBIG }, { "EINVAL", EINVAL }, { "EIO", EIO }, { "ENODEV", ENODEV }, { "ENOMEM", ENOMEM }, { "ENOSPC", ENOSPC },
	{ "ENOTSUP", ENOTSUP }, { "EPERM", EPERM }, { "EROFS", EROFS }, { "ESHUTDOWN", ESHUTDOWN }, { "ESTALE", ESTALE },
	{ "ETIMEDOUT", ETIMEDOUT },
};

#define ERROR_NAMES "EACCES EAGAIN EBADMSG EBUSY ECONNRESET EFBIG EINVAL EIO ENODEV ENOMEM ENOSPC ENOTSUP EPERM EROFS ESHUTDOWN ESTALE ETIMEDOUT"

/* -errno; 0: no name of an error */
static int error_parse_errno(const char *name)
{
	for (unsigned i = 0; i < ARRAY_COUNT(error_names); i++)
		if (strcmp(name, error_names[i].name) == 0)
			return -error_names[i].value;
	return 0;
}

static bool error_errno_valid(const char *name) { return error_parse_errno(name) != 0; }

static unsigned error_op_bit(const char *word, size_t length)
{
	for (unsigned op = 0; op < BLK_OP_COUNT; op++)
		if (strlen(blk_op_name(op)) == length && memcmp(blk_op_name(op), word, length) == 0)
			return 1u << op;
	return length == 3 && memcmp(word, "all", 3) == 0 ? (1u << BLK_OP_COUNT) - 1 : 0;
}

/* "read+write"; 0: one of them is no operation */
static unsigned error_parse_ops(const char *text)
{
	unsigned ops = 0;
	for (const char *p = text;; p++) {
		size_t n = strcspn(p, "+");
		unsigned bit = error_op_bit(p, n);
		if (!bit)
			return 0;
		ops |= bit;
		p += n;
		if (!*p)
			break;
	}
	return ops;
}

static bool error_ops_valid(const char *text) { return error_parse_ops(text) != 0; }

static int error_open(struct blk_node *node, const struct blk_open *how, struct report *report)
{
	struct error *e = container_of(node, struct error, node);
	const struct option_values *o = how->options;
	const char *ops = option_string(o, "op"), *name = option_string(o, "errno");
	e->after = option_number(o, "after");
	e->every = option_number(o, "every");
	e->rate = option_number(o, "rate");
	e->count = option_given(o, "count") ? option_number(o, "count") : UINT64_MAX;
	e->late = option_bool(o, "late");
	e->start = option_number(o, "offset");
	uint64_t length = option_number(o, "length");
	e->end = length && length < UINT64_MAX - e->start ? e->start + length : UINT64_MAX;
	if (option_given(o, "rate") && option_given(o, "every"))
		return report_set(report, -EINVAL, "rate and every exclude each other (give one)");
	e->ops = error_parse_ops(ops ? ops : "read+write");
	e->status = error_parse_errno(name ? name : "EIO");
	return 0;
}

/* ---- requests ---- */

static bool error_matches(const struct error *e, const struct blk_io *io)
{
	if (!(e->ops & 1u << io->op))
		return false;
	return io->op == BLK_FLUSH || (io->offset < e->end && io->offset + io->length > e->start);
}

/* Decides, and counts. */
static bool error_strikes(struct error *e, const struct blk_io *io)
{
	if (!error_matches(e, io))
		return false;
	uint64_t number = e->matched++;
	if (number < e->after || e->failed >= e->count)
		return false;
	bool strikes = e->rate ? env_random(e->node.env) % 1000 < e->rate : (number - e->after + 1) % e->every == 0;
	e->failed += strikes;
	return strikes;
}

static void error_finish(struct job *job)
{
	struct error_frame *f = container_of(job, struct error_frame, job);
	struct blk_io *io = f->io;
	int status = f->status ? f->status : job->status;
	blk_frame_put(io->node, f);
	blk_end(io, status);
}

static void error_submit(struct blk_node *node, struct blk_io *io)
{
	struct error *e = container_of(node, struct error, node);
	struct error_frame *f = blk_frame_get(node);
	job_init(&f->job, node->loop);
	f->io = io;
	f->status = error_strikes(e, io) ? e->status : 0;
	if (!f->status || e->late) {
		f->child_io = pass_copy(io);
		blk_submit(node->child[0], &f->child_io, &f->job);
	}
	job_then(&f->job, error_finish);
}

static void error_describe(struct blk_node *node, void (*item)(void *arg, const char *key, uint64_t value), void *arg)
{
	const struct error *e = container_of(node, struct error, node);
	item(arg, "matched", e->matched);
	item(arg, "refused", e->failed); /* not "failed": that is what a node says that fails for good */
}

static const struct option_spec error_options[] = {
	{ "after", OPTION_NUMBER, .help = "matching requests that pass before the first fails (default 0)" },
	{ "count", OPTION_NUMBER, .help = "requests that fail at most (default: no limit)" },
	{ "errno", OPTION_STRING, .help = "the error's name (default EIO)",
	  .valid = error_errno_valid, .form = "no error's name (there are " ERROR_NAMES ")" },
	{ "every", OPTION_NUMBER, .help = "fail each n-th matching request (default 1: all)", .number_default = 1, .number_min = 1 },
	{ "late", OPTION_BOOL, .help = "carry the request out and fail it then (default off)" },
	{ "length", OPTION_SIZE, .help = "bytes from offset on that fail (default: to the end)", .number_min = 1 },
	{ "offset", OPTION_SIZE, .help = "where the range that fails begins (default 0)" },
	{ "op", OPTION_STRING, .help = "operations that fail, joined by + (default read+write)",
	  .valid = error_ops_valid, .form = "no list of operations (join read, write, flush, discard, zero, map and all by +)" },
	{ "rate", OPTION_NUMBER, .help = "of 1000 matching requests so many fail, at random", .number_min = 1, .number_max = 1000 },
	{ .name = NULL },
};

const struct blk_driver driver_error = {
	.name = "error",
	.follows_size = true,
	.summary = "fails requests",
	.options = error_options,
	.children_min = 1,
	.children_max = 1,
	.writes_child = true,
	.node_size = sizeof(struct error),
	.frame_size = sizeof(struct error_frame),
	.open = error_open,
	.submit = error_submit,
	.describe = error_describe,
};
