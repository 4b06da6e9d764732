/* cluster token, join, renew, revoke: who may take part. */
#include <errno.h>
#include <stdlib.h>
#include <string.h>

#include "agent/cli/cli.h"
#include "agent/daemon/client.h"
#include "core/config.h"
#include "core/option.h"
#include "parallax/access/access.h"
#include "parallax/catalog/catalog_access.h"

/* --for; `all` without it. */
static int roles_of(struct cli *c, unsigned all, unsigned *ret)
{
	const char *word = cli_option(c, CLI_FOR);
	*ret = word ? identity_role_of(word) : all;
	return *ret ? 0 : cli_usage(c, "--for: '%s' is neither server nor agent", word);
}

/* "30m" → 1800 s. */
static int parse_ttl(struct cli *c, const char *text, uint64_t *ret_s)
{
	static const struct { char letter; uint64_t s; } units[] = { { 's', 1 }, { 'm', 60 }, { 'h', 3600 }, { 'd', 86400 } };
	char *end;
	uint64_t n = *text >= '0' && *text <= '9' && strlen(text) < 10 ? strtoull(text, &end, 10) : 0, unit = 0;
	for (unsigned i = 0; n && i < sizeof units / sizeof units[0]; i++)
		if (end[0] == units[i].letter && !end[1])
			unit = units[i].s;
	*ret_s = n * unit;
	if (!*ret_s)
		return cli_usage(c, "--ttl: '%s' is not a time (for example 30m, 1h, 2d)", text);
	return *ret_s > ACCESS_TOKEN_TTL_MAX_S ? cli_usage(c, "--ttl: a token is good for 30 days at most") : 0;
}

/* FIBER. The cluster's catalog; a host that takes part has one named. */
static int open_catalog(struct cli *c, const char *given, struct catalog **ret_catalog)
{
	char url[CONFIG_VALUE_BYTES];
	struct report none = { "" };
	cli_waits(c, "the catalog");
	int r = catalog_open_configured(c->env, c->root, given, ret_catalog, &c->report);
	if (r == -ENOENT && !given && config_get(c->env, c->root, "catalog", url, &none) == -ENOENT) {
		c->report.text[0] = '\0';
		report_set(&c->report, r, "there is no store yet on this host, and etc/aquifer/aquifer.conf names no other (write `catalog = URL` into it; a new one: aquifer cluster init)");
	}
	return r;
}

int cli_cluster_token(struct cli *c)
{
	const char *ttl = cli_option(c, CLI_TTL), *host = cli_option(c, CLI_HOST);
	uint64_t ttl_s = ACCESS_TOKEN_TTL_S;
	unsigned roles;
	char text[ACCESS_TOKEN_BYTES], until[32];
	struct catalog *catalog;
	struct rpc_client *agent;
	int r = roles_of(c, ROLE_ANY, &roles);
	if (r == 0 && host)
		r = cli_name(c, "host", host);
	if (r == 0 && ttl)
		r = parse_ttl(c, ttl, &ttl_s);
	if (r == 0)
		r = open_catalog(c, NULL, &catalog);
	if (r < 0)
		return r;
	r = access_token_new(catalog, c->root, roles, host, ttl_s, text, &c->report);
	catalog_close(catalog);
	if (r == 0) /* it answers those who come with the token */
		r = client_agent(c->env, c->root, /* start= */ true, &agent, &c->report);
	if (r < 0)
		return r;
	rpc_close(agent);
	uint64_t expires_ns = env_wall_ns(c->env) + ttl_s * NS_PER_S;
	if (cli_flag(c, CLI_JSON))
		return cli_print_json(json_pack("{s:s, s:s}", "token", text, "expires", cli_time(expires_ns, until)));
	printf("%s\n", text);
	return 0;
}

static int join_as(struct cli *c, struct catalog *catalog, const char *token, unsigned roles)
{
	int r = 0;
	for (unsigned role = ROLE_AGENT; r == 0 && role <= ROLE_SERVER; role <<= 1)
		if (roles & role)
			r = access_join(catalog, c->root, token, role, &c->report);
	return r;
}

static const char *roles_text(unsigned roles)
{
	return roles == ROLE_ANY ? "agent and server" : identity_role_name(roles);
}

int cli_cluster_join(struct cli *c)
{
	const char *given = cli_option(c, CLI_CATALOG), *token = c->arg_count ? c->arg[0] : NULL;
	struct access_token t = { .roles = ROLE_ANY };
	struct catalog *catalog;
	char host[64];
	unsigned roles;
	snprintf(c->what, sizeof c->what, "cluster join"); /* not the token */
	struct report why = { "" };
	int r = token ? access_token_read(token, &t, &why) : 0;
	if (r == -EPROTONOSUPPORT)
		return report_set(&c->report, r, "%s", why.text);
	if (r < 0)
		return cli_usage(c, "that is no token, or not all of it (`aquifer cluster token` on the authority's host prints one)");
	r = roles_of(c, t.roles, &roles);
	explicit_bzero(&t, sizeof t);
	if (r == 0 && given)
		r = cli_catalog(c, given);
	if (r == 0)
		r = open_catalog(c, given, &catalog);
	if (r < 0)
		return r;
	cli_waits(c, "the agent of the host where the cluster's authority is");
	r = join_as(c, catalog, token, roles);
	catalog_close(catalog);
	if (r == 0 && given)
		r = config_set(c->env, c->root, "catalog", given, &c->report);
	if (r == 0)
		r = config_host(c->env, c->root, host, &c->report);
	if (r == 0 && !cli_flag(c, CLI_JSON))
		printf("host %s is enrolled as %s; start its servers and agent again\n", host, roles_text(roles));
	return r;
}

int cli_cluster_renew(struct cli *c)
{
	struct catalog *catalog;
	unsigned renewed = 0;
	char *there;
	int r = open_catalog(c, NULL, &catalog);
	if (r < 0)
		return r;
	for (unsigned role = ROLE_AGENT; r == 0 && role <= ROLE_SERVER; role <<= 1) {
		r = access_read(c->env, c->root, access_file(role), &there, &c->report);
		if (r == 0) {
			certificate_wipe(there);
			r = access_renew(catalog, c->root, role, &c->report);
			renewed |= role;
		} else if (r == -ENOENT) {
			r = 0;
		}
	}
	catalog_close(catalog);
	if (r == 0 && !renewed)
		r = report_set(&c->report, -ENOENT, "this host isn't enrolled (aquifer cluster join TOKEN)");
	if (r == 0 && !cli_flag(c, CLI_JSON))
		printf("the certificates as %s are new; who runs uses them within seconds\n", roles_text(renewed));
	return r;
}

int cli_cluster_revoke(struct cli *c)
{
	struct catalog *catalog;
	int r = cli_name(c, "host", c->arg[0]);
	if (r == 0)
		r = open_catalog(c, NULL, &catalog);
	if (r < 0)
		return r;
	int known = cli_flag(c, CLI_FORCE) ? 1 : access_heard_of(catalog, c->arg[0]);
	if (known > 0)
		r = access_revoke(catalog, c->arg[0], &c->report);
	else if (known < 0)
		r = report_set(&c->report, known, "the catalog: %s", catalog_text(catalog, known));
	else
		r = report_set(&c->report, -ENOENT, "nothing has been heard of a host %s: it has no certificate, no token, no agent and no server (give its name as it was enrolled; "
			       "or --force, if it may have a certificate all the same)", c->arg[0]);
	catalog_close(catalog);
	if (r == 0 && !cli_flag(c, CLI_JSON))
		printf("certificates of host %s, made until now, count no more\n", c->arg[0]);
	return r;
}
