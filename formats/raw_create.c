/* Making an empty raw image: a new file, all of it a hole. */
#include "formats/raw_create.h"

#include <errno.h>
#include <stdio.h>
#include <string.h>

#include "core/fiber.h"

#define PATH_BYTES 4096

static int set_size(struct env *env, struct file *f, uint64_t size)
{
	struct file_io io = { .op = FILE_TRUNCATE, .offset = size };
	struct job j;
	job_init(&j, &env->loop);
	file_submit(f, &io, &j);
	int r = fiber_wait(&j);
	return r < 0 ? r : file_sync_wait(f);
}

/* The directory knows of the file for good. */
static int sync_parent(struct env *env, const char *path)
{
	char directory[PATH_BYTES];
	const char *slash = strrchr(path, '/');
	int n = slash ? (int)(slash - path) + 1 : 1;
	if (n >= PATH_BYTES)
		return -ENAMETOOLONG;
	snprintf(directory, sizeof directory, "%.*s", n, slash ? path : ".");
	return env_sync_dir(env, directory);
}

int raw_create(struct env *env, const char *path, uint64_t size, const char *backing, struct report *report)
{
	struct file *f;
	if (backing)
		return report_set(report, -EINVAL, "a raw image has no backing file (leave out --backing)");
	int r = file_open(env, path, FILE_OPEN_WRITE | FILE_OPEN_CREATE | FILE_OPEN_NEW, &f);
	if (r < 0)
		return report_path(report, r, "make", path);
	r = set_size(env, f, size);
	int closed = file_close(env, f);
	if (r == 0)
		r = closed;
	if (r == 0)
		r = sync_parent(env, path);
	if (r < 0) {
		env_unlink(env, path);
		return r == -EFBIG ? report_set(report, r, "make %s: the file system takes no file of that size (give a smaller one)", path)
				   : report_path(report, r, "make", path);
	}
	return 0;
}
