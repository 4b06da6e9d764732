#include "tests/unit/fixture.h"

#include <criterion/criterion.h>
#include <errno.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>

enum { LINE = 32, LENGTH_MAX = 1 << 20 };

static FILE *fixture_open(const char *name, const char *mode)
{
	char path[256];
	snprintf(path, sizeof path, "tests/fixtures/%s", name);
	return fopen(path, mode);
}

static void line_read(const char *hex, uint8_t *to, const char *name)
{
	unsigned byte;
	for (unsigned i = 0; i < LINE && sscanf(hex + (size_t)i * 2, "%2x", &byte) == 1; i++)
		to[i] = (uint8_t)byte;
	cr_assert(strlen(hex) % 2 == 0 && strlen(hex) <= 2 * LINE, "tests/fixtures/%s: '%s'", name, hex);
}

uint8_t *fixture_load(const char *name, size_t *ret_length)
{
	FILE *f = fixture_open(name, "r");
	cr_assert(f, "tests/fixtures/%s: %s (unit tests run from the top of the tree; HACKING says how fixtures are made)", name, strerror(errno));
	uint8_t *bytes = calloc(1, LENGTH_MAX);
	char text[2 * LINE + 2];
	unsigned long at;
	*ret_length = 0;
	while (fscanf(f, "%lx %65s", &at, text) == 2) {
		cr_assert_leq(at + LINE, LENGTH_MAX, "tests/fixtures/%s", name);
		if (strcmp(text, "end") == 0)
			*ret_length = at;
		else
			line_read(text, bytes + at, name);
	}
	fclose(f);
	cr_assert(*ret_length, "tests/fixtures/%s has no end", name);
	return bytes;
}

static void fixture_write(const char *name, const uint8_t *bytes, size_t length)
{
	static const uint8_t zero[LINE];
	FILE *f = fixture_open(name, "wx");
	if (!f)
		return; /* it is there; it stays */
	for (size_t at = 0; at < length; at += LINE) {
		size_t n = length - at < LINE ? length - at : LINE;
		if (memcmp(bytes + at, zero, n) == 0)
			continue;
		fprintf(f, "%06zx ", at);
		for (size_t i = 0; i < n; i++)
			fprintf(f, "%02x", bytes[at + i]);
		fprintf(f, "\n");
	}
	fprintf(f, "%06zx end\n", length);
	fclose(f);
}

void fixture_is(const char *name, const void *bytes, size_t length)
{
	const char *how = getenv("FIXTURES");
	size_t there;
	if (how && strcmp(how, "write") == 0)
		fixture_write(name, bytes, length);
	uint8_t *frozen = fixture_load(name, &there);
	cr_assert_eq(length, there, "%s is written with %zu bytes, and was with %zu: a new version? (HACKING, Changing a format)", name, length, there);
	for (size_t i = 0; i < length; i++)
		cr_assert_eq(((const uint8_t *)bytes)[i], frozen[i], "%s: byte %zu is %02x, and was %02x: a new version? (HACKING, Changing a format)", name, i,
			     ((const uint8_t *)bytes)[i], frozen[i]);
	free(frozen);
}
