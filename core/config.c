#include "core/config.h"

#include <ctype.h>
#include <errno.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <unistd.h>

#include "core/bytes.h"
#include "core/option.h"
#include "core/textfile.h"

#define FILE_BYTES_MAX (64u << 10)

static char *strip(char *s)
{
	while (isspace((unsigned char)*s))
		s++;
	size_t n = strlen(s);
	while (n > 0 && isspace((unsigned char)s[n - 1]))
		s[--n] = 0;
	return s;
}

int config_parse_line(char *line, const char **ret_key, const char **ret_value)
{
	char *comment = strchr(line, '#');
	if (comment)
		*comment = 0;
	char *key = strip(line);
	if (!*key)
		return -ENOENT;
	char *equals = strchr(key, '=');
	if (!equals)
		return -EINVAL;
	*equals = 0;
	key = strip(key);
	char *value = strip(equals + 1);
	if (!*key || !*value)
		return -EINVAL;
	*ret_key = key;
	*ret_value = value;
	return 0;
}

/* FIBER. The whole file and a NUL, malloc'd. */
static int config_load(struct env *env, const char *path, char **ret_text, struct report *report)
{
	int r = textfile_read(env, path, FILE_BYTES_MAX, ret_text, NULL);
	if (r == -EFBIG)
		return report_set(report, r, "%s is too large for a configuration file", path);
	return r < 0 && r != -ENOENT ? report_path(report, r, "read", path) : r;
}

int config_get(struct env *env, const char *root, const char *key, char ret_value[CONFIG_VALUE_BYTES],
	       struct report *report)
{
	char path[4096], *text = NULL, *rest;
	if ((size_t)snprintf(path, sizeof path, "%s/etc/aquifer/aquifer.conf", root) >= sizeof path)
		return report_set(report, -ENAMETOOLONG, "the root directory's name is too long");
	int r = config_load(env, path, &text, report);
	if (r < 0)
		return r;
	r = -ENOENT;
	unsigned number = 0;
	for (char *line = text; line; line = rest) {
		const char *k, *v;
		rest = strchr(line, '\n');
		if (rest)
			*rest++ = 0;
		number++;
		int bad = config_parse_line(line, &k, &v);
		if (bad == -EINVAL || (bad == 0 && strlen(v) >= CONFIG_VALUE_BYTES)) {
			r = report_set(report, -EINVAL, "%s, line %u: that is not `key = value`", path, number);
			break;
		}
		if (bad == 0 && strcmp(k, key) == 0) {
			strcpy(ret_value, v);
			r = 0; /* the last one counts; the rest is checked too */
		}
	}
	free(text);
	return r;
}

/* ---- changing ---- */

/* The text without the lines of `key`, and one at the end. malloc'd. */
static char *config_with(const char *text, const char *key, const char *value)
{
	char *ret = NULL;
	size_t length = 0;
	FILE *f = open_memstream(&ret, &length);
	if (!f)
		return NULL;
	while (*text) {
		size_t n = strcspn(text, "\n");
		char *line = strndup(text, n);
		const char *k, *v;
		if (!line) {
			fclose(f);
			free(ret);
			return NULL;
		}
		if (config_parse_line(line, &k, &v) != 0 || strcmp(k, key) != 0)
			fprintf(f, "%.*s\n", (int)n, text);
		free(line);
		text += n + (text[n] == '\n');
	}
	fprintf(f, "%s = %s\n", key, value);
	if (fclose(f) != 0) {
		free(ret);
		return NULL;
	}
	return ret;
}

int config_set(struct env *env, const char *root, const char *key, const char *value, struct report *report)
{
	static const char *const parts[] = { "", "/etc", "/etc/aquifer" };
	char dir[4096], path[4200], *old = NULL;
	int r = 0;
	if ((size_t)snprintf(dir, sizeof dir, "%s/etc/aquifer", root) >= sizeof dir)
		return report_set(report, -ENAMETOOLONG, "the root directory's name is too long");
	snprintf(path, sizeof path, "%s/aquifer.conf", dir);
	for (unsigned i = *root ? 0 : 1; i < ARRAY_COUNT(parts) && r == 0; i++) {
		snprintf(dir, sizeof dir, "%s%s", root, parts[i]);
		r = env_mkdir(env, dir);
	}
	if (r == 0) {
		r = config_load(env, path, &old, report);
		r = r == -ENOENT ? 0 : r;
	}
	char *text = r == 0 ? config_with(old ? old : "", key, value) : NULL;
	if (r == 0)
		r = text ? textfile_replace(env, path, text) : -ENOMEM;
	free(text);
	free(old);
	return r < 0 ? report_path(report, r, "write", path) : 0;
}

int config_catalog_url(struct env *env, const char *root, const char *given, char ret_url[CONFIG_VALUE_BYTES],
		       struct report *report)
{
	int r = 0;
	if (!given) {
		r = config_get(env, root, "catalog", ret_url, report);
		if (r != -ENOENT)
			return r;
	}
	if (given)
		r = snprintf(ret_url, CONFIG_VALUE_BYTES, "%s", given);
	else
		r = snprintf(ret_url, CONFIG_VALUE_BYTES, "sqlite:%s/var/lib/aquifer/catalog.db", root);
	if (r >= CONFIG_VALUE_BYTES)
		return report_set(report, -ENAMETOOLONG, "the catalog's URL is too long");
	return 0;
}

static int config_name(struct env *env, const char *root, const char *key, char ret_name[64], struct report *report)
{
	char value[CONFIG_VALUE_BYTES];
	int r = config_get(env, root, key, value, report);
	if (r == 0 && !name_valid(value))
		return report_set(report, -EINVAL, "%s = %.80s in aquifer.conf can't be a %s's name (letters, digits, . _ -; at most 63)", key, value, key);
	if (r == 0)
		snprintf(ret_name, 64, "%.63s", value);
	return r;
}

int config_host(struct env *env, const char *root, char ret_host[64], struct report *report)
{
	int r = config_name(env, root, "host", ret_host, report);
	if (r != -ENOENT)
		return r;
	memset(ret_host, 0, 64);
	gethostname(ret_host, 63);
	return 0;
}

int config_domain(struct env *env, const char *root, char ret_domain[64], struct report *report)
{
	int r = config_name(env, root, "domain", ret_domain, report);
	return r == -ENOENT ? config_host(env, root, ret_domain, report) : r;
}
