/* Options of drivers and exports: a sorted table of names and types, parsed generically,
 * so that control-plane exposure and documentation cost a driver nothing. */
#ifndef AQ_OPTION_H
#define AQ_OPTION_H
#include <stdbool.h>
#include <stdint.h>

#include "core/report.h"

enum option_type {
	OPTION_STRING,
	OPTION_SIZE,   /* bytes: digits and K, M, G, T, P (powers of 1024) */
	OPTION_NUMBER, /* unsigned */
	OPTION_BOOL,   /* on off yes no true false 1 0 */
};

struct option_spec {
	const char *name;
	enum option_type type;
	bool positional;    /* may also be given without `name=`, in table order */
	bool required;
	const char *help;   /* one line; states the default */
	uint64_t number_default;
	uint64_t number_min, number_max; /* max 0: none */
	bool (*valid)(const char *text); /* strings: can this word be meant? So that a graph's check knows. NULL: any */
	const char *form;                /* with valid: what a word is that can't, and what to write: "no time (give …)" */
};

#define OPTION_MAX 16

/* Parsed values, by index into the table. Strings are borrowed from the words parsed. */
struct option_values {
	const struct option_spec *spec;
	bool given[OPTION_MAX];
	const char *string[OPTION_MAX];
	uint64_t number[OPTION_MAX];
};

/* `key[i]` is NULL for a positional word. 0, or -EINVAL with a report that names the option and the cure. */
int option_parse(const struct option_spec *spec, const char *const *key, const char *const *value,
		 unsigned count, struct option_values *ret_values, struct report *report);
/* By name; asserts that the table has it. Unset: NULL, or the default. */
const char *option_string(const struct option_values *v, const char *name);
uint64_t option_number(const struct option_values *v, const char *name);
bool option_bool(const struct option_values *v, const char *name);
bool option_given(const struct option_values *v, const char *name);

/* "64K" → 65536. 0, -EINVAL (not a size) or -ERANGE. */
int parse_size(const char *text, uint64_t *ret_bytes);
/* 65536 → "64K"; exact: prints plain bytes when nothing divides. Buffer of at least 24. */
const char *format_size(uint64_t bytes, char *buffer);
/* 65536 → "64.0 KiB", for people. Buffer of at least 24. */
const char *format_size_human(uint64_t bytes, char *buffer);
/* Names of devices, volumes, snapshots, nodes: [A-Za-z0-9][A-Za-z0-9._-]{0,62}. */
bool name_valid(const char *name);
/* NAME or NAME@NAME: a volume or a snapshot. */
bool name_valid_volume(const char *name);
#endif
