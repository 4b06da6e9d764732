#include "agent/components/cow_map.h"

#include <assert.h>
#include <errno.h>
#include <inttypes.h>
#include <stdlib.h>
#include <string.h>

#include "core/bytes.h"
#include "core/fiber.h"
#include "core/plant.h"

#define LOAD_AT_ONCE 16u /* groups */

struct cow_page {
	uint8_t now[COW_PAGE];  /* states from COW_STATE_START on */
	uint8_t *out;           /* what a commit writes, page aligned; NULL while there is none */
	uint64_t group, sequence;
	unsigned slot;          /* the copy on disk that is in force */
	unsigned blank;         /* a bit for each copy on disk that may take no space */
	bool is_dirty, is_committing, is_reserving;
	struct link dirty, committing;
	struct blk_io io, reserve_io;
	struct iovec iov;
};

/* ---- states ---- */

enum cow_state cow_map_state(const struct cow_map *m, uint64_t block)
{
	const struct cow_page *p = m->page[block / COW_GROUP_BLOCKS];
	return p ? cow_state_get(p->now + COW_STATE_START, (unsigned)(block % COW_GROUP_BLOCKS)) : COW_PARENT;
}

static struct cow_page *page_make(struct cow_map *m, uint64_t group)
{
	struct cow_page *p = calloc(1, sizeof *p);
	if (!p)
		return NULL;
	p->group = group;
	p->slot = 1; /* so that the first goes to copy 0 */
	p->blank = 3;
	m->page[group] = p;
	m->page_count++;
	return p;
}

/* ---- room for the pages ---- */

static void reserve_done(struct job *j);

static uint64_t page_offset(const struct cow_page *p, unsigned slot) { return p->group * COW_GROUP + COW_MAP_START + slot * COW_PAGE; }

static void page_reserve(struct cow_map *m, struct cow_page *p)
{
	struct iovec *iov = &m->blank_iov[p->blank == 3];
	if (!p->blank || p->is_reserving)
		return;
	p->is_reserving = true;
	p->reserve_io = (struct blk_io){ .op = BLK_WRITE, .offset = page_offset(p, p->blank == 2), .length = iov->iov_len, .iov = iov, .iov_count = 1 };
	blk_submit(m->top, &p->reserve_io, &m->reserve_job);
}

static void reserve_start(struct cow_map *m)
{
	if (!link_empty(&m->reserving) || link_empty(&m->wanting))
		return;
	link_splice(&m->reserving, &m->wanting);
	job_init(&m->reserve_job, m->top->loop);
	link_for(l, &m->reserving) {
		const struct cow_reserve *r = container_of(l, struct cow_reserve, link);
		for (uint64_t g = r->first; g <= r->last; g++)
			page_reserve(m, m->page[g]);
	}
	job_then(&m->reserve_job, reserve_done);
}

static void reserve_done(struct job *j)
{
	struct cow_map *m = container_of(j, struct cow_map, reserve_job);
	for (struct link *l; (l = link_pop(&m->reserving));) {
		const struct cow_reserve *r = container_of(l, struct cow_reserve, link);
		int status = 0;
		for (uint64_t g = r->first; g <= r->last; g++) {
			struct cow_page *p = m->page[g];
			if (p->is_reserving && p->reserve_io.status == 0)
				p->blank = 0;
			p->is_reserving = false;
			if (p->blank && status == 0)
				status = p->reserve_io.status;
		}
		job_put(r->parent, status);
	}
	reserve_start(m);
}

int cow_map_prepare(struct cow_map *m, struct cow_reserve *r, uint64_t block, uint64_t count, struct job *parent)
{
	bool blank = false;
	*r = (struct cow_reserve){ .parent = parent, .first = block / COW_GROUP_BLOCKS, .last = (block + count - 1) / COW_GROUP_BLOCKS };
	for (uint64_t g = r->first; g <= r->last; g++) {
		if (!m->page[g] && !page_make(m, g))
			return -ENOMEM;
		blank |= m->page[g]->blank && !PLANTED(cow_map_unreserved);
	}
	if (blank) {
		job_hold(parent);
		link_push(&m->wanting, &r->link);
		reserve_start(m);
	}
	return 0;
}

/* ---- changes ---- */

static void page_soil(struct cow_map *m, struct cow_page *p)
{
	if (p->is_dirty)
		return;
	p->is_dirty = true;
	link_push(&m->dirty, &p->dirty);
}

void cow_map_set(struct cow_map *m, uint64_t block, uint64_t count, enum cow_state state)
{
	for (uint64_t b = block; b < block + count; b++) {
		struct cow_page *p = m->page[b / COW_GROUP_BLOCKS];
		uint8_t *states = p->now + COW_STATE_START;
		unsigned at = (unsigned)(b % COW_GROUP_BLOCKS);
		if (cow_state_get(states, at) == state)
			continue;
		assert(!p->blank || PLANTED(cow_map_unreserved));
		cow_state_set(states, at, state);
		page_soil(m, p);
	}
}

