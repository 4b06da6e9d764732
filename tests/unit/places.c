/* Who has a volume on this host: a process is known by more than its number. */
#include "parallax/volume/places.h"

#include <criterion/criterion.h>
#include <errno.h>
#include <signal.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/wait.h>
#include <unistd.h>

struct rig {
	struct env *env;
	char dir[64], program[96];
	pid_t pid;
};

/* Something that is called as a tapdisk is, with arguments such as an agent gives one. */
static void rig_start(struct rig *g)
{
	char line[256];
	snprintf(g->dir, sizeof g->dir, "/tmp/aqtest.XXXXXX");
	cr_assert(mkdtemp(g->dir));
	snprintf(g->program, sizeof g->program, "%s/aquifer-tapdisk", g->dir);
	snprintf(line, sizeof line, "cp /bin/sh %s", g->program);
	cr_assert_eq(system(line), 0);
	int ready[2];
	char byte;
	cr_assert_eq(pipe(ready), 0);
	g->pid = fork();
	cr_assert(g->pid >= 0);
	if (g->pid == 0) {
		dup2(ready[1], 1);
		close(ready[0]);
		close(ready[1]);
		execl(g->program, g->program, "-c", "echo; read never", "tapdisk", "--run-dir", g->dir, "--", "ram(1M)", NULL);
		_exit(1);
	}
	close(ready[1]);
	cr_assert_eq(read(ready[0], &byte, 1), 1);
	close(ready[0]);
	cr_assert_eq(env_linux_create(0, &g->env), 0);
}

static void rig_end(struct rig *g)
{
	unlink(g->program);
	rmdir(g->dir);
	env_linux_destroy(g->env);
}

static bool alive_since(struct rig *g, const char *control, const char *boot)
{
	struct meta_owner o = { .state = OWNER_HELD, .pid = (uint64_t)g->pid };
	snprintf(o.boot, sizeof o.boot, "%s", boot);
	snprintf(o.control, sizeof o.control, "%s", control);
	return places_owner_alive(g->env, &o);
}

static bool alive(struct rig *g, const char *control) { return alive_since(g, control, ""); }

static int look(void *arg)
{
	struct rig *g = arg;
	char own[128], boot[META_BOOT_BYTES];
	env_boot_id(g->env, boot);
	snprintf(own, sizeof own, "unix:%s/control.sock", g->dir);
	cr_assert(alive(g, own));
	cr_assert(alive(g, ""), "started by hand: there is only its name");
	cr_assert(alive_since(g, "", boot) && alive_since(g, own, boot));
	struct meta_owner contained = { .state = OWNER_HELD, .pid = (uint64_t)g->pid, .pids = env_pids(g->env) };
	snprintf(contained.boot, sizeof contained.boot, "%s", boot);
	cr_assert(places_owner_alive(g->env, &contained));
	contained.pids++;
	cr_assert(!places_owner_alive(g->env, &contained), "what has its number in this container");
	struct meta_owner by_hand = { .state = OWNER_HELD, .pid = (uint64_t)g->pid };
	snprintf(by_hand.boot, sizeof by_hand.boot, "%s", boot);
	cr_assert_eq(process_start_ticks(g->pid, &by_hand.began_ticks), 0);
	cr_assert(places_owner_alive(g->env, &by_hand));
	by_hand.began_ticks--;
	cr_assert(!places_owner_alive(g->env, &by_hand), "began later: has its number since it died");
	boot[0] = boot[0] == 'a' ? 'b' : 'a';
	cr_assert(!alive_since(g, "", boot), "what has its number since the machine started anew");
	cr_assert(!alive_since(g, own, boot));
	cr_assert(!alive(g, "unix:/run/aquifer/tapdisks/other/control.sock"), "another one's number");
	struct meta_owner o = { .state = OWNER_HELD, .pid = (uint64_t)getpid() };
	cr_assert(!places_owner_alive(g->env, &o), "no program of ours");
	kill(g->pid, SIGKILL);
	siginfo_t info;
	cr_assert_eq(waitid(P_PID, (id_t)g->pid, &info, WEXITED | WNOWAIT), 0);
	cr_assert(!alive(g, own), "dead, and not waited for");
	waitpid(g->pid, NULL, 0);
	cr_assert(!alive(g, own));
	return 0;
}

Test(places, a_holder_is_known_by_more_than_its_number)
{
	struct rig g;
	int in[2];
	cr_assert_eq(pipe(in), 0); /* so that what it reads doesn't end */
	dup2(in[0], 0);
	rig_start(&g);
	cr_assert_eq(env_linux_run_fiber(g.env, look, &g), 0);
	rig_end(&g);
}

/* ---- by force ---- */

static void expect_no_eviction(struct rig *g, struct places *p, uint64_t pids, const char *words)
{
	struct meta_owner o = { .state = OWNER_HELD, .pid = (uint64_t)getpid(), .pids = pids };
	struct report why = { "" };
	env_boot_id(g->env, o.boot);
	cr_assert_eq(p->ops.evict(p->ops.arg, &o, &why), -EBUSY);
	cr_assert(strstr(why.text, words), "%s", why.text);
}

static int look_by_force(void *arg)
{
	struct rig *g = arg;
	struct places *p;
	struct report why = { "" };
	char url[96];
	snprintf(url, sizeof url, "sqlite:%s/catalog.db", g->dir);
	cr_assert_eq(places_open(g->env, g->dir, url, /* create= */ true, &p, &why), 0, "%s", why.text);
	expect_no_eviction(g, p, env_pids(g->env), "this tapdisk has it already");
	expect_no_eviction(g, p, env_pids(g->env) + 1, "another container's");
	places_close(p);
	return 0;
}

Test(places, another_containers_process_of_our_number_is_not_us)
{
	struct rig g;
	char line[96];
	snprintf(g.dir, sizeof g.dir, "/tmp/aqtest.XXXXXX");
	cr_assert(mkdtemp(g.dir));
	cr_assert_eq(env_linux_create(0, &g.env), 0);
	cr_assert_eq(env_linux_run_fiber(g.env, look_by_force, &g), 0);
	env_linux_destroy(g.env);
	snprintf(line, sizeof line, "rm -r %s", g.dir);
	cr_assert_eq(system(line), 0);
}
