/* The kernel's lock on the image decides; a note below run/aquifer/images says who has it:
 *
 *     ROOT/run/aquifer/images/DEVICE-INODE-NONCE       one line: the holder
 *
 * Each note is locked by its writer as long as it lives. So a note that can be locked is stale (its
 * process was killed) and is removed by whoever finds it, as are all others by the next writer of
 * the image. Notes are a courtesy: where they can't be
 * written the lock works all the same, only the refusal names nobody. */
#include "formats/image_lock.h"

#include <errno.h>
#include <inttypes.h>
#include <stdio.h>
#include <string.h>

#include "core/bytes.h"

#define HOLDER_MAX 256

static void notes_dir(const char *root, char *ret, size_t size)
{
	snprintf(ret, size, "%s/run/aquifer/images", root ? root : "");
}

/* FIBER. Makes the directory, those above it and root. Errors show when the note is created. */
static void notes_dir_make(struct env *env, const char *root)
{
	static const char *const below[] = { "/run", "/run/aquifer", "/run/aquifer/images" };
	char path[512];
	if (root && root[0])
		env_mkdir(env, root);
	for (unsigned i = 0; i < ARRAY_COUNT(below); i++) {
		snprintf(path, sizeof path, "%s%s", root ? root : "", below[i]);
		env_mkdir(env, path);
	}
}

struct holder_search {
	char prefix[48];
	char names[8][96]; /* candidates; more holders than this need not all be looked at */
	unsigned count;
};

static int holder_collect(void *arg, const char *name)
{
	struct holder_search *s = arg;
	if (strncmp(name, s->prefix, strlen(s->prefix)) == 0 && strlen(name) < sizeof s->names[0])
		snprintf(s->names[s->count++], sizeof s->names[0], "%s", name);
	return s->count == ARRAY_COUNT(s->names);
}

/* FIBER. Names of notes about this image, as many as fit. */
static void notes_list(struct env *env, const char *root, const struct file_info *info, struct holder_search *ret)
{
	char dir[256];
	*ret = (struct holder_search){ .count = 0 };
	snprintf(ret->prefix, sizeof ret->prefix, "%" PRIx64 "-%" PRIu64 "-", info->device, info->inode);
	notes_dir(root, dir, sizeof dir);
	env_list_dir(env, dir, holder_collect, ret);
}

/* FIBER. The image is ours alone, so whoever wrote a note about it is dead. */
static void notes_remove(struct env *env, const char *root, const struct file_info *info)
{
	struct holder_search s;
	char dir[256], path[512];
	notes_dir(root, dir, sizeof dir);
	notes_list(env, root, info, &s);
	for (unsigned i = 0; i < s.count; i++) {
		snprintf(path, sizeof path, "%s/%s", dir, s.names[i]);
		env_unlink(env, path);
	}
}

/* FIBER. True if the note at `path` is alive; its line goes to ret. A stale one is removed. */
static bool note_read(struct env *env, const char *path, char ret[HOLDER_MAX])
{
	struct file *f;
	if (file_open(env, path, 0, &f) < 0)
		return false;
	bool alive = file_lock(f, /* exclusive= */ false) == -EAGAIN;
	size_t done = 0;
	if (!alive)
		env_unlink(env, path);
	else if (file_read_wait(f, ret, HOLDER_MAX - 1, 0, &done) < 0)
		done = 0;
	ret[done] = '\0';
	ret[strcspn(ret, "\n")] = '\0';
	file_close(env, f);
	return alive && ret[0];
}

/* FIBER. Who holds the image, as far as can be told; "another process" otherwise. */
static void holder_find(struct env *env, const char *root, const struct file_info *info, char ret[HOLDER_MAX])
{
	struct holder_search s;
	char dir[256], path[512];
	notes_list(env, root, info, &s);
	notes_dir(root, dir, sizeof dir);
	for (unsigned i = 0; i < s.count; i++) {
		snprintf(path, sizeof path, "%s/%s", dir, s.names[i]);
		if (note_read(env, path, ret))
			return;
	}
	snprintf(ret, HOLDER_MAX, "another process (lsof or fuser tells which)");
}

/* FIBER. */
static void note_write(struct env *env, const char *root, const struct file_info *info, const char *holder,
		       struct image_lock *lock)
{
	char dir[256], line[HOLDER_MAX];
	notes_dir_make(env, root);
	notes_dir(root, dir, sizeof dir);
	snprintf(lock->path, sizeof lock->path, "%s/%" PRIx64 "-%" PRIu64 "-%016" PRIx64, dir, info->device,
		 info->inode, env_random(env));
	int flags = FILE_OPEN_WRITE | FILE_OPEN_CREATE | FILE_OPEN_NEW;
	if (file_open(env, lock->path, flags, &lock->note) < 0) {
		lock->note = NULL;
		return;
	}
	snprintf(line, sizeof line, "%.*s\n", HOLDER_MAX - 2, holder);
	if (file_lock(lock->note, /* exclusive= */ true) < 0 ||
	    file_write_wait(lock->note, line, strlen(line), 0) < 0)
		image_lock_release(env, lock);
}

int image_lock_take(struct env *env, const char *root, struct file *image, const char *path, bool exclusive,
		    const char *holder, struct image_lock *ret_lock, struct report *report)
{
	struct file_info info;
	*ret_lock = (struct image_lock){ .note = NULL };
	int r = file_stat(image, &info);
	if (r < 0)
		return report_set(report, r, "%s: %s", path, strerror(-r));
	r = file_lock(image, exclusive);
	if (r == -EAGAIN || r == -EACCES || r == -EBUSY) {
		char who[HOLDER_MAX];
		holder_find(env, root, &info, who);
		return report_set(report, -EBUSY, "%s is in use by %s (%s)", path, who,
				  exclusive ? "detach it there, or open it read-only if that is read-only too"
					    : "detach it there");
	}
	if (r < 0)
		return report_set(report, r, "lock %s: %s", path, strerror(-r));
	if (exclusive)
		notes_remove(env, root, &info);
	note_write(env, root, &info, holder ? holder : "an unnamed Aquifer process", ret_lock);
	return 0;
}

void image_lock_release(struct env *env, struct image_lock *lock)
{
	if (!lock->note)
		return;
	env_unlink(env, lock->path);
	file_close(env, lock->note);
	lock->note = NULL;
}
