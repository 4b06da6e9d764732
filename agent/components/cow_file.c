/* A new file is made whole under another name and renamed, so that a crash leaves either no file or a good one; the
 * other name's file is locked meanwhile, and overwritten by the next attempt if it was left behind. So it has to be a name
 * that nobody gives a file of his own. */
#include "agent/components/cow_file.h"

#include <errno.h>
#include <inttypes.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>

#include "agent/components/cow_format.h"
#include "core/fiber.h"
#include "core/option.h"
#include "core/plant.h"

#define PATH_BYTES 4096

/* FIBER. */
static int truncate_wait(struct env *env, struct file *f, uint64_t size)
{
	struct file_io io = { .op = FILE_TRUNCATE, .offset = size };
	struct job j;
	job_init(&j, &env->loop);
	file_submit(f, &io, &j);
	return fiber_wait(&j);
}

/* FIBER. */
static int header_write_wait(struct file *f, const struct cow_header *h, unsigned slot)
{
	uint8_t page[COW_PAGE];
	cow_header_encode(h, page);
	return file_write_wait(f, page, COW_PAGE, slot * COW_PAGE);
}

/* FIBER. Is there a file with something in it? 1, 0 or -errno: -ENOENT if there is none. */
static int has_content(struct env *env, const char *path)
{
	struct file *f;
	struct file_info info;
	int r = file_open(env, path, 0, &f);
	if (r < 0)
		return r;
	r = file_stat(f, &info);
	file_close(env, f);
	return r < 0 ? r : info.size > 0;
}

/* FIBER. Fills the file with an empty layer, durably. */
static int write_empty(struct env *env, struct file *f, uint64_t size, const struct blk_info *parent)
{
	struct cow_header h = { .sequence = 1, .size = size, .parent_size = parent->size, .parent_identity = parent->identity, .id = env_random(env),
				.clean = true };
	int r = truncate_wait(env, f, 0);
	if (r == 0)
		r = header_write_wait(f, &h, 0);
	if (r == 0) /* takes its space: a full file system is no reason not to commit */
		r = file_write_wait(f, (uint8_t[COW_PAGE]){ 0 }, COW_PAGE, COW_PAGE);
	if (r == 0)
		r = truncate_wait(env, f, cow_group_count(size) * COW_GROUP);
	return r < 0 ? r : file_sync_wait(f);
}

static const char *parent_dir(const char *path, char dir[PATH_BYTES])
{
	snprintf(dir, PATH_BYTES, "%s", path);
	char *slash = strrchr(dir, '/');
	if (!slash)
		return ".";
	slash[slash == dir] = '\0';
	return dir;
}

/* FIBER. */
static int sync_parent_dir(struct env *env, const char *path)
{
	char dir[PATH_BYTES];
	return env_sync_dir(env, parent_dir(path, dir));
}

static int is_it(void *arg, const char *name) { return strcmp(name, arg) == 0; }

/* FIBER. Of a name behind which there is no file: is it there? Then it is a symbolic link, into what isn't mounted, say, and would be replaced. */
static bool leads_nowhere(struct env *env, const char *path)
{
	char dir[PATH_BYTES], name[PATH_BYTES];
	const char *slash = strrchr(path, '/');
	snprintf(name, sizeof name, "%s", slash ? slash + 1 : path);
	return env_list_dir(env, parent_dir(path, dir), is_it, name) == 1;
}

/* FIBER. */
static int create_locked(struct env *env, struct file *f, const char *temporary, const char *path, uint64_t size,
			 const struct blk_info *parent)
{
	int r = file_lock(f, /* exclusive= */ true);
	if (r < 0)
		return r;
	r = has_content(env, path); /* somebody else may have been faster; `f` may even be that file */
	if (r != 0 && r != -ENOENT)
		return r < 0 ? r : 0;
	r = write_empty(env, f, size, parent);
	if (r == 0)
		r = env_rename(env, temporary, path);
	if (r < 0)
		env_unlink(env, temporary);
	return r < 0 ? r : sync_parent_dir(env, path);
}

