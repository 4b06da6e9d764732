/* The kernel's lock on the image decides; a note below run/aquifer/images says who has it:
 *
 *     ROOT/run/aquifer/images/DEVICE-INODE-NONCE       two lines: the holder, for people; "pid N"
 *
 * The pid is that of a tapdisk, which --force may end; others, that are not to be ended, have 0. Each note is locked by its writer as long as it lives, and has another name (NOTE.new) until it is locked and written. So a note that can be locked is stale (its
 * process was killed) and is removed by whoever finds it, by the next who opens the image to read it, and all others by its next writer. Notes are a courtesy: where they can't be
 * written the lock works all the same, only the refusal names nobody. */
#include "formats/image_lock.h"

#include <errno.h>
#include <inttypes.h>
#include <stdio.h>
#include <string.h>

#include "core/bytes.h"
#include "core/evict.h"
#include "core/fiber.h"

#define HOLDER_MAX 256
#define NOTE_MAX (HOLDER_MAX + 32)
#define LOCK_ATTEMPTS 40 /* after its holder has ended: the kernel may still be taking it apart */
#define LOCK_PAUSE_NS (50 * NS_PER_MS)
#define NOTE_ATTEMPTS 10 /* who has just taken the lock is about to write his note */
#define NOTE_PAUSE_NS (20 * NS_PER_MS)
#define NEW ".new"

struct note {
	char holder[HOLDER_MAX];
	uint64_t pid; /* 0: not to be ended */
};

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
	bool unfinished; /* those that are being written, too */
	char names[8][96]; /* candidates; more holders than this need not all be looked at */
	unsigned count;
};

static bool is_unfinished(const char *name)
{
	size_t n = strlen(name);
	return n >= strlen(NEW) && strcmp(name + n - strlen(NEW), NEW) == 0;
}

static int holder_collect(void *arg, const char *name)
{
	struct holder_search *s = arg;
	if (strncmp(name, s->prefix, strlen(s->prefix)) == 0 && strlen(name) < sizeof s->names[0] && (s->unfinished || !is_unfinished(name)))
		snprintf(s->names[s->count++], sizeof s->names[0], "%s", name);
	return s->count == ARRAY_COUNT(s->names);
}

/* FIBER. Names of notes about this image, as many as fit. */
static void notes_list(struct env *env, const char *root, const struct file_info *info, bool unfinished, struct holder_search *ret)
{
	char dir[256];
	*ret = (struct holder_search){ .unfinished = unfinished };
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
	notes_list(env, root, info, /* unfinished= */ true, &s);
	for (unsigned i = 0; i < s.count; i++) {
		snprintf(path, sizeof path, "%s/%s", dir, s.names[i]);
		env_unlink(env, path);
	}
}

static bool note_read(struct env *env, const char *path, struct note *ret);

/* FIBER. Readers are many, and of an image that nobody writes none would be the last: each looks for the dead, among as many as fit. */
static void notes_tidy(struct env *env, const char *root, const struct file_info *info)
{
	struct holder_search s;
	struct note note;
	char dir[256], path[512];
	notes_dir(root, dir, sizeof dir);
	notes_list(env, root, info, /* unfinished= */ false, &s);
	for (unsigned i = 0; i < s.count; i++) {
		snprintf(path, sizeof path, "%s/%s", dir, s.names[i]);
		note_read(env, path, &note);
	}
}

/* FIBER. True if the note at `path` is alive. A stale one is removed. */
static bool note_read(struct env *env, const char *path, struct note *ret)
{
	struct file *f;
	char text[NOTE_MAX];
	if (file_open(env, path, 0, &f) < 0)
		return false;
	bool alive = file_lock(f, /* exclusive= */ false) == -EAGAIN;
	size_t done = 0;
	if (!alive)
		env_unlink(env, path);
	else if (file_read_wait(f, text, sizeof text - 1, 0, &done) < 0)
		done = 0;
	file_close(env, f);
	text[done] = '\0';
	size_t n = strcspn(text, "\n");
	*ret = (struct note){ .pid = 0 };
	snprintf(ret->holder, sizeof ret->holder, "%.*s", (int)n, text);
	if (text[n])
		sscanf(text + n + 1, "pid %" SCNu64, &ret->pid);
	return alive && ret->holder[0];
}

/* FIBER. */
static bool note_find(struct env *env, const char *root, const struct file_info *info, struct note *ret, char ret_path[512])
{
	struct holder_search s;
	char dir[256];
	notes_list(env, root, info, /* unfinished= */ false, &s);
	notes_dir(root, dir, sizeof dir);
	for (unsigned i = 0; i < s.count; i++) {
		snprintf(ret_path, 512, "%s/%s", dir, s.names[i]);
		if (note_read(env, ret_path, ret))
			return true;
	}
	return false;
}

/* FIBER. One who holds the image, as far as can be told, and the path of his note; "another process" and "" otherwise. */
static void holder_find(struct env *env, const char *root, const struct file_info *info, struct note *ret, char ret_path[512])
{
	for (unsigned i = 0; i < NOTE_ATTEMPTS; i++) {
		if (note_find(env, root, info, ret, ret_path))
			return;
		if (fiber_sleep(&env->loop, NOTE_PAUSE_NS) < 0)
			break;
	}
	ret_path[0] = '\0';
	*ret = (struct note){ .holder = "another process (lsof or fuser tells which)" };
}

