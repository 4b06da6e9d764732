#include "agent/daemon/taps.h"

#include <dirent.h>
#include <errno.h>
#include <fcntl.h>
#include <signal.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/pidfd.h>
#include <sys/stat.h>
#include <sys/wait.h>
#include <unistd.h>

#include "agent/daemon/log.h"
#include "agent/daemon/spawn.h"
#include "agent/daemon/wait.h"
#include "core/option.h"
#include "parallax/volume/places.h"

#define SILENCE_NS (5 * NS_PER_S) /* of a tapdisk that says each second that it runs */

static const char *const phase_names[] = {
	[TAP_STARTING] = "starting",
	[TAP_RUNNING] = "running",
	[TAP_STOPPING] = "stopping",
	[TAP_DIED] = "died",
};

void taps_init(struct taps *t, struct env *env, const char *root)
{
	*t = (struct taps){ .env = env };
	link_init(&t->list);
	snprintf(t->root, sizeof t->root, "%s", root);
	paths_tapdisks(root, t->directory);
	env_boot_id(env, t->boot_id);
}

static struct tap *tap_new(struct taps *t, const char *directory)
{
	struct tap *tap = calloc(1, sizeof *tap);
	if (!tap)
		return NULL;
	tap->taps = t;
	tap->pidfd = -1;
	tap->listed = true;
	tap->users = 1;
	snprintf(tap->directory, sizeof tap->directory, "%s", directory);
	link_push(&t->list, &tap->link);
	return tap;
}

static void free_if_over(struct tap *tap)
{
	if (tap->users || tap->listed || tap->pidfd >= 0)
		return;
	tap_state_free(&tap->state);
	free(tap);
}

void tap_unuse(struct tap *tap)
{
	assert(tap->users > 0);
	tap->users--;
	free_if_over(tap);
}

/* ---- the run directory ---- */

/* False if that is too long to be there. */
static bool path_in(const char *directory, const char *file, char ret_path[PATHS_MAX])
{
	return (size_t)snprintf(ret_path, PATHS_MAX, "%s/%s", directory, file) < PATHS_MAX;
}

static void remove_directory(const char *directory)
{
	static const char *const files[] = { "status", "status.new", "control.sock", "died", "died.new", "trouble", "trouble.new", "condition", "condition.new", "log", "log.1", "log.new", "lock" };
	char path[PATHS_MAX];
	for (size_t i = 0; i < sizeof files / sizeof *files; i++)
		if (path_in(directory, files[i], path))
			unlink(path);
	if (rmdir(directory) < 0 && errno != ENOENT)
		log_line("%s: could not be removed: %m", directory);
}

/* What the exports of a process that was killed left behind. */
static void clean_export(const struct taps *t, const struct tap_device *d)
{
	const struct export_driver *e = export_find(d->export);
	char exports[PATHS_MAX];
	paths_exports(t->root, exports);
	if (e && e->clean)
		e->clean(exports, d->name);
}

static int read_status(const char *directory, struct tap_state *ret, struct report *report)
{
	char path[PATHS_MAX], *text;
	size_t length;
	if (!path_in(directory, "status", path))
		return -ENAMETOOLONG;
	int r = state_file_read(path, STATE_FILE_MAX, &text, &length);
	if (r < 0)
		return r;
	r = tap_state_decode(text, length, ret, report);
	free(text);
	return r;
}

static bool has_status(const struct tap *tap)
{
	char path[PATHS_MAX];
	return path_in(tap->directory, "status", path) && access(path, F_OK) == 0;
}

/* ---- leaving the list ---- */

void tap_forget(struct tap *tap)
{
	if (!tap->listed)
		return;
	tap->listed = false;
	link_drop(&tap->link);
	for (unsigned i = 0; i < tap->state.device_count; i++)
		clean_export(tap->taps, &tap->state.device[i]);
	remove_directory(tap->directory);
	free_if_over(tap);
}

/* A dead one can't say itself what of it is still to be shown, and the next agent would show all. */
static void rewrite_status(const struct tap *tap)
{
	char path[PATHS_MAX], *text = tap_state_encode(&tap->state);
	if (text && path_in(tap->directory, "status", path))
		state_file_write(path, text, strlen(text));
	free(text);
}

