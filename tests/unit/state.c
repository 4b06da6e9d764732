/* The status files of tapdisks: they come from a directory where anything may lie. */
#include "agent/daemon/state.h"

#include <criterion/criterion.h>
#include <errno.h>
#include <signal.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/wait.h>
#include <unistd.h>

#include "core/env.h"
#include "parallax/volume/places.h"

static const struct tap_state example = {
	.pid = 812, .start_ticks = 99, .boot_id = "0b8ef6c4-1ab4-4e6b-8a0f-6f2f6b3b9d57", .name = "web1", .read_only = true,
	.graph = (char *)(uintptr_t)"cow(\"/a b\", ro(raw(/c)))", .device_count = 2,
	.device = { { "web1", "loop", "/dev/loop3", "cow-1" }, { "web2", "nbd", "nbd+unix:///web2?socket=/s", "x" } },
};

Test(state, round_trip)
{
	struct tap_state s;
	char *text = tap_state_encode(&example);
	cr_assert(text);
	cr_assert_eq(tap_state_decode(text, strlen(text), &s, NULL), 0);
	cr_assert_eq(s.pid, 812);
	cr_assert_eq(s.start_ticks, 99u);
	cr_assert(s.read_only);
	cr_assert_str_eq(s.boot_id, example.boot_id);
	cr_assert_str_eq(s.name, "web1");
	cr_assert_str_eq(s.graph, example.graph);
	cr_assert_eq(s.device_count, 2u);
	cr_assert_eq(memcmp(&s.device[1], &example.device[1], sizeof s.device[1]), 0);
	tap_state_free(&s);
	free(text);
}

/* Every prefix and every changed byte is refused or makes sense, never anything else. */
Test(state, damage_is_noticed_or_harmless)
{
	char *text = tap_state_encode(&example);
	size_t n = strlen(text);
	for (size_t i = 0; i < n; i++) {
		struct tap_state s;
		struct report report = { 0 };
		cr_assert_eq(tap_state_decode(text, i, &s, &report), -EBADMSG);
		cr_assert(report.text[0]);
		char old = text[i];
		text[i] ^= 0x15;
		if (tap_state_decode(text, n, &s, NULL) == 0) {
			cr_assert_gt(s.pid, 0);
			cr_assert_leq(s.device_count, (unsigned)STATE_DEVICES_MAX);
			cr_assert_lt(strnlen(s.name, sizeof s.name), sizeof s.name);
			tap_state_free(&s);
		}
		text[i] = old;
	}
	free(text);
}

Test(state, limits)
{
	static const char *const bad[] = {
		"", "[]", "{}", "null", "{\"pid\":0}",
		"{\"pid\":-5,\"start\":1,\"boot\":\"b\",\"name\":\"n\",\"graph\":\"g\",\"devices\":[]}",
		"{\"pid\":99999999999,\"start\":1,\"boot\":\"b\",\"name\":\"n\",\"graph\":\"g\",\"devices\":[]}",
		"{\"pid\":5,\"start\":1,\"boot\":\"b\",\"name\":\"../n\",\"graph\":\"g\",\"devices\":[]}",
		"{\"pid\":5,\"start\":1,\"boot\":\"b\",\"name\":\"n\",\"graph\":\"g\",\"devices\":[{\"name\":\"/\"}]}",
		"{\"pid\":5,\"start\":1,\"boot\":\"0123456789012345678901234567890123456789\",\"name\":\"n\",\"graph\":\"g\",\"devices\":[]}",
	};
	struct tap_state s;
	for (size_t i = 0; i < sizeof bad / sizeof *bad; i++)
		cr_assert_eq(tap_state_decode(bad[i], strlen(bad[i]), &s, NULL), -EBADMSG, "case %zu", i);
}

Test(state, files_are_replaced_as_a_whole)
{
	char dir[] = "/tmp/aquifer-unit-XXXXXX", path[64], *text;
	size_t length;
	cr_assert(mkdtemp(dir));
	snprintf(path, sizeof path, "%s/status", dir);
	cr_assert_eq(state_file_read(path, 100, &text, &length), -ENOENT);
	cr_assert_eq(state_file_write(path, "hello", 5), 0);
	cr_assert_eq(state_file_write(path, "hello world", 11), 0);
	cr_assert_eq(state_file_read(path, 11, &text, &length), 0);
	cr_assert_str_eq(text, "hello world");
	cr_assert_eq(length, 11u);
	free(text);
	cr_assert_eq(state_file_read(path, 10, &text, &length), -EFBIG);
	unlink(path);
	cr_assert_eq(rmdir(dir), 0);
}

Test(state, locks_die_with_their_process)
{
	char dir[] = "/tmp/aquifer-unit-XXXXXX", path[64];
	struct report report = { 0 };
	int fd;
	cr_assert(mkdtemp(dir));
	cr_assert_not(state_locked(dir));
	pid_t child = fork();
	if (child == 0) {
		if (state_lock(dir, &fd, NULL) < 0)
			_exit(1);
		pause();
	}
	while (!state_locked(dir))
		usleep(1000);
	cr_assert_eq(state_lock(dir, &fd, &report), -EBUSY);
	cr_assert(strstr(report.text, "holds"));
	kill(child, SIGKILL);
	waitpid(child, NULL, 0);
	cr_assert_not(state_locked(dir));
	cr_assert_eq(state_lock(dir, &fd, NULL), 0);
	cr_assert(state_locked(dir));
	close(fd);
	cr_assert_not(state_locked(dir));
	snprintf(path, sizeof path, "%s/lock", dir);
	unlink(path);
	rmdir(dir);
}

Test(state, start_times_tell_processes_apart)
{
	uint64_t own, init;
	cr_assert_eq(process_start_ticks(getpid(), &own), 0);
	cr_assert_eq(process_start_ticks(1, &init), 0);
	cr_assert_geq(own, init);
	cr_assert_eq(process_start_ticks(0x3ffffff, &own), -ESRCH);
}

Test(state, the_killed_are_known_before_they_are_gone)
{
	cr_assert_not(process_is_ending(getpid()));
	pid_t child = fork();
	if (child == 0)
		for (;;)
			pause();
	cr_assert_not(process_is_ending(child));
	kill(child, SIGKILL);
	cr_assert(process_is_ending(child)); /* the signal is pending, or it is a zombie */
	waitpid(child, NULL, 0);
	cr_assert(process_is_ending(child));
}

Test(state, silence_is_told_without_asking)
{
	char dir[] = "/tmp/aquifer-state-XXXXXX", path[64];
	int fd;
	cr_assert(mkdtemp(dir));
	cr_assert_eq(state_silence_ns(dir, 100 * NS_PER_S), 0, "nobody");
	cr_assert_eq(state_lock(dir, &fd, NULL), 0);
	cr_assert_eq(state_silence_ns(dir, 100 * NS_PER_S), 0, "of an older version, or one that has just begun");
	state_beat(fd, 93 * NS_PER_S + 7);
	cr_assert_eq(state_silence_ns(dir, 100 * NS_PER_S + 8), 7 * NS_PER_S + 1);
	cr_assert_eq(state_silence_ns(dir, 93 * NS_PER_S), 0);
	close(fd);
	snprintf(path, sizeof path, "%s/lock", dir);
	unlink(path);
	rmdir(dir);
}
