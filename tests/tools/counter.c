/* Writes 1, 2, 3, … round robin, each when the one before is flushed:
 *
 *     counter LAST TARGET TARGET…    LAST + 1, …: number N into the first block of target N mod their count, O_DIRECT, then a flush; until SIGTERM or an
 *                               error, which is then said; prints the last number that was flushed
 *
 * So who finds N in one of them finds all before it, or what he looks at never was the state at one instant. */
#include <errno.h>
#include <inttypes.h>
#include <signal.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>

#include "core/bytes.h"
#include "core/env.h"
#include "tests/tools/lib/target.h"

enum { TARGETS_MAX = 30, BYTES = 4096 };

static volatile sig_atomic_t stop;
static void on_term(int signal_number)
{
	(void)signal_number;
	stop = 1;
}

int main(int argc, char **argv)
{
	struct target *targets[TARGETS_MAX];
	const struct target_options options = { 0 };
	unsigned count = argc > 2 ? (unsigned)argc - 2 : 0;
	uint64_t *block = env_alloc_aligned(BYTES), n = argc > 1 ? strtoull(argv[1], NULL, 10) : 0;
	int status = 0;
	if (!block || count < 1 || count > TARGETS_MAX) {
		fprintf(stderr, "usage: counter LAST TARGET TARGET…\n");
		return 2;
	}
	struct sigaction term = { .sa_handler = on_term, .sa_flags = SA_RESTART };
	sigaction(SIGTERM, &term, NULL);
	for (unsigned i = 0; i < count; i++)
		if (target_open(argv[2 + i], &options, &targets[i]) < 0) {
			fprintf(stderr, "counter: %s: %s\n", argv[2 + i], target_error(NULL));
			return 1;
		}
	while (!stop && status == 0) {
		struct target *t = targets[(n + 1) % count];
		for (unsigned i = 0; i < BYTES / sizeof *block; i++)
			block[i] = n + 1;
		if (target_write(t, block, BYTES, 0) < 0 || target_flush(t) < 0) {
			fprintf(stderr, "counter: %s: number %" PRIu64 ": %s\n", argv[2 + (n + 1) % count], n + 1, target_error(t));
			status = 1;
		} else {
			n++;
		}
	}
	printf("%" PRIu64 "\n", n);
	for (unsigned i = 0; i < count; i++)
		target_close(targets[i]);
	free(block);
	return status;
}
