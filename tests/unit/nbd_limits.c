/* The NBD export: what clients can make it hold, and that greedy, silent and many of them leave the others their turn. */
#include <string.h>

#include "agent/exports/nbd_wire.h"
#include "core/bytes.h"
#include "core/fiber.h"
#include "tests/unit/nbdtest.h"

/* A client that asks for more than the limits allow and reads nothing: the server waits with it, and
 * serves others meanwhile. */
static void script_greedy(void)
{
	struct stream *greedy = client(/* structured= */ false), *modest = client(/* structured= */ false);
	static uint8_t in[32 * MIB];
	for (unsigned i = 0; i < 40; i++)
		put_request(greedy, NBD_CMD_READ, 0, i, 0, sizeof in);
	settle();
	cr_assert_eq(the.memory->requests, NBD_CONNECTION_BYTES / sizeof in);
	cr_assert_eq(read_bytes(modest, 4096, in, 64 * KIB), 0);
	for (unsigned i = 0; i < 40; i++) {
		uint64_t cookie;
		cr_assert_eq(get_simple(greedy, &cookie), 0);
		cr_assert_eq(cookie, i);
		get(greedy, in, sizeof in);
	}
	hang_up(greedy);
	hang_up(modest);
}

Test(nbd_limits, memory_is_limited)
{
	memory_info = (struct blk_info){ .size = 32 * MIB, .block_size = 512 };
	run(script_greedy);
}

/* The oldest of what the node has, of client `from`'s; its answer is read. */
static void one_ends(struct stream *from, uint32_t length)
{
	static uint8_t in[32 * MIB];
	memory_do(the.memory, container_of(link_pop(&the.memory->held), struct blk_io, link));
	cr_assert_eq(get_simple(from, NULL), 0);
	get(from, in, length);
	settle();
}

static bool has_length(const struct memory_node *m, uint64_t length)
{
	link_for(l, &m->held)
		if (container_of(l, struct blk_io, link)->length == length)
			return true;
	return false;
}

/* All that may be held is, by clients who want as much again: who wants more than is given back at a time gets a turn, and so does who comes after him. */
static void script_turns(void)
{
	enum { CROWD = NBD_SERVICE_BYTES / NBD_CONNECTION_BYTES, EACH = NBD_CONNECTION_BYTES / (16 * MIB), MORE = 3 };
	struct stream *crowd[CROWD], *big = client(/* structured= */ false), *next = client(/* structured= */ false);
	the.memory->hold = true;
	for (unsigned n = 0; n < EACH; n++)
		for (unsigned i = 0; i < CROWD; i++) {
			crowd[i] = n ? crowd[i] : client(/* structured= */ false);
			put_request(crowd[i], NBD_CMD_READ, 0, n, 0, 16 * MIB);
			settle();
		}
	cr_assert_eq(the.memory->requests, CROWD * EACH);
	put_request(big, NBD_CMD_READ, 0, 1, 0, 32 * MIB);
	settle();
	put_request(next, NBD_CMD_READ, 0, 1, 0, 8 * MIB);
	settle();
	for (unsigned n = 0; n < MORE; n++)
		for (unsigned i = 0; i < CROWD; i++)
			put_request(crowd[i], NBD_CMD_READ, 0, n, 0, 16 * MIB);
	settle();
	for (unsigned i = 0; i < 2; i++)
		one_ends(crowd[i], 16 * MIB);
	cr_assert(has_length(the.memory, 32 * MIB), "others took what was given back");
	cr_assert_not(has_length(the.memory, 8 * MIB), "there is no more");
	one_ends(crowd[2], 16 * MIB);
	cr_assert(has_length(the.memory, 8 * MIB));
	for (unsigned i = 0; i < CROWD; i++)
		hang_up(crowd[i]);
	hang_up(big);
	hang_up(next);
	memory_let_go(the.memory);
	settle();
}

Test(nbd_limits, who_wants_much_memory_gets_a_turn)
{
	memory_info = (struct blk_info){ .size = 32 * MIB, .block_size = 512 };
	run(script_turns);
}

/* ---- clients that don't take their answers ---- */

enum { GREEDY = NBD_SERVICE_BYTES / NBD_CONNECTION_BYTES };

/* Has `s` ask for as much as it can get. */
static void ask_for_much(struct stream *s)
{
	for (unsigned i = 0; i < 3; i++)
		put_request(s, NBD_CMD_READ, 0, i, 0, 32 * MIB);
}

static void pass(unsigned seconds) { fiber_sleep(&the.env->loop, seconds * NS_PER_S); }

