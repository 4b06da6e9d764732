/* The simulated world: any number of processes on hosts with disks and a network between
 * them, in one thread, in virtual time, from one seed. The same seed and the same calls give
 * the same run, step for step (sim_trace_hash() says so).
 *
 * FAULT MODEL: what the world may do. The system promises to survive all of it in any
 * combination, except where a line says otherwise. Everything is off (a dose of 0) until the
 * caller draws doses; kills, power losses, pauses and partitions are the caller's to time.
 *
 * Processes
 *   - sim_kill(): the env is dead. Whatever is under way or started later ends with -ESHUTDOWN
 *     and has no effect. A write under way may have happened, not happened, or stopped at any
 *     512-byte sector; a directory change may have happened or not; an offload may have run or
 *     not. What had completed stays (the kernel has it). Locks and listeners go; peers see
 *     their connections end, after any part of what was sent.
 *   - sim_pause(): no step runs (SIGSTOP) until sim_resume(), for as long as the caller likes;
 *     the kernel's part (I/O under way, deliveries) goes on.
 *   - Ready jobs run in any order close to FIFO; a busy process may see events up to 1 ms late.
 *
 * Hosts
 *   - sim_power_loss(): kills all processes, changes the boot id, and takes every file back to
 *     what was synced, plus any subset of the unsynced writes, discards, truncations and size
 *     changes: each whole, lost, or torn by 512-byte sectors, in any mixture. A sync covers the writes that
 *     had completed when it was submitted and no others. A directory entry made, removed or
 *     renamed is kept or not unless its directory was synced since; a rename is atomic.
 *     Peers on other hosts see silence, and a reset up to 15 s later.
 *   - Disks complete I/O in any order; `slow` ones take 100 times as long.
 *   - EIO: reads (nothing else happens), writes (any prefix may have been written), syncs: of
 *     the unsynced data any part is lost, is forgotten by the kernel, may go on being readable
 *     until the next power loss, and the error is reported once (as Linux does). Or it stays: from then on writes to that
 *     file and syncs of it fail, until everybody has closed it.
 *   - Bit flips in what a read returns, and at rest in what was written.
 *   - Misdirected writes: to another place in the same file. (Not survivable without a second
 *     copy: expect detection only.)
 *   - ENOSPC when the disk is full; the first part of such a write may have been written.
 *   - Wall clocks jump, by up to an hour either way. The monotonic clock does not.
 *   - A disk goes back to what was durable at an earlier instant, while nothing runs (a restored backup).
 *
 * Network
 *   - Delay without bound between connections, never reordering within one; back-pressure.
 *   - A connection is dropped at any moment, with any part of what was sent delivered. Or one end learns of that at once, and the other
 *     up to 10 s later: what was under way to it arrives meanwhile, perhaps after what is sent on a new connection.
 *   - Connects are refused. sim_partition() cuts one direction between two hosts: connects time out,
 *     data waits for the heal, for up to 30 s, then the connection is dropped.
 *   - Bytes are never changed (TCP and frame checksums are tested elsewhere).
 *
 * How to use it: create a world, hosts, processes; start fibers and jobs on env->loop; call
 * sim_step() until it returns false or the test is done; after sim_kill() call
 * sim_drain_dead(), close what the process owned (it fails with -ESHUTDOWN and frees), then
 * sim_process_destroy(). Files, streams and listeners that were not closed stop the test. */
#ifndef AQ_ENV_SIM_H
#define AQ_ENV_SIM_H
#include <stdbool.h>
#include <stdint.h>
#include <stdio.h>

#include "core/env.h"

struct sim;
struct sim_host;

/* What happened, for people to see that it did. The last ones are the scenarios' to count. */
enum sim_fault {
	SIM_KILL, SIM_POWER_LOSS, SIM_PAUSE, SIM_CUT, SIM_CONNECT_REFUSED, SIM_DROP, SIM_SLOW, SIM_WALL_JUMP,
	SIM_READ_ERROR, SIM_WRITE_ERROR, SIM_SYNC_ERROR, SIM_NO_SPACE, SIM_READ_FLIP, SIM_REST_FLIP, SIM_MISDIRECT,
	SIM_STALE_DISK, SIM_LOST_DISK, SIM_CATALOG_OUTAGE, SIM_CATALOG_TIMEOUT,
	SIM_FAULTS
};
const char *sim_fault_name(enum sim_fault fault);

