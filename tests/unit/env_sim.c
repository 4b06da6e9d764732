/* The simulated world itself: virtual time, durability, faults, and that a seed is a run. */
#include <criterion/criterion.h>
#include <errno.h>
#include <stdlib.h>
#include <string.h>

#include "core/bytes.h"
#include "core/env_sim.h"
#include "core/fiber.h"

#define SECTORS 16
#define FILE_BYTES (SECTORS * 512)

struct world {
	struct sim *sim;
	struct sim_host *host;
	struct env *env;
	struct file *file;
	uint8_t *buffer;
	int result;
};

static struct world world_make(uint64_t seed)
{
	struct world w = { .sim = sim_create(seed, NULL) };
	w.host = sim_host_create(w.sim, "h1", 1 << 20, 512);
	w.env = sim_process_create(w.sim, w.host);
	w.buffer = env_alloc_aligned(FILE_BYTES);
	return w;
}

static void world_free(struct world *w)
{
	sim_process_destroy(w->env);
	sim_destroy(w->sim);
	free(w->buffer);
}

/* ---- time ---- */

static int sleeps(void *arg)
{
	struct world *w = arg;
	uint64_t before = env_now_ns(w->env);
	cr_assert_eq(fiber_sleep(&w->env->loop, 5 * NS_PER_S), 0);
	cr_assert_geq(env_now_ns(w->env), before + 5 * NS_PER_S);
	return 7;
}

Test(env_sim, time_is_virtual)
{
	struct world w = world_make(1);
	cr_assert_eq(sim_run_fiber(w.env, sleeps, &w), 7);
	cr_assert_not(sim_step(w.sim));
	world_free(&w);
}

static int cancelled(void *arg)
{
	struct world *w = arg;
	struct timer t;
	struct job j;
	timer_init(&t);
	job_init(&j, &w->env->loop);
	timer_start(w->env, &t, NS_PER_S, &j);
	cr_assert(timer_running(&t));
	timer_cancel(w->env, &t);
	cr_assert_not(timer_running(&t));
	timer_cancel(w->env, &t);
	return fiber_wait(&j);
}

Test(env_sim, a_cancelled_timer_ends_at_once)
{
	struct world w = world_make(1);
	cr_assert_eq(sim_run_fiber(w.env, cancelled, &w), -ECANCELED);
	cr_assert_eq(sim_now_ns(w.sim), 0);
	world_free(&w);
}

/* ---- durability ---- */

static int file_made(void *arg) /* a durable file of 0xaa */
{
	struct world *w = arg;
	cr_assert_eq(env_mkdir(w->env, "/d"), 0);
	cr_assert_eq(env_sync_dir(w->env, "/"), 0);
	cr_assert_eq(file_open(w->env, "/d/f", FILE_OPEN_WRITE | FILE_OPEN_CREATE | FILE_OPEN_NEW | FILE_OPEN_DIRECT, &w->file), 0);
	cr_assert_eq(env_sync_dir(w->env, "/d"), 0);
	memset(w->buffer, 0xaa, FILE_BYTES);
	cr_assert_eq(file_write_wait(w->file, w->buffer, FILE_BYTES, 0), 0);
	return file_sync_wait(w->file);
}

static int file_rewritten(void *arg)
{
	struct world *w = arg;
	memset(w->buffer, 0xbb, FILE_BYTES);
	return file_write_wait(w->file, w->buffer, FILE_BYTES, 0);
}

static int file_closed(void *arg)
{
	struct world *w = arg;
	return file_close(w->env, w->file);
}

static void process_replaced(struct world *w)
{
	sim_drain_dead(w->env);
	sim_run_fiber(w->env, file_closed, w);
	sim_process_destroy(w->env);
	w->env = sim_process_create(w->sim, w->host);
}

/* Counts sectors of the file that are wholly 0xbb; everything else must be wholly 0xaa. */
static unsigned new_sectors(struct world *w)
{
	unsigned count = 0;
	cr_assert_eq(sim_disk_read(w->host, "/d/f", 0, w->buffer, FILE_BYTES), 0);
	for (unsigned i = 0; i < SECTORS; i++) {
		uint8_t first = w->buffer[i * 512];
		cr_assert(first == 0xaa || first == 0xbb);
		for (unsigned k = 0; k < 512; k++)
			cr_assert_eq(w->buffer[i * 512 + k], first);
		count += first == 0xbb;
	}
	return count;
}

