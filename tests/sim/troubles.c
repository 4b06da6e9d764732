#include "tests/sim/troubles.h"

void trouble_draw_more(struct troubles *t, struct trouble *one, unsigned servers, bool ever)
{
	switch (sim_random(t->sim) % 12) {
	case 0: case 1:
		one->kind = TROUBLE_SPLIT;
		one->other = (one->server + 1 + (unsigned)(sim_random(t->sim) % (servers - 1))) % servers;
		break;
	case 2: one->kind = TROUBLE_CATALOG; break;
	case 8: case 9: one->kind = TROUBLE_FULL; break;
	case 3:
		if (ever)
			one->kind = TROUBLE_WIPED;
		break;
	case 4: case 5: case 6: case 7:
		if (ever && t->kept && t->kept_of == one->server)
			one->kind = TROUBLE_STALE;
		break;
	default: break;
	}
}

void troubles_keep(struct troubles *t, unsigned server)
{
	sim_disk_forget(t->kept);
	t->kept = sim_disk_keep(t->servers[server].host);
	t->kept_of = server;
}

void troubles_end(struct troubles *t)
{
	sim_disk_forget(t->kept);
	t->kept = NULL;
}

static void cut(struct troubles *t, const struct trouble *one, bool off)
{
	struct sim_host *at = t->servers[one->server].host;
	if (one->kind == TROUBLE_DEAF)
		sim_partition(t->sim, t->client, at, off);
	else if (one->kind == TROUBLE_MUTE)
		sim_partition(t->sim, at, t->client, off);
	else
		sim_partition(t->sim, at, t->servers[one->other].host, off);
}

void troubles_look_for_room(struct troubles *t, unsigned without)
{
	t->no_room |= __builtin_popcount(t->full | t->hurt | without) > 1;
}

static void fill(struct troubles *t, const struct trouble *one)
{
	uint64_t left = sim_random(t->sim) % 3 ? 0 : sim_random(t->sim) % (1 << 20);
	sim_host_fill(t->servers[one->server].host, left);
	t->full |= 1u << one->server;
	t->filled |= t->full;
}

bool trouble_begins(struct troubles *t, const struct trouble *one)
{
	static const char *const what[] = { "is killed", "loses power", "is paused", "hears nothing", "is not heard", "isn't heard by another one", "sees the catalog go away", "has a full disk",
					    "loses power, and goes back in time", "loses its disk", "is gone for ever" };
	struct block_server *s = &t->servers[one->server];
	sim_note(t->sim, "%s %s", s->domain, what[one->kind]);
	switch (one->kind) {
	case TROUBLE_KILL: block_server_end(s, false); return false;
	case TROUBLE_POWER: block_server_end(s, true); return true;
	case TROUBLE_PAUSE: sim_pause(s->env); return false;
	case TROUBLE_DEAF: case TROUBLE_MUTE: case TROUBLE_SPLIT: cut(t, one, true); return false;
	case TROUBLE_CATALOG: catalog_sim_outage(t->catalogs, true); return false;
	case TROUBLE_FULL: fill(t, one); return false;
	case TROUBLE_STALE: case TROUBLE_WIPED: case TROUBLE_GONE:
		block_server_end(s, true);
		t->hurt |= 1u << one->server;
		if (one->kind != TROUBLE_STALE)
			sim_fault(t->sim, SIM_LOST_DISK);
		if (one->kind == TROUBLE_GONE)
			t->gone |= 1u << one->server;
		return true;
	}
	return false;
}

void trouble_ends(struct troubles *t, const struct trouble *one)
{
	struct block_server *s = &t->servers[one->server];
	if (one->kind != TROUBLE_GONE)
		sim_note(t->sim, "%s is well again", s->domain);
	switch (one->kind) {
	case TROUBLE_KILL: case TROUBLE_POWER: block_server_begin(s, t->run, t->sim, t->catalogs); break;
	case TROUBLE_PAUSE: sim_resume(s->env); break;
	case TROUBLE_DEAF: case TROUBLE_MUTE: case TROUBLE_SPLIT: cut(t, one, false); break;
	case TROUBLE_CATALOG: catalog_sim_outage(t->catalogs, false); break;
	case TROUBLE_FULL:
		sim_host_fill(s->host, UINT64_MAX);
		t->full &= ~(1u << one->server);
		break;
	case TROUBLE_STALE:
		sim_disk_revert(t->kept);
		block_server_begin(s, t->run, t->sim, t->catalogs);
		break;
	case TROUBLE_WIPED:
		t->wiped = true;
		t->lost = s->id;
		s->path = "/other";
		block_server_begin(s, t->run, t->sim, t->catalogs);
		break;
	case TROUBLE_GONE: break;
	}
}
