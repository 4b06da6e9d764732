/* Who a data directory is: the file `server`, and what its copies are worth after a start.
 *
 *  0 magic "AQSERVER"  8 version u32  12 clean u32   16 uuid        32 incarnation u64
 * 40 intent u64       48 doubtful_before u64         56 stale_before u64
 * 64 unsynced_before u64   72 boot id, 36 characters and a NUL      rest zero, 4092 crc u32
 *
 * A start writes the intent, raises server/UUID in the catalog, and serves. What can go wrong
 * and what becomes of it:
 *   - stopped in order, or the same boot id: every copy has what it answered;
 *   - another boot id: what is not sealed is doubtful, for good;
 *   - the catalog is ahead of the directory: it is an old state of the disk; what is not
 *     sealed counts for nothing;
 *   - a server of the same identity answers at another address: it is refused. */
#include <errno.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>

#include "core/bytes.h"
#include "core/plant.h"
#include "parallax/catalog/catalog_copy.h"
#include "parallax/catalog/meta.h"
#include "parallax/segment/placement.h"
#include "parallax/segment/segment_dir.h"

#define SERVER_MAGIC UINT64_C(0x5245565245535141)
#define RAISE_TRIES 600
#define ELSEWHERE_NS (2 * NS_PER_S)

void dir_server_encode(const struct dir_server *s, void *block)
{
	uint8_t *b = block;
	memset(b, 0, BLOCK_BYTES);
	put_le64(b, SERVER_MAGIC);
	put_le32(b + 8, DIR_VERSION);
	put_le32(b + 12, s->clean);
	memcpy(b + 16, s->id.bytes, 16);
	put_le64(b + 32, s->incarnation);
	put_le64(b + 40, s->intent);
	put_le64(b + 48, s->doubtful_before);
	put_le64(b + 56, s->stale_before);
	put_le64(b + 64, s->unsynced_before);
	memcpy(b + 72, s->boot_id, 37);
	put_le32(b + BLOCK_BYTES - 4, crc32c(0, b, BLOCK_BYTES - 4));
}

int dir_server_decode(const void *block, struct dir_server *ret)
{
	const uint8_t *b = block;
	if (get_le64(b) != SERVER_MAGIC || get_le32(b + BLOCK_BYTES - 4) != crc32c(0, b, BLOCK_BYTES - 4))
		return -EBADMSG;
	if (get_le32(b + 8) > DIR_VERSION)
		return -EPROTONOSUPPORT;
	struct dir_server s = { .incarnation = get_le64(b + 32), .intent = get_le64(b + 40), .clean = get_le32(b + 12) == 1,
				.doubtful_before = get_le64(b + 48), .stale_before = get_le64(b + 56),
				.unsynced_before = get_le64(b + 64) };
	memcpy(s.id.bytes, b + 16, 16);
	memcpy(s.boot_id, b + 72, 36);
	*ret = s;
	return 0;
}

static int write_new(struct segment_dir *d, const char *fresh, const void *block, bool sync)
{
	struct file *f = NULL;
	int r = file_open(d->env, fresh, FILE_OPEN_WRITE | FILE_OPEN_CREATE, &f);
	if (r < 0)
		return r;
	r = file_write_wait(f, block, BLOCK_BYTES, 0);
	if (r == 0 && sync)
		r = file_sync_wait(f);
	file_close(d->env, f);
	return r;
}

/* Replaces the file: a new one, synced, renamed, directory synced. The block of the old one becomes the next new one's at once, so
 * that a disk that is full by then doesn't keep the directory from being opened, or from stopping in order. */
int dir_server_write(struct segment_dir *d)
{
	char path[DIR_PATH_MAX], fresh[DIR_PATH_MAX];
	dir_path(d, path, "server");
	dir_path(d, fresh, "server.new");
	uint8_t *block = env_alloc_aligned(BLOCK_BYTES);
	if (!block)
		return -ENOMEM;
	dir_server_encode(&d->state, block);
	int r = write_new(d, fresh, block, true);
	if (r == 0)
		r = env_rename(d->env, fresh, path);
	if (r == 0)
		r = env_sync_dir(d->env, d->path);
	if (r == 0)
		write_new(d, fresh, block, false); /* if it fails, there is no reserve; that is all */
	free(block);
	return r;
}

