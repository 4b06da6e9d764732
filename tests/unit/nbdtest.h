/* What the tests of the NBD export share: a small scripted client over a real unix socket, in one loop with the export. The
 * node below is a piece of memory that does what the tests need: it notes flags, fails, holds
 * requests back, and has an allocation map of our choosing. */
#ifndef AQ_NBDTEST_H
#define AQ_NBDTEST_H
#include <criterion/criterion.h>

#include "agent/exports/export.h"
#include "agent/exports/nbd_transmission.h"
#include "core/blk.h"

#define KIB 1024u
#define MIB (1024u * KIB)

struct memory_node {
	struct blk_node node; /* first */
	uint8_t *bytes;
	unsigned flags_seen;          /* of all requests */
	unsigned requests, flushes;
	int fail;                     /* all READs and WRITEs end with this */
	bool hold;                    /* requests are kept in `held` */
	bool lazy;                    /* what is read is nothing in particular */
	struct link held;
	unsigned extent_bytes;        /* MAP: data and hole alternate at this length */
	unsigned map_at_a_time;       /* MAP: extents told in one answer */
};
extern struct blk_info memory_info; /* what the next node is; each test is a process of its own */

struct setting {
	struct env *env;
	struct memory_node *memory;
	struct export *export;
	char directory[64], address[128];
	unsigned queue_depth;
	bool read_only;
	void (*script)(void);
	char log[256]; /* what the export said last */
};
extern struct setting the;

void memory_do(struct memory_node *m, struct blk_io *io);
void memory_let_go(struct memory_node *m);
void run(void (*script)(void));
void run_sim(void (*script)(void)); /* in a simulated world: its time costs none */
struct stream *dial(void);
void put(struct stream *s, const void *bytes, size_t length);
void get(struct stream *s, void *bytes, size_t length);
void expect_hang_up(struct stream *s);
void hang_up(struct stream *s);
struct stream *hello(uint32_t flags);
void put_option(struct stream *s, uint32_t code, const void *data, uint32_t length);
uint32_t get_answer(struct stream *s, uint32_t code, uint8_t *data, uint32_t *ret_length);
uint32_t ask_option(struct stream *s, uint32_t code, const void *data, uint32_t length);
uint32_t go_data(uint8_t *p, const char *name);
uint16_t go(struct stream *s);
struct stream *client(bool structured);
void put_request(struct stream *s, uint16_t type, uint16_t flags, uint64_t cookie, uint64_t offset, uint32_t length);
uint32_t get_simple(struct stream *s, uint64_t *ret_cookie);
uint32_t request(struct stream *s, uint16_t type, uint16_t flags, uint64_t offset, uint32_t length);
uint32_t write_bytes(struct stream *s, uint16_t flags, uint64_t offset, const void *bytes, uint32_t length);
uint32_t read_bytes(struct stream *s, uint64_t offset, void *bytes, uint32_t length);
void fill(uint8_t *bytes, size_t length, unsigned seed);
void settle(void);
#endif
