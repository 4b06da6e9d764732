/* A data directory was copied, and both are started at the same moment, as two machines are when the power is back: one is the server. */
#include <criterion/criterion.h>
#include <errno.h>
#include <string.h>

#include "core/bytes.h"
#include "core/fiber.h"
#include "tests/unit/copytest.h"

struct start {
	struct world *w;
	const char *path, *address;
	struct segment_server *server;
	struct report report;
	struct job done;
};

static int start(void *arg)
{
	struct start *s = arg;
	struct segment_dir_options o = { .create = true, .address = s->address };
	return segment_dir_open(s->w->env, s->path, s->w->catalog, &o, &s->server, &s->report);
}

static void copy_identity(struct world *w)
{
	struct file *f;
	size_t done = 0;
	cr_assert_eq(file_open(w->env, "/a/server", 0, &f), 0);
	cr_assert_eq(file_read_wait(f, w->page, BLOCK_BYTES, 0, &done), 0);
	file_close(w->env, f);
	cr_assert_eq(env_mkdir(w->env, "/b"), 0);
	cr_assert_eq(env_mkdir(w->env, "/b/segments"), 0);
	cr_assert_eq(env_mkdir(w->env, "/b/recycle"), 0);
	cr_assert_eq(file_open(w->env, "/b/server", FILE_OPEN_WRITE | FILE_OPEN_CREATE, &f), 0);
	cr_assert_eq(file_write_wait(f, w->page, BLOCK_BYTES, 0), 0);
	file_close(w->env, f);
}

static int body_together(void *arg)
{
	struct world *w = arg;
	struct start s[2] = { { .w = w, .path = "/a", .address = "tcp:h:7001" }, { .w = w, .path = "/b", .address = "tcp:h:7002" } };
	int r[2];
	cr_assert_eq(start(&s[0]), 0, "%s", s[0].report.text);
	cr_assert_eq(segment_server_close(s[0].server), 0);
	copy_identity(w);
	for (unsigned round = 0; round < 20; round++) {
		for (unsigned i = 0; i < 2; i++) {
			job_init(&s[i].done, &w->env->loop);
			job_hold(&s[i].done);
			cr_assert_eq(fiber_start(&w->env->loop, start, &s[i], &s[i].done), 0);
		}
		for (unsigned i = 0; i < 2; i++)
			r[i] = fiber_wait(&s[i].done);
		cr_expect(r[0] < 0 || r[1] < 0 || s[0].server->incarnation != s[1].server->incarnation, "both are the server");
		cr_expect(r[0] == 0 || r[1] == 0, "%s; %s", s[0].report.text, s[1].report.text);
		for (unsigned i = 0; i < 2; i++) {
			cr_expect(r[i] == 0 || strstr(s[i].report.text, "was started elsewhere"), "%s", s[i].report.text);
			if (r[i] == 0)
				cr_assert_eq(segment_server_close(s[i].server), 0);
		}
	}
	return 0;
}

Test(segment_dir_copied, of_two_that_start_together_one_is_the_server) { copytest_run(body_together); }