static int server_read(struct segment_dir *d, struct report *report)
{
	char path[DIR_PATH_MAX];
	struct file *f;
	dir_path(d, path, "server");
	int r = file_open(d->env, path, 0, &f);
	if (r == -ENOENT)
		return r;
	if (r < 0)
		return report_set(report, r, "open %s: %s", path, errno_text(r));
	uint8_t *block = env_alloc_aligned(BLOCK_BYTES);
	r = -ENOMEM;
	for (int i = 0; block && i < 3 && r != 0; i++) { /* a bit may flip on the way */
		size_t done = 0;
		r = file_read_wait(f, block, BLOCK_BYTES, 0, &done);
		if (r == 0)
			r = done == BLOCK_BYTES ? dir_server_decode(block, &d->state) : -EBADMSG;
	}
	uint32_t found = r == -EPROTONOSUPPORT ? get_le32(block + 8) : 0;
	free(block);
	file_close(d->env, f);
	if (r == -EBADMSG)
		return report_set(report, -EUCLEAN, "%s is damaged (restore it from a backup; its copies can't be trusted without it)", path);
	if (r == -EPROTONOSUPPORT)
		return report_newer(report, path, found, DIR_VERSION);
	return r < 0 ? report_set(report, r, "read %s: %s", path, errno_text(r)) : 0;
}

static int name_seen(void *arg, const char *name)
{
	(void)name;
	*(bool *)arg = true;
	return 0;
}

/* Makes the directories; the file `server` comes with the first start. */
static int server_make(struct segment_dir *d, struct report *report)
{
	char path[DIR_PATH_MAX];
	bool used = false;
	dir_path(d, path, "segments");
	int r = env_mkdir(d->env, path);
	if (r == 0)
		r = env_list_dir(d->env, path, name_seen, &used);
	if (r == 0 && used)
		return report_set(report, -EUCLEAN, "%s holds segments but no file 'server' (restore it from a backup)", d->path);
	dir_path(d, path, "recycle");
	if (r == 0)
		r = env_mkdir(d->env, path);
	if (r == 0)
		r = env_sync_dir(d->env, d->path);
	if (r < 0)
		return report_set(report, r, "make data directory %s: %s", d->path, errno_text(r));
	d->state = (struct dir_server){ .clean = true };
	for (int i = 0; i < 16; i += 8)
		put_le64(d->state.id.bytes + i, env_random(d->env));
	d->state.id.bytes[6] = (uint8_t)(d->state.id.bytes[6] & 0x0f) | 0x40;
	d->state.id.bytes[8] = (uint8_t)(d->state.id.bytes[8] & 0x3f) | 0x80;
	env_boot_id(d->env, d->state.boot_id);
	return 0;
}

/* Without them it would be a server that has lost all, fences included, and says that it hasn't; and it could make no new ones. */
static int server_whole(struct segment_dir *d, struct report *report)
{
	char path[DIR_PATH_MAX];
	bool used;
	dir_path(d, path, "segments");
	int r = env_list_dir(d->env, path, name_seen, &used);
	return r == -ENOENT ? report_set(report, -EUCLEAN, "%s has a file 'server' and no directory 'segments': what was in that is lost (begin with an empty directory, as a new "
					 "server)", d->path) : 0;
}

/* What copies of earlier incarnations are worth now that incarnation `next` begins. */
static void server_judge(struct dir_server *s, uint64_t next, uint64_t in_catalog, const char boot_id[37])
{
	bool same_boot = strcmp(s->boot_id, boot_id) == 0;
	if (in_catalog > MAX(s->incarnation, s->intent))
		s->stale_before = next;
	if (!s->clean && !same_boot)
		s->doubtful_before = next;
	else if (!same_boot)
		s->doubtful_before = MAX(s->doubtful_before, s->unsynced_before);
	if (PLANTED(segment_doubtful_as_whole))
		s->doubtful_before = 0;
	if (!s->clean)
		s->unsynced_before = next;
	memcpy(s->boot_id, boot_id, 37);
	s->clean = false;
}

static bool is_registered_at(const struct meta_server *m, const struct segment_dir_options *options)
{
	return strncmp(m->address, options->address ? options->address : "", sizeof m->address - 1) == 0 || PLANTED(start_together);
}

/* Raises server/UUID to `next`. Only the holder of the directory's lock writes that key, so a compare that fails, or an unknown outcome, can only be an earlier
 * attempt of ours; or of a copy of the directory that is started at the same moment, elsewhere. */
