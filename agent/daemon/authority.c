#include "agent/daemon/authority.h"

#include <errno.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>

#include "agent/daemon/log.h"
#include "core/bytes.h"
#include "core/config.h"
#include "parallax/catalog/catalog_access.h"

#define TICK_NS (2 * NS_PER_S)
#define TICK_WATCHED_NS (10 * NS_PER_S) /* where the catalog tells of requests */
#define TIDY_NS (60 * NS_PER_S)
#define RENEWAL_NS (3600 * NS_PER_S)
#define END_NS (5 * NS_PER_S)

static void say(struct authority_service *s, int status, const struct report *report)
{
	const char *text = status < 0 ? report_text(report, status) : "";
	if (strcmp(text, s->said) != 0 && text[0])
		log_line("certificates: %s; tried again", text);
	snprintf(s->said, sizeof s->said, "%s", text);
}

static void said(void *arg, const char *line)
{
	(void)arg;
	log_line("authority: %s", line);
}

/* ---- the catalog ---- */

static void catalog_put_away(struct authority_service *s)
{
	catalog_watch_end(s->watch);
	catalog_close(s->catalog);
	s->watch = NULL;
	s->catalog = NULL;
	s->url[0] = 0;
}

/* FIBER. The one that is configured now: it may have been moved. */
static int catalog_ready(struct authority_service *s, bool watch, struct report *report)
{
	char url[CONFIG_VALUE_BYTES];
	int r = config_catalog_url(s->env, s->root, NULL, url, report);
	if (r < 0)
		return r;
	if (s->catalog && strcmp(url, s->url) != 0)
		catalog_put_away(s);
	if (!s->catalog)
		r = catalog_open_configured(s->env, s->root, NULL, &s->catalog, report);
	if (r == 0)
		snprintf(s->url, sizeof s->url, "%s", url);
	if (r == 0 && watch && !s->watch)
		r = catalog_watch(s->catalog, ACCESS_REQUESTS, &s->changed, &s->watch);
	return r;
}

/* ---- renewal ---- */

/* FIBER. Seconds until it runs out; UINT64_MAX without one. */
static uint64_t time_left(struct authority_service *s, enum identity_role role)
{
	uint64_t left = UINT64_MAX, now_s = env_wall_ns(s->env) / NS_PER_S;
	struct identity_name name;
	char *text;
	if (access_read(s->env, s->root, access_file(role), &text, NULL) < 0)
		return left;
	X509 *x = identity_certificate(text);
	if (x && identity_of(x, &name) == 0)
		left = name.expires_s > now_s ? name.expires_s - now_s : 0;
	X509_free(x);
	certificate_wipe(text);
	return left;
}

/* FIBER. */
static int renew(struct authority_service *s, enum identity_role role, struct report *report)
{
	uint64_t left = time_left(s, role);
	if (left > ACCESS_RENEW_S)
		return 0;
	int r = catalog_ready(s, /* watch= */ false, report);
	if (r == 0)
		r = access_renew(s->catalog, s->root, role, report);
	if (r == 0)
		log_line("certificates: this host's certificate as %s was renewed", identity_role_name(role));
	else if (left < ACCESS_WARN_S)
		report_prefix(report, r, "this host's certificate as %s runs out in %u days and can't be renewed", identity_role_name(role),
			      (unsigned)(left / 86400));
	return left < ACCESS_WARN_S ? r : 0;
}

/* ---- the service ---- */

static int step(struct authority_service *s, struct report *report)
{
	int r = 0;
	access_load(s->env, s->root, ROLE_AGENT, NULL); /* a renewed one is used from now on */
	if (env_now_ns(s->env) >= s->renewal_ns) {
		s->renewal_ns = env_now_ns(s->env) + RENEWAL_NS;
		r = renew(s, ROLE_AGENT, report);
		int second = renew(s, ROLE_SERVER, report);
		r = r < 0 ? r : second;
		if (r < 0)
			say(s, r, report); /* said for an hour; what follows has its own to say */
	}
	if (!access_authority_here(s->env, s->root)) {
		catalog_put_away(s);
		return 0;
	}
	report->text[0] = 0;
	r = catalog_ready(s, /* watch= */ true, report);
	bool tidy = env_now_ns(s->env) >= s->tidy_ns;
	if (tidy)
		s->tidy_ns = env_now_ns(s->env) + TIDY_NS;
	return r == 0 ? access_serve(s->catalog, s->root, tidy, said, s, report) : r;
}

static void ticked(struct job *j)
{
	struct authority_service *s = container_of(j, struct authority_service, timer_job);
	s->ticking = false;
	fiber_cond_wake(&s->changed);
}

static void wait_for_change(struct authority_service *s)
{
	if (!s->ticking) {
		s->ticking = true;
		job_init(&s->timer_job, &s->env->loop);
		timer_start(s->env, &s->timer, s->watch ? TICK_WATCHED_NS : TICK_NS, &s->timer_job);
		job_then(&s->timer_job, ticked);
	}
	fiber_cond_wait(&s->env->loop, &s->changed);
}

static int run(void *arg)
{
	struct authority_service *s = arg;
	while (!s->stop) {
		struct report report = { "" };
		int r = step(s, &report);
		if (r < 0)
			say(s, r, &report);
		if (!s->stop)
			wait_for_change(s);
	}
	timer_cancel(s->env, &s->timer);
	while (s->ticking)
		fiber_cond_wait(&s->env->loop, &s->changed);
	catalog_put_away(s);
	s->running = false;
	return 0;
}

void authority_start(struct authority_service *s, struct env *env, const char *root)
{
	struct report report = { "" };
	*s = (struct authority_service){ .env = env, .root = root, .running = true };
	timer_init(&s->timer);
	fiber_cond_init(&s->changed);
	int r = access_load(env, root, ROLE_AGENT, &report);
	if (r < 0 && r != -ENOENT)
		say(s, r, &report);
	if (fiber_start(&env->loop, run, s, NULL) < 0)
		s->running = false;
}

void authority_end(struct authority_service *s)
{
	if (!s->env)
		return;
	uint64_t until_ns = env_now_ns(s->env) + END_NS;
	s->stop = true;
	fiber_cond_wake(&s->changed);
	while (s->running && env_now_ns(s->env) < until_ns) /* a catalog that doesn't answer: the process ends anyhow */
		fiber_sleep(&s->env->loop, 10 * NS_PER_MS);
}