void tap_forget_device(struct tap *tap, unsigned index)
{
	assert(index < tap->state.device_count);
	struct tap_device *d = tap->state.device;
	clean_export(tap->taps, &d[index]);
	memmove(d + index, d + index + 1, (--tap->state.device_count - index) * sizeof *d);
	if (tap->state.device_count == 0)
		tap_forget(tap);
	else if (tap->phase == TAP_DIED)
		rewrite_status(tap);
}

static bool has_device(const struct tap_state *s, const char *name)
{
	for (unsigned i = 0; i < s->device_count; i++)
		if (strcmp(s->device[i].name, name) == 0)
			return true;
	return false;
}

void taps_refresh(struct taps *t)
{
	link_for(l, &t->list) {
		struct tap *tap = container_of(l, struct tap, link);
		struct tap_state s = { 0 };
		if (tap->phase != TAP_RUNNING || tap->state.device_count < 2 || read_status(tap->directory, &s, NULL) < 0)
			continue;
		for (unsigned i = tap->state.device_count; s.device_count && i-- > 0;)
			if (!has_device(&s, tap->state.device[i].name))
				tap_forget_device(tap, i);
		tap_state_free(&s);
	}
}

/* ---- ends ---- */

/* Why a child ended; a process that another agent started leaves no status to us. */
static void ask_why(struct tap *tap)
{
	siginfo_t info = { 0 };
	char log[PATHS_MAX], last[400];
	if (waitid(P_PIDFD, (id_t)tap->pidfd, &info, WEXITED | WNOHANG) == 0 && info.si_pid) {
		if (info.si_code == CLD_EXITED && info.si_status == 0 && !has_status(tap)) {
			return; /* as it should be */
		} else if (info.si_code == CLD_EXITED) {
			if (!path_in(tap->directory, "log", log))
				log[0] = 0;
			spawn_last_line(log, last, sizeof last);
			snprintf(tap->died, sizeof tap->died, "ended with status %d%s%s", info.si_status, last[0] ? ": " : "", last);
		} else {
			snprintf(tap->died, sizeof tap->died, "killed by signal %d (%s)", info.si_status,
				 sigdescr_np(info.si_status) ? sigdescr_np(info.si_status) : "?");
		}
	} else {
		snprintf(tap->died, sizeof tap->died, "its process is gone");
	}
}

/* A script that attaches again and again under new names must not fill our memory with its dead. */
static void forget_oldest(struct taps *t)
{
	struct tap *oldest = NULL;
	unsigned dead = 0;
	link_for(l, &t->list) {
		struct tap *tap = container_of(l, struct tap, link);
		if (tap->phase != TAP_DIED)
			continue;
		dead++;
		if (!oldest)
			oldest = tap;
	}
	if (dead > TAPS_DEAD_MAX)
		tap_forget(oldest);
}

static void note_death(struct tap *tap)
{
	char path[PATHS_MAX];
	tap->phase = TAP_DIED;
	log_line("tapdisk %s (pid %d) died: %s; its names are free", tap->state.name, (int)tap->state.pid, tap->died);
	if (path_in(tap->directory, "died", path))
		state_file_write(path, tap->died, strlen(tap->died));
	forget_oldest(tap->taps);
}

/* Step: the pidfd is readable, or the watch was cancelled. */
static void tap_ended(struct job *j)
{
	struct tap *tap = container_of(j, struct tap, watch_job);
	bool ended = j->status == 0;
	tap_use(tap);
	if (ended)
		ask_why(tap);
	close(tap->pidfd);
	tap->pidfd = -1;
	if (ended && tap->phase == TAP_STARTING) {
		tap->phase = TAP_DIED; /* who started it says the rest */
	} else if (ended && tap->listed) {
		if (has_status(tap)) {
			note_death(tap);
		} else {
			log_line("tapdisk %s (pid %d) %s", tap->state.name, (int)tap->state.pid,
				 tap->died[0] ? tap->died : "ended");
			tap_forget(tap);
		}
	}
	tap_unuse(tap);
}

