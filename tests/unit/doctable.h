/* Bytes as the documents in docs/formats/ draw them: a test says what each field of a table is to hold, and the table says where it
 * lies. Any row that the test doesn't know, and any field that isn't in the table, fails. So the documents can't say anything else than
 * the code that opens these bytes. */
#ifndef AQ_DOCTABLE_H
#define AQ_DOCTABLE_H
#include <stddef.h>
#include <stdint.h>

struct doc_field {
	const char *name;   /* what the row's text begins with: its name, and what else it says that must be so */
	uint64_t number;    /* little-endian, if there are no … */
	const void *bytes;  /* … as many as the row says */
	struct {
		size_t from, to;
	} crc[2];           /* the CRC32C of these, one after the other, when all else is there; the row's own bytes are zeroes then */
};

/* Fills `buffer` (zeroed before) from the `index`-th table below `heading` of docs/formats/`file`. Ends with a field without a name. */
void doc_fill(const char *file, const char *heading, unsigned index, const struct doc_field *fields, void *buffer);
/* The text from `heading` on to the next of its rank, or higher; malloc'd. */
char *doc_section(const char *file, const char *heading);
#endif
