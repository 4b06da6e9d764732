#include "tests/unit/simfile.h"

#include <criterion/criterion.h>

#include "core/fiber.h"

void simfile_start(struct simfile *s, uint64_t seed, uint32_t io_align)
{
	s->sim = sim_create(seed, NULL);
	s->host = sim_host_create(s->sim, "h", UINT64_C(1) << 40, io_align);
	s->env = sim_process_create(s->sim, s->host);
}

void simfile_stop(struct simfile *s)
{
	sim_process_destroy(s->env);
	sim_destroy(s->sim);
}

void simfile_crash(struct simfile *s)
{
	sim_power_loss(s->host);
	sim_drain_dead(s->env);
}

void simfile_reboot(struct simfile *s)
{
	sim_process_destroy(s->env);
	s->env = sim_process_create(s->sim, s->host);
}

struct make {
	struct env *env;
	const char *path;
	uint64_t size;
};

static int make_run(void *arg)
{
	struct make *m = arg;
	struct file *f;
	struct file_io io = { .op = FILE_TRUNCATE, .offset = m->size };
	struct job j;
	env_unlink(m->env, m->path);
	int r = file_open(m->env, m->path, FILE_OPEN_WRITE | FILE_OPEN_CREATE, &f);
	if (r < 0)
		return r;
	job_init(&j, &m->env->loop);
	file_submit(f, &io, &j);
	r = fiber_wait(&j);
	if (r == 0)
		r = file_sync_wait(f);
	file_close(m->env, f);
	return r < 0 ? r : env_sync_dir(m->env, "/");
}

void simfile_make(struct simfile *s, const char *path, uint64_t size)
{
	struct make m = { s->env, path, size };
	cr_assert_eq(sim_run_fiber(s->env, make_run, &m), 0);
}
