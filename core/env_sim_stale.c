/* Disks that go back in time: what a restored backup or a reverted virtual machine's disk is. Kept is what was durable at an instant. */
#include <stdlib.h>

#include "core/bytes.h"
#include "core/env_sim_disk.h"

struct sim_disk_state {
	struct sim_host *host;
	struct inode *root; /* durable parts only; it and all below it are in no list of the host's */
};

/* What is durable of `from` and below; `live`: as a file of the host's. */
static struct inode *tree_copy(struct sim_host *h, const struct inode *from, bool live)
{
	struct inode *n = sim_alloc(sizeof *n);
	n->number = ++h->next_inode;
	n->directory = from->directory;
	n->host = h;
	link_init(&n->link);
	link_init(&n->log);
	link_init(&n->lockers);
	image_share(&n->durable, &from->durable);
	if (live) {
		image_share(&n->now, &from->durable);
		h->disk_used += image_used(&n->now);
		link_push(&h->inodes, &n->link);
	}
	for (size_t i = 0; i < from->entries_durable.count; i++) {
		const struct entry *e = &from->entries_durable.list[i];
		struct inode *below = tree_copy(h, e->inode, live);
		entries_put(&n->entries_durable, e->name, below);
		if (live)
			entries_put(&n->entries_now, e->name, below);
	}
	return n;
}

struct sim_disk_state *sim_disk_keep(struct sim_host *h)
{
	struct sim_disk_state *s = sim_alloc(sizeof *s);
	s->host = h;
	s->root = tree_copy(h, h->root, /* live= */ false);
	s->root->refs = 1;
	return s;
}

void sim_disk_forget(struct sim_disk_state *s)
{
	if (!s)
		return;
	inode_drop(s->root);
	free(s);
}

void sim_disk_revert(const struct sim_disk_state *s)
{
	struct sim_host *h = s->host;
	while (!link_empty(&h->dir_ops))
		dir_op_free(container_of(h->dir_ops.next, struct dir_op, link));
	inode_drop(h->root);
	assert(link_empty(&h->inodes)); /* nobody has a file open */
	h->root = tree_copy(h, s->root, /* live= */ true);
	h->root->refs = 1;
	sim_fault(h->sim, SIM_STALE_DISK);
}