Test(env_sim, power_loss_keeps_what_was_synced_and_any_part_of_the_rest)
{
	unsigned none = 0, all = 0, torn = 0;
	for (uint64_t seed = 1; seed <= 100; seed++) {
		struct world w = world_make(seed);
		char before[37], after[37];
		env_boot_id(w.env, before);
		cr_assert_eq(sim_run_fiber(w.env, file_made, &w), 0);
		cr_assert_eq(sim_run_fiber(w.env, file_rewritten, &w), 0);
		sim_power_loss(w.host);
		unsigned n = new_sectors(&w);
		none += n == 0;
		all += n == SECTORS;
		torn += n > 0 && n < SECTORS;
		process_replaced(&w);
		env_boot_id(w.env, after);
		cr_assert_str_neq(before, after);
		world_free(&w);
	}
	cr_assert(none && all && torn, "none %u all %u torn %u", none, all, torn);
}

Test(env_sim, a_kill_keeps_what_had_completed)
{
	for (uint64_t seed = 1; seed <= 30; seed++) {
		struct world w = world_make(seed);
		cr_assert_eq(sim_run_fiber(w.env, file_made, &w), 0);
		cr_assert_eq(sim_run_fiber(w.env, file_rewritten, &w), 0);
		sim_kill(w.env);
		cr_assert_eq(new_sectors(&w), SECTORS);
		process_replaced(&w);
		world_free(&w);
	}
}

struct write_ended {
	struct job job;
	struct file_io io;
	struct iovec vec;
	bool ended;
};

static void write_ended(struct job *j)
{
	struct write_ended *e = container_of(j, struct write_ended, job);
	e->ended = true;
}

Test(env_sim, a_write_under_way_at_a_kill_happens_or_not_or_tears)
{
	unsigned none = 0, all = 0, torn = 0;
	for (uint64_t seed = 1; seed <= 100; seed++) {
		struct world w = world_make(seed);
		cr_assert_eq(sim_run_fiber(w.env, file_made, &w), 0);
		memset(w.buffer, 0xbb, FILE_BYTES);
		struct write_ended e = { .vec = { w.buffer, FILE_BYTES } };
		e.io = (struct file_io){ .op = FILE_WRITE, .length = FILE_BYTES, .iov = &e.vec, .iov_count = 1 };
		job_init(&e.job, &w.env->loop);
		file_submit(w.file, &e.io, &e.job);
		job_then(&e.job, write_ended);
		sim_kill(w.env);
		sim_drain_dead(w.env);
		cr_assert(e.ended);
		cr_assert_eq(e.io.status, -ESHUTDOWN);
		unsigned n = new_sectors(&w);
		none += n == 0;
		all += n == SECTORS;
		torn += n > 0 && n < SECTORS;
		process_replaced(&w);
		world_free(&w);
	}
	cr_assert(none && all && torn, "none %u all %u torn %u", none, all, torn);
}

static int sync_fails_once(void *arg)
{
	struct world *w = arg;
	sim_doses(w->sim)->sync_error = 1000000;
	cr_assert_eq(file_sync_wait(w->file), -EIO);
	sim_doses(w->sim)->sync_error = 0;
	return file_sync_wait(w->file);
}

Test(env_sim, a_failed_sync_is_reported_once_and_its_data_may_be_lost)
{
	unsigned lost = 0;
	for (uint64_t seed = 1; seed <= 40; seed++) {
		struct world w = world_make(seed);
		cr_assert_eq(sim_run_fiber(w.env, file_made, &w), 0);
		cr_assert_eq(sim_run_fiber(w.env, file_rewritten, &w), 0);
		cr_assert_eq(sim_run_fiber(w.env, sync_fails_once, &w), 0);
		sim_power_loss(w.host);
		lost += new_sectors(&w) < SECTORS;
		process_replaced(&w);
		world_free(&w);
	}
	cr_assert_gt(lost, 10);
}

