#include "agent/graph/foreign.h"

#include <stdbool.h>
#include <string.h>

#define CONVERT "make a raw one of it: qemu-img convert -O raw"

struct mark {
	struct foreign foreign;
	uint32_t offset;
	bool at_end;            /* in the tail */
	uint32_t length;
	const char *bytes;
};

#define MARK(where, what) .offset = (where), .length = sizeof(what) - 1, .bytes = (what)

static const struct mark marks[] = {
	{ { "a copy-on-write layer", "name what it stands on: cow(FILE, PARENT)" }, MARK(0, "AQFCOW\r\n") },
	{ { "a qcow2 image", CONVERT }, MARK(0, "QFI\xfb") },
	{ { "a QED image", CONVERT }, MARK(0, "QED\0") },
	{ { "a VHDX image", CONVERT }, MARK(0, "vhdxfile") },
	{ { "a VHD image", CONVERT }, MARK(0, "conectix") },
	{ { "a VHD image", CONVERT }, .at_end = true, MARK(0, "conectix") },
	{ { "a VMDK image", CONVERT }, MARK(0, "KDMV") },
	{ { "a VMDK image", CONVERT }, MARK(0, "COWD") },
	{ { "a VMDK image", CONVERT }, MARK(0, "# Disk DescriptorFile") },
	{ { "a VDI image", CONVERT }, MARK(64, "\x7f\x10\xda\xbe") },
};

const struct foreign *foreign_find(const uint8_t *head, size_t length, const uint8_t *tail)
{
	for (size_t i = 0; i < sizeof marks / sizeof marks[0]; i++) {
		const struct mark *m = &marks[i];
		const uint8_t *in = m->at_end ? tail : head;
		size_t there = m->at_end ? FOREIGN_TAIL_BYTES : length;
		if (in && m->offset + m->length <= there && memcmp(in + m->offset, m->bytes, m->length) == 0)
			return &m->foreign;
	}
	return NULL;
}