int tap_watch(struct tap *tap, pid_t pid)
{
	int fd = pidfd_open(pid, 0);
	if (fd < 0)
		return -errno;
	tap->state.pid = pid;
	tap->pidfd = fd;
	job_init(&tap->watch_job, &tap->taps->env->loop);
	fd_watch_start(tap->taps->env, &tap->watch, fd, &tap->watch_job);
	job_then(&tap->watch_job, tap_ended);
	return 0;
}

int tap_wait_end(struct tap *tap, uint64_t timeout_ns)
{
	struct env *env = tap->taps->env;
	uint64_t until = env_now_ns(env) + timeout_ns;
	while (tap->pidfd >= 0) {
		uint64_t now = env_now_ns(env);
		if (now >= until)
			return -ETIMEDOUT;
		/* A descriptor of our own: the watch closes the other. */
		int fd = fcntl(tap->pidfd, F_DUPFD_CLOEXEC, 0);
		if (fd < 0)
			return -errno;
		wait_readable(env, fd, until - now);
		close(fd);
		fiber_sleep(&env->loop, 0);
	}
	return 0;
}

void tap_kill(struct tap *tap)
{
	if (tap->pidfd >= 0)
		pidfd_send_signal(tap->pidfd, SIGKILL, NULL, 0);
}

void taps_close(struct taps *t)
{
	link_for_safe(l, n, &t->list) {
		struct tap *tap = container_of(l, struct tap, link);
		if (tap->pidfd >= 0)
			fd_watch_cancel(t->env, &tap->watch);
		tap->listed = false;
		link_drop(&tap->link);
		free_if_over(tap);
	}
	fiber_sleep(&t->env->loop, 0);
}

/* ---- what tapdisks say of themselves ---- */

/* What the tapdisk says is wrong with its graph, or what state it is in; see tapdisk_trouble.c, tapdisk_condition.c. */
static void read_word(const struct tap *tap, const char *file, char *ret, size_t bytes)
{
	char path[PATHS_MAX], *text;
	size_t length;
	if (!path_in(tap->directory, file, path) || state_file_read(path, bytes - 1, &text, &length) < 0)
		return;
	snprintf(ret, bytes, "%s", text);
	free(text);
}

bool tap_condition(const struct tap *tap, char ret_state[16], char *ret_why, size_t bytes)
{
	char text[256] = "";
	if (tap->phase == TAP_RUNNING)
		read_word(tap, "condition", text, sizeof text);
	size_t n = strcspn(text, " ");
	snprintf(ret_state, 16, "%.*s", (int)n, text);
	snprintf(ret_why, bytes, "%s", text[n] ? text + n + 1 : "");
	return text[0];
}

bool tap_hangs(const struct tap *tap, char *ret_why, size_t bytes)
{
	uint64_t silence_ns = tap->phase == TAP_RUNNING ? state_silence_ns(tap->directory, env_now_ns(tap->taps->env)) : 0;
	if (silence_ns < SILENCE_NS)
		return false;
	int n = snprintf(ret_why, bytes, "has not answered for %llu s: ", (unsigned long long)(silence_ns / NS_PER_S));
	if (process_is_stopped(tap->state.pid))
		snprintf(ret_why + n, bytes - (size_t)n, "its process is stopped (kill -CONT %d has it go on)", (int)tap->state.pid);
	else
		snprintf(ret_why + n, bytes - (size_t)n, "its process hangs (detach --force ends it)");
	return true;
}

/* ---- names ---- */

static struct tap *find_among(struct taps *t, const char *device, bool dead, unsigned *ret_index)
{
	link_for(l, &t->list) {
		struct tap *tap = container_of(l, struct tap, link);
		for (unsigned i = 0; i < tap->state.device_count && (tap->phase == TAP_DIED) == dead; i++) {
			if (strcmp(tap->state.device[i].name, device) && strcmp(tap->state.device[i].device, device))
				continue;
			if (ret_index)
				*ret_index = i;
			return tap;
		}
	}
	return NULL;
}

/* The living first: a dead one's /dev path may be another's by now. */
struct tap *taps_find(struct taps *t, const char *device, unsigned *ret_index)
{
	if (!device[0])
		return NULL;
	struct tap *tap = find_among(t, device, /* dead= */ false, ret_index);
	return tap ? tap : find_among(t, device, /* dead= */ true, ret_index);
}

