#include "server/mend.h"

#include <errno.h>
#include <stdlib.h>
#include <string.h>

#include "core/plant.h"
#include "parallax/copies/copies.h"

static unsigned candidates(struct mender *m, uint64_t segment, struct peer **ret)
{
	if (!m->copies && copies_open(m->env, m->catalog, &m->copies, NULL) < 0)
		return 0;
	copies_await(m->copies, NULL);
	return copies_candidates(m->copies, segment, ret);
}

static bool is_other(const struct mender *m, const struct peer *p) { return memcmp(&p->id, &m->dir->id, sizeof(uuid)) != 0; }

/* Any copy may answer; the checksum decides. */
static int read_elsewhere(struct mender *m, uint64_t segment, const struct scrub_slice *bad, void *page)
{
	struct peer *peers[PLACEMENT_CANDIDATES_MAX];
	unsigned n = candidates(m, segment, peers);
	for (unsigned i = 0; i < n; i++) {
		struct iovec v = { page, BLOCK_BYTES };
		struct segment_io io = { .op = SEGMENT_READ, .segment = segment, .block = bad->bad_block, .blocks = 1, .iov = &v, .iov_count = 1 };
		if (is_other(m, peers[i]) && peer_wait(peers[i], &io) == 0 && (crc32c(0, page, BLOCK_BYTES) == bad->bad_crc || PLANTED(mend_unverified)))
			return 0;
	}
	return -EIO;
}

int mend_block(struct mender *m, uint64_t segment, const struct scrub_slice *bad)
{
	void *page = env_alloc_aligned(BLOCK_BYTES);
	int r = page ? read_elsewhere(m, segment, bad, page) : -ENOMEM;
	if (r == 0)
		r = segment_dir_mend(m->dir, segment, bad->bad_block, page);
	free(page);
	return r;
}

bool mend_copy(struct mender *m, uint64_t segment, int why)
{
	struct peer *peers[PLACEMENT_CANDIDATES_MAX];
	unsigned n = candidates(m, segment, peers);
	for (unsigned i = 0; i < n; i++) {
		struct segment_io io = { .op = SEGMENT_STAT, .segment = segment };
		if (is_other(m, peers[i]) && peer_wait(peers[i], &io) == 0 && io.sealed && io.state == COPY_WHOLE)
			return why == -EIO || segment_dir_give_up(m->dir, segment) == 0;
	}
	return false;
}

void mend_rest(struct mender *m)
{
	copies_close(m->copies);
	m->copies = NULL;
}
