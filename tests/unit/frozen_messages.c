/* Every message in proto/, as it was frozen in tests/fixtures/messages: a line for each, with its name, the highest number of a field
 * that it had then, and its bytes with all of those set. Today's code reads exactly these values from them and writes the same bytes. Fields may be
 * added (a line more then); a number, type or meaning never changes. */
#include <criterion/criterion.h>
#include <dirent.h>
#include <errno.h>
#include <stdbool.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>

#include "core/bytes.h"
#include "proto/access.pb-c.h"
#include "proto/aquifer.pb-c.h"
#include "proto/control.pb-c.h"
#include "proto/segment.pb-c.h"
#include "proto/store.pb-c.h"

#define FILE_NAME "tests/fixtures/messages"
enum { BYTES_MAX = 2048, DEPTH_MAX = 4 };

static const ProtobufCMessageDescriptor *const all[] = {
	&aquifer__access__answer__descriptor, &aquifer__access__authority__descriptor, &aquifer__access__issued__descriptor,
	&aquifer__access__question__descriptor, &aquifer__access__request__descriptor, &aquifer__access__revoked__descriptor,
	&aquifer__access__token__descriptor, &aquifer__attach_call__descriptor, &aquifer__close_call__descriptor,
	&aquifer__control_call__descriptor, &aquifer__detach_call__descriptor, &aquifer__device_call__descriptor,
	&aquifer__envelope__descriptor, &aquifer__hello__descriptor, &aquifer__migrate_call__descriptor,
	&aquifer__peer_control_call__descriptor, &aquifer__peer_incoming_call__descriptor, &aquifer__peer_migrate_call__descriptor,
	&aquifer__peer_offer_call__descriptor, &aquifer__segment__header__descriptor, &aquifer__segment__info__descriptor,
	&aquifer__segment__reply__descriptor, &aquifer__segment__request__descriptor, &aquifer__segment__scrub__descriptor,
	&aquifer__segment__scrub_fault__descriptor, &aquifer__segment__scrub_request__descriptor, &aquifer__segment__status__descriptor,
	&aquifer__store__agent__descriptor, &aquifer__store__group__descriptor, &aquifer__store__log__descriptor,
	&aquifer__store__name__descriptor, &aquifer__store__owner__descriptor, &aquifer__store__pg_map__descriptor,
	&aquifer__store__placed_server__descriptor, &aquifer__store__replica__descriptor, &aquifer__store__root__descriptor,
	&aquifer__store__segment__descriptor, &aquifer__store__server__descriptor, &aquifer__store__snapshot__descriptor, &aquifer__store__summary__descriptor,
	&aquifer__store_call__descriptor,
};

/* ---- the file ---- */

struct line {
	char name[64], hex[2 * BYTES_MAX + 1];
	unsigned last; /* number of a field */
};

static struct line *lines;
static size_t line_count;

static void lines_load(void)
{
	FILE *f = fopen(FILE_NAME, "r");
	lines = calloc(2 * ARRAY_COUNT(all) + 100, sizeof *lines);
	while (f && line_count < 2 * ARRAY_COUNT(all) + 99 &&
	       fscanf(f, "%63s %u %4096s", lines[line_count].name, &lines[line_count].last, lines[line_count].hex) == 3)
		line_count++;
	if (f)
		fclose(f);
}

/* What the messages within one have, in the first line of each, is what they had when that was written. */
static unsigned last_field(const ProtobufCMessageDescriptor *d)
{
	for (size_t i = 0; i < line_count; i++)
		if (strcmp(lines[i].name, d->name) == 0)
			return lines[i].last;
	return UINT32_MAX;
}

/* ---- values ---- */

static ProtobufCMessage *make(const ProtobufCMessageDescriptor *d, unsigned last, unsigned depth);

