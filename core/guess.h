/* "Did you mean …": the word of several that is nearest to one that was mistyped. */
#ifndef AQ_GUESS_H
#define AQ_GUESS_H

struct guess {
	const char *word; /* what was typed */
	const char *best; /* the nearest so far of those that are near enough; borrowed; NULL: none */
	unsigned distance;
};

void guess_try(struct guess *g, const char *candidate);
#endif
