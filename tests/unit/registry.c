/* An agent's entry in the catalog: one per host name, and who may ask an agent for something. */
#include <sys/prctl.h>

#include "agent/daemon/registry.h"

#include <criterion/criterion.h>
#include <errno.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <unistd.h>

#include "core/env_linux.h"
#include "parallax/catalog/meta.h"
#include "tests/unit/tempdir.h"

struct rig {
	struct env *env;
	char dir[64];
	unsigned listed;
	struct store_agent agent;
};

static int entry(void *arg, const struct store_agent *a)
{
	struct rig *r = arg;
	r->listed++;
	r->agent = *a;
	return 0;
}

static void drop(struct rig *r)
{
	char key[META_KEY_BYTES], url[128];
	struct catalog *c;
	struct catalog_txn t;
	snprintf(url, sizeof url, "sqlite:%s/var/lib/aquifer/catalog.db", r->dir);
	cr_assert_eq(catalog_open(r->env, url, NULL, false, &c, NULL), 0);
	meta_key_agent("alpha", key);
	catalog_txn_init(&t);
	catalog_txn_delete(&t, key);
	cr_assert_eq(catalog_txn(c, &t, NULL), 0);
	catalog_close(c);
}

static int register_run(void *arg)
{
	struct rig *r = arg;
	struct store *s;
	struct report report = { "" };
	struct store_options o = { .root = r->dir, .create = true };
	struct store_registration *first, *second;
	cr_assert_eq(store_open(r->env, &o, &s, &report), 0, "%s", report.text);
	cr_assert_str_eq(store_host(s), "alpha");
	cr_assert_eq(store_agent_find(s, "alpha", &r->agent, &report), -ENOENT);
	cr_assert(strstr(report.text, "'alpha'"), "%s", report.text);
	cr_assert_eq(store_agent_find(s, "../x", &r->agent, NULL), -ENOENT);
	cr_assert_eq(store_agent_register(s, "tcp:127.0.0.1:1", "9", &first, NULL), 0);
	cr_assert(store_agent_list(s, entry, r, NULL) == 0 && r->listed == 1);
	cr_assert_str_eq(r->agent.host, "alpha");
	cr_assert_str_eq(r->agent.address, "tcp:127.0.0.1:1");
	cr_assert_str_eq(r->agent.version, "9");
	cr_assert(r->agent.since_ns > 0);
	cr_assert_eq(memcmp(r->agent.token, store_agent_token(first), 16), 0);
	/* it got lost (a restored catalog): it comes back */
	drop(r);
	cr_assert_eq(store_agent_check(first, NULL), 0);
	r->listed = 0;
	cr_assert(store_agent_list(s, entry, r, NULL) == 0 && r->listed == 1);
	/* the same process again: it takes the place, and the first one hears of it and doesn't take the second's with it */
	cr_assert_eq(store_agent_register(s, "tcp:127.0.0.1:2", "9", &second, NULL), 0);
	report.text[0] = '\0';
	prctl(PR_SET_NAME, "aquifer-agent");
	cr_assert_eq(store_agent_check(first, &report), -EEXIST);
	/* … unless the second was killed: then it is the first one's again, and so on */
	prctl(PR_SET_NAME, "dead");
	cr_assert_eq(store_agent_check(first, &report), 0);
	cr_assert_eq(store_agent_check(second, &report), 0);
	store_agent_leave(first);
	r->listed = 0;
	cr_assert(store_agent_list(s, entry, r, NULL) == 0 && r->listed == 1);
	cr_assert_str_eq(r->agent.address, "tcp:127.0.0.1:2");

	struct registry g = { .entry = second };
	uint8_t token[17];
	memcpy(token, store_agent_token(second), 16);
	ProtobufCBinaryData told = { 16, token };
	cr_assert(registry_knows(&g, &told));
	token[15] ^= 1;
	cr_assert(!registry_knows(&g, &told));
	token[15] ^= 1;
	cr_assert(!registry_knows(&g, &(ProtobufCBinaryData){ 15, token }));
	cr_assert(!registry_knows(&g, &(ProtobufCBinaryData){ 0, NULL }));
	g.entry = NULL; /* not registered: nobody can know it */
	cr_assert(!registry_knows(&g, &told));

	store_agent_leave(second);
	r->listed = 0;
	cr_assert(store_agent_list(s, entry, r, NULL) == 0 && r->listed == 0);
	return store_close(s);
}

static void configure(const struct rig *r, const char *text)
{
	char command[256];
	snprintf(command, sizeof command, "mkdir -p %s/etc/aquifer && echo '%s' >%s/etc/aquifer/aquifer.conf", r->dir, text, r->dir);
	cr_assert_eq(system(command), 0);
}

static void end(struct rig *r)
{
	env_linux_destroy(r->env);
	tempdir_remove(r->dir);
}

Test(registry, one_entry_per_host_and_its_token)
{
	struct rig r = { .dir = "/tmp/aqregistry.XXXXXX" };
	cr_assert(mkdtemp(r.dir));
	configure(&r, "host = alpha");
	cr_assert_eq(env_linux_create(0, &r.env), 0);
	cr_assert_eq(env_linux_run_fiber(r.env, register_run, &r), 0);
	end(&r);
}

static int refused_run(void *arg)
{
	struct rig *r = arg;
	struct store *s;
	struct report report = { "" };
	struct store_options o = { .root = r->dir, .create = true };
	cr_assert_eq(store_open(r->env, &o, &s, &report), -EINVAL);
	cr_assert(strstr(report.text, "host = a b"), "%s", report.text);
	return 0;
}

Test(registry, a_host_name_that_cannot_be_one)
{
	struct rig r = { .dir = "/tmp/aqregistry.XXXXXX" };
	cr_assert(mkdtemp(r.dir));
	configure(&r, "host = a b");
	cr_assert_eq(env_linux_create(0, &r.env), 0);
	cr_assert_eq(env_linux_run_fiber(r.env, refused_run, &r), 0);
	end(&r);
}