bool cow_map_settled(const struct cow_map *m, uint64_t block, uint64_t count)
{
	for (uint64_t g = block / COW_GROUP_BLOCKS; g <= (block + count - 1) / COW_GROUP_BLOCKS; g++)
		if (m->page[g] && (m->page[g]->is_dirty || m->page[g]->is_committing))
			return false;
	return true;
}

bool cow_map_is_untouched(const struct cow_map *m, uint64_t block) { return !m->page[block / COW_GROUP_BLOCKS]; }

int cow_map_check_data(const struct cow_map *m, uint64_t block)
{
	return m->sync_failed && !cow_map_settled(m, block, 1) && !PLANTED(cow_forgotten_data) ? -EIO : 0;
}

/* ---- commit ---- */

static void commit_sync_data(struct job *j);
static void commit_write(struct job *j);
static void commit_sync_map(struct job *j);
static void commit_done(struct job *j);

static void top_flush(struct cow_map *m, struct job *j)
{
	m->io = (struct blk_io){ .op = BLK_FLUSH };
	blk_submit(m->top, &m->io, j);
}

static void header_write(struct cow_map *m, const struct cow_header *h, struct job *j)
{
	cow_header_encode(h, m->header_page);
	m->iov = (struct iovec){ m->header_page, COW_PAGE };
	m->io = (struct blk_io){ .op = BLK_WRITE, .offset = (m->header_slot ^ 1) * COW_PAGE, .length = COW_PAGE,
				 .iov = &m->iov, .iov_count = 1 };
	blk_submit(m->top, &m->io, j);
}

static struct cow_header header_next(const struct cow_map *m, bool clean)
{
	struct cow_header h = m->header;
	h.sequence++;
	h.clean = clean;
	return h;
}

static void page_copy(struct cow_map *m, struct cow_page *p)
{
	memcpy(p->out, p->now, COW_PAGE);
	cow_map_seal(p->out, m->header.id, p->group, p->sequence + 1);
}

/* Everything that is dirty now belongs to this commit; what gets dirty later to the next. 0 or -ENOMEM. */
static int commit_snapshot(struct cow_map *m)
{
	int r = 0;
	for (struct link *l; (l = link_pop(&m->dirty));) {
		struct cow_page *p = container_of(l, struct cow_page, dirty);
		p->is_dirty = false;
		p->is_committing = true;
		link_push(&m->committing, &p->committing);
		p->out = r == 0 ? env_alloc_aligned(COW_PAGE) : NULL;
		if (p->out)
			page_copy(m, p);
		else
			r = -ENOMEM;
	}
	return r;
}

static void commit_start(struct cow_map *m)
{
	if (!link_empty(&m->running) || link_empty(&m->waiting))
		return;
	link_splice(&m->running, &m->waiting);
	m->commits++;
	job_init(&m->job, m->top->loop);
	m->job.status = commit_snapshot(m);
	if (m->job.status == 0 && !link_empty(&m->committing) && m->header.clean) {
		struct cow_header h = header_next(m, /* clean= */ false);
		header_write(m, &h, &m->job);
	}
	job_then(&m->job, commit_sync_data);
}

static void commit_sync_data(struct job *j)
{
	struct cow_map *m = container_of(j, struct cow_map, job);
	bool early = PLANTED(cow_map_before_data) && !link_empty(&m->committing);
	if (j->status == 0 && !early)
		top_flush(m, j);
	job_then(j, link_empty(&m->committing) ? commit_done : commit_write);
}

static void commit_write(struct job *j)
{
	struct cow_map *m = container_of(j, struct cow_map, job);
	for (struct link *l = m->committing.next; j->status == 0 && l != &m->committing; l = l->next) {
		struct cow_page *p = container_of(l, struct cow_page, committing);
		if (PLANTED(cow_late_snapshot))
			page_copy(m, p);
		p->iov = (struct iovec){ p->out, COW_PAGE };
		p->io = (struct blk_io){ .op = BLK_WRITE, .length = COW_PAGE, .iov = &p->iov, .iov_count = 1, .offset = page_offset(p, p->slot ^ 1) };
		m->pages_written++;
		blk_submit(m->top, &p->io, j);
	}
	job_then(j, commit_sync_map);
}

static void commit_sync_map(struct job *j)
{
	struct cow_map *m = container_of(j, struct cow_map, job);
	if (j->status == 0)
		top_flush(m, j);
	job_then(j, commit_done);
}

