#include "parallax/catalog_access.h"

#include <errno.h>
#include <stdlib.h>
#include <string.h>

#include "core/config.h"

#define FILE_BYTES_MAX (1u << 20)

static int read_file(struct env *env, const char *key, const char *path, char **ret_text, struct report *report)
{
	struct file *f;
	struct file_info info;
	size_t done = 0;
	char *text = NULL;
	int r = file_open(env, path, 0, &f);
	if (r == 0) {
		r = file_stat(f, &info);
		if (r == 0 && info.size > FILE_BYTES_MAX)
			r = -EFBIG;
		text = r == 0 ? calloc(1, info.size + 1) : NULL;
		if (r == 0)
			r = text ? file_read_wait(f, text, info.size, 0, &done) : -ENOMEM;
		file_close(env, f);
	}
	if (r < 0) {
		free(text);
		return report_set(report, r, "%s = %s: %s", key, path, strerror(-r));
	}
	*ret_text = text;
	return 0;
}

/* The text of the file that the key names; NULL if the key isn't there. */
static int load_file(struct env *env, const char *root, const char *key, const char **ret_text, struct report *report)
{
	char path[CONFIG_VALUE_BYTES], *text = NULL;
	int r = config_get(env, root, key, path, report);
	if (r == 0)
		r = read_file(env, key, path, &text, report);
	*ret_text = text;
	return r == -ENOENT && !text && !report->text[0] ? 0 : r;
}

static int load_password(struct env *env, const char *root, struct catalog_access *a, struct report *report)
{
	char user[CONFIG_VALUE_BYTES];
	int r = config_get(env, root, "catalog-user", user, report);
	if (r == -ENOENT && !report->text[0])
		return 0;
	if (r == 0)
		r = load_file(env, root, "catalog-password-file", &a->password, report);
	if (r < 0)
		return r;
	if (!a->password)
		return report_set(report, -EINVAL, "catalog-user without catalog-password-file (a file whose first line is the password)");
	char *line = (char *)(uintptr_t)a->password;
	line[strcspn(line, "\r\n")] = 0;
	a->user = strdup(user);
	return a->user ? 0 : -ENOMEM;
}

int catalog_access_load(struct env *env, const char *root, const char *url, struct catalog_access *ret, struct report *report)
{
	struct report mine = { "" };
	*ret = (struct catalog_access){ 0 };
	if (catalog_is_file(url))
		return 0;
	int r = load_file(env, root, "catalog-ca", &ret->authorities, &mine);
	if (r == 0)
		r = load_file(env, root, "catalog-cert", &ret->certificate, &mine);
	if (r == 0)
		r = load_file(env, root, "catalog-key", &ret->key, &mine);
	if (r == 0)
		r = load_password(env, root, ret, &mine);
	if (r == 0 && !ret->certificate != !ret->key)
		r = report_set(&mine, -EINVAL, "catalog-cert and catalog-key go together");
	return r < 0 ? report_set(report, r, "the configuration, etc/aquifer/aquifer.conf: %s", report_text(&mine, r)) : 0;
}

static void wipe(const char *text)
{
	if (text)
		explicit_bzero((char *)(uintptr_t)text, strlen(text));
	free((char *)(uintptr_t)text);
}

void catalog_access_free(struct catalog_access *a)
{
	wipe(a->authorities);
	wipe(a->certificate);
	wipe(a->key);
	wipe(a->user);
	wipe(a->password);
	*a = (struct catalog_access){ 0 };
}

int catalog_open_configured(struct env *env, const char *root, const char *given, struct catalog **ret_catalog, struct report *report)
{
	char url[CONFIG_VALUE_BYTES];
	struct catalog_access access = { 0 };
	int r = config_catalog_url(env, root, given, url, report);
	if (r == 0)
		r = catalog_access_load(env, root, url, &access, report);
	if (r == 0)
		r = catalog_open(env, url, &access, /* create= */ false, ret_catalog, report);
	catalog_access_free(&access);
	return r;
}
