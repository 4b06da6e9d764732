/* Intrusive doubly linked list: the link lives in the object that is listed,
 * so listing never allocates. A head is a link that points at itself. */
#ifndef AQ_LINK_H
#define AQ_LINK_H
#include <stdbool.h>
#include <stddef.h>

#define container_of(p, type, field) ((type *)(void *)((char *)(p) - offsetof(type, field)))

struct link {
	struct link *next, *prev;
};

static inline void link_init(struct link *l) { l->next = l->prev = l; }
static inline bool link_empty(const struct link *l) { return l->next == l; }

/* Appends `l` to the list `head`. */
static inline void link_push(struct link *head, struct link *l)
{
	l->prev = head->prev;
	l->next = head;
	head->prev->next = l;
	head->prev = l;
}

/* Puts `l` at the front of the list `head`. */
static inline void link_push_front(struct link *head, struct link *l) { link_push(head->next, l); }

/* Takes `l` out of whatever list it is in; harmless if it is in none. */
static inline void link_drop(struct link *l)
{
	l->prev->next = l->next;
	l->next->prev = l->prev;
	link_init(l);
}

/* Takes the first element out and returns it, or NULL. */
static inline struct link *link_pop(struct link *head)
{
	struct link *l = head->next;
	if (l == head)
		return NULL;
	link_drop(l);
	return l;
}

/* Moves all of `from` to the end of `to`. */
static inline void link_splice(struct link *to, struct link *from)
{
	if (link_empty(from))
		return;
	from->next->prev = to->prev;
	to->prev->next = from->next;
	from->prev->next = to;
	to->prev = from->prev;
	link_init(from);
}

#define link_for(l, head) for (struct link *l = (head)->next; l != (head); l = l->next)
#define link_for_safe(l, n, head) \
	for (struct link *l = (head)->next, *n = l->next; l != (head); l = n, n = l->next)
#endif
