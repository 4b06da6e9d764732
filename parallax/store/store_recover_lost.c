/* What it costs that a volume goes on, by force, from what the servers that answer have: blocks that this needs, and that a later checkpoint, which nobody there knows,
 * had freed. Trees are compared with what each copy says to be free (verify.h), as of the checkpoint: what the log behind it has written anew counts all the same. */
#include <errno.h>
#include <stdlib.h>

#include "parallax/store/store_recover_private.h"
#include "parallax/store/verify.h"

/* Counting is all that is wanted. */
static int ignore(void *arg, int status, const char *text)
{
	(void)arg;
	(void)text;
	return status == -ENOMEM || status == -ESHUTDOWN ? status : 0;
}

int recover_count_lost(struct recovering *r)
{
	const struct meta_log *log = r->s.what == SALVAGE_NOTHING ? &r->known : &r->s.log;
	struct source source = { .copies = r->copies };
	struct sources sources = { .env = r->store->env, .source = &source, .count = 1 };
	struct verify y = { .env = r->store->env, .catalog = r->store->catalog, .volume = r->id, .log = log, .sources = &sources, .copies = r->copies, .space = &r->table,
			    .fault = ignore };
	struct report report = { "" };
	if (!log->space.pointer.position)
		return 0;
	int status = r->s.what == SALVAGE_NOTHING ? recover_load_table(r, log, &report) : 0;
	if (status == 0 || r->table.segment_count) /* some of these may be nowhere */
		status = verify_run(&y);
	if (status == -ENOMEM || status == -ESHUTDOWN)
		return status;
	r->ret->lost_blocks = y.lost;
	r->ret->lost_more = status < 0 || y.partial;
	return 0;
}
