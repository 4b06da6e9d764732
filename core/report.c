#include "core/report.h"

#include <errno.h>
#include <stdarg.h>
#include <stdio.h>
#include <string.h>

int report_set(struct report *r, int status, const char *format, ...)
{
	if (!r || r->text[0])
		return status;
	va_list ap;
	va_start(ap, format);
	vsnprintf(r->text, sizeof r->text, format, ap);
	va_end(ap);
	return status;
}

int report_prefix(struct report *r, int status, const char *format, ...)
{
	if (!r)
		return status;
	char prefix[sizeof r->text], cause[sizeof r->text];
	snprintf(cause, sizeof cause, "%s", report_text(r, status));
	va_list ap;
	va_start(ap, format);
	vsnprintf(prefix, sizeof prefix, format, ap);
	va_end(ap);
	/* What is too long loses its end. */
	int n = snprintf(r->text, sizeof r->text, "%s: ", prefix);
	if ((size_t)n < sizeof r->text)
		memccpy(r->text + n, cause, 0, sizeof r->text - (size_t)n - 1);
	r->text[sizeof r->text - 1] = 0;
	return status;
}

int report_path(struct report *r, int status, const char *doing, const char *path)
{
	static const struct {
		int error;
		const char *text; /* NULL: strerror() */
		const char *cure;
	} known[] = {
		{ EACCES, NULL, "check its permissions" },
		{ EEXIST, "it exists already", "choose another name, or remove it" },
		{ EINVAL, "it is neither a file nor a block device", "give one" },
		{ EISDIR, NULL, "give a file or a block device" },
		{ ELOOP, NULL, "check its symbolic links" },
		{ ENOENT, NULL, "check the name" },
		{ ENOSPC, NULL, "free some space" },
		{ ENOTDIR, NULL, "check the name" },
		{ EPERM, NULL, "check its permissions" },
		{ EROFS, NULL, "its file system is mounted read-only" },
	};
	for (unsigned i = 0; i < sizeof known / sizeof *known; i++)
		if (known[i].error == -status)
			return report_set(r, status, "%s %s: %s (%s)", doing, path, known[i].text ? known[i].text : strerror(-status),
					  known[i].cure);
	return report_set(r, status, "%s %s: %s", doing, path, strerror(-status));
}

int report_newer(struct report *r, const char *what, unsigned found, unsigned known)
{
	return report_set(r, -EPROTONOSUPPORT, "%s is of version %u, newer than this program knows (%u): upgrade this program", what, found, known);
}

const char *errno_text(int status)
{
	switch (-status) {
	case EPROTONOSUPPORT: return "it is of a newer version than this program knows (upgrade this program)";
	case EUCLEAN: return "it is damaged";
	case EBADMSG: return "it is damaged (a checksum doesn't match)";
	case EREMOTEIO: return "another copy, which it would be made from, can't be read";
	default: return strerror(-status);
	}
}

const char *report_text(const struct report *r, int status)
{
	return r && r->text[0] ? r->text : errno_text(status);
}
