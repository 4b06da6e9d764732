/* A catalog as a file: lines of JSON.
 *
 *   {"aquifer-catalog":1,"created_ns":N}
 *   {"key":"…","value":"base64"}            in order of keys
 *   {"keys":N,"crc32c":N}                   of all bytes before this line
 */
#include <errno.h>
#include <inttypes.h>
#include <jansson.h>
#include <openssl/evp.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>

#include "core/bytes.h"
#include "core/crc.h"
#include "parallax/catalog/catalog_copy.h"

/* Errors of a file that isn't as it was written. */
#define NO_BACKUP "it isn't a backup of a catalog (give a file that aquifer cluster backup made)"
#define ANOTHER " (take another backup)"
#define VERSION 1
#define LINE_BYTES_MAX ((size_t)512 << 10)

/* ---- writing ---- */

static bool write_key(FILE *f, const struct catalog_image_key *k)
{
	unsigned char *value = malloc(k->length / 3 * 4 + 5);
	if (!value)
		return false;
	EVP_EncodeBlock(value, k->bytes, (int)k->length);
	json_t *j = json_pack("{s:s, s:s}", "key", k->key, "value", (char *)value);
	bool good = j && json_dumpf(j, f, JSON_COMPACT) == 0 && fputc('\n', f) != EOF;
	json_decref(j);
	free(value);
	return good;
}

char *catalog_image_encode(const struct catalog_image *i, uint64_t now_ns, size_t *ret_length)
{
	char *text = NULL;
	size_t length = 0;
	FILE *f = open_memstream(&text, &length);
	if (!f)
		return NULL;
	bool good = fprintf(f, "{\"aquifer-catalog\":%d,\"created_ns\":%" PRIu64 "}\n", VERSION, now_ns) > 0;
	for (size_t n = 0; good && n < i->count; n++)
		good = write_key(f, &i->keys[n]);
	good = good && fflush(f) == 0;
	if (good)
		good = fprintf(f, "{\"keys\":%zu,\"crc32c\":%" PRIu32 "}\n", i->count, crc32c(0, text, length)) > 0;
	if (fclose(f) != 0 || !good) {
		free(text);
		return NULL;
	}
	*ret_length = length;
	return text;
}

/* ---- reading ---- */

static int read_header(const json_t *j, struct report *report)
{
	const json_t *version = json_object_get(j, "aquifer-catalog");
	if (!json_is_integer(version) || json_integer_value(version) < 1)
		return report_set(report, -EUCLEAN, NO_BACKUP);
	if (json_integer_value(version) > VERSION)
		return report_newer(report, "it", (unsigned)MIN(json_integer_value(version), INT32_MAX), VERSION);
	return 0;
}

static bool key_good(const char *key, const char *before)
{
	size_t n = key ? strlen(key) : 0;
	bool good = n > 0 && n <= CATALOG_KEY_MAX && strncmp(key, "store/", 6) != 0 && (!before || strcmp(before, key) < 0);
	for (const char *p = key; good && *p; p++)
		good = *p >= ' ' && *p < 0x7f;
	return good;
}

static int read_key(const json_t *j, struct catalog_image *ret)
{
	const char *key = json_string_value(json_object_get(j, "key"));
	const json_t *value = json_object_get(j, "value");
	const char *text = json_string_value(value);
	size_t n = text ? json_string_length(value) : 0, padding = 0;
	if (!key_good(key, ret->count ? ret->keys[ret->count - 1].key : NULL) || !text || n % 4)
		return -EUCLEAN;
	while (padding < 2 && padding < n && text[n - 1 - padding] == '=')
		padding++;
	if (n / 4 * 3 - padding > CATALOG_VALUE_MAX)
		return -EUCLEAN;
	unsigned char *bytes = malloc(n / 4 * 3 + 1);
	if (!bytes)
		return -ENOMEM;
	int r = EVP_DecodeBlock(bytes, (const unsigned char *)text, (int)n) == (int)(n / 4 * 3) ? 0 : -EUCLEAN;
	if (r == 0)
		r = catalog_image_add(ret, key, bytes, n / 4 * 3 - padding);
	free(bytes);
	return r;
}

static int read_end(const json_t *j, const struct catalog_image *i, uint32_t crc, bool last)
{
	bool good = last && json_is_integer(json_object_get(j, "keys")) && json_integer_value(json_object_get(j, "keys")) == (json_int_t)i->count &&
		    json_integer_value(json_object_get(j, "crc32c")) == (json_int_t)crc;
	return good ? 1 : -EUCLEAN;
}

/* 1: it was the last one. */
static int read_line(const char *text, size_t at, size_t n, size_t length, struct catalog_image *ret, struct report *report)
{
	/* flat objects of a few strings: what they become is a small multiple of their length */
	json_t *j = n <= LINE_BYTES_MAX && memchr(text + at + 1, '{', n - 1) == NULL && memchr(text + at, '[', n) == NULL
			    ? json_loadb(text + at, n, 0, NULL) : NULL;
	int r = at == 0				? read_header(j, report)
		: !json_is_object(j) || json_object_size(j) > 8 ? -EUCLEAN
		: json_object_get(j, "keys")		? read_end(j, ret, crc32c(0, text, at), at + n + 1 == length)
							: read_key(j, ret);
	json_decref(j);
	return r;
}

int catalog_image_decode(const char *text, size_t length, struct catalog_image *ret, struct report *report)
{
	int r = 0;
	size_t at = 0, line = 0;
	*ret = (struct catalog_image){ 0 };
	while (r == 0) {
		const char *end = at < length ? memchr(text + at, '\n', length - at) : NULL;
		line++;
		if (!end || end == text + at) {
			r = report_set(report, -EUCLEAN, length == 0 ? "it is empty" ANOTHER : line == 1 ? NO_BACKUP : "it ends too early, at line %zu" ANOTHER, line);
			break;
		}
		r = read_line(text, at, (size_t)(end - text) - at, length, ret, report);
		at = (size_t)(end - text) + 1;
	}
	if (r == 1)
		return 0;
	catalog_image_free(ret);
	return report_set(report, r, r == -EUCLEAN ? "it is damaged, at line %zu" ANOTHER : "it can't be read", line);
}
