/* What a disk fails with is -EIO, though the kernel has a number for each kind of failure (core/env_linux_file.c). A filter of system calls is the disk. */
#include <criterion/criterion.h>
#include <errno.h>
#include <linux/filter.h>
#include <linux/seccomp.h>
#include <stddef.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/prctl.h>
#include <sys/syscall.h>
#include <unistd.h>

#include "core/bytes.h"
#include "core/env.h"
#include "core/fiber.h"
#include "tests/unit/tempdir.h"

enum { BYTES = 4096 };

static struct env *env;
static char dir[64];

static void setup(void)
{
	snprintf(dir, sizeof dir, "/var/tmp/aquifer-unit-XXXXXX");
	cr_assert(mkdtemp(dir));
	cr_assert_eq(env_linux_create(0, &env), 0);
}

static void teardown(void)
{
	env_linux_destroy(env);
	tempdir_remove(dir);
}

TestSuite(env_linux_errors, .init = setup, .fini = teardown, .timeout = 60);

/* From now on all threads' transfers fail so; of several the last counts. This process has no other test. */
static int fail_with(int error)
{
	struct sock_filter code[] = {
		BPF_STMT(BPF_LD | BPF_W | BPF_ABS, offsetof(struct seccomp_data, nr)),
		BPF_JUMP(BPF_JMP | BPF_JEQ | BPF_K, SYS_io_submit, 6, 0), /* then a worker tries */
		BPF_JUMP(BPF_JMP | BPF_JEQ | BPF_K, SYS_preadv, 5, 0),
		BPF_JUMP(BPF_JMP | BPF_JEQ | BPF_K, SYS_preadv2, 4, 0),
		BPF_JUMP(BPF_JMP | BPF_JEQ | BPF_K, SYS_pwritev, 3, 0),
		BPF_JUMP(BPF_JMP | BPF_JEQ | BPF_K, SYS_pwritev2, 2, 0),
		BPF_JUMP(BPF_JMP | BPF_JEQ | BPF_K, SYS_fdatasync, 1, 0),
		BPF_STMT(BPF_RET | BPF_K, SECCOMP_RET_ALLOW),
		BPF_STMT(BPF_RET | BPF_K, SECCOMP_RET_ERRNO | (unsigned)error),
	};
	struct sock_fprog program = { ARRAY_COUNT(code), code };
	if (prctl(PR_SET_NO_NEW_PRIVS, 1, 0, 0, 0) < 0)
		return -errno;
	return syscall(SYS_seccomp, SECCOMP_SET_MODE_FILTER, SECCOMP_FILTER_FLAG_TSYNC, &program) == 0 ? 0 : -errno;
}

static int transfers(void *arg)
{
	static const int disk[] = { EIO, ENODATA, ETIMEDOUT, ENOLINK, EREMOTEIO, EBADE, EILSEQ, ENODEV, ETIME, ENOTCONN, ESTALE, ESHUTDOWN, EUCLEAN };
	static const int others[] = { ENOSPC, EDQUOT, EROFS, EINVAL };
	char path[128];
	struct file *f;
	char *data = env_alloc_aligned(BYTES);
	bool *skipped = arg;
	memset(data, 1, BYTES);
	snprintf(path, sizeof path, "%s/f", dir);
	cr_assert_eq(file_open(env, path, FILE_OPEN_WRITE | FILE_OPEN_CREATE, &f), 0);
	cr_assert_eq(file_write_wait(f, data, BYTES, 0), 0);
	for (size_t i = 0; i < ARRAY_COUNT(disk) && !(*skipped = fail_with(disk[i]) < 0); i++) {
		cr_assert_eq(file_read_wait(f, data, BYTES, 0, NULL), -EIO, "errno %d", disk[i]);
		cr_assert_eq(file_write_wait(f, data, BYTES, 0), -EIO, "errno %d", disk[i]);
		cr_assert_eq(file_sync_wait(f), -EIO, "errno %d", disk[i]);
	}
	for (size_t i = 0; i < ARRAY_COUNT(others) && !*skipped; i++) {
		cr_assert_eq(fail_with(others[i]), 0);
		cr_assert_eq(file_write_wait(f, data, BYTES, 0), -others[i]);
	}
	file_close(env, f);
	free(data);
	return 0;
}

Test(env_linux_errors, what_a_disk_fails_with_is_EIO)
{
	bool skipped = false;
	cr_assert_eq(env_linux_run_fiber(env, transfers, &skipped), 0);
	if (skipped)
		cr_skip_test("system calls can't be filtered");
}
