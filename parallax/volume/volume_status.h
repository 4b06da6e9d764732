/* What an open volume says of itself to those who ask its holder: control verb "status". */
#ifndef AQ_VOLUME_STATUS_H
#define AQ_VOLUME_STATUS_H
#include "parallax/volume/volume.h"

struct volume_status {
	int failed;                /* -errno: every request fails; -EPERM: another owner has it */
	char waits_for[256];       /* "" : nothing; one clause */
	uint64_t waits_since_ns;   /* since 1970 */
	uint32_t segments, below;  /* listed ones; those with fewer copies than there should be */
	bool full;                 /* writes are refused: there is no space */
	int checkpoint;            /* -errno: its checkpoints have been failing for a while; from a length of the log on writes wait for one */
	char failing[160];         /* with fewer copies: servers whose disks make none, and why; "" : none known */
};
void volume_status(struct volume *v, struct volume_status *ret);
/* How long a volume's space table was at its last checkpoint: a clause once it is three quarters of what it may be, else false. */
bool volume_table_long(uint64_t table_bytes, char *ret, size_t bytes);
/* "good", or one clause about what isn't. `now_ns`: since 1970. */
void volume_status_text(const struct volume_status *s, uint32_t replicas, uint64_t now_ns, char *ret, size_t bytes);
/* malloc'd JSON, NULL: no memory. */
char *volume_status_encode(const struct volume_status *s);
/* 0 or -EPROTO. */
int volume_status_decode(const char *json, struct volume_status *ret);
#endif
