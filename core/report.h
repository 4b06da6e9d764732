/* One sentence for the operator about why something on the control path failed.
 * Code returns -errno and leaves the sentence in a report; callers extend it on the
 * way up ("attach volume 7: read superblock: …"). The first cause is kept. Library
 * code never prints: whoever handles an error prints or logs it, once. */
#ifndef AQ_REPORT_H
#define AQ_REPORT_H

struct report {
	char text[768];
};

/* Sets the cause, unless one is already there; returns `status` (a -errno). `r` may be NULL. */
int report_set(struct report *r, int status, const char *format, ...)
	__attribute__((format(printf, 3, 4)));
/* Puts "format: " in front of what is there; returns `status`. `r` may be NULL. */
int report_prefix(struct report *r, int status, const char *format, ...)
	__attribute__((format(printf, 3, 4)));
/* "DOING PATH: WHY (WHAT TO DO)" of a file that somebody named: an image, a target. Returns `status`. */
int report_path(struct report *r, int status, const char *doing, const char *path);
/* `what`, "catalog /a/b" say, is of version `found`, and this program knows only `known`. Returns -EPROTONOSUPPORT. */
int report_newer(struct report *r, const char *what, unsigned found, unsigned known);
/* What a -errno means, for people: strerror(), but in our words where an errno stands for something of ours. */
const char *errno_text(int status);
/* The sentence, or errno_text(status) when nothing was said. */
const char *report_text(const struct report *r, int status);
#endif