struct sim_doses {
	/* chances in a million, per operation */
	uint32_t read_error, write_error, sync_error;
	uint32_t sync_error_stays; /* per sync error */
	uint32_t read_flip, rest_flip, misdirect;
	uint32_t connect_refused;
	uint32_t drop;             /* per delivery */
	uint32_t wall_jump;        /* per look at the wall clock */
	uint32_t slow;             /* of disk, network or worker: takes 100 times as long */
	/* an operation takes a random time up to this; 0: the default */
	uint64_t disk_ns, net_ns, offload_ns;
	uint32_t stream_buffer;    /* bytes under way per direction before senders wait; 0: 256 KiB */
};

struct sim *sim_create(uint64_t seed, const struct sim_doses *doses); /* NULL: no faults */
void sim_destroy(struct sim *sim); /* processes must be destroyed before */
struct sim_doses *sim_doses(struct sim *sim); /* may be changed at any time; zero it to heal */

/* `io_align`: what direct I/O must be aligned to on this host's disk, 512 or 4096. */
struct sim_host *sim_host_create(struct sim *sim, const char *name, uint64_t disk_bytes, uint32_t io_align);
/* Of this host's disk alone, beside the world's, in files longer than 4 KiB: chances in a million per write. */
void sim_host_damages(struct sim_host *host, uint32_t misdirect, uint32_t rest_flip);
/* Somebody else's files leave that much of its disk; UINT64_MAX: there are none. */
void sim_host_fill(struct sim_host *host, uint64_t left_bytes);
void sim_host_no_holes(struct sim_host *host); /* its file system can't punch any */
struct env *sim_process_create(struct sim *sim, struct sim_host *host);
/* Of a live process: nothing may be under way. Its files, streams and listeners must be closed. */
void sim_process_destroy(struct env *env);
struct sim *sim_of(struct env *env);

/* Runs one ready job or lets one event happen. False: nothing is left to do (only paused processes wait). */
bool sim_step(struct sim *sim);
/* Steps until `*stop`; false if the world came to rest before. */
bool sim_run_until(struct sim *sim, const bool *stop);
/* Runs `run(arg)` in a fiber of `env`, stepping the world until it ended: its result. In a dead
 * env only that env's jobs run. If the world comes to rest before, the test is stopped: the fiber waits for nothing. */
int sim_run_fiber(struct env *env, int (*run)(void *arg), void *arg);

void sim_kill(struct env *env);
/* Runs what is ready in a dead env until nothing is. Stops the test if that never ends. */
void sim_drain_dead(struct env *env);
void sim_power_loss(struct sim_host *host);
void sim_pause(struct env *env);
void sim_resume(struct env *env);
void sim_partition(struct sim *sim, struct sim_host *from, struct sim_host *to, bool cut);

uint64_t sim_now_ns(const struct sim *sim);
uint64_t sim_steps(const struct sim *sim);
/* For scenarios: the same stream of numbers the world draws from. */
uint64_t sim_random(struct sim *sim);
bool sim_chance(struct sim *sim, uint32_t in_a_million);
/* A hash of everything that happened so far. */
uint64_t sim_trace_hash(const struct sim *sim);
/* Prints each step to `f` as well (NULL: no more). */
void sim_trace_to(struct sim *sim, FILE *f);
void sim_note(struct sim *sim, const char *format, ...) __attribute__((format(printf, 2, 3)));

/* How often it happened so far. */
uint64_t sim_faults(const struct sim *sim, enum sim_fault fault);
void sim_fault(struct sim *sim, enum sim_fault fault); /* it did, once more */

/* What is durable on a disk now; and a disk that is as it was then: no process of the host lives, and no file is open. */
struct sim_disk_state;
struct sim_disk_state *sim_disk_keep(struct sim_host *host);
void sim_disk_revert(const struct sim_disk_state *state);
void sim_disk_forget(struct sim_disk_state *state); /* before the world ends; accepts NULL */

/* Directed damage and inspection, for tests; paths as processes of the host see them.
 * 0 or -errno. No process is needed and no time passes. */
int sim_disk_flip(struct sim_host *host, const char *path, uint64_t offset, uint8_t mask); /* at rest */
int sim_disk_read(struct sim_host *host, const char *path, uint64_t offset, void *buffer, size_t length);
int sim_disk_write(struct sim_host *host, const char *path, uint64_t offset, const void *bytes, size_t length); /* durable */
int sim_disk_remove(struct sim_host *host, const char *path);
uint64_t sim_disk_used(const struct sim_host *host); /* bytes */
uint64_t sim_disk_syncs_failed(const struct sim_host *host); /* of files, since the beginning */
#endif