/* A value that no other field of the message has, at `to`, by the field's type. */
static void set(const ProtobufCFieldDescriptor *f, void *to, unsigned nth, unsigned depth)
{
	uint64_t n = f->id * 1000 + nth * 7 + 1;
	char text[32];
	switch (f->type) {
	case PROTOBUF_C_TYPE_BOOL: *(protobuf_c_boolean *)to = true; return;
	case PROTOBUF_C_TYPE_ENUM: *(int *)to = (int)((const ProtobufCEnumDescriptor *)f->descriptor)->values[1].value; return;
	case PROTOBUF_C_TYPE_INT32:
	case PROTOBUF_C_TYPE_SINT32: *(int32_t *)to = -(int32_t)n; return;
	case PROTOBUF_C_TYPE_UINT32:
	case PROTOBUF_C_TYPE_FIXED32: *(uint32_t *)to = (uint32_t)n; return;
	case PROTOBUF_C_TYPE_UINT64:
	case PROTOBUF_C_TYPE_FIXED64: *(uint64_t *)to = n << 33 | n; return;
	case PROTOBUF_C_TYPE_STRING:
		snprintf(text, sizeof text, "text %u of %u", nth, f->id);
		*(char **)to = strdup(text);
		return;
	case PROTOBUF_C_TYPE_BYTES:
		snprintf(text, sizeof text, "bytes %u of %u", nth, f->id);
		*(ProtobufCBinaryData *)to = (ProtobufCBinaryData){ 16, (uint8_t *)calloc(1, 16) };
		memcpy(((ProtobufCBinaryData *)to)->data, text, strlen(text));
		return;
	case PROTOBUF_C_TYPE_MESSAGE: *(ProtobufCMessage **)to = make(f->descriptor, last_field(f->descriptor), depth + 1); return;
	default: cr_assert_fail("a type that no message had: %s", f->name);
	}
}

static size_t type_bytes(const ProtobufCFieldDescriptor *f)
{
	switch (f->type) {
	case PROTOBUF_C_TYPE_STRING:
	case PROTOBUF_C_TYPE_MESSAGE: return sizeof(void *);
	case PROTOBUF_C_TYPE_BYTES: return sizeof(ProtobufCBinaryData);
	case PROTOBUF_C_TYPE_UINT64:
	case PROTOBUF_C_TYPE_FIXED64: return 8;
	default: return 4;
	}
}

/* As protobuf-c allocates it, so that it can free it. Of repeated fields two. */
static ProtobufCMessage *make(const ProtobufCMessageDescriptor *d, unsigned last, unsigned depth)
{
	ProtobufCMessage *m = calloc(1, d->sizeof_message);
	cr_assert_lt(depth, DEPTH_MAX);
	d->message_init(m);
	for (unsigned i = 0; i < d->n_fields; i++) {
		const ProtobufCFieldDescriptor *f = &d->fields[i];
		char *at = (char *)m + f->offset;
		if (f->id > last)
			continue;
		if (f->label == PROTOBUF_C_LABEL_REPEATED) {
			char *values = calloc(2, type_bytes(f));
			*(size_t *)(void *)((char *)m + f->quantifier_offset) = 2;
			*(void **)(void *)at = values;
			for (unsigned k = 0; k < 2; k++)
				set(f, values + k * type_bytes(f), k, depth);
		} else {
			set(f, at, 0, depth);
		}
	}
	return m;
}

static void pack_hex(const ProtobufCMessage *m, char *hex)
{
	uint8_t bytes[BYTES_MAX];
	cr_assert_leq(protobuf_c_message_get_packed_size(m), sizeof bytes);
	size_t n = protobuf_c_message_pack(m, bytes);
	for (size_t i = 0; i < n; i++)
		sprintf(hex + 2 * i, "%02x", bytes[i]);
	hex[2 * n] = 0;
}

/* ---- tests ---- */

static unsigned newest_field(const ProtobufCMessageDescriptor *d)
{
	unsigned newest = 0;
	for (unsigned k = 0; k < d->n_fields; k++)
		newest = MAX(newest, d->fields[k].id);
	return newest;
}