/* FIBER. */
static int create(struct env *env, const char *path, uint64_t size, const struct blk_info *parent, struct report *report)
{
	char temporary[PATH_BYTES], wanted[24], least[24];
	struct file *f;
	if (size == 0)
		size = parent->size;
	if (size < parent->size)
		return report_set(report, -EINVAL, "size=%s is less than its parent has (leave it out, or give at least %s)", format_size(size, wanted),
				  format_size(parent->size, least));
	if (size % 512)
		return report_set(report, -EINVAL, "size=%" PRIu64 " is not a multiple of 512", size);
	if (size > COW_SIZE_MAX)
		return report_set(report, -EFBIG, "its parent has %s, and a cow layer at most 64T", format_size(size, wanted));
	if (snprintf(temporary, sizeof temporary, "%s.aquifer-new", path) >= (int)sizeof temporary)
		return report_set(report, -ENAMETOOLONG, "the name of the cow layer is too long");
	int r = file_open(env, temporary, FILE_OPEN_WRITE | FILE_OPEN_CREATE, &f);
	if (r < 0)
		return report_path(report, r, "create", path);
	r = create_locked(env, f, temporary, path, size, parent);
	file_close(env, f);
	if (r == -EFBIG)
		return report_set(report, r, "create %s: its file system has no files that large (%" PRIu64 " bytes)", path,
				  cow_group_count(size) * COW_GROUP);
	if (r < 0)
		return report_set(report, r, "create %s: %s", path, r == -EAGAIN ? "another process is creating it" : strerror(-r));
	return 0;
}

/* FIBER. The file first, then the header that speaks of it, over the older copy. One that won't be opened over this parent isn't touched. */
static int grow_file(struct env *env, struct file *f, uint64_t size, const struct blk_info *parent, bool rebase, struct report *report)
{
	uint8_t pages[2 * COW_PAGE];
	struct cow_header h, first;
	char wanted[24], has[24];
	size_t done;
	int r = file_read_wait(f, pages, sizeof pages, 0, &done);
	if (r < 0 || done < sizeof pages || cow_header_choose(pages, &h) != COW_OK || h.size == size || !cow_header_fits(&h, parent->size, parent->identity, rebase))
		return r; /* opening it will say what is wrong */
	if (size < h.size)
		return report_set(report, -EINVAL, "size=%s: the layer has %s already, and can't shrink (leave it out)", format_size(size, wanted), format_size(h.size, has));
	unsigned slot = cow_header_decode(pages, &first) != COW_OK || first.sequence != h.sequence;
	h.sequence++;
	h.size = size;
	r = truncate_wait(env, f, cow_group_count(size) * COW_GROUP);
	if (r == 0)
		r = file_sync_wait(f);
	if (r == 0)
		r = header_write_wait(f, &h, slot ^ 1);
	return r < 0 ? r : file_sync_wait(f);
}

/* FIBER. */
static int grow(struct env *env, const char *path, uint64_t size, const struct blk_info *parent, bool rebase, struct report *report)
{
	struct file *f;
	if (size % 512 || size > COW_SIZE_MAX)
		return report_set(report, -EINVAL, "size=%" PRIu64 " is not a multiple of 512 up to 64T", size);
	int r = file_open(env, path, FILE_OPEN_WRITE, &f);
	if (r < 0)
		return report_path(report, r, "open", path);
	r = file_lock(f, /* exclusive= */ true);
	if (r == 0)
		r = grow_file(env, f, size, parent, rebase, report);
	else if (r == -EAGAIN)
		r = 0; /* in use: opening it will say by whom */
	file_close(env, f);
	return r < 0 ? report_set(report, r, "grow %s: %s", path, strerror(-r)) : 0;
}

int cow_file_prepare(struct env *env, const char *path, uint64_t size, const struct blk_info *parent, bool rebase, struct report *report)
{
	char real[PATH_BYTES]; /* the file is made, or its name made durable, where a symbolic link leads */
	int r = has_content(env, path);
	if (r == -ENOENT && leads_nowhere(env, path) && (r = has_content(env, path)) == -ENOENT) /* else somebody has made it meanwhile */
		return report_set(report, r, "%s is a symbolic link to what isn't there (remove it, or name the file itself)", path);
	int status = r < 0 ? r : env_real_path(env, path, real, sizeof real);
	if (status < 0 && r != -ENOENT)
		return report_path(report, status, "open", path);
	if (r <= 0)
		return create(env, r < 0 ? path : real, size, parent, report);
	/* Who made it may have died before its name was durable. */
	r = PLANTED(cow_name_unsettled) ? 0 : sync_parent_dir(env, real);
	if (r < 0)
		return report_set(report, r, "sync the directory of %s: %s", path, strerror(-r));
	return size ? grow(env, path, size, parent, rebase, report) : 0;
}
