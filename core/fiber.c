/* ucontext makes the first switch to a new stack; its switches cost two sigprocmask
 * calls, which is nothing on the control path. Stacks have a guard page and are kept in
 * a small free list per thread. */
#include "core/fiber.h"

#include <errno.h>
#include <stdlib.h>
#include <sys/mman.h>
#include <ucontext.h>

#include "core/env.h"

#ifdef __has_feature /* clang */
#if __has_feature(address_sanitizer)
#define FIBER_ASAN 1
#elif __has_feature(thread_sanitizer)
#define FIBER_TSAN 1
#endif
#elif defined(__SANITIZE_ADDRESS__)
#define FIBER_ASAN 1
#elif defined(__SANITIZE_THREAD__)
#define FIBER_TSAN 1
#endif
#if defined(FIBER_ASAN)
#include <sanitizer/asan_interface.h>
#include <sanitizer/common_interface_defs.h>
#elif defined(FIBER_TSAN)
#include <sanitizer/tsan_interface.h>
#endif

#if defined(FIBER_ASAN) || defined(FIBER_TSAN)
#define STACK_BYTES (512u << 10) /* their frames are larger */
#else
#define STACK_BYTES (128u << 10)
#endif
#define GUARD_BYTES 4096u
#define STACKS_KEPT 64

struct fiber {
	ucontext_t context;
	ucontext_t caller;
	struct job job; /* resumes the fiber */
	int (*run)(void *arg);
	void *arg;
	struct job *done;
	void *stack;
	bool ended;
	/* what sanitizers know of the two stacks */
	void *fake_stack, *caller_fake_stack;
	const void *caller_stack;
	size_t caller_stack_bytes;
	void *tsan, *caller_tsan;
};

static _Thread_local struct fiber *current;
static _Thread_local void *kept[STACKS_KEPT];
static _Thread_local unsigned kept_count;

/* ---- what a sanitizer must be told of each switch: before, and after ---- */

#if defined(FIBER_ASAN)
static void entering(struct fiber *f)
{
	__sanitizer_start_switch_fiber(&f->caller_fake_stack, (char *)f->stack + GUARD_BYTES, STACK_BYTES);
}
static void entered(struct fiber *f)
{
	__sanitizer_finish_switch_fiber(f->fake_stack, &f->caller_stack, &f->caller_stack_bytes);
}
static void leaving(struct fiber *f)
{
	__sanitizer_start_switch_fiber(f->ended ? NULL : &f->fake_stack, f->caller_stack, f->caller_stack_bytes);
}
static void left(struct fiber *f) { __sanitizer_finish_switch_fiber(f->caller_fake_stack, NULL, NULL); }
/* The fiber's last frames were never returned from; whoever is next must not trip over them. */
static void gone(struct fiber *f) { __asan_unpoison_memory_region((char *)f->stack + GUARD_BYTES, STACK_BYTES); }
#elif defined(FIBER_TSAN)
static void entering(struct fiber *f)
{
	if (!f->tsan)
		f->tsan = __tsan_create_fiber(0);
	f->caller_tsan = __tsan_get_current_fiber();
	__tsan_switch_to_fiber(f->tsan, 0);
}
static void entered(struct fiber *f) { (void)f; }
static void leaving(struct fiber *f) { __tsan_switch_to_fiber(f->caller_tsan, 0); }
static void left(struct fiber *f) { (void)f; }
static void gone(struct fiber *f) { __tsan_destroy_fiber(f->tsan); }
#else
static void entering(struct fiber *f) { (void)f; }
static void entered(struct fiber *f) { (void)f; }
static void leaving(struct fiber *f) { (void)f; }
static void left(struct fiber *f) { (void)f; }
static void gone(struct fiber *f) { (void)f; }
#endif

/* ---- fibers ---- */

static void *stack_get(void)
{
	if (kept_count)
		return kept[--kept_count];
	char *p = mmap(NULL, STACK_BYTES + GUARD_BYTES, PROT_READ | PROT_WRITE,
		       MAP_PRIVATE | MAP_ANONYMOUS | MAP_STACK, -1, 0);
	if (p == MAP_FAILED)
		return NULL;
	mprotect(p, GUARD_BYTES, PROT_NONE);
	return p;
}

static void stack_put(void *p)
{
	if (kept_count < STACKS_KEPT)
		kept[kept_count++] = p;
	else
		munmap(p, STACK_BYTES + GUARD_BYTES);
}

