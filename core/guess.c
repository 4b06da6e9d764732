#include "core/guess.h"

#include <stddef.h>
#include <string.h>

#include "core/bytes.h"

/* Edits that turn one word into the other: insert, delete, replace, swap neighbours. */
static unsigned distance(const char *a, const char *b)
{
	enum { LONGEST = 24 };
	size_t m = strlen(a), n = strlen(b);
	if (m > LONGEST || n > LONGEST)
		return LONGEST;
	unsigned d[LONGEST + 1][LONGEST + 1];
	for (size_t i = 0; i <= m; i++) {
		for (size_t j = 0; j <= n; j++) {
			if (i == 0 || j == 0) {
				d[i][j] = (unsigned)(i + j);
				continue;
			}
			unsigned same = a[i - 1] == b[j - 1] ? 0 : 1;
			d[i][j] = MIN(MIN(d[i - 1][j], d[i][j - 1]) + 1, d[i - 1][j - 1] + same);
			if (i > 1 && j > 1 && a[i - 1] == b[j - 2] && a[i - 2] == b[j - 1])
				d[i][j] = MIN(d[i][j], d[i - 2][j - 2] + 1);
		}
	}
	return d[m][n];
}

void guess_try(struct guess *g, const char *candidate)
{
	unsigned d = distance(g->word, candidate);
	/* of a short word little would be left: qcow2 isn't cow */
	if (d <= 1 + MIN(strlen(g->word), strlen(candidate)) / 5 && (!g->best || d < g->distance)) {
		g->best = candidate;
		g->distance = d;
	}
}
