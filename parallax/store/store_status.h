/* `cluster status`: what is known of the store's health, and what isn't as it should be. */
#ifndef AQ_STORE_STATUS_H
#define AQ_STORE_STATUS_H
#include "parallax/store/store_check.h"
#include "parallax/store/store_scrub.h"
#include "parallax/volume/volume_status.h"

/* At these parts of a server's space being used somebody should know; from the second on it is a problem. In aquifer.conf:
 * `warn-full = 80,90,95`. */
enum { STORE_WARN_MAX = 8 };
struct store_warn {
	unsigned percent[STORE_WARN_MAX]; /* rising */
	unsigned count;
};
int store_warn_parse(const char *text, struct store_warn *ret); /* 0 or -EINVAL */
int store_warn_read(struct env *env, const char *root, struct store_warn *ret, struct report *report); /* FIBER. As configured, or the default */
static inline unsigned store_used_percent(uint64_t free_bytes, uint64_t total_bytes)
{
	return total_bytes ? (unsigned)(100 - (double)free_bytes * 100 / (double)total_bytes) : 0;
}
/* How many of the thresholds are reached. */
unsigned store_warn_level(const struct store_warn *w, unsigned percent);
/* What is kept from data for checkpoints (R32), of a server of that size. */
uint64_t store_reserve_bytes(uint64_t total_bytes);

struct store_status_server {
	struct store_server server;
	uint64_t away_since_ns;    /* doesn't answer: since then as far as is known, since 1970 */
	uint64_t reserve_bytes;
	unsigned used_percent, level; /* thresholds reached */
	struct store_server_work work;
};

struct store_status_volume {
	struct store_volume volume;
	bool asked;                /* attached, and its holder said: */
	struct volume_status status;
	char why[256];             /* attached, and it couldn't be asked: why */
};

struct store_status_member {  /* of etcd */
	char url[256];
	bool answers;              /* a read that needs a leader, by way of it */
	uint64_t answer_ns;
	char why[256];             /* if it doesn't */
};

struct store_status {
	char catalog_url[512];
	uint64_t catalog_ns;       /* so long one linearizable read took */
	bool catalog_read_only;    /* we may not write there, so whether it takes changes isn't known */
	struct store_status_member *members; /* none of a file */
	size_t member_count;
	char restored[64];         /* a backup was restored then, and nobody has confirmed it; "" */
	char directory[512];       /* of an embedded store, and its file system */
	uint64_t free_bytes, total_bytes;
	struct store_status_server *servers;
	size_t server_count;
	struct store_status_volume *volumes;
	size_t volume_count;
	struct store_agent *agents;
	size_t agent_count;
	uint64_t map_revision;
	/* placement groups: all copies' servers answer; some don't; none does; too few servers in it; former servers are still listed */
	unsigned groups, complete, degraded, lost, short_of, moving;
	struct store_health check, scrub;
	char **problems;           /* one line each; none: all is well, as far as is known */
	size_t problem_count;
	struct store_warn warn;
};

/* FIBER. Servers are waited for up to two seconds, holders likewise. 0 or -errno with a report; free it in any case. */
int store_status(struct store *s, struct store_status **ret, struct report *report);
/* FIBER. Where the store can't be opened, because of `why`: only catalog_url, members and problems are there. */
int store_status_unreachable(struct env *env, const char *root, const char *why, struct store_status **ret, struct report *report);
void store_status_free(struct store_status *t); /* accepts NULL */
#endif