unsigned taps_device_count(const struct taps *t)
{
	unsigned n = 0;
	link_for(l, &t->list) {
		const struct tap *tap = container_of(l, struct tap, link);
		n += tap->phase == TAP_DIED ? 0 : tap->state.device_count;
	}
	return n;
}

/* The names of the dead are free, those of the living aren't. */
static int take_names(struct taps *t, const struct plan *plan, struct report *report)
{
	for (unsigned i = 0; i < plan->device_count; i++) {
		const char *name = plan->device[i].name;
		struct tap *tap = taps_find(t, name, NULL);
		char state[16], why[256];
		if (tap && tap_hangs(tap, why, sizeof why))
			return report_set(report, -EEXIST, "the name %s is taken by a device that is hung (aquifer list says why; detach --force ends it, or choose another name)", name);
		if (tap && tap->phase != TAP_DIED && tap_condition(tap, state, why, sizeof why))
			return report_set(report, -EEXIST, "the name %s is taken by a device that is %s, %s (detach it first, or choose another name)", name, state, why);
		if (tap && tap->phase != TAP_DIED)
			return report_set(report, -EEXIST, "the name %s is taken by a device that is %s (detach it first, or choose another name)",
					  name, phase_names[tap->phase]);
	}
	for (unsigned i = 0; i < plan->device_count; i++) {
		unsigned index;
		struct tap *tap;
		while ((tap = taps_find(t, plan->device[i].name, &index)))
			tap_forget_device(tap, index);
	}
	return 0;
}

static bool directory_used(struct taps *t, const char *directory)
{
	link_for(l, &t->list)
		if (!strcmp(container_of(l, struct tap, link)->directory, directory))
			return true;
	return false;
}

/* tapdisks/NAME, or NAME~2 … while a tapdisk that once began with that name serves others of its devices. */
static int take_directory(struct taps *t, const char *name, char ret[PATHS_MAX], struct report *report)
{
	for (unsigned i = 1; i <= TAPS_DEVICES_MAX + 1; i++) {
		char suffix[16] = "";
		if (i > 1)
			snprintf(suffix, sizeof suffix, "~%u", i);
		if ((size_t)snprintf(ret, PATHS_MAX, "%s/%s%s", t->directory, name, suffix) >= PATHS_MAX)
			return report_set(report, -ENAMETOOLONG, "the run directory's path is too long");
		if (directory_used(t, ret))
			continue;
		if (state_locked(ret))
			return report_set(report, -EBUSY, "a tapdisk named %s is just starting or ending (try again)", name);
		remove_directory(ret);
		if (mkdir(ret, 0700) < 0)
			return report_path(report, -errno, "make the directory", ret);
		return 0;
	}
	return -EEXIST;
}

int taps_reserve(struct taps *t, const struct plan *plan, struct tap **ret_tap, struct report *report)
{
	char directory[PATHS_MAX];
	int r = take_names(t, plan, report);
	if (r < 0)
		return r;
	if (taps_device_count(t) + plan->device_count > TAPS_DEVICES_MAX)
		return report_set(report, -EMFILE, "%d devices are the limit of one host (detach some)", TAPS_DEVICES_MAX);
	if ((r = take_directory(t, plan->device[0].name, directory, report)) < 0)
		return r;
	struct tap *tap = tap_new(t, directory);
	if (!tap)
		return -ENOMEM;
	snprintf(tap->state.name, sizeof tap->state.name, "%s", plan->device[0].name);
	tap->state.device_count = plan->device_count;
	for (unsigned i = 0; i < plan->device_count; i++) {
		struct tap_device *d = &tap->state.device[i];
		snprintf(d->name, sizeof d->name, "%s", plan->device[i].name);
		snprintf(d->export, sizeof d->export, "%s", plan->device[i].export->name);
	}
	*ret_tap = tap;
	return 0;
}

/* ---- after the agent was away ---- */

/* One that was started by somebody before us, as its status says, whose graph is taken over. */
static struct tap *tap_found(struct taps *t, const char *directory, enum tap_phase phase, struct tap_state *s)
{
	struct tap *tap = tap_new(t, directory);
	if (!tap)
		return NULL;
	tap->users = 0;
	tap->phase = phase;
	tap->state = *s;
	s->graph = NULL;
	return tap;
}

