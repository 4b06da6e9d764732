#include "core/config.h"

#include <criterion/criterion.h>
#include <errno.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>

static int parse(const char *line, const char *key, const char *value)
{
	char buffer[256];
	const char *k = "", *v = "";
	strcpy(buffer, line);
	int r = config_parse_line(buffer, &k, &v);
	if (r == 0) {
		cr_assert_str_eq(k, key);
		cr_assert_str_eq(v, value);
	}
	return r;
}

Test(config, lines)
{
	cr_assert_eq(parse("catalog = sqlite:/a b/c", "catalog", "sqlite:/a b/c"), 0);
	cr_assert_eq(parse("  catalog=x=y  # why", "catalog", "x=y"), 0);
	cr_assert_eq(parse("", "", ""), -ENOENT);
	cr_assert_eq(parse(" \t # only words", "", ""), -ENOENT);
	cr_assert_eq(parse("catalog", "", ""), -EINVAL);
	cr_assert_eq(parse("= x", "", ""), -EINVAL);
	cr_assert_eq(parse("catalog =", "", ""), -EINVAL);
}

struct config_world {
	struct env *env;
	char root[64], url[CONFIG_VALUE_BYTES], domain[64];
	const char *given;
	struct report report;
};

static int look(void *arg)
{
	struct config_world *w = arg;
	w->report = (struct report){ 0 };
	return config_catalog_url(w->env, w->root, w->given, w->url, &w->report);
}

static void config_write(struct config_world *w, const char *text)
{
	char path[256];
	snprintf(path, sizeof path, "%s/etc/aquifer/aquifer.conf", w->root);
	FILE *f = fopen(path, "w");
	cr_assert(f);
	fputs(text, f);
	fclose(f);
}

static int look_domain(void *arg)
{
	struct config_world *w = arg;
	w->report = (struct report){ 0 };
	return config_domain(w->env, w->root, w->domain, &w->report);
}

Test(config, catalog_url_given_configured_or_default)
{
	struct config_world w = { .root = "/tmp/aq-config-XXXXXX" };
	char command[256], expect[256];
	cr_assert(mkdtemp(w.root));
	cr_assert_eq(env_linux_create(1, &w.env), 0);
	cr_assert_eq(env_linux_run_fiber(w.env, look, &w), 0);
	snprintf(expect, sizeof expect, "sqlite:%s/var/lib/aquifer/catalog.db", w.root);
	cr_assert_str_eq(w.url, expect);
	snprintf(command, sizeof command, "mkdir -p %s/etc/aquifer", w.root);
	cr_assert_eq(system(command), 0);
	config_write(&w, "# the store\ncatalog = sqlite:/elsewhere\nother = 1\n");
	cr_assert_eq(env_linux_run_fiber(w.env, look, &w), 0);
	cr_assert_str_eq(w.url, "sqlite:/elsewhere");
	w.given = "etcd:http://127.0.0.1:2379";
	cr_assert_eq(env_linux_run_fiber(w.env, look, &w), 0);
	cr_assert_str_eq(w.url, w.given);
	w.given = NULL;
	config_write(&w, "catalog = sqlite:/elsewhere\n\nwhat is this\n");
	cr_assert_eq(env_linux_run_fiber(w.env, look, &w), -EINVAL);
	cr_assert(strstr(w.report.text, "aquifer.conf, line 3"), "%s", w.report.text);
	config_write(&w, "host = h1\n");
	cr_assert_eq(env_linux_run_fiber(w.env, look_domain, &w), 0);
	cr_assert_str_eq(w.domain, "h1");
	config_write(&w, "host = h1\ndomain = rack7\n");
	cr_assert_eq(env_linux_run_fiber(w.env, look_domain, &w), 0);
	cr_assert_str_eq(w.domain, "rack7");
	config_write(&w, "domain = two words\n");
	cr_assert_eq(env_linux_run_fiber(w.env, look_domain, &w), -EINVAL);
	env_linux_destroy(w.env);
	snprintf(command, sizeof command, "rm -r %s", w.root);
	cr_assert_eq(system(command), 0);
}
