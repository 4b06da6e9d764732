#include "core/modest.h"

/* There is one value more than commas and opening brackets, outside of strings. */
bool modest_json(const char *text, size_t length, unsigned values_max, unsigned depth_max)
{
	unsigned values = 1, depth = 0;
	bool quoted = false;
	for (size_t i = 0; i < length; i++) {
		char c = text[i];
		if (quoted) {
			i += c == '\\';
			quoted = c != '"';
		} else if (c == '"') {
			quoted = true;
		} else if (c == '{' || c == '[') {
			depth++;
			values++;
		} else if ((c == '}' || c == ']') && depth > 0) {
			depth--;
		} else if (c == ',') {
			values++;
		}
		if (depth > depth_max || values > values_max)
			return false;
	}
	return true;
}