static int names_changed(void *arg)
{
	struct world *w = arg;
	struct file *f;
	cr_assert_eq(file_open(w->env, "/d/g", FILE_OPEN_WRITE | FILE_OPEN_CREATE, &f), 0);
	file_close(w->env, f);
	return env_rename(w->env, "/d/g", "/d/h");
}

static bool exists(struct world *w, const char *path)
{
	return sim_disk_read(w->host, path, 0, w->buffer, 0) == 0;
}

Test(env_sim, names_are_kept_or_not_until_the_directory_is_synced)
{
	unsigned kept = 0;
	for (uint64_t seed = 1; seed <= 60; seed++) {
		struct world w = world_make(seed);
		cr_assert_eq(sim_run_fiber(w.env, file_made, &w), 0);
		cr_assert_eq(sim_run_fiber(w.env, names_changed, &w), 0);
		cr_assert(exists(&w, "/d/h") && !exists(&w, "/d/g"));
		sim_power_loss(w.host);
		cr_assert(exists(&w, "/d/f"));
		cr_assert_not(exists(&w, "/d/g") && exists(&w, "/d/h"));
		kept += exists(&w, "/d/h");
		process_replaced(&w);
		world_free(&w);
	}
	cr_assert(kept > 5 && kept < 55, "%u", kept);
}

/* ---- limits and locks ---- */

static int disk_filled(void *arg)
{
	struct world *w = arg;
	int r = file_made(w);
	for (uint64_t at = 0; r == 0 && at < 4 << 20; at += FILE_BYTES)
		r = file_write_wait(w->file, w->buffer, FILE_BYTES, at);
	struct file_io io = { .op = FILE_DISCARD, .length = 1 << 20 };
	struct job j;
	job_init(&j, &w->env->loop);
	file_submit(w->file, &io, &j);
	cr_assert_eq(fiber_wait(&j), 0);
	cr_assert_eq(file_write_wait(w->file, w->buffer, FILE_BYTES, 0), 0);
	file_close(w->env, w->file);
	return r;
}

Test(env_sim, a_full_disk_says_so_and_discarding_helps)
{
	struct world w = world_make(3);
	cr_assert_eq(sim_run_fiber(w.env, disk_filled, &w), -ENOSPC);
	cr_assert_eq(sim_disk_used(w.host), FILE_BYTES);
	world_free(&w);
}

static int misaligned(void *arg)
{
	struct world *w = arg;
	cr_assert_eq(file_made(w), 0);
	cr_assert_eq(file_write_wait(w->file, w->buffer, 512, 100), -EINVAL);
	cr_assert_eq(file_write_wait(w->file, w->buffer + 8, 512, 0), -EINVAL);
	return file_close(w->env, w->file);
}

Test(env_sim, direct_io_must_be_aligned)
{
	struct world w = world_make(3);
	cr_assert_eq(sim_run_fiber(w.env, misaligned, &w), 0);
	world_free(&w);
}

static int locked(void *arg)
{
	struct world *w = arg;
	int r = file_open(w->env, "/lock", FILE_OPEN_WRITE | FILE_OPEN_CREATE, &w->file);
	return r < 0 ? r : file_lock(w->file, true);
}

Test(env_sim, a_lock_lives_as_long_as_its_process)
{
	struct world w = world_make(5), second = w;
	second.env = sim_process_create(w.sim, w.host);
	cr_assert_eq(sim_run_fiber(w.env, locked, &w), 0);
	cr_assert_eq(sim_run_fiber(second.env, locked, &second), -EAGAIN);
	sim_run_fiber(second.env, file_closed, &second);
	sim_kill(w.env);
	cr_assert_eq(sim_run_fiber(second.env, locked, &second), 0);
	cr_assert_eq(sim_run_fiber(w.env, file_closed, &w), -ESHUTDOWN);
	sim_run_fiber(second.env, file_closed, &second);
	sim_process_destroy(second.env);
	world_free(&w);
}

/* ---- processes ---- */

