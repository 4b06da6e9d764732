/* Bytes that an earlier version wrote, kept in tests/fixtures/: what they were then is what they must be now. A file is text: lines of an
 * offset and up to 32 bytes, without those that are zero, and last the length. HACKING, "Changing a format", says how one is made. */
#ifndef AQ_FIXTURE_H
#define AQ_FIXTURE_H
#include <stddef.h>
#include <stdint.h>

/* The bytes of tests/fixtures/NAME, malloc'd; the test fails without. */
uint8_t *fixture_load(const char *name, size_t *ret_length);
/* Fails, and says where, unless these are its bytes. With FIXTURES=write in the environment a file that isn't there is made. */
void fixture_is(const char *name, const void *bytes, size_t length);
#endif