/* The process of a held lock; its status names it, the lock and the start time prove it. */
static int adopt(struct taps *t, const char *directory, struct tap_state *s, struct report *report)
{
	uint64_t start;
	struct tap *tap = tap_found(t, directory, TAP_RUNNING, s);
	if (!tap)
		return -ENOMEM;
	int r = tap_watch(tap, tap->state.pid);
	if (r == 0 && (process_start_ticks(tap->state.pid, &start) < 0 || start != tap->state.start_ticks))
		r = -ESRCH;
	if (r == 0)
		return 0;
	/* Locked, but not by that process: nothing to watch, and nothing to touch. */
	tap->listed = false;
	link_drop(&tap->link);
	if (tap->pidfd >= 0)
		fd_watch_cancel(t->env, &tap->watch);
	else
		free_if_over(tap);
	return report_set(report, r, "%s: its lock is held, but not by process %d", directory, (int)s->pid);
}

static int show_dead(struct taps *t, const char *directory, struct tap_state *s)
{
	char path[PATHS_MAX], *text = NULL;
	size_t length;
	struct tap *tap = tap_found(t, directory, TAP_DIED, s);
	if (!tap)
		return -ENOMEM;
	if (path_in(directory, "died", path))
		state_file_read(path, sizeof tap->died - 1, &text, &length);
	snprintf(tap->died, sizeof tap->died, "%s", text ? text : "while no agent was watching");
	free(text);
	return 0;
}

/* Of an earlier boot, or with a status that makes no sense. */
static void remove_remains(struct taps *t, const char *directory, const struct tap_state *s)
{
	for (unsigned i = 0; i < s->device_count; i++)
		clean_export(t, &s->device[i]);
	remove_directory(directory);
}

static void scan_one(struct taps *t, const char *name)
{
	char directory[PATHS_MAX];
	struct report why = { 0 };
	struct tap_state s = { 0 };
	if ((size_t)snprintf(directory, sizeof directory, "%s/%s", t->directory, name) >= sizeof directory)
		return;
	bool live = state_locked(directory);
	int r = read_status(directory, &s, &why);
	bool ours = r == 0 && !strcmp(s.boot_id, t->boot_id);
	if (live && ours)
		adopt(t, directory, &s, &why);
	else if (live)
		report_set(&why, r, "%s: a tapdisk that is not ready (it ends by itself)", name);
	else if (ours)
		show_dead(t, directory, &s);
	else
		remove_remains(t, directory, &s);
	if (why.text[0])
		log_line("%s", why.text);
	tap_state_free(&s);
}

int taps_scan(struct taps *t, struct report *report)
{
	DIR *d = opendir(t->directory);
	if (!d)
		return report_path(report, -errno, "open the directory", t->directory);
	for (struct dirent *e; (e = readdir(d));)
		if (e->d_name[0] != '.')
			scan_one(t, e->d_name);
	closedir(d);
	return 0;
}

/* ---- for people ---- */

json_t *tap_device_json(const struct tap *tap, unsigned index)
{
	const struct tap_device *d = &tap->state.device[index];
	json_t *j = json_pack("{s:s, s:s, s:s, s:s, s:s, s:i}", "name", d->name, "device", d->device, "export", d->export, "graph",
			      tap->state.graph ? tap->state.graph : "", "state", phase_names[tap->phase], "pid",
			      (int)tap->state.pid);
	char trouble[256] = "", state[16];
	if (tap_hangs(tap, trouble, sizeof trouble))
		json_object_set_new(j, "state", json_string("hung"));
	else if (tap_condition(tap, state, trouble, sizeof trouble))
		json_object_set_new(j, "state", json_string(state));
	else if (tap->phase == TAP_RUNNING || tap->phase == TAP_STOPPING)
		read_word(tap, "trouble", trouble, sizeof trouble);
	if (tap->phase == TAP_DIED || trouble[0])
		json_object_set_new(j, "reason", json_string(tap->phase == TAP_DIED ? tap->died : trouble));
	return j;
}
