/* Names on the simulated disks: entries, paths, and the calls that change directories. What is durable of
 * them, and when, is env_sim_disk.c's. */
#include <errno.h>
#include <stdlib.h>
#include <string.h>

#include "core/bytes.h"
#include "core/env_sim_disk.h"
#include "core/fiber.h"

/* ---- entries ---- */

static size_t entries_find(const struct entries *e, const char *name, bool *ret_found)
{
	size_t low = 0, high = e->count;
	while (low < high) {
		size_t middle = (low + high) / 2;
		int c = strcmp(e->list[middle].name, name);
		if (c == 0) {
			*ret_found = true;
			return middle;
		}
		if (c < 0)
			low = middle + 1;
		else
			high = middle;
	}
	*ret_found = false;
	return low;
}

struct inode *entries_get(const struct entries *e, const char *name)
{
	bool found;
	size_t i = entries_find(e, name, &found);
	return found ? e->list[i].inode : NULL;
}

void entries_remove(struct entries *e, const char *name)
{
	bool found;
	size_t i = entries_find(e, name, &found);
	if (!found)
		return;
	struct entry gone = e->list[i];
	memmove(e->list + i, e->list + i + 1, (e->count - i - 1) * sizeof *e->list);
	e->count--;
	free(gone.name);
	inode_drop(gone.inode);
}

/* Replaces what has this name. */
void entries_put(struct entries *e, const char *name, struct inode *n)
{
	n->refs++;
	entries_remove(e, name);
	bool found;
	size_t i = entries_find(e, name, &found);
	if (e->count == e->room) {
		e->room = e->room ? 2 * e->room : 8;
		e->list = realloc(e->list, e->room * sizeof *e->list);
		if (!e->list)
			abort();
	}
	memmove(e->list + i + 1, e->list + i, (e->count - i) * sizeof *e->list);
	e->list[i] = (struct entry){ strdup(name), n };
	e->count++;
}

void entries_free(struct entries *e)
{
	while (e->count) {
		struct entry gone = e->list[--e->count];
		free(gone.name);
		inode_drop(gone.inode);
	}
	free(e->list);
	*e = (struct entries){ 0 };
}

void entries_copy(struct entries *to, const struct entries *from)
{
	entries_free(to);
	for (size_t i = 0; i < from->count; i++)
		entries_put(to, from->list[i].name, from->list[i].inode);
}

/* ---- paths ---- */

/* Finds the directory that holds the last component, and that component (at most 255 bytes). */
int path_parent(struct sim_host *h, const char *path, struct inode **ret_dir, char ret_name[256])
{
	struct inode *dir = h->root;
	ret_name[0] = '\0';
	for (const char *at = path; *at;) {
		size_t length = strcspn(at, "/");
		if (length > 255)
			return -ENAMETOOLONG;
		if (length && !(length == 1 && *at == '.')) {
			if (ret_name[0]) {
				dir = entries_get(&dir->entries_now, ret_name);
				if (!dir)
					return -ENOENT;
				if (!dir->directory)
					return -ENOTDIR;
			}
			memcpy(ret_name, at, length);
			ret_name[length] = '\0';
		}
		at += length + (at[length] == '/');
	}
	*ret_dir = dir;
	return 0;
}

int path_find(struct sim_host *h, const char *path, struct inode **ret_inode)
{
	struct inode *dir;
	char name[256];
	int r = path_parent(h, path, &dir, name);
	if (r < 0)
		return r;
	struct inode *n = name[0] ? entries_get(&dir->entries_now, name) : dir;
	if (!n)
		return -ENOENT;
	*ret_inode = n;
	return 0;
}

static struct dir_op *dir_op_add(struct sim_host *h, enum dir_op_kind kind, struct inode *dir, const char *name, struct inode *n)
{
	struct dir_op *op = sim_alloc(sizeof *op);
	op->kind = kind;
	op->dir = dir;
	op->name = strdup(name);
	op->inode = n;
	dir->refs++;
	n->refs++;
	link_push(&h->dir_ops, &op->link);
	return op;
}

void dir_link(struct sim_host *h, struct inode *dir, const char *name, struct inode *n)
{
	dir_op_add(h, DIR_LINK, dir, name, n);
	entries_put(&dir->entries_now, name, n);
}

static void dir_op_apply(const struct dir_op *op)
{
	if (op->kind == DIR_LINK)
		entries_put(&op->dir->entries_durable, op->name, op->inode);
	else
		entries_remove(&op->dir->entries_durable, op->name);
	if (op->kind == DIR_RENAME)
		entries_put(&op->to_dir->entries_durable, op->to_name, op->inode);
}

static bool same_name(const struct inode *a, const char *a_name, const struct inode *b, const char *b_name)
{
	return a && a == b && strcmp(a_name, b_name) == 0;
}

static bool dir_ops_share(const struct dir_op *a, const struct dir_op *b)
{
	return same_name(a->dir, a->name, b->dir, b->name) || same_name(a->to_dir, a->to_name, b->dir, b->name) ||
	       same_name(a->dir, a->name, b->to_dir, b->to_name) ||
	       same_name(a->to_dir, a->to_name, b->to_dir, b->to_name);
}

/* Before each chosen change come the earlier ones of the same names: a journal never turns those
 * round. Newest first, so that one pass finds all. */
void dir_ops_apply(struct sim_host *h)
{
	for (struct link *l = h->dir_ops.prev; l != &h->dir_ops; l = l->prev) {
		struct dir_op *op = container_of(l, struct dir_op, link);
		for (struct link *e = l->prev; op->chosen && e != &h->dir_ops; e = e->prev) {
			struct dir_op *earlier = container_of(e, struct dir_op, link);
			earlier->chosen |= dir_ops_share(op, earlier);
		}
	}
	link_for_safe (l, next, &h->dir_ops) {
		struct dir_op *op = container_of(l, struct dir_op, link);
		if (!op->chosen)
			continue;
		dir_op_apply(op);
		dir_op_free(op);
	}
}

