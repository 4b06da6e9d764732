/* The owner's transactions. Each compares its epoch (by the revision of the owner record, which
 * nobody changes without raising the epoch) and the revision of `log`, and carries a fresh stamp,
 * so that after an unknown outcome the same transaction can be repeated until it is known. */
#include <errno.h>
#include <stdio.h>
#include <stdlib.h>

#include "core/bytes.h"
#include "core/plant.h"
#include "parallax/volume/volume_private.h"

bool publish_note(struct volume *v, int status)
{
	if (catalog_away(status) && !v->catalog_away)
		v->waits_ns = env_wall_ns(v->env);
	v->catalog_away = catalog_away(status);
	if (v->catalog_away)
		snprintf(v->catalog_why, sizeof v->catalog_why, "%s", catalog_text(v->catalog, status));
	return v->catalog_away;
}

void publish_begin(struct volume *v, struct publication *p)
{
	fiber_mutex_lock(&v->env->loop, &v->publishing);
	p->volume = v;
	p->impatient = false;
	p->log = v->meta;
	p->log.stamp = env_random(v->env);
	catalog_txn_init(&p->txn);
}

void publish_abort(struct publication *p)
{
	fiber_mutex_unlock(&p->volume->publishing);
}

/* After a failed compare. 0: it was ours, an attempt of unknown outcome had arrived (the stamp is there). -EAGAIN: one
 * of the further compares failed, we are the owner still. -EPERM: the epoch is lost. */
static int publish_settle(struct publication *p)
{
	struct volume *v = p->volume;
	struct meta_log *log = malloc(sizeof *log);
	struct meta_owner owner;
	uint64_t log_revision = 0, owner_revision = 0;
	int r = -ENOMEM;
	while (log) {
		r = meta_get_log(v->catalog, v->id, log, &log_revision);
		if (r == 0)
			r = meta_get_owner(v->catalog, v->id, &owner, &owner_revision);
		if (r == 0 || r == -ENOENT || r == -ESHUTDOWN || r == -EUCLEAN || r == -EPROTONOSUPPORT)
			break;
		if (volume_gives_up(v)) {
			r = -ETIMEDOUT;
			break;
		}
		fiber_sleep(&v->env->loop, 50 * NS_PER_MS);
	}
	if (r == 0 && log->stamp == p->log.stamp)
		v->meta_revision = log_revision;
	else if (r == 0 && log_revision == v->meta_revision && owner_revision == v->owner_revision)
		r = -EAGAIN;
	else if (r == 0 || r == -ENOENT)
		r = -EPERM;
	free(log);
	return r;
}

/* An embedded volume's catalog is a file on this machine, most often beside the data. What it doesn't commit for so long (its
 * file system became read only, the disk is broken) isn't away: requests end, and the next opener finds what was published.
 * An attempt counts for so much of that at most: this process or its machine may have been stopped in the midst of it. */
#define FILE_PATIENCE_NS (10 * NS_PER_S)
#define FILE_ATTEMPT_NS (2 * NS_PER_S)

/* After an attempt, and the pause behind it. */
static bool tried_enough(const struct volume *v, struct publish_tries *t)
{
	uint64_t now_ns = env_now_ns(v->env);
	t->tried_ns += MIN(now_ns - t->began_ns, FILE_ATTEMPT_NS);
	t->began_ns = now_ns;
	return v->meta.embedded && t->tried_ns > FILE_PATIENCE_NS;
}

bool publish_again(struct volume *v, int status, struct publish_tries *tries)
{
	if (!publish_note(v, status) || volume_gives_up(v))
		return false;
	fiber_sleep(&v->env->loop, 100 * NS_PER_MS);
	if (!tried_enough(v, tries) || status == -EBUSY) /* somebody else has the file: it isn't broken */
		return true;
	volume_fail(v, -EIO);
	return false;
}

int publish_commit(struct publication *p)
{
	struct volume *v = p->volume;
	char log_key[META_KEY_BYTES], owner_key[META_KEY_BYTES];
	size_t length = 0;
	meta_key_log(v->id, log_key);
	meta_key_owner(v->id, owner_key);
	uint8_t *bytes = meta_log_encode(&p->log, &length);
	int r = bytes ? 0 : -ENOMEM;
	if (r == 0) {
		if (!PLANTED(publish_no_epoch))
			catalog_txn_compare(&p->txn, owner_key, v->owner_revision);
		if (!PLANTED(publish_no_epoch))
			catalog_txn_compare(&p->txn, log_key, v->meta_revision);
		catalog_txn_put(&p->txn, log_key, bytes, length);
	}
	struct publish_tries tries = { .began_ns = env_now_ns(v->env) };
	uint64_t revision = 0, pause_ns = 50 * NS_PER_MS;
	bool unknown = false;
	while (r == 0) {
		r = catalog_txn(v->catalog, &p->txn, &revision);
		if (r == 0)
			v->meta_revision = revision;
		if (r == -EAGAIN)
			r = publish_settle(p);
		else if (r == -ETIMEDOUT || (catalog_away(r) && !p->impatient) || (unknown && r != 0 && r != -ESHUTDOWN)) {
			/* Neither outcome may be assumed: repeat (R4). Also where it certainly wasn't applied, as long as that may change: to
			 * begin again would write into the log each time. */
			unknown |= r == -ETIMEDOUT;
			publish_note(v, r);
			fiber_sleep(&v->env->loop, pause_ns);
			pause_ns = MIN(2 * pause_ns, NS_PER_S / 2);
			bool broken = tried_enough(v, &tries) && unknown;
			r = v->env->dead ? -ESHUTDOWN : volume_gives_up(v) ? -ETIMEDOUT : broken ? -EIO : 0;
			if (broken)
				volume_fail(v, -EIO);
			continue;
		}
		break;
	}
	v->catalog_away = false;
	free(bytes);
	if (r == 0)
		v->meta = p->log;
	else if (r == -EPERM || r == -ESHUTDOWN || r == -ETIMEDOUT || (unknown && r != -EAGAIN && !PLANTED(publish_assumes_not)))
		volume_fail(v, r); /* also where it may be published, and that can't be learnt: the volume is closed, or its record can't be read (R4) */
	fiber_mutex_unlock(&v->publishing);
	return r;
}
