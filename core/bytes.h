/* Fixed-endian fields in byte buffers, overflow-checked arithmetic and other small change. */
#ifndef AQ_BYTES_H
#define AQ_BYTES_H
#include <endian.h>
#include <stdbool.h>
#include <stdint.h>
#include <string.h>

#define MIN(a, b) ((a) < (b) ? (a) : (b))
#define MAX(a, b) ((a) > (b) ? (a) : (b))
#define ARRAY_COUNT(a) (sizeof(a) / sizeof((a)[0]))

static inline uint64_t round_down(uint64_t v, uint64_t unit) { return v / unit * unit; }
static inline uint64_t round_up(uint64_t v, uint64_t unit) { return (v + unit - 1) / unit * unit; }
static inline uint64_t div_up(uint64_t v, uint64_t unit) { return (v + unit - 1) / unit; }
static inline bool is_power_of_two(uint64_t v) { return v && !(v & (v - 1)); }

/* True if [off, off + len) lies within [0, size), without wrapping round. */
static inline bool range_within(uint64_t off, uint64_t len, uint64_t size)
{
	return len <= size && off <= size - len;
}

#define AQ_GETPUT(name, type, from, to)                            \
	static inline type get_##name(const void *p)               \
	{                                                          \
		type v;                                            \
		memcpy(&v, p, sizeof v);                           \
		return from(v);                                    \
	}                                                          \
	static inline void put_##name(void *p, type v)             \
	{                                                          \
		v = to(v);                                         \
		memcpy(p, &v, sizeof v);                           \
	}
AQ_GETPUT(le16, uint16_t, le16toh, htole16)
AQ_GETPUT(le32, uint32_t, le32toh, htole32)
AQ_GETPUT(le64, uint64_t, le64toh, htole64)
AQ_GETPUT(be16, uint16_t, be16toh, htobe16)
AQ_GETPUT(be32, uint32_t, be32toh, htobe32)
AQ_GETPUT(be64, uint64_t, be64toh, htobe64)
#undef AQ_GETPUT
#endif
