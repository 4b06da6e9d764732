#include <assert.h>

#include "core/blk.h"
#include "core/bytes.h"

uint64_t iov_bytes(const struct iovec *iov, int count)
{
	uint64_t sum = 0;
	for (int i = 0; i < count; i++)
		sum += iov[i].iov_len;
	return sum;
}

/* Calls copy(piece of the iovec, bytes done so far, bytes) over [skip, skip + length). */
#define IOV_WALK(COPY)                                                            \
	do {                                                                      \
		uint64_t done = 0;                                                \
		for (int i = 0; done < length; i++) {                             \
			assert(i < count);                                        \
			if (skip >= iov[i].iov_len) {                             \
				skip -= iov[i].iov_len;                           \
				continue;                                         \
			}                                                         \
			uint64_t n = MIN(iov[i].iov_len - skip, length - done);   \
			char *piece = (char *)iov[i].iov_base + skip;             \
			COPY;                                                     \
			done += n;                                                \
			skip = 0;                                                 \
		}                                                                 \
	} while (0)

void iov_gather(const struct iovec *iov, int count, uint64_t skip, void *to, uint64_t length)
{
	IOV_WALK(memcpy((char *)to + done, piece, n));
}

void iov_scatter(const struct iovec *iov, int count, uint64_t skip, const void *from, uint64_t length)
{
	IOV_WALK(memcpy(piece, (const char *)from + done, n));
}

void iov_zero(const struct iovec *iov, int count, uint64_t skip, uint64_t length)
{
	IOV_WALK(memset(piece, 0, n));
}

int iov_slice(const struct iovec *iov, int count, uint64_t skip, uint64_t length, struct iovec *ret, int max)
{
	int used = 0;
	for (int i = 0; length > 0; i++) {
		assert(i < count);
		if (skip >= iov[i].iov_len) {
			skip -= iov[i].iov_len;
			continue;
		}
		if (used == max)
			return -1;
		uint64_t n = MIN(iov[i].iov_len - skip, length);
		ret[used++] = (struct iovec){ (char *)iov[i].iov_base + skip, n };
		length -= n;
		skip = 0;
	}
	return used;
}

uint64_t iov_rest(const struct iovec *iov, int count, uint64_t skip, struct iovec *ret, int max, int *ret_count)
{
	uint64_t sum = 0;
	int used = 0;
	for (int i = 0; i < count && used < max; i++) {
		if (skip >= iov[i].iov_len) {
			skip -= iov[i].iov_len;
			continue;
		}
		ret[used] = (struct iovec){ (char *)iov[i].iov_base + skip, iov[i].iov_len - skip };
		sum += ret[used++].iov_len;
		skip = 0;
	}
	*ret_count = used;
	return sum;
}

bool iov_aligned(const struct iovec *iov, int count, uint32_t memory_align, uint32_t length_align)
{
	for (int i = 0; i < count; i++)
		if ((uintptr_t)iov[i].iov_base % memory_align || iov[i].iov_len % length_align)
			return false;
	return true;
}
