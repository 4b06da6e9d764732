/* NBD: whatever a client sends first (an option's data) or later (a request), the codec answers with
 * an error or with something that lies within what was sent and within the export. The first byte
 * chooses the decoder. */
#include <stdlib.h>
#include <string.h>

#include "agent/exports/nbd_wire.h"
#include "core/bytes.h"

#define REQUIRE(condition)       \
	do {                     \
		if (!(condition)) \
			abort(); \
	} while (0)

static void text_within(const struct nbd_text *t, const uint8_t *data, size_t size)
{
	const uint8_t *p = (const uint8_t *)t->text;
	REQUIRE(p >= data && t->length <= NBD_NAME_MAX && p + t->length <= data + size);
}

static void fuzz_option(const uint8_t *data, size_t size)
{
	struct nbd_option option;
	struct nbd_go go;
	struct nbd_meta meta;
	if (size >= NBD_OPTION_BYTES)
		(void)nbd_get_option(data, &option);
	if (nbd_get_go(data, (uint32_t)size, &go) == 0)
		text_within(&go.name, data, size);
	if (nbd_get_meta(data, (uint32_t)size, &meta) == 0) {
		text_within(&meta.name, data, size);
		REQUIRE(meta.query_count <= size / 4);
	}
}

static void fuzz_request(uint8_t how, const uint8_t *data)
{
	struct nbd_limits limits = {
		.size = UINT64_C(1) << 40,
		.block_size = how & 2 ? 512 : 4096,
		.transfer_max = 32u << 20,
		.read_only = how & 4,
		.structured = how & 8,
		.map = how & 16,
	};
	struct nbd_request_head h;
	if (nbd_get_request(data, &h) < 0 || h.type == NBD_CMD_DISC || nbd_check_request(&h, &limits) < 0)
		return;
	REQUIRE(h.type <= NBD_CMD_BLOCK_STATUS);
	if (h.type == NBD_CMD_FLUSH)
		return;
	REQUIRE(h.length > 0 && h.offset + h.length <= limits.size && h.offset <= limits.size);
	REQUIRE((h.offset | h.length) % limits.block_size == 0);
	REQUIRE(h.type > NBD_CMD_WRITE || h.length <= limits.transfer_max);
	REQUIRE(h.type == NBD_CMD_READ || h.type >= NBD_CMD_CACHE || !limits.read_only);
}

int LLVMFuzzerTestOneInput(const uint8_t *data, size_t size);
int LLVMFuzzerTestOneInput(const uint8_t *data, size_t size)
{
	if (size < 1)
		return 0;
	/* A copy of exactly the size, so that the sanitizer sees any step beyond it. */
	uint8_t *copy = malloc(size - 1 ? size - 1 : 1);
	if (!copy)
		return 0;
	memcpy(copy, data + 1, size - 1);
	if ((data[0] & 1) == 0)
		fuzz_option(copy, size - 1);
	else if (size - 1 >= NBD_REQUEST_BYTES)
		fuzz_request(data[0], copy);
	free(copy);
	return 0;
}
