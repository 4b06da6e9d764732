#include "agent/daemon/state.h"

#include <errno.h>
#include <fcntl.h>
#include <jansson.h>
#include <signal.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/stat.h>
#include <time.h>
#include <unistd.h>

#include "agent/daemon/paths.h"
#include "core/env.h"
#include "core/option.h"

void tap_state_free(struct tap_state *s)
{
	free(s->graph);
	s->graph = NULL;
}

char *tap_state_encode(const struct tap_state *s)
{
	json_t *devices = json_array();
	for (unsigned i = 0; i < s->device_count; i++) {
		const struct tap_device *d = &s->device[i];
		json_array_append_new(devices, json_pack("{s:s, s:s, s:s, s:s}", "name", d->name, "export", d->export,
							 "device", d->device, "node", d->node));
	}
	json_t *j = json_pack("{s:i, s:I, s:s, s:s, s:b, s:s, s:o}", "pid", (int)s->pid, "start", (json_int_t)s->start_ticks,
			      "boot", s->boot_id, "name", s->name, "read_only", s->read_only, "graph",
			      s->graph ? s->graph : "", "devices", devices);
	char *text = j ? json_dumps(j, JSON_INDENT(2)) : NULL;
	json_decref(j);
	return text;
}

/* A string that fits, or NULL → -EBADMSG. */
static int take(const json_t *from, const char *key, char *to, size_t room)
{
	const char *v = json_string_value(json_object_get(from, key));
	if (!v || strlen(v) >= room)
		return -EBADMSG;
	strcpy(to, v);
	return 0;
}

static int decode_device(const json_t *j, struct tap_device *d)
{
	if (take(j, "name", d->name, sizeof d->name) || take(j, "export", d->export, sizeof d->export) ||
	    take(j, "device", d->device, sizeof d->device) || take(j, "node", d->node, sizeof d->node))
		return -EBADMSG;
	return name_valid(d->name) ? 0 : -EBADMSG;
}

static int decode(const json_t *j, struct tap_state *s)
{
	json_int_t pid = json_integer_value(json_object_get(j, "pid"));
	json_int_t start = json_integer_value(json_object_get(j, "start"));
	const json_t *devices = json_object_get(j, "devices");
	const char *graph = json_string_value(json_object_get(j, "graph"));
	if (pid < 1 || pid > INT32_MAX || start < 0 || !graph || strlen(graph) > STATE_GRAPH_MAX || !json_is_array(devices) ||
	    json_array_size(devices) > STATE_DEVICES_MAX)
		return -EBADMSG;
	s->pid = (pid_t)pid;
	s->start_ticks = (uint64_t)start;
	s->read_only = json_is_true(json_object_get(j, "read_only"));
	if (take(j, "boot", s->boot_id, sizeof s->boot_id) || take(j, "name", s->name, sizeof s->name) || !name_valid(s->name))
		return -EBADMSG;
	s->device_count = (unsigned)json_array_size(devices);
	for (unsigned i = 0; i < s->device_count; i++)
		if (decode_device(json_array_get(devices, i), &s->device[i]))
			return -EBADMSG;
	s->graph = strdup(graph);
	return s->graph ? 0 : -ENOMEM;
}

int tap_state_decode(const char *text, size_t length, struct tap_state *ret_state, struct report *report)
{
	json_error_t e;
	json_t *j = json_loadb(text, length, 0, &e);
	if (!j)
		return report_set(report, -EBADMSG, "status file: line %d: %s", e.line, e.text);
	struct tap_state s = { 0 };
	int r = decode(j, &s);
	json_decref(j);
	if (r < 0)
		return report_set(report, r, "status file: a field is missing or wrong");
	*ret_state = s;
	return 0;
}

int state_file_read(const char *path, size_t max, char **ret_text, size_t *ret_length)
{
	int fd = open(path, O_RDONLY | O_CLOEXEC | O_NOFOLLOW);
	if (fd < 0)
		return -errno;
	char *text = malloc(max + 2);
	size_t n = 0;
	ssize_t r = text ? 1 : -1;
	while (r > 0 && n <= max) {
		r = read(fd, text + n, max + 1 - n);
		n += r > 0 ? (size_t)r : 0;
	}
	int status = r < 0 ? -errno : n > max ? -EFBIG : 0;
	close(fd);
	if (status < 0) {
		free(text);
		return status;
	}
	text[n] = 0;
	*ret_text = text;
	*ret_length = n;
	return 0;
}