int sim_call_begin(struct call *c, struct env *env)
{
	c->process = process_of(env);
	if (env->dead)
		return -ESHUTDOWN;
	c->late = sim_random(c->process->sim) & 1;
	return c->late ? sim_call_wait(c->process) : 0;
}

int sim_call_end(struct call *c, int status)
{
	int r = c->late ? 0 : sim_call_wait(c->process);
	return r < 0 ? r : status;
}

/* ---- directories ---- */

static int mkdir_happens(struct sim_host *h, const char *path)
{
	struct inode *dir;
	char name[256];
	int r = path_parent(h, path, &dir, name);
	if (r < 0 || name[0] == '\0')
		return r;
	struct inode *n = entries_get(&dir->entries_now, name);
	if (n)
		return n->directory ? 0 : -EEXIST;
	dir_link(h, dir, name, inode_new(h, /* directory= */ true));
	return 0;
}

int sim_mkdir(struct env *env, const char *path)
{
	struct call c;
	int r = sim_call_begin(&c, env);
	return r < 0 ? r : sim_call_end(&c, mkdir_happens(c.process->host, path));
}

static int unlink_happens(struct sim_host *h, const char *path, bool directory)
{
	struct inode *dir;
	char name[256];
	int r = path_parent(h, path, &dir, name);
	if (r < 0)
		return r;
	struct inode *n = name[0] ? entries_get(&dir->entries_now, name) : NULL;
	if (!n)
		return -ENOENT;
	if (n->directory != directory)
		return directory ? -ENOTDIR : -EISDIR;
	if (directory && n->entries_now.count)
		return -ENOTEMPTY;
	dir_op_add(h, DIR_UNLINK, dir, name, n);
	n->unlinked = true;
	inode_release(n);
	entries_remove(&dir->entries_now, name);
	return 0;
}

int sim_unlink(struct env *env, const char *path)
{
	struct call c;
	int r = sim_call_begin(&c, env);
	return r < 0 ? r : sim_call_end(&c, unlink_happens(c.process->host, path, false));
}

int sim_rmdir(struct env *env, const char *path)
{
	struct call c;
	int r = sim_call_begin(&c, env);
	return r < 0 ? r : sim_call_end(&c, unlink_happens(c.process->host, path, true));
}

static int rename_happens(struct sim_host *h, const char *from, const char *to)
{
	struct inode *dir, *to_dir;
	char name[256], to_name[256];
	int r = path_parent(h, from, &dir, name);
	if (r == 0)
		r = path_parent(h, to, &to_dir, to_name);
	if (r < 0)
		return r;
	struct inode *n = entries_get(&dir->entries_now, name), *old = entries_get(&to_dir->entries_now, to_name);
	if (!n)
		return -ENOENT;
	if (n == old)
		return 0;
	if (old && old->directory != n->directory)
		return old->directory ? -EISDIR : -ENOTDIR;
	if (old && old->directory && old->entries_now.count)
		return -ENOTEMPTY;
	struct dir_op *op = dir_op_add(h, DIR_RENAME, dir, name, n);
	op->to_dir = to_dir;
	op->to_name = strdup(to_name);
	to_dir->refs++;
	if (old) {
		old->unlinked = true;
		inode_release(old);
	}
	entries_remove(&dir->entries_now, name); /* `op` keeps the inode */
	entries_put(&to_dir->entries_now, to_name, n);
	return 0;
}

int sim_rename(struct env *env, const char *from, const char *to)
{
	struct call c;
	int r = sim_call_begin(&c, env);
	return r < 0 ? r : sim_call_end(&c, rename_happens(c.process->host, from, to));
}

static int sync_dir_happens(struct sim_host *h, const char *path)
{
	struct inode *dir;
	int r = path_find(h, path, &dir);
	if (r < 0)
		return r;
	if (!dir->directory)
		return -ENOTDIR;
	if (sim_happens(h->sim, SIM_SYNC_ERROR, h->sim->doses.sync_error))
		return -EIO;
	link_for (l, &h->dir_ops) {
		struct dir_op *op = container_of(l, struct dir_op, link);
		op->chosen = op->dir == dir || op->to_dir == dir;
	}
	dir_ops_apply(h);
	return 0;
}

int sim_sync_dir(struct env *env, const char *path)
{
	struct call c;
	int r = sim_call_begin(&c, env);
	return r < 0 ? r : sim_call_end(&c, sync_dir_happens(c.process->host, path));
}

int sim_list_dir(struct env *env, const char *path, int (*entry)(void *arg, const char *name), void *arg)
{
	struct sim_process *p = process_of(env);
	int r = sim_call_wait(p);
	struct inode *dir = NULL;
	if (r == 0)
		r = path_find(p->host, path, &dir);
	if (r == 0 && !dir->directory)
		r = -ENOTDIR;
	if (r < 0)
		return r;
	struct entries copy = { 0 }; /* `entry` may change the directory */
	entries_copy(&copy, &dir->entries_now);
	for (size_t i = 0; i < copy.count && r == 0; i++)
		r = entry(arg, copy.list[i].name);
	entries_free(&copy);
	return r;
}

int sim_space(struct env *env, const char *path, uint64_t *ret_free, uint64_t *ret_total)
{
	struct sim_process *p = process_of(env);
	int r = sim_call_wait(p);
	struct inode *n;
	if (r == 0)
		r = path_find(p->host, path, &n);
	if (r < 0)
		return r;
	*ret_free = sim_disk_left(p->host);
	*ret_total = p->host->disk_bytes;
	return 0;
}