/* Has it a line with all that it has by now? */
static bool is_frozen(const ProtobufCMessageDescriptor *d)
{
	for (size_t i = 0; i < line_count; i++)
		if (strcmp(lines[i].name, d->name) == 0 && lines[i].last >= newest_field(d))
			return true;
	return false;
}

/* With FIXTURES=write: lines for messages that have none, or none with all their fields. */
static void lines_write(void)
{
	const char *how = getenv("FIXTURES");
	if (!how || strcmp(how, "write") != 0)
		return;
	FILE *f = fopen(FILE_NAME, "a");
	cr_assert(f);
	for (size_t i = 0; i < ARRAY_COUNT(all); i++) {
		char hex[2 * BYTES_MAX + 1];
		const ProtobufCMessageDescriptor *d = all[i];
		if (is_frozen(d))
			continue;
		ProtobufCMessage *m = make(d, UINT32_MAX, 0);
		pack_hex(m, hex);
		fprintf(f, "%s %u %s\n", d->name, newest_field(d), hex);
		protobuf_c_message_free_unpacked(m, NULL);
	}
	fclose(f);
	line_count = 0;
	free(lines);
	lines_load();
}

static void line_check(const struct line *l, const ProtobufCMessageDescriptor *d)
{
	uint8_t bytes[BYTES_MAX];
	char hex[2 * BYTES_MAX + 1];
	size_t n = strlen(l->hex) / 2;
	unsigned byte;
	for (size_t i = 0; i < n && sscanf(l->hex + 2 * i, "%2x", &byte) == 1; i++)
		bytes[i] = (uint8_t)byte;
	ProtobufCMessage *got = protobuf_c_message_unpack(d, NULL, n, bytes), *meant = make(d, l->last, 0);
	cr_assert(got, "%s can't be read", l->name);
	cr_assert_eq(got->n_unknown_fields, 0, "%s: a field isn't known any more", l->name);
	pack_hex(got, hex);
	cr_assert_str_eq(hex, l->hex, "%s is written otherwise than it was read", l->name);
	pack_hex(meant, hex);
	cr_assert_str_eq(hex, l->hex, "%s: a field's number, type or place has changed", l->name);
	protobuf_c_message_free_unpacked(got, NULL);
	protobuf_c_message_free_unpacked(meant, NULL);
}

Test(frozen, messages)
{
	lines_load();
	lines_write();
	for (size_t i = 0; i < ARRAY_COUNT(all); i++) {
		bool any = false;
		for (size_t k = 0; k < line_count; k++)
			if (strcmp(lines[k].name, all[i]->name) == 0) {
				line_check(&lines[k], all[i]);
				any = true;
			}
		cr_assert(any, "%s has no line in " FILE_NAME, all[i]->name);
	}
	free(lines);
}

/* Each one is in the list above. */
Test(frozen, no_message_is_forgotten)
{
	DIR *dir = opendir("proto");
	unsigned count = 0;
	char path[512], line[512], name[64];
	cr_assert(dir, "proto: %s (unit tests run from the top of the tree)", strerror(errno));
	for (struct dirent *e; (e = readdir(dir));) {
		size_t n = strlen(e->d_name);
		if (n < 6 || strcmp(e->d_name + n - 6, ".proto") != 0)
			continue;
		snprintf(path, sizeof path, "proto/%s", e->d_name);
		FILE *f = fopen(path, "r");
		while (f && fgets(line, sizeof line, f)) {
			if (sscanf(line, "message %63s", name) != 1)
				continue;
			bool known = false;
			for (size_t i = 0; i < ARRAY_COUNT(all); i++)
				known |= strcmp(all[i]->short_name, name) == 0;
			cr_assert(known, "message %s of %s isn't frozen", name, path);
			count++;
		}
		fclose(f);
	}
	closedir(dir);
	cr_assert_eq(count, ARRAY_COUNT(all));
}