static int catalog_raise(struct segment_dir *d, uint64_t next, const struct segment_dir_options *options,
			 struct report *report)
{
	int r = -ETIMEDOUT;
	for (int i = 0; i < RAISE_TRIES && (r == -ETIMEDOUT || r == -EAGAIN); i++) {
		char key[META_KEY_BYTES];
		struct meta_server m = { 0 };
		uint64_t revision = 0;
		if (i && fiber_sleep(&d->env->loop, 20 * NS_PER_MS) < 0)
			return -ESHUTDOWN;
		r = meta_get_server(d->catalog, &d->state.id, &m, &revision);
		if (r == -ETIMEDOUT)
			continue;
		if (r < 0 && r != -ENOENT)
			break;
		if (r == 0 && m.incarnation >= next)
			return m.incarnation == next && is_registered_at(&m, options) ? 0 : report_set(report, -ESTALE, "data directory %s was started elsewhere", d->path);
		m.incarnation = next;
		m.map_version = PLACEMENT_VERSION;
		m.draining &= !m.removed;
		m.removed = false; /* it is back */
		snprintf(m.address, sizeof m.address, "%s", options->address ? options->address : "");
		snprintf(m.domain, sizeof m.domain, "%s", options->domain ? options->domain : "");
		snprintf(m.host, sizeof m.host, "%s", options->host ? options->host : "");
		size_t length = 0;
		uint8_t *bytes = meta_server_encode(&m, &length);
		meta_key_server(&d->state.id, key);
		r = catalog_put_at(d->catalog, key, revision, bytes, length);
		free(bytes);
	}
	return r < 0 ? report_set(report, r, "register data directory %s in the catalog: %s", d->path, catalog_text(d->catalog, r)) : 0;
}

/* FIBER. A directory may be a copy of one that is in use, at another address: who writes is connected with either, and neither would have all. One that doesn't
 * answer is no obstacle; should it go on, it finds out (server/manager.c). */
static int check_elsewhere(struct segment_dir *d, const struct segment_dir_options *options, const struct meta_server *m, struct report *report)
{
	struct segment_server *other;
	if (!options->address || !m->address[0])
		return 0;
	const char *mine = strchr(options->address, ':'), *last = strchr(m->address, ':'); /* it may have begun to speak TLS */
	if (!mine || !last || strcmp(mine, last) == 0 || segment_remote_open(d->env, m->address, ELSEWHERE_NS, &other, NULL) < 0)
		return 0;
	bool same = memcmp(&other->id, &d->state.id, sizeof(uuid)) == 0;
	segment_server_close(other);
	return same ? report_set(report, -EBUSY, "the server of data directory %s runs already, at %s: one of the two is a copy (stop that one first, or begin with an empty "
					 "directory, as a new server)", d->path, m->address) : 0;
}

static int catalog_incarnation(struct segment_dir *d, const struct segment_dir_options *options, uint64_t *ret_incarnation, struct report *report)
{
	struct meta_server m = { 0 };
	int r = -ETIMEDOUT;
	for (int i = 0; i < RAISE_TRIES && r == -ETIMEDOUT; i++) {
		if (i && fiber_sleep(&d->env->loop, 20 * NS_PER_MS) < 0)
			return -ESHUTDOWN;
		r = meta_get_server(d->catalog, &d->state.id, &m, NULL);
	}
	if (r < 0 && r != -ENOENT)
		return report_set(report, r, "look up data directory %s in the catalog: %s", d->path, catalog_text(d->catalog, r));
	*ret_incarnation = r == 0 ? m.incarnation : 0;
	return r == 0 ? check_elsewhere(d, options, &m, report) : 0;
}

int dir_server_start(struct segment_dir *d, const struct segment_dir_options *options, struct report *report)
{
	int r = server_read(d, report);
	if (r == 0)
		r = server_whole(d, report);
	else if (r == -ENOENT)
		r = options->create ? server_make(d, report)
				    : report_set(report, r, "%s is not a data directory: it has no file 'server'", d->path);
	uint64_t in_catalog = 0;
	if (r == 0)
		r = catalog_incarnation(d, options, &in_catalog, report);
	if (r < 0)
		return r;
	/* another catalog, or one that was lost: it doesn't know what is here, which is no evidence against it (R5, R31) */
	if (options->address && in_catalog < d->state.incarnation)
		r = catalog_mark(d->catalog, STORE_RESTORED, "a server that it had forgotten came", report);
	if (r < 0)
		return r;
	char boot_id[37];
	env_boot_id(d->env, boot_id);
	uint64_t next = MAX(MAX(d->state.incarnation, d->state.intent), in_catalog) + 1;
	server_judge(&d->state, next, in_catalog, boot_id);
	d->state.intent = next;
	r = dir_server_write(d);
	if (r < 0)
		return report_set(report, r, "write %s/server: %s", d->path, errno_text(r));
	r = catalog_raise(d, next, options, report);
	d->state.incarnation = next;
	return r;
}