int state_file_write(const char *path, const char *text, size_t length)
{
	char part[PATHS_MAX];
	if ((size_t)snprintf(part, sizeof part, "%s.new", path) >= sizeof part)
		return -ENAMETOOLONG;
	int fd = open(part, O_WRONLY | O_CREAT | O_TRUNC | O_CLOEXEC | O_NOFOLLOW, 0600);
	if (fd < 0)
		return -errno;
	ssize_t n = write(fd, text, length);
	int r = n < 0 ? -errno : (size_t)n < length ? -ENOSPC : 0;
	if (close(fd) < 0 && r == 0)
		r = -errno;
	if (r == 0 && rename(part, path) < 0)
		r = -errno;
	if (r < 0)
		unlink(part);
	return r;
}

void state_beat(int lock_fd, uint64_t now_ns)
{
	struct timespec t = { .tv_sec = (time_t)(now_ns / NS_PER_S), .tv_nsec = (long)(now_ns % NS_PER_S) };
	futimens(lock_fd, (const struct timespec[]){ t, t }); /* if not, it only isn't known */
}

uint64_t state_silence_ns(const char *directory, uint64_t now_ns)
{
	char path[PATHS_MAX];
	struct stat st;
	if ((size_t)snprintf(path, sizeof path, "%s/lock", directory) >= sizeof path || stat(path, &st) < 0 || st.st_mtim.tv_sec < 0)
		return 0;
	uint64_t beat_ns = (uint64_t)st.st_mtim.tv_sec * NS_PER_S + (uint64_t)st.st_mtim.tv_nsec;
	return beat_ns < now_ns ? now_ns - beat_ns : 0; /* a date of today is far ahead */
}

bool process_is_stopped(pid_t pid)
{
	char path[64], *text;
	size_t length;
	snprintf(path, sizeof path, "/proc/%d/status", (int)pid);
	if (state_file_read(path, 8192, &text, &length) < 0)
		return false;
	const char *state = strstr(text, "\nState:\t");
	bool stopped = state && (state[8] == 'T' || state[8] == 't');
	free(text);
	return stopped;
}

bool process_is_ending(pid_t pid)
{
	char path[64], *text;
	size_t length;
	snprintf(path, sizeof path, "/proc/%d/status", (int)pid);
	if (state_file_read(path, 8192, &text, &length) < 0)
		return true;
	const char *state = strstr(text, "\nState:\t");
	bool ending = state && (state[8] == 'Z' || state[8] == 'X');
	static const char *const pending[] = { "\nSigPnd:\t", "\nShdPnd:\t" };
	for (size_t i = 0; i < sizeof pending / sizeof *pending; i++) {
		const char *p = strstr(text, pending[i]);
		ending |= p && strtoull(p + 9, NULL, 16) >> (SIGKILL - 1) & 1;
	}
	free(text);
	return ending;
}

static int open_lock(const char *path, int flags)
{
	int fd = open(path, O_RDWR | O_CLOEXEC | O_NOFOLLOW | flags, 0600);
	return fd < 0 ? -errno : fd;
}

int state_lock_file(const char *path, int *ret_fd, struct report *report)
{
	int fd = open_lock(path, O_CREAT);
	if (fd < 0)
		return report_set(report, fd, "%s: %s", path, strerror(-fd));
	struct flock lock = { .l_type = F_WRLCK, .l_whence = SEEK_SET };
	if (fcntl(fd, F_OFD_SETLK, &lock) < 0) {
		int r = errno == EAGAIN || errno == EACCES ? -EBUSY : -errno;
		close(fd);
		return report_set(report, r, "%s: %s", path, r == -EBUSY ? "another process holds it" : strerror(-r));
	}
	*ret_fd = fd;
	return 0;
}

int state_lock(const char *directory, int *ret_fd, struct report *report)
{
	char path[PATHS_MAX];
	if ((size_t)snprintf(path, sizeof path, "%s/lock", directory) >= sizeof path)
		return -ENAMETOOLONG;
	return state_lock_file(path, ret_fd, report);
}

bool state_file_locked(const char *path)
{
	int fd = open_lock(path, 0);
	if (fd < 0)
		return false;
	/* Asks without taking: a tapdisk that starts just now must not find it taken by the question. */
	struct flock lock = { .l_type = F_WRLCK, .l_whence = SEEK_SET };
	bool held = fcntl(fd, F_OFD_GETLK, &lock) == 0 && lock.l_type != F_UNLCK;
	close(fd);
	return held;
}

bool state_locked(const char *directory)
{
	char path[PATHS_MAX];
	return (size_t)snprintf(path, sizeof path, "%s/lock", directory) < sizeof path && state_file_locked(path);
}
