/* Guards of a user-space block daemon:
 *
 * - its memory stays in RAM: paging something in could need a page that only its own
 *   writes would free;
 * - its own allocations never wait for file system or block I/O (PR_SET_IO_FLUSHER), and its
 *   writes aren't throttled as if it were the one who made the dirty pages;
 * - the out-of-memory killer takes somebody else: killing it frees little and turns
 *   every page still to be written through it into an I/O error. */
#include "agent/guard.h"

#include <errno.h>
#include <fcntl.h>
#include <stdbool.h>
#include <stdint.h>
#include <stdio.h>
#include <string.h>
#include <sys/mman.h>
#include <sys/prctl.h>
#include <sys/resource.h>
#include <unistd.h>

#ifndef PR_SET_IO_FLUSHER
#define PR_SET_IO_FLUSHER 57 /* Linux 5.6 */
#endif

/* All that couldn't be had, in one sentence. */
static void miss(struct report *note, const char *what, const char *cure)
{
	char before[sizeof note->text];
	if (!note)
		return;
	snprintf(before, sizeof before, "%s", note->text);
	snprintf(note->text, sizeof note->text, "%.350s%s%s: %s (%s)", before, before[0] ? "; " : "", what, strerror(errno), cure);
}

/* Lazily locked memory still counts against RLIMIT_MEMLOCK when it is mapped: under a limit, locking would make allocations fail
 * that are all right without it. So much has to go, which is more than a tapdisk needs. */
#define ROOM_BYTES (UINT64_C(2) << 30)

static bool room_to_lock(void)
{
	void *p = mmap(NULL, ROOM_BYTES, PROT_READ | PROT_WRITE, MAP_PRIVATE | MAP_ANONYMOUS | MAP_NORESERVE, -1, 0);
	if (p == MAP_FAILED)
		return false;
	munmap(p, ROOM_BYTES);
	return true;
}

/* What is mapped now becomes resident. What comes later is locked when first touched: populating
 * each thread's whole stack would cost more than it guards. */
static void guard_memory(struct report *note)
{
	if (mlockall(MCL_CURRENT) == 0 && mlockall(MCL_CURRENT | MCL_FUTURE | MCL_ONFAULT) == 0 && room_to_lock())
		return;
	int e = errno;
	char cure[96];
	struct rlimit limit = { 0 };
	getrlimit(RLIMIT_MEMLOCK, &limit);
	munlockall();
	snprintf(cure, sizeof cure, "needs CAP_IPC_LOCK, or RLIMIT_MEMLOCK above 2G; it is %llu bytes", (unsigned long long)limit.rlim_cur);
	errno = e;
	miss(note, "memory is not locked", cure);
}

static void guard_reclaim(struct report *note)
{
	if (prctl(PR_SET_IO_FLUSHER, 1, 0, 0, 0) < 0)
		miss(note, "not marked as an I/O flusher", "needs CAP_SYS_RESOURCE and Linux 5.6");
}

static void guard_oom(struct report *note)
{
	static const char score[] = "-1000"; /* never */
	int fd = open("/proc/self/oom_score_adj", O_WRONLY | O_CLOEXEC);
	if (fd < 0 || write(fd, score, sizeof score - 1) < 0)
		miss(note, "not protected from the out-of-memory killer", "needs CAP_SYS_RESOURCE");
	if (fd >= 0)
		close(fd);
}

void guard_process(struct report *note)
{
	guard_memory(note);
	guard_reclaim(note);
	guard_oom(note);
}
