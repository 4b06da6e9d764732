#include "parallax/catalog/catalog_access.h"

#include <errno.h>
#include <stdlib.h>
#include <string.h>

#include "core/config.h"
#include "core/textfile.h"

#define FILE_BYTES_MAX (1u << 20)

/* The text of the file that the key names; NULL if the key isn't there. */
static int load_file(struct env *env, const char *root, const char *key, const char **ret_text, struct report *report)
{
	char path[CONFIG_VALUE_BYTES], *text = NULL;
	int r = config_get(env, root, key, path, report);
	if (r == -ENOENT && !report->text[0]) {
		*ret_text = NULL;
		return 0;
	}
	if (r == 0 && (r = textfile_read(env, path, FILE_BYTES_MAX, &text, NULL)) < 0)
		report_set(report, r, "%s = %s: %s", key, path, strerror(-r));
	*ret_text = text;
	return r;
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
	char configured[CONFIG_VALUE_BYTES];
	ret->configured = config_get(env, root, "catalog", configured, NULL) == 0 && strcmp(configured, url) == 0;
	ret->root = strdup(root);
	if (r == 0 && !ret->root)
		r = -ENOMEM;
	return r < 0 ? report_set(report, r, "the configuration, etc/aquifer/aquifer.conf: %s", report_text(&mine, r)) : 0;
}

static void wipe(const char *text)
{
	if (text)
		explicit_bzero((char *)(uintptr_t)text, strlen(text));
	free((char *)(uintptr_t)text);
}

static int copy(const char *text, const char **ret)
{
	*ret = text ? strdup(text) : NULL;
	return text && !*ret ? -ENOMEM : 0;
}

int catalog_access_copy(const struct catalog_access *a, struct catalog_access *ret)
{
	*ret = (struct catalog_access){ .configured = a->configured };
	if (copy(a->authorities, &ret->authorities) == 0 && copy(a->certificate, &ret->certificate) == 0 && copy(a->key, &ret->key) == 0 &&
	    copy(a->user, &ret->user) == 0 && copy(a->password, &ret->password) == 0 && copy(a->root, &ret->root) == 0)
		return 0;
	catalog_access_free(ret);
	return -ENOMEM;
}

static bool differs(const char *a, const char *b) { return a && b ? strcmp(a, b) != 0 : a != b; }

bool catalog_access_differ(const struct catalog_access *a, const struct catalog_access *b)
{
	return differs(a->authorities, b->authorities) || differs(a->certificate, b->certificate) || differs(a->key, b->key) || differs(a->user, b->user) ||
	       differs(a->password, b->password);
}

void catalog_access_free(struct catalog_access *a)
{
	wipe(a->authorities);
	wipe(a->certificate);
	wipe(a->key);
	wipe(a->user);
	wipe(a->password);
	wipe(a->root);
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
