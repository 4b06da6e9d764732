/* What volumes list (R31), looked up one by one, or all at once with the records of some. */
#include <criterion/criterion.h>
#include <errno.h>
#include <stdlib.h>
#include <string.h>

#include "core/bytes.h"
#include "core/env_sim.h"
#include "parallax/store/wanted.h"
#include "tests/sim/catalog_sim.h"

enum { VOLUMES = 5 };

struct rig {
	struct catalog *catalog;
	unsigned wrong; /* the line; 0: all is as it should be */
};

#define EXPECT(g, condition) ((g)->wrong = (g)->wrong || (condition) ? (g)->wrong : __LINE__)

/* As store_volume_create() makes them: with the number at its end. */
static uuid uuid_of(uint64_t number)
{
	uuid u = { { (uint8_t)(200 - number) } };
	put_le64(u.bytes + 8, number);
	return u;
}

static void fill(struct catalog *c)
{
	struct meta_log *log = calloc(1, sizeof *log);
	for (uint64_t v = 1; v <= VOLUMES; v++) {
		char key[META_KEY_BYTES];
		size_t n;
		*log = (struct meta_log){ .stamp = 1, .size_bytes = 4096, .replicas = 2, .min_replicas = 1, .volume = uuid_of(v), .last_id = 100, .from_seq = 1, .name = "v",
					  .segment_count = 1 };
		log->segments[0] = (struct meta_segment){ .id = 10 * v, .epoch = 1, .size_blocks = 16, .ensemble_count = 1, .cut = true, .length = 3 };
		if (v == VOLUMES) /* one whose uuid has another number */
			log->volume = uuid_of(77);
		uint8_t *bytes = meta_log_encode(log, &n);
		meta_key_log(v, key);
		cr_assert_eq(catalog_put_at(c, key, 0, bytes, n), 0);
		free(bytes);
	}
	free(log);
}

static struct segment_header header(uint64_t volume, uint64_t segment) { return (struct segment_header){ .volume = uuid_of(volume), .segment = segment }; }

static void ask(struct rig *g, struct wanted *w)
{
	struct segment_header yes = header(2, 20), no = header(2, 21), late = header(2, 101), gone = header(66, 5), other = header(77, 10 * VOLUMES);
	EXPECT(g, wanted_ask(w, &yes) == WANTED_YES);
	EXPECT(g, wanted_cut(wanted_find(w, &yes.volume), 20)->length == 3);
	EXPECT(g, wanted_ask(w, &no) == WANTED_NO);
	EXPECT(g, wanted_ask(w, &late) == WANTED_UNKNOWN);
	EXPECT(g, wanted_ask(w, &other) == WANTED_YES);
	EXPECT(g, wanted_ask(w, &gone) == WANTED_NO);
}

static int body_lazy(void *arg)
{
	struct rig *g = arg;
	struct wanted *w = wanted_open_lazy(g->catalog, NULL);
	struct wanted_volume *v;
	uuid two = uuid_of(2), four = uuid_of(4), none = uuid_of(66);
	fill(g->catalog);
	EXPECT(g, wanted_learn(w, &four, &v) == 0 && v->id == 4 && v->replicas == 2);
	EXPECT(g, wanted_learn(w, &two, &v) == 0 && v->id == 2 && w->lazy && w->count == 2);
	EXPECT(g, wanted_learn(w, &none, &v) == -ENOENT && !w->lazy && w->count == VOLUMES);
	ask(g, w);
	wanted_close(w);
	w = wanted_open_lazy(g->catalog, NULL);
	ask(g, w);
	wanted_close(w);
	return 0;
}

static bool is_two(const void *arg, const uuid *volume) { return memcmp(arg, volume, sizeof *volume) == 0; }

static int body_kept(void *arg)
{
	struct rig *g = arg;
	struct wanted *w = NULL;
	uuid two = uuid_of(2);
	fill(g->catalog);
	EXPECT(g, wanted_open_for(g->catalog, NULL, is_two, &two, &w) == 0 && w->count == VOLUMES);
	for (size_t i = 0; i < w->count; i++)
		EXPECT(g, (w->volumes[i].log != NULL) == is_two(&two, &w->volumes[i].volume));
	ask(g, w);
	struct wanted_volume *v = wanted_find(w, &two);
	EXPECT(g, !v->log && v->loaded && wanted_lists(v, 20));
	wanted_unload(v);
	EXPECT(g, !v->loaded && !wanted_lists(v, 20) && !wanted_cut(v, 20));
	ask(g, w);
	wanted_close(w);
	return 0;
}

static void run(int (*body)(void *arg))
{
	struct sim *sim = sim_create(1, NULL);
	struct catalog_sim *catalogs = catalog_sim_create(sim);
	struct env *env = sim_process_create(sim, sim_host_create(sim, "h", 1 << 20, 4096));
	struct rig g = { .catalog = catalog_sim_open(catalogs, env) };
	sim_run_fiber(env, body, &g);
	cr_assert_eq(g.wrong, 0, "line %u", g.wrong);
	catalog_close(g.catalog);
	sim_process_destroy(env);
	catalog_sim_destroy(catalogs);
	sim_destroy(sim);
}

Test(wanted, looked_up_by_number_and_among_all_where_that_finds_nothing) { run(body_lazy); }
Test(wanted, records_that_were_listed_are_used_once) { run(body_kept); }
