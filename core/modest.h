/* JSON texts of others, before they are parsed: each value costs many times its length in memory, and each level of nesting a piece of
 * the stack, of which a fiber has little (jansson stops at 2048 levels; a fiber's stack ends before that). */
#ifndef AQ_MODEST_H
#define AQ_MODEST_H
#include <stdbool.h>
#include <stddef.h>

/* Has it at most so many values, and no more levels? Nothing is said about whether it is JSON. */
bool modest_json(const char *text, size_t length, unsigned values_max, unsigned depth_max);
#endif
