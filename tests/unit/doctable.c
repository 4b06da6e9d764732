#include "tests/unit/doctable.h"

#include <criterion/criterion.h>
#include <ctype.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>

#include "core/bytes.h"
#include "core/crc.h"

enum { TEXT_MAX = 1 << 16, ROWS_MAX = 32 };

static char *doc_read(const char *file)
{
	char path[128], *text = calloc(1, TEXT_MAX);
	snprintf(path, sizeof path, "docs/formats/%s", file);
	FILE *f = fopen(path, "r");
	cr_assert(f, "%s can't be read (unit tests run from the top of the tree)", path);
	size_t n = fread(text, 1, TEXT_MAX - 1, f);
	fclose(f);
	cr_assert_lt(n, TEXT_MAX - 1, "%s is too long", path);
	return text;
}

char *doc_section(const char *file, const char *heading)
{
	char *text = doc_read(file), line[128];
	size_t rank = strspn(heading, "#");
	snprintf(line, sizeof line, "\n%s\n", heading);
	char *from = strstr(text, line);
	cr_assert(from, "docs/formats/%s has no '%s'", file, heading);
	char *end = from + strlen(line);
	while ((end = strstr(end, "\n#")) && strspn(end + 1, "#") > rank)
		end++;
	char *section = strndup(from + 1, end ? (size_t)(end - from) : strlen(from));
	free(text);
	return section;
}

struct row {
	size_t at, bytes;
	const char *text; /* to the end of its line */
};

/* "| 8 | 4 | version, 1 |", or "    8     4       version: 1" */
static bool row_parse(const char *line, struct row *ret)
{
	bool bars = *line == '|';
	char *p = (char *)(uintptr_t)line + strspn(line, "| ");
	if (!isdigit((unsigned char)*p))
		return false;
	ret->at = strtoul(p, &p, 10);
	size_t gap = strspn(p, "| ");
	p += gap;
	if (gap < 2 || !isdigit((unsigned char)*p))
		return false;
	ret->bytes = strtoul(p, &p, 10);
	gap = strspn(p, "| ");
	if (gap < 2 || (bars && !memchr(p, '|', gap)))
		return false;
	ret->text = p + gap;
	return ret->bytes > 0;
}

static size_t rows_find(const char *section, unsigned index, struct row *rows)
{
	size_t count = 0;
	struct row row;
	size_t end = 0;
	unsigned table = 0;
	for (const char *line = section; line; line = strchr(line, '\n'), line = line ? line + 1 : NULL) {
		if (!row_parse(line, &row))
			continue;
		table += row.at < end; /* begins anew */
		end = row.at + row.bytes;
		if (table != index)
			continue;
		cr_assert_lt(count, ROWS_MAX);
		rows[count++] = row;
	}
	return count;
}

static bool is_zero(const struct row *r) { return strncmp(r->text, "0 |", 3) == 0 || strncmp(r->text, "0\n", 2) == 0 || strncmp(r->text, "zero", 4) == 0; }

static const struct doc_field *field_of(const struct doc_field *fields, const struct row *r)
{
	const struct doc_field *best = NULL;
	for (const struct doc_field *f = fields; f->name; f++)
		if (strncmp(r->text, f->name, strlen(f->name)) == 0 && (!best || strlen(f->name) > strlen(best->name)))
			best = f;
	return best;
}

static void number_put(uint8_t *to, size_t bytes, uint64_t number)
{
	for (size_t i = 0; i < bytes; i++)
		to[i] = i < 8 ? (uint8_t)(number >> (8 * i)) : 0;
}

void doc_fill(const char *file, const char *heading, unsigned index, const struct doc_field *fields, void *buffer)
{
	char *section = doc_section(file, heading);
	struct row rows[ROWS_MAX];
	const struct doc_field *used[ROWS_MAX] = { NULL };
	uint8_t *b = buffer;
	size_t count = rows_find(section, index, rows), known = 0;
	for (size_t i = 0; i < count; i++) {
		const struct doc_field *f = used[i] = field_of(fields, &rows[i]);
		cr_assert(f || is_zero(&rows[i]), "docs/formats/%s, %s: the test doesn't know '%.60s'", file, heading, rows[i].text);
		if (f && f->bytes)
			memcpy(b + rows[i].at, f->bytes, rows[i].bytes);
		else if (f && !f->crc[0].to)
			number_put(b + rows[i].at, rows[i].bytes, f->number);
	}
	for (const struct doc_field *f = fields; f->name; f++, known++)
		for (size_t i = 0, there = 0; i <= count; i++) {
			there += i < count && used[i] == f;
			cr_assert(i < count || there == 1, "docs/formats/%s, %s: '%s' is there %zu times", file, heading, f->name, there);
		}
	for (size_t i = 0; i < count; i++) {
		const struct doc_field *f = used[i];
		uint32_t crc = 0;
		for (unsigned k = 0; f && k < ARRAY_COUNT(f->crc) && f->crc[k].to; k++)
			crc = crc32c(crc, b + f->crc[k].from, f->crc[k].to - f->crc[k].from);
		if (f && f->crc[0].to)
			put_le32(b + rows[i].at, crc);
	}
	free(section);
}