static void fiber_enter(struct fiber *f)
{
	struct fiber *outer = current;
	current = f;
	entering(f);
	swapcontext(&f->caller, &f->context);
	left(f);
	current = outer;
}

static void fiber_leave(struct fiber *f)
{
	leaving(f);
	swapcontext(&f->context, &f->caller);
	entered(f);
}

static void fiber_main(unsigned low, unsigned high)
{
	struct fiber *f = (struct fiber *)((uintptr_t)low | (uintptr_t)high << 32);
	entered(f);
	int status = f->run(f->arg);
	if (f->done)
		job_put(f->done, status);
	f->ended = true;
	fiber_leave(f);
	abort();
}

static void fiber_resume(struct job *j)
{
	struct fiber *f = container_of(j, struct fiber, job);
	fiber_enter(f);
	if (!f->ended)
		return;
	gone(f);
	stack_put(f->stack);
	free(f);
}

/* A function of its own because getcontext() may return twice, as compilers see it. */
static __attribute__((noinline)) void fiber_make_context(struct fiber *f)
{
	getcontext(&f->context);
	f->context.uc_stack.ss_sp = (char *)f->stack + GUARD_BYTES;
	f->context.uc_stack.ss_size = STACK_BYTES;
	f->context.uc_link = NULL;
	uintptr_t p = (uintptr_t)f;
	makecontext(&f->context, (void (*)(void))fiber_main, 2, (unsigned)p, (unsigned)(p >> 32));
}

int fiber_start(struct loop *loop, int (*run)(void *arg), void *arg, struct job *done)
{
	struct fiber *f = calloc(1, sizeof *f);
	void *stack = stack_get();
	if (!f || !stack) {
		free(f);
		if (stack)
			stack_put(stack);
		return -ENOMEM;
	}
	f->run = run;
	f->arg = arg;
	f->done = done;
	f->stack = stack;
	fiber_make_context(f);
	job_init(&f->job, loop);
	job_then(&f->job, fiber_resume);
	return 0;
}

static void wait_over(struct job *j)
{
	fiber_resume(&j->fiber->job);
}

int fiber_wait(struct job *j)
{
	struct fiber *f = current;
	assert(f && f->job.loop == j->loop);
	if (j->pending > 1) {
		j->fiber = f;
		job_then(j, wait_over);
		fiber_leave(f);
	}
	return j->status;
}

int fiber_sleep(struct loop *loop, uint64_t ns)
{
	struct timer t;
	struct job j;
	job_init(&j, loop);
	j.fiber = current;
	timer_init(&t);
	timer_start(loop->env, &t, ns, &j);
	job_then(&j, wait_over); /* suspends in any case: a dead env's timers end at once */
	fiber_leave(j.fiber);
	return j.status;
}

void fiber_cond_init(struct fiber_cond *c)
{
	link_init(&c->waiters);
}

struct waiter {
	struct job job;
	struct link link;
};

/* The waiter is on this fiber's stack and listed only while the fiber waits: whoever wakes it takes it out
 * first. The compiler sees the address stored and not the removal. */
#pragma GCC diagnostic push
#if !defined(__clang__)
#pragma GCC diagnostic ignored "-Wdangling-pointer"
#endif
void fiber_cond_wait(struct loop *loop, struct fiber_cond *c)
{
	struct waiter w;
	job_init(&w.job, loop);
	job_hold(&w.job);
	link_push(&c->waiters, &w.link);
	fiber_wait(&w.job);
}
#pragma GCC diagnostic pop

void fiber_cond_wake(struct fiber_cond *c)
{
	for (struct link *l; (l = link_pop(&c->waiters));)
		job_put(&container_of(l, struct waiter, link)->job, 0);
}

void fiber_mutex_init(struct fiber_mutex *m)
{
	*m = (struct fiber_mutex){ 0 };
	fiber_cond_init(&m->cond);
}

void fiber_mutex_lock(struct loop *loop, struct fiber_mutex *m)
{
	uint32_t ticket = m->next_ticket++;
	while (m->serving != ticket)
		fiber_cond_wait(loop, &m->cond);
}

void fiber_mutex_unlock(struct fiber_mutex *m)
{
	m->serving++;
	fiber_cond_wake(&m->cond);
}