static void script_unread(void)
{
	struct stream *greedy[GREEDY], *modest = client(/* structured= */ false);
	static uint8_t in[8 * MIB];
	the.memory->lazy = true;
	for (unsigned i = 0; i < GREEDY; i++)
		ask_for_much(greedy[i] = client(/* structured= */ false));
	pass(300);
	cr_assert_eq(the.memory->requests, 2 * GREEDY);
	cr_assert_eq(the.export->clients, GREEDY + 1, "nobody waits for what they have: %s", the.log);
	put_request(modest, NBD_CMD_READ, 0, 1, 0, sizeof in);
	pass(20);
	cr_assert_eq(the.memory->requests, 2 * GREEDY + 1);
	cr_assert(strstr(the.log, "vm: an NBD client has not taken its answers for 30"), "%s", the.log);
	cr_assert_eq(get_simple(modest, NULL), 0);
	get(modest, in, sizeof in);
	pass(200);
	cr_assert_eq(the.export->clients, GREEDY, "one was enough");
	cr_assert_eq(the.memory->requests, 2 * GREEDY + 1, "what one that is cut off asked for isn't begun");
	pass(7 * 24 * 3600);
	cr_assert_eq(the.export->clients, GREEDY, "nobody waits");
	cr_assert_eq(read_bytes(modest, 0, in, 4096), 0, "who waits for nothing may wait for ever");
	for (unsigned i = 0; i < GREEDY; i++)
		hang_up(greedy[i]);
	hang_up(modest);
}

Test(nbd_limits, who_takes_no_answers_loses_its_turn_to_others)
{
	memory_info = (struct blk_info){ .size = 32 * MIB, .block_size = 512 };
	run_sim(script_unread);
}

/* One that takes them slowly, and one whose answers are short, are left alone, whoever waits. */
static void script_slow(void)
{
	struct stream *greedy[GREEDY], *modest = client(/* structured= */ false);
	static uint8_t in[8 * MIB];
	the.memory->lazy = true;
	for (unsigned i = 0; i < GREEDY; i++)
		ask_for_much(greedy[i] = client(/* structured= */ false));
	settle();
	put_request(modest, NBD_CMD_READ, 0, 1, 0, sizeof in);
	for (unsigned n = 0; n < 20; n++) {
		for (unsigned i = 0; i < GREEDY; i++)
			get(greedy[i], in, MIB + MIB / 4);
		pass(20);
	}
	cr_assert_eq(the.export->clients, GREEDY + 1, "%s", the.log);
	for (unsigned i = 0; i < GREEDY; i++)
		hang_up(greedy[i]);
	hang_up(modest);
}

Test(nbd_limits, who_takes_them_slowly_keeps_them)
{
	memory_info = (struct blk_info){ .size = 32 * MIB, .block_size = 512 };
	run_sim(script_slow);
}

/* A client with many connections is stopped, with more asked for than there is memory: those of its connections that wait take nothing either. */
static void script_stopped(void)
{
	struct stream *stopped[2 * GREEDY], *modest = client(/* structured= */ false);
	static uint8_t in[8 * MIB];
	the.memory->lazy = true;
	for (unsigned i = 0; i < ARRAY_COUNT(stopped); i++) {
		stopped[i] = client(/* structured= */ false);
		for (unsigned n = 0; n < 40; n++)
			put_request(stopped[i], NBD_CMD_READ, 0, n, 0, 2 * MIB);
		settle();
	}
	pass(7 * 24 * 3600);
	cr_assert_eq(the.export->clients, ARRAY_COUNT(stopped) + 1, "it is cut off for its own sake: %s", the.log);
	put_request(modest, NBD_CMD_READ, 0, 1, 0, sizeof in);
	cr_assert_eq(get_simple(modest, NULL), 0);
	get(modest, in, sizeof in);
	cr_assert_lt(the.export->clients, ARRAY_COUNT(stopped) + 1);
	for (unsigned i = 0; i < ARRAY_COUNT(stopped); i++)
		hang_up(stopped[i]);
	hang_up(modest);
}

Test(nbd_limits, who_is_stopped_keeps_all_its_connections_until_others_wait)
{
	memory_info = (struct blk_info){ .size = 32 * MIB, .block_size = 512 };
	run_sim(script_stopped);
}

/* ---- crowds ---- */

static void script_crowd(void)
{
	struct stream *crowd[64];
	for (unsigned i = 0; i < ARRAY_COUNT(crowd); i++)
		crowd[i] = client(/* structured= */ false);
	expect_hang_up(dial());
	hang_up(crowd[0]);
	settle();
	crowd[0] = client(/* structured= */ false);
	for (unsigned i = 0; i < ARRAY_COUNT(crowd); i++)
		hang_up(crowd[i]);
}

Test(nbd_limits, connections_are_limited)
{
	run(script_crowd);
}

/* Who says nothing makes place, the oldest first. */
static void script_silent_crowd(void)
{
	struct stream *crowd[64], *user;
	for (unsigned i = 0; i < ARRAY_COUNT(crowd); i++)
		crowd[i] = hello(NBD_FIXED_NEWSTYLE);
	settle();
	for (unsigned i = 0; i < 3; i++) {
		user = client(/* structured= */ false);
		expect_hang_up(crowd[i]);
		crowd[i] = user;
	}
	for (unsigned i = 0; i < ARRAY_COUNT(crowd); i++)
		hang_up(crowd[i]);
}

Test(nbd_limits, a_silent_crowd_keeps_nobody_out)
{
	run(script_silent_crowd);
}
