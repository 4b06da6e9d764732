#include "core/textfile.h"

#include <errno.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>

#define PATH_BYTES 4352

int textfile_read(struct env *env, const char *path, size_t most, char **ret_text, size_t *ret_length)
{
	struct file *f;
	struct file_info info;
	char *text = NULL;
	size_t done = 0;
	int r = file_open(env, path, 0, &f);
	if (r < 0)
		return r;
	r = file_stat(f, &info);
	if (r == 0 && info.size > most)
		r = -EFBIG;
	if (r == 0)
		text = calloc(1, info.size + 1);
	if (r == 0)
		r = text ? file_read_wait(f, text, info.size, 0, &done) : -ENOMEM;
	file_close(env, f);
	if (r < 0) {
		if (text)
			explicit_bzero(text, info.size);
		free(text);
		return r;
	}
	if (ret_length)
		*ret_length = done;
	*ret_text = text;
	return 0;
}

int textfile_replace(struct env *env, const char *path, const char *text)
{
	char part[PATH_BYTES], dir[PATH_BYTES];
	struct file *f;
	if ((size_t)snprintf(part, sizeof part, "%s.part", path) >= sizeof part)
		return -ENAMETOOLONG;
	snprintf(dir, sizeof dir, "%s", path);
	char *name = strrchr(dir, '/');
	if (!name)
		return -EINVAL;
	*name = '\0';
	env_unlink(env, part);
	int r = file_open(env, part, FILE_OPEN_WRITE | FILE_OPEN_CREATE | FILE_OPEN_NEW, &f);
	if (r < 0)
		return r;
	r = file_write_wait(f, text, strlen(text), 0);
	if (r == 0)
		r = file_sync_wait(f);
	file_close(env, f);
	if (r == 0)
		r = env_rename(env, part, path);
	if (r < 0)
		env_unlink(env, part);
	return r < 0 ? r : env_sync_dir(env, dir);
}
