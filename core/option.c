#include "core/option.h"

#include <assert.h>
#include <ctype.h>
#include <errno.h>
#include <inttypes.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <strings.h>

int parse_size(const char *text, uint64_t *ret_bytes)
{
	static const char units[] = "KMGTPE";
	if (!isdigit((unsigned char)text[0]))
		return -EINVAL;
	char *end;
	errno = 0;
	uint64_t v = strtoull(text, &end, 10);
	if (errno)
		return -ERANGE;
	if (*end) {
		const char *unit = strchr(units, toupper((unsigned char)*end));
		if (!unit)
			return -EINVAL;
		if (end[1] && strcasecmp(end + 1, "iB") != 0 && strcasecmp(end + 1, "B") != 0)
			return -EINVAL;
		unsigned shift = (unsigned)(unit - units + 1) * 10;
		if (v > UINT64_MAX >> shift)
			return -ERANGE;
		v <<= shift;
	}
	*ret_bytes = v;
	return 0;
}

const char *format_size(uint64_t bytes, char *buffer)
{
	static const char units[] = "\0KMGTPE";
	unsigned u = 0;
	while (bytes && bytes % 1024 == 0 && u < 6) {
		bytes /= 1024;
		u++;
	}
	snprintf(buffer, 24, "%" PRIu64 "%c", bytes, units[u]);
	return buffer;
}

const char *format_size_human(uint64_t bytes, char *buffer)
{
	static const char *const units[] = { "B", "KiB", "MiB", "GiB", "TiB", "PiB", "EiB" };
	double v = (double)bytes;
	unsigned u = 0;
	while (v >= 1024 && u < 6) {
		v /= 1024;
		u++;
	}
	snprintf(buffer, 24, u ? "%.1f %s" : "%.0f %s", v, units[u]);
	return buffer;
}

bool name_valid(const char *name)
{
	if (!isalnum((unsigned char)name[0]))
		return false;
	size_t n = strspn(name, "ABCDEFGHIJKLMNOPQRSTUVWXYZabcdefghijklmnopqrstuvwxyz0123456789._-");
	return n <= 63 && name[n] == '\0';
}

bool name_valid_volume(const char *name)
{
	char volume[64];
	const char *snapshot = strchr(name, '@');
	if (!snapshot)
		return name_valid(name);
	if ((size_t)(snapshot - name) >= sizeof volume)
		return false;
	memcpy(volume, name, (size_t)(snapshot - name));
	volume[snapshot - name] = '\0';
	return name_valid(volume) && name_valid(snapshot + 1);
}

static int option_index(const struct option_spec *spec, const char *name)
{
	for (int i = 0; spec && spec[i].name; i++)
		if (strcmp(spec[i].name, name) == 0)
			return i;
	return -1;
}

static int positional_index(const struct option_spec *spec, unsigned n)
{
	for (int i = 0; spec && spec[i].name; i++)
		if (spec[i].positional && n-- == 0)
			return i;
	return -1;
}

static int unknown(const struct option_spec *spec, const char *word, bool named, struct report *report)
{
	char known[256] = "";
	for (int i = 0; spec && spec[i].name; i++) {
		size_t used = strlen(known);
		snprintf(known + used, sizeof known - used, "%s%s", i ? ", " : "", spec[i].name);
	}
	return report_set(report, -EINVAL, named ? "unknown option '%s' (it has %s)" : "'%s' is one argument too many (options: %s)",
			  word, known[0] ? known : "none");
}

static int parse_bool(const char *text, uint64_t *ret)
{
	static const char *const yes[] = { "on", "yes", "true", "1" }, *const no[] = { "off", "no", "false", "0" };
	for (unsigned i = 0; i < 4; i++) {
		if (strcasecmp(text, yes[i]) == 0)
			return *ret = 1, 0;
		if (strcasecmp(text, no[i]) == 0)
			return *ret = 0, 0;
	}
	return -EINVAL;
}

static int parse_number(const char *text, uint64_t *ret)
{
	char *end;
	errno = 0;
	if (!isdigit((unsigned char)text[0]))
		return -EINVAL;
	*ret = strtoull(text, &end, 10);
	return *end ? -EINVAL : -errno;
}

/* In the words in which the value is given: 4T, not 4398046511104. */
static int out_of_range(const struct option_spec *o, const char *text, struct report *report)
{
	char min[24], max[24];
	if (o->type == OPTION_SIZE)
		return report_set(report, -EINVAL, "%s=%s is out of range (%s to %s)", o->name, text, format_size(o->number_min, min),
				  o->number_max ? format_size(o->number_max, max) : "below 16E");
	return report_set(report, -EINVAL, "%s=%s is out of range (%" PRIu64 " to %" PRIu64 ")", o->name, text, o->number_min,
			  o->number_max ? o->number_max : UINT64_MAX);
}

static int parse_value(const struct option_spec *o, const char *text, uint64_t *ret, struct report *report)
{
	if (o->type == OPTION_STRING)
		return !o->valid || o->valid(text) ? 0 : report_set(report, -EINVAL, "%s=%.80s is %s", o->name, text, o->form);
	int r = o->type == OPTION_SIZE ? parse_size(text, ret)
		: o->type == OPTION_BOOL ? parse_bool(text, ret) : parse_number(text, ret);
	if (r == -ERANGE || (r == 0 && (*ret < o->number_min || (o->number_max && *ret > o->number_max))))
		return out_of_range(o, text, report);
	if (r < 0)
		return report_set(report, -EINVAL, "%s=%s is not a %s", o->name, text,
				  o->type == OPTION_SIZE ? "size (give digits and K, M, G or T)"
				  : o->type == OPTION_BOOL ? "switch (give on or off)" : "number (give digits)");
	return 0;
}

int option_parse(const struct option_spec *spec, const char *const *key, const char *const *value,
		 unsigned count, struct option_values *ret_values, struct report *report)
{
	struct option_values v = { .spec = spec };
	unsigned positional = 0;
	for (int i = 0; spec && spec[i].name; i++)
		v.number[i] = spec[i].number_default;
	for (unsigned a = 0; a < count; a++) {
		int i = key[a] ? option_index(spec, key[a]) : positional_index(spec, positional++);
		if (i < 0)
			return unknown(spec, key[a] ? key[a] : value[a], key[a] != NULL, report);
		if (v.given[i])
			return report_set(report, -EINVAL, "option '%s' is given twice", spec[i].name);
		v.given[i] = true;
		v.string[i] = value[a];
		int r = parse_value(&spec[i], value[a], &v.number[i], report);
		if (r < 0)
			return r;
	}
	for (int i = 0; spec && spec[i].name; i++)
		if (spec[i].required && !v.given[i])
			return report_set(report, -EINVAL, "%s is missing (%s)", spec[i].name, spec[i].help);
	*ret_values = v;
	return 0;
}

static int must_index(const struct option_values *v, const char *name)
{
	int i = option_index(v->spec, name);
	assert(i >= 0);
	return i;
}

const char *option_string(const struct option_values *v, const char *name) { return v->string[must_index(v, name)]; }
uint64_t option_number(const struct option_values *v, const char *name) { return v->number[must_index(v, name)]; }
bool option_bool(const struct option_values *v, const char *name) { return option_number(v, name) != 0; }
bool option_given(const struct option_values *v, const char *name) { return v->given[must_index(v, name)]; }