static int counts(void *arg)
{
	struct world *w = arg;
	for (w->result = 0; w->result < 100; w->result++)
		fiber_sleep(&w->env->loop, NS_PER_MS);
	return 0;
}

Test(env_sim, a_paused_process_does_nothing_until_resumed)
{
	struct world w = world_make(9);
	fiber_start(&w.env->loop, counts, &w, NULL);
	while (w.result < 10)
		cr_assert(sim_step(w.sim));
	sim_pause(w.env);
	while (sim_step(w.sim))
		;
	cr_assert_eq(w.result, 10);
	sim_resume(w.env);
	while (sim_step(w.sim))
		;
	cr_assert_eq(w.result, 100);
	world_free(&w);
}

static int dead_calls(void *arg)
{
	struct world *w = arg;
	struct file *f;
	struct stream *s;
	cr_assert_eq(fiber_sleep(&w->env->loop, 1), -ESHUTDOWN);
	cr_assert_eq(file_open(w->env, "/x", FILE_OPEN_WRITE | FILE_OPEN_CREATE, &f), -ESHUTDOWN);
	cr_assert_eq(env_mkdir(w->env, "/x"), -ESHUTDOWN);
	cr_assert_eq(stream_connect(w->env, "tcp:h1:1", 0, &s), -ESHUTDOWN);
	return 0;
}

Test(env_sim, nothing_has_an_effect_in_a_dead_process)
{
	struct world w = world_make(9);
	sim_kill(w.env);
	sim_run_fiber(w.env, dead_calls, &w);
	cr_assert_not(exists(&w, "/x"));
	world_free(&w);
}

/* ---- network ---- */

#define PIECE 3000
#define TOTAL 300000

struct wire {
	struct sim *sim;
	struct sim_host *host[2];
	struct env *env[2];
	bool ready;
	int sent_status, got_status;
	size_t got;
	int ended;
};

static uint8_t wire_byte(size_t at) { return (uint8_t)(at * 7 + at / 256); }

static int wire_server(void *arg)
{
	struct wire *w = arg;
	struct listener *l;
	struct stream *s;
	cr_assert_eq(stream_listen(w->env[0], "tcp:0.0.0.0:700", &l), 0);
	cr_assert_str_eq(listener_address(l), "tcp:a:700");
	w->ready = true;
	w->got_status = stream_accept(l, &s);
	uint8_t buffer[PIECE];
	while (w->got_status == 0 && w->got < TOTAL) {
		struct iovec v = { buffer, sizeof buffer };
		struct stream_io io = { .iov = &v, .iov_count = 1, .minimum = 1 };
		struct job j;
		job_init(&j, &w->env[0]->loop);
		stream_recv(s, &io, &j);
		w->got_status = fiber_wait(&j);
		for (size_t i = 0; i < io.done; i++)
			cr_assert_eq(buffer[i], wire_byte(w->got + i));
		w->got += io.done;
	}
	stream_shutdown(s);
	stream_close(s);
	listener_close(l);
	w->ended++;
	return 0;
}

static int wire_client(void *arg)
{
	struct wire *w = arg;
	struct stream *s = NULL;
	w->sent_status = stream_connect(w->env[1], "tcp:a:700", 10 * NS_PER_S, &s);
	uint8_t buffer[PIECE];
	for (size_t at = 0; w->sent_status == 0 && at < TOTAL; at += PIECE) {
		for (size_t i = 0; i < PIECE; i++)
			buffer[i] = wire_byte(at + i);
		w->sent_status = stream_send_wait(s, buffer, PIECE);
	}
	uint8_t last;
	if (w->sent_status == 0) {
		int r = stream_recv_wait(s, &last, 1);
		cr_assert_eq(r, w->env[1]->dead ? -ESHUTDOWN : -ECONNRESET); /* the end of the stream */
	}
	stream_close(s);
	w->ended++;
	return 0;
}

static struct wire wire_make(uint64_t seed, const struct sim_doses *doses)
{
	struct wire w = { .sim = sim_create(seed, doses) };
	for (int i = 0; i < 2; i++) {
		w.host[i] = sim_host_create(w.sim, i ? "b" : "a", 1 << 20, 512);
		w.env[i] = sim_process_create(w.sim, w.host[i]);
	}
	return w;
}