/* FIBER. */
static void note_write(struct env *env, const char *root, const struct file_info *info, const struct image_lock_who *who,
		       struct image_lock *lock)
{
	char dir[256], fresh[sizeof lock->path + sizeof NEW], text[NOTE_MAX];
	notes_dir_make(env, root);
	notes_dir(root, dir, sizeof dir);
	snprintf(lock->path, sizeof lock->path, "%s/%" PRIx64 "-%" PRIu64 "-%016" PRIx64, dir, info->device,
		 info->inode, env_random(env));
	snprintf(fresh, sizeof fresh, "%s" NEW, lock->path);
	int flags = FILE_OPEN_WRITE | FILE_OPEN_CREATE | FILE_OPEN_NEW;
	if (file_open(env, fresh, flags, &lock->note) < 0) {
		lock->note = NULL;
		return;
	}
	snprintf(text, sizeof text, "%.*s\npid %" PRIu64 "\n", HOLDER_MAX - 2, who->holder, who->pid);
	if (file_lock(lock->note, /* exclusive= */ true) == 0 && file_write_wait(lock->note, text, strlen(text), 0) == 0 &&
	    env_rename(env, fresh, lock->path) == 0)
		return;
	env_unlink(env, fresh);
	file_close(env, lock->note);
	lock->note = NULL;
}

/* FIBER. */
static int lock(struct file *image, bool exclusive)
{
	int r = file_lock(image, exclusive);
	return r == -EAGAIN || r == -EACCES ? -EBUSY : r;
}

static bool is_ours(const struct note *holder, const struct image_lock_who *who) { return holder->pid && holder->pid == who->pid; }

static int report_ours(const char *path, struct report *report)
{
	return report_set(report, -EBUSY, "%s: this tapdisk has it already (use one node for both: name it in a graph file)", path);
}

/* FIBER. Ends one who holds the image. The note is looked at again once the pidfd is there: its writer lives, so the
 * pid is still his. 0: one less. */
static int evict_one(struct env *env, const struct note *holder, const char *note_path, const char *path,
		     const struct image_lock_who *who, struct report *report)
{
	struct note again;
	int pidfd;
	if (is_ours(holder, who))
		return report_ours(path, report);
	int r = evict_open(env, holder->pid, "aquifer-tapdisk", &pidfd);
	if (r < 0 && note_path[0] && !note_read(env, note_path, &again))
		return 0; /* it has ended by itself */
	if (r < 0)
		return report_set(report, -EBUSY, "%s is in use by %s; --force ends only tapdisks of this host (end it there first)", path, holder->holder);
	if (!note_read(env, note_path, &again) || again.pid != holder->pid) {
		evict_cancel(pidfd);
		return 0;
	}
	r = evict_end(env, pidfd);
	return r < 0 ? report_set(report, r, "%s is in use by %s, which can't be ended: %s", path, holder->holder, strerror(-r)) : 0;
}

/* FIBER. Until the lock is ours; readers are many. */
static int take_away(struct env *env, const char *root, struct file *image, const struct file_info *info, const char *path,
		     bool exclusive, const struct image_lock_who *who, struct report *report)
{
	int r = -EBUSY;
	unsigned pauses = LOCK_ATTEMPTS;
	while (r == -EBUSY) {
		struct note holder;
		char note_path[512];
		holder_find(env, root, info, &holder, note_path);
		if (note_path[0] || pauses == LOCK_ATTEMPTS) {
			int e = evict_one(env, &holder, note_path, path, who, report);
			if (e < 0)
				return e;
			pauses = 0;
		} else {
			pauses++;
			fiber_sleep(&env->loop, LOCK_PAUSE_NS);
		}
		r = lock(image, exclusive);
	}
	return r;
}

int image_lock_take(struct env *env, const char *root, struct file *image, const char *path, bool exclusive,
		    const struct image_lock_who *who, struct image_lock *ret_lock, struct report *report)
{
	struct file_info info;
	struct image_lock_who me = *who;
	*ret_lock = (struct image_lock){ .note = NULL };
	if (!me.holder)
		me.holder = "an unnamed Aquifer process";
	int r = file_stat(image, &info);
	if (r < 0)
		return report_set(report, r, "%s: %s", path, strerror(-r));
	r = lock(image, exclusive);
	if (r == -EBUSY && me.force) {
		r = take_away(env, root, image, &info, path, exclusive, &me, report);
	} else if (r == -EBUSY) {
		struct note holder;
		char note_path[512];
		holder_find(env, root, &info, &holder, note_path);
		if (is_ours(&holder, &me))
			return report_ours(path, report);
		return report_set(report, -EBUSY, "%s is in use by %s (detach it there%s%s)", path, holder.holder,
				  exclusive ? ", or open it read-only if that is read-only too" : "",
				  holder.pid ? ", or attach with --force to take it away" : "");
	}
	if (r < 0)
		return report_set(report, r, "lock %s: %s", path, strerror(-r));
	if (exclusive)
		notes_remove(env, root, &info);
	else
		notes_tidy(env, root, &info);
	note_write(env, root, &info, &me, ret_lock);
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
