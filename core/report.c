#include "core/report.h"

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
	size_t n = strnlen(prefix, sizeof r->text - 1);
	memcpy(r->text, prefix, n);
	snprintf(r->text + n, sizeof r->text - n, ": %s", cause);
	return status;
}

const char *report_text(const struct report *r, int status)
{
	return r && r->text[0] ? r->text : strerror(-status);
}