static void wire_start(struct wire *w)
{
	fiber_start(&w->env[0]->loop, wire_server, w, NULL);
	sim_run_until(w->sim, &w->ready);
	fiber_start(&w->env[1]->loop, wire_client, w, NULL);
}

static void wire_free(struct wire *w)
{
	sim_process_destroy(w->env[0]);
	sim_process_destroy(w->env[1]);
	sim_destroy(w->sim);
}

Test(env_sim, a_stream_keeps_its_order)
{
	for (uint64_t seed = 1; seed <= 20; seed++) {
		struct wire w = wire_make(seed, &(struct sim_doses){ .slow = 100000, .stream_buffer = 10000 });
		wire_start(&w);
		while (sim_step(w.sim))
			;
		cr_assert_eq(w.got, TOTAL);
		cr_assert_eq(w.sent_status, 0);
		wire_free(&w);
	}
}

Test(env_sim, a_dropped_stream_delivers_a_prefix)
{
	unsigned partly = 0;
	for (uint64_t seed = 1; seed <= 20; seed++) {
		struct wire w = wire_make(seed, &(struct sim_doses){ .drop = 20000 });
		wire_start(&w);
		while (sim_step(w.sim))
			;
		cr_assert_eq(w.ended, 2);
		cr_assert(w.got == TOTAL || w.got_status == -ECONNRESET);
		partly += w.got > 0 && w.got < TOTAL;
		wire_free(&w);
	}
	cr_assert_gt(partly, 5);
}

Test(env_sim, a_partition_holds_what_was_sent)
{
	struct wire w = wire_make(4, NULL);
	wire_start(&w);
	while (w.got < TOTAL / 3)
		cr_assert(sim_step(w.sim));
	sim_partition(w.sim, w.host[1], w.host[0], true);
	uint64_t until = sim_now_ns(w.sim) + 5 * NS_PER_S;
	while (sim_now_ns(w.sim) < until)
		cr_assert(sim_step(w.sim));
	cr_assert_lt(w.got, TOTAL);
	sim_partition(w.sim, w.host[1], w.host[0], false);
	while (sim_step(w.sim))
		;
	cr_assert_eq(w.got, TOTAL);
	wire_free(&w);
}

Test(env_sim, the_peer_of_a_killed_process_sees_its_connection_end)
{
	for (uint64_t seed = 1; seed <= 20; seed++) {
		struct wire w = wire_make(seed, NULL);
		wire_start(&w);
		while (w.got < TOTAL / 3)
			cr_assert(sim_step(w.sim));
		if (seed % 2)
			sim_kill(w.env[1]);
		else
			sim_power_loss(w.host[1]);
		sim_drain_dead(w.env[1]);
		while (sim_step(w.sim))
			;
		cr_assert_eq(w.ended, 2);
		cr_assert(w.got == TOTAL || w.got_status == -ECONNRESET);
		wire_free(&w);
	}
}

/* ---- a seed is a run ---- */

static uint64_t run_hash(uint64_t seed)
{
	struct wire w = wire_make(seed, &(struct sim_doses){ .slow = 100000, .drop = 1000 });
	wire_start(&w);
	struct world x = { .sim = w.sim, .host = w.host[0], .env = w.env[0], .buffer = env_alloc_aligned(FILE_BYTES) };
	cr_assert_eq(sim_run_fiber(x.env, file_made, &x), 0);
	sim_run_fiber(x.env, file_rewritten, &x);
	while (sim_step(w.sim))
		;
	sim_power_loss(x.host);
	sim_run_fiber(x.env, file_closed, &x);
	free(x.buffer);
	uint64_t hash = sim_trace_hash(w.sim);
	wire_free(&w);
	return hash;
}

Test(env_sim, the_same_seed_is_the_same_run)
{
	for (uint64_t seed = 1; seed <= 10; seed++) {
		free(malloc(seed * 1000)); /* other addresses */
		uint64_t first = run_hash(seed);
		cr_assert_eq(first, run_hash(seed));
		cr_assert_neq(first, run_hash(seed + 1));
	}
}
