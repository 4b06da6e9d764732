#include "parallax/volume/volume_status.h"

#include <errno.h>
#include <jansson.h>
#include <stdio.h>
#include <string.h>

#include "core/bytes.h"
#include "core/report.h"
#include "parallax/volume/blob.h"
#include "parallax/volume/volume_private.h"

/* Those that answer, and whose disk fails. Returns the length of all that is in `ret`. */
static size_t add_failing(struct volume *v, char *ret, size_t n, size_t bytes)
{
	for (unsigned i = 0; i < v->copies->count && n < bytes; i++) {
		struct peer *p = v->copies->peers[i];
		if (p->fails && peer_connected(p))
			n += (size_t)snprintf(ret + n, bytes - n, "%s%s (%s)", n ? ", " : "", p->address, errno_text(p->fails));
	}
	return n;
}

/* Those that are away, that fail, and that are full. */
static void missing_servers(struct volume *v, char *ret, size_t bytes)
{
	copies_missing(v->copies, ret, bytes);
	size_t n = add_failing(v, ret, strlen(ret), bytes);
	for (unsigned i = 0; i < v->copies->count && n < bytes; i++) {
		struct peer *p = v->copies->peers[i];
		if (peer_connected(p) && !p->fails && !log_has_room(v, p))
			n += (size_t)snprintf(ret + n, bytes - n, "%s%s (full)", n ? ", " : "", p->address);
	}
	if (!*ret)
		snprintf(ret, bytes, "none now");
}

void volume_status(struct volume *v, struct volume_status *ret)
{
	char who[META_TEXT_MAX];
	uint64_t since_ns;
	*ret = (struct volume_status){ .failed = v->failed, .full = v->log.full, .checkpoint = volume_checkpoints_fail(v) };
	if (v->catalog_away) {
		snprintf(ret->waits_for, sizeof ret->waits_for, "the catalog: %.200s", v->catalog_why);
		ret->waits_since_ns = v->waits_ns;
	} else if (v->away) {
		missing_servers(v, who, sizeof who);
		snprintf(ret->waits_for, sizeof ret->waits_for, "%u server%s that its segments belong to; missing: %.160s", v->meta.min_replicas,
			 v->meta.min_replicas == 1 ? "" : "s", who);
		ret->waits_since_ns = v->waits_ns;
	} else if (sources_waits(&v->sources, ret->waits_for, sizeof ret->waits_for, &since_ns)) {
		ret->waits_since_ns = env_wall_ns(v->env) - (env_now_ns(v->env) - since_ns);
	} else if (v->log.mending && env_now_ns(v->env) - v->log.mending_ns >= NS_PER_S) { /* mostly it takes some ms, and may be just for another copy */
		snprintf(ret->waits_for, sizeof ret->waits_for, "a server that failed to be left out");
		ret->waits_since_ns = env_wall_ns(v->env) - (env_now_ns(v->env) - v->log.mending_ns);
	}
	for (uint32_t i = 0; i < v->meta.segment_count; i++) {
		const struct meta_segment *m = &v->meta.segments[i];
		ret->segments++;
		ret->below += !v->meta.embedded && m->ensemble_count < v->meta.replicas;
	}
	if (ret->below)
		add_failing(v, ret->failing, 0, sizeof ret->failing);
}

void volume_status_text(const struct volume_status *s, uint32_t replicas, uint64_t now_ns, char *ret, size_t bytes)
{
	if (s->failed)
		snprintf(ret, bytes, "all its requests fail: %s", s->failed == -EPERM ? "another holder has it" : errno_text(s->failed));
	else if (s->waits_for[0])
		snprintf(ret, bytes, "it waits, for %llu s now, for %s", (unsigned long long)((now_ns - MIN(s->waits_since_ns, now_ns)) / NS_PER_S), s->waits_for);
	else if (s->full)
		snprintf(ret, bytes, "there is no space for what it writes");
	else if (s->checkpoint == -EFBIG)
		snprintf(ret, bytes, "nothing that is written is published any more, and before long writes wait: its space table would be longer than %llu MiB (delete snapshots)",
			 (unsigned long long)(BLOB_BYTES_MAX >> 20));
	else if (s->checkpoint)
		snprintf(ret, bytes, "its checkpoints fail, and before long writes wait for one: %s", errno_text(s->checkpoint));
	else if (s->below)
		snprintf(ret, bytes, "%u of the %u segments of its log have fewer than %u copies%s%s", s->below, s->segments, replicas, s->failing[0] ? "; disks that fail: " : "",
			 s->failing);
	else
		snprintf(ret, bytes, "good");
}

bool volume_table_long(uint64_t table_bytes, char *ret, size_t bytes)
{
	if (table_bytes < BLOB_BYTES_MAX / 4 * 3)
		return false;
	snprintf(ret, bytes, "its space table has %llu of at most %llu MiB; if it grows beyond that nothing that is written is published any more (delete snapshots)",
		 (unsigned long long)(table_bytes >> 20), (unsigned long long)(BLOB_BYTES_MAX >> 20));
	return true;
}

char *volume_status_encode(const struct volume_status *s)
{
	json_t *j = json_pack("{s:i, s:s, s:I, s:i, s:i, s:b}", "failed", s->failed, "waits_for", s->waits_for, "waits_since_ns", (json_int_t)s->waits_since_ns,
			      "segments", (int)s->segments, "below", (int)s->below, "full", s->full);
	if (j && s->failing[0])
		json_object_set_new(j, "failing", json_string(s->failing));
	if (j && s->checkpoint)
		json_object_set_new(j, "checkpoint", json_integer(s->checkpoint));
	char *text = j ? json_dumps(j, JSON_COMPACT) : NULL;
	json_decref(j);
	return text;
}

/* On one line, whoever says it */
static void copy_line(char *to, size_t bytes, const char *from)
{
	size_t i = 0;
	for (; from[i] && i + 1 < bytes; i++)
		to[i] = from[i] >= ' ' ? from[i] : ' ';
	to[i] = '\0';
}

int volume_status_decode(const char *json, struct volume_status *ret)
{
	json_t *j = json_loads(json, 0, NULL);
	const char *waits_for = "", *failing = "";
	json_int_t since = 0;
	int failed = 0, segments = 0, below = 0, full = 0, checkpoint = 0;
	*ret = (struct volume_status){ 0 };
	int r = json_unpack(j, "{s:i, s:s, s:I, s:i, s:i, s:b, s?i, s?s}", "failed", &failed, "waits_for", &waits_for, "waits_since_ns", &since, "segments", &segments,
			    "below", &below, "full", &full, "checkpoint", &checkpoint, "failing", &failing);
	if (r == 0) {
		*ret = (struct volume_status){ .failed = failed, .waits_since_ns = (uint64_t)since, .segments = (uint32_t)MAX(segments, 0), .below = (uint32_t)MAX(below, 0),
					       .full = full, .checkpoint = checkpoint };
		copy_line(ret->waits_for, sizeof ret->waits_for, waits_for);
		copy_line(ret->failing, sizeof ret->failing, failing);
	}
	json_decref(j);
	return r == 0 ? 0 : -EPROTO;
}