static void commit_done(struct job *j)
{
	struct cow_map *m = container_of(j, struct cow_map, job);
	int status = j->status;
	if (m->io.op == BLK_FLUSH && m->io.status != 0 && m->io.status != -ESHUTDOWN) /* that is the process ending */
		m->sync_failed = true;
	if (status == 0 && !link_empty(&m->committing) && m->header.clean) {
		m->header = header_next(m, /* clean= */ false);
		m->header_slot ^= 1;
	}
	for (struct link *l; (l = link_pop(&m->committing));) {
		struct cow_page *p = container_of(l, struct cow_page, committing);
		p->is_committing = false;
		free(p->out);
		p->out = NULL;
		if (status == 0) {
			p->sequence++;
			p->slot ^= 1;
		} else {
			page_soil(m, p);
		}
	}
	for (struct link *l; (l = link_pop(&m->running));)
		job_put(container_of(l, struct cow_commit, link)->parent, status);
	commit_start(m);
}

void cow_map_commit(struct cow_map *m, struct cow_commit *c, struct job *parent)
{
	job_hold(parent);
	c->parent = parent;
	link_push(&m->waiting, &c->link);
	commit_start(m);
}

/* ---- loading ---- */

static int damaged(const char *path, uint64_t group, const char *why, struct report *report)
{
	return report_set(report, -EIO, "%s: the map of group %" PRIu64 " is damaged: %s", path, group, why);
}

/* What the two copies of a page say. */
static int load_page(struct cow_map *m, uint64_t group, const uint8_t *copies, bool force, const char *path,
		     struct report *report)
{
	uint64_t sequence[2] = { 0, 0 };
	enum cow_check check[2];
	for (unsigned i = 0; i < 2; i++)
		check[i] = cow_map_check(copies + i * COW_PAGE, m->header.id, group, &sequence[i]);
	bool any_damaged = check[0] == COW_DAMAGED || check[1] == COW_DAMAGED, any_good = check[0] == COW_OK || check[1] == COW_OK;
	if (!any_damaged && !any_good)
		return 0;
	/* A power loss tears at most the copy that was being written; the first is number 0. */
	if (any_damaged && !any_good && (m->header.clean || check[1] != COW_BLANK))
		return damaged(path, group, "no copy is whole", report);
	if (any_damaged && m->header.clean && !force)
		return damaged(path, group, "one copy is not whole although the layer was closed in order "
					    "(--force uses the other; it may be older)", report);
	struct cow_page *p = page_make(m, group);
	if (!p)
		return report_set(report, -ENOMEM, "%s: no memory for its map", path);
	p->blank = (check[0] == COW_BLANK) | (check[1] == COW_BLANK) << 1;
	if (any_good) {
		p->slot = check[0] != COW_OK || (check[1] == COW_OK && sequence[1] > sequence[0]);
		p->sequence = sequence[p->slot];
		memcpy(p->now, copies + p->slot * COW_PAGE, COW_PAGE);
	}
	if (any_damaged && !m->read_only)
		page_soil(m, p); /* so that a clean layer has no torn copies */
	return 0;
}

struct load {
	struct blk_io io;
	struct iovec iov;
};

/* FIBER. Reads the copies of up to LOAD_AT_ONCE groups from `first` on. */
static int load_some(struct cow_map *m, uint64_t first, uint64_t count, uint8_t *buffer)
{
	struct load load[LOAD_AT_ONCE];
	struct job j;
	job_init(&j, m->top->loop);
	for (uint64_t i = 0; i < count; i++) {
		load[i].iov = (struct iovec){ buffer + i * 2 * COW_PAGE, 2 * COW_PAGE };
		load[i].io = (struct blk_io){ .op = BLK_READ, .offset = (first + i) * COW_GROUP + COW_MAP_START,
					      .length = 2 * COW_PAGE, .iov = &load[i].iov, .iov_count = 1 };
		blk_submit(m->top, &load[i].io, &j);
	}
	return fiber_wait(&j);
}

static int load_pages(struct cow_map *m, bool force, const char *path, struct report *report)
{
	uint8_t *buffer = env_alloc_aligned((size_t)LOAD_AT_ONCE * 2 * COW_PAGE);
	int r = buffer ? 0 : -ENOMEM;
	for (uint64_t g = 0; r == 0 && g < m->group_count; g += LOAD_AT_ONCE) {
		uint64_t count = MIN(m->group_count - g, LOAD_AT_ONCE);
		r = load_some(m, g, count, buffer);
		for (uint64_t i = 0; r == 0 && i < count; i++)
			r = load_page(m, g + i, buffer + i * 2 * COW_PAGE, force, path, report);
	}
	free(buffer);
	return r;
}

