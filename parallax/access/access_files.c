/* What a host has of the cluster's certificates, below ROOT/etc/aquifer/tls/, all with mode 0600:
 *
 *     authority.crt   whom it trusts           authority.key   only where the authority is
 *     ROLE.pem        its certificate for that role, and behind it the key: one file, so that they can't be of different ages */
#include <errno.h>
#include <stdlib.h>
#include <string.h>

#include "core/bytes.h"
#include "core/textfile.h"
#include "parallax/access/access.h"

#define FILE_BYTES_MAX (256u << 10)
enum { PATH_BYTES = 4200 };

const char *access_file(enum identity_role role) { return role == ROLE_SERVER ? "server.pem" : "agent.pem"; }

static int path_of(const char *root, const char *which, char ret[PATH_BYTES], struct report *report)
{
	int n = snprintf(ret, PATH_BYTES, "%s/etc/aquifer/tls/%s", root, which);
	return n >= PATH_BYTES ? report_set(report, -ENAMETOOLONG, "the root directory's name is too long") : 0;
}

int access_read(struct env *env, const char *root, const char *which, char **ret_text, struct report *report)
{
	char path[PATH_BYTES];
	int r = path_of(root, which, path, report);
	if (r < 0)
		return r;
	r = textfile_read(env, path, FILE_BYTES_MAX, ret_text, NULL);
	return r < 0 && r != -ENOENT ? report_set(report, r, "read %s: %s", path, errno_text(r)) : r;
}

static int make_directories(struct env *env, const char *root)
{
	static const char *const parts[] = { "", "/etc", "/etc/aquifer", "/etc/aquifer/tls" };
	char path[PATH_BYTES];
	int r = 0;
	for (unsigned i = *root ? 0 : 1; i < ARRAY_COUNT(parts) && r == 0; i++) {
		snprintf(path, sizeof path, "%s%s", root, parts[i]);
		r = env_mkdir(env, path);
	}
	return r;
}

int access_write(struct env *env, const char *root, const char *which, const char *text, struct report *report)
{
	char path[PATH_BYTES];
	int r = path_of(root, which, path, report);
	if (r < 0)
		return r;
	r = make_directories(env, root);
	if (r == 0)
		r = textfile_replace(env, path, text);
	return r < 0 ? report_set(report, r, "write %s: %s", path, errno_text(r)) : 0;
}

/* The same certificate as we have, and the same authorities? Then nothing was changed. */
static bool same(struct identity *now, const struct identity *old)
{
	return old && now->trusts == old->trusts && X509_cmp(SSL_CTX_get0_certificate(now->context), SSL_CTX_get0_certificate(old->context)) == 0;
}

int access_load(struct env *env, const char *root, enum identity_role role, struct report *report)
{
	char *authority = NULL, *own = NULL;
	struct identity *now = NULL, *old;
	struct report why = { "" };
	int r = access_read(env, root, access_file(role), &own, &why);
	if (r == 0)
		r = access_read(env, root, "authority.crt", &authority, &why);
	if (r == 0) {
		struct identity_pem pem = { authority, own, own };
		r = identity_create(&pem, &now, &why);
		if (r == 0 && now->name.role != role) {
			identity_put(now);
			r = report_set(&why, -EBADMSG, "%s is a certificate for another role", access_file(role));
		}
	}
	certificate_wipe(own);
	free(authority);
	if (r < 0)
		return r == -ENOENT && !why.text[0] ? r : report_set(report, r, "etc/aquifer/tls: %s", report_text(&why, r));
	old = env->identity; /* only now: it may have been replaced while we read */
	if (same(now, old)) {
		identity_put(now);
		return 0;
	}
	if (old)
		r = identity_revoke(now, old->revoked, old->revoked_count);
	if (r == 0) {
		env->identity = now;
		identity_put(old);
	} else {
		identity_put(now);
	}
	return r;
}