static int load_header(struct cow_map *m, const char *path, struct report *report)
{
	uint8_t *pages = env_alloc_aligned(2 * COW_PAGE);
	if (!pages)
		return -ENOMEM;
	bool whole = m->top->info.size >= 2 * COW_PAGE; /* else it's no layer, or what a truncation has left isn't worth a word */
	int r = whole ? blk_read_wait(m->top, pages, 2 * COW_PAGE, 0) : 0;
	enum cow_check check = r == 0 && whole ? cow_header_choose(pages, &m->header) : COW_FOREIGN;
	if (r == 0 && check == COW_OK) {
		struct cow_header first;
		m->header_slot = cow_header_decode(pages, &first) != COW_OK || first.sequence != m->header.sequence;
		m->header_blank = cow_header_decode(pages + (m->header_slot ^ 1) * COW_PAGE, &first) == COW_BLANK;
	}
	uint32_t newer = r == 0 && check == COW_NEWER ? cow_header_version(pages) : 0;
	free(pages);
	if (r < 0)
		return report_set(report, r, "%s: read its header: %s", path, strerror(-r));
	switch (check) {
	case COW_OK: return 0;
	case COW_NEWER: return report_newer(report, path, newer, COW_VERSION);
	case COW_DAMAGED: return report_set(report, -EIO, "%s: both copies of its header are damaged", path);
	default:
		return report_set(report, -EINVAL, "%s is not a cow layer; it was not touched (name a new file, or raw(%s) "
						   "if it is a raw image)", path, path);
	}
}

static int load_all(struct cow_map *m, bool force, const char *path, struct report *report)
{
	struct blk_node *top = m->top;
	int r = load_header(m, path, report);
	if (r < 0)
		return r;
	m->group_count = cow_group_count(m->header.size);
	if (top->info.size < m->group_count * COW_GROUP)
		return report_set(report, -EIO, "%s was truncated (it has %" PRIu64 " bytes of %" PRIu64 ")", path, top->info.size,
				  m->group_count * COW_GROUP);
	m->header_page = env_alloc_aligned(COW_PAGE);
	m->page = calloc(m->group_count, sizeof(struct cow_page *));
	m->blank = env_alloc_aligned(2 * COW_PAGE);
	if (m->blank)
		memset(m->blank, 0, 2 * COW_PAGE);
	for (unsigned i = 0; i < 2; i++)
		m->blank_iov[i] = (struct iovec){ m->blank, (i + 1) * COW_PAGE };
	r = m->header_page && m->page && m->blank ? load_pages(m, force, path, report) : -ENOMEM;
	return r < 0 ? report_set(report, r, "%s: read its map: %s", path, strerror(-r)) : 0;
}

int cow_map_load(struct cow_map *m, struct blk_node *top, bool read_only, bool force, const char *path,
		 struct report *report)
{
	*m = (struct cow_map){ .top = top, .read_only = read_only };
	link_init(&m->dirty);
	link_init(&m->committing);
	link_init(&m->waiting);
	link_init(&m->running);
	link_init(&m->wanting);
	link_init(&m->reserving);
	int r = load_all(m, force, path, report);
	if (r < 0)
		m->read_only = true; /* closing it writes nothing */
	return r;
}

/* FIBER. */
static int commit_wait(struct cow_map *m)
{
	struct cow_commit c;
	struct job j;
	job_init(&j, m->top->loop);
	cow_map_commit(m, &c, &j);
	return fiber_wait(&j);
}

/* FIBER. */
static int header_write_wait(struct cow_map *m, const struct cow_header *h)
{
	struct job j;
	job_init(&j, m->top->loop);
	header_write(m, h, &j);
	int r = fiber_wait(&j);
	return r < 0 ? r : blk_op_wait(m->top, BLK_FLUSH, 0, 0, 0);
}

/* FIBER. */
static int mark_clean(struct cow_map *m)
{
	struct cow_header h = header_next(m, /* clean= */ true);
	return header_write_wait(m, &h);
}

int cow_map_reserve_header(struct cow_map *m)
{
	return m->header_blank ? blk_write_wait(m->top, m->blank, COW_PAGE, (m->header_slot ^ 1) * COW_PAGE, 0) : 0;
}

int cow_map_note_parent(struct cow_map *m, uint64_t identity)
{
	struct cow_header h = header_next(m, m->header.clean);
	h.parent_identity = identity;
	int r = header_write_wait(m, &h);
	if (r == 0) {
		m->header = h;
		m->header_slot ^= 1;
		m->header_blank = false; /* the other one has spoken until now */
	}
	return r;
}

int cow_map_close(struct cow_map *m)
{
	int r = 0;
	if (m->page && !m->read_only) {
		if (!link_empty(&m->dirty))
			r = commit_wait(m);
		if (r == 0 && !m->header.clean)
			r = mark_clean(m);
	}
	for (uint64_t g = 0; m->page && g < m->group_count; g++)
		free(m->page[g]);
	free(m->page);
	free(m->header_page);
	free(m->blank);
	*m = (struct cow_map){ .top = NULL };
	return r;
}
