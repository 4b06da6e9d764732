/* Text to graph.
 *
 *     text      = { [ statement ] NEWLINE }
 *     statement = NAME '=' chain | 'export' NAME 'as' TYPE [ DEVICE ] { KEY '=' WORD } | chain
 *     chain     = element { '|' element }          each element is the last argument of the one to its left
 *     element   = call | DRIVER ':' WORD | WORD    a word with an element to its right is a driver
 *     call      = DRIVER '(' [ arg { ',' arg } ] ')'
 *     arg       = call | WORD | KEY '=' WORD
 *
 * Newlines end a statement unless inside parentheses, after '=' or '|', or before '|'. A word is made of plain
 * characters and quoted pieces; # where a word could begin starts a comment. The mark that some editors put before UTF-8 is skipped. One pass, no backing up: a token is
 * read and the next one looked at. Recursion is limited by GRAPH_DEPTH_MAX, memory by the limits in graph.h. */
#include <ctype.h>
#include <errno.h>
#include <stdlib.h>
#include <string.h>

#include "agent/graph/graph.h"

enum token_type { TOKEN_END, TOKEN_NEWLINE, TOKEN_WORD, TOKEN_OPEN, TOKEN_CLOSE, TOKEN_COMMA, TOKEN_EQUALS, TOKEN_BAR };

struct token {
	enum token_type type;
	struct graph_place place;
	char *word;   /* in graph->strings */
	char *colon;  /* its first colon, if that is outside quotes and before any slash */
	struct graph_place after_colon;
	bool quoted;
};

struct parser {
	const char *at, *end;
	struct graph_place place;
	unsigned parentheses; /* open ones; newlines inside mean nothing */
	struct token token;   /* the next one, not yet consumed */
	char *strings;        /* free part of graph->strings */
	struct graph *graph;
	struct report *report;
};

/* ---- characters ---- */

static bool at_end(const struct parser *p) { return p->at == p->end; }

static void step(struct parser *p)
{
	unsigned char c = (unsigned char)*p->at++;
	if (c == '\n') {
		p->place.line++;
		p->place.column = 1;
	} else if ((c & 0xc0) != 0x80) {
		p->place.column++;
	}
}

/* Skips blanks, comments and newlines; tells whether there was a newline. */
static bool skip_blanks(struct parser *p)
{
	bool newline = false, comment = false;
	for (; !at_end(p); step(p)) {
		char c = *p->at;
		if (c == '\n') {
			newline = true;
			comment = false;
		} else if (c == '#') {
			comment = true;
		} else if (!comment && c != ' ' && c != '\t' && c != '\r') {
			break;
		}
	}
	return newline;
}

static int bad_char(struct parser *p, struct graph_place place, unsigned char c)
{
	if (c == 0)
		return graph_error(p->report, place, "a zero byte can't be part of a graph (remove it; or write the file as UTF-8, if it is UTF-16)");
	if (c < 0x20 || c == 0x7f)
		return graph_error(p->report, place, "character 0x%02x is not allowed here (write \\x%02x inside quotes)", c, c);
	return graph_error(p->report, place, "unexpected '%c' (words with such characters are quoted: \"…\")", c);
}

static int hex_digit(char c)
{
	return isdigit((unsigned char)c) ? c - '0' : isxdigit((unsigned char)c) ? tolower((unsigned char)c) - 'a' + 10 : -1;
}

/* The character after a backslash. */
static int lex_escape(struct parser *p, struct graph_place place, char *ret_char)
{
	if (at_end(p))
		return graph_error(p->report, place, "the text ends after a backslash (write \\\\ for a backslash)");
	static const char names[] = "n\nt\tr\r\"\"\\\\";
	char c = *p->at;
	for (unsigned i = 0; names[i]; i += 2)
		if (c == names[i]) {
			step(p);
			*ret_char = names[i + 1];
			return 0;
		}
	if (c != 'x')
		return graph_error(p->report, place, "unknown escape after a backslash (there are \\\\ \\\" \\n \\t \\r and \\xHH)");
	step(p);
	int value = 0;
	for (unsigned i = 0; i < 2; i++) {
		int digit = at_end(p) ? -1 : hex_digit(*p->at);
		if (digit < 0)
			return graph_error(p->report, place, "\\x needs two hexadecimal digits (like \\x0a)");
		value = value * 16 + digit;
		step(p);
	}
	if (value == 0)
		return graph_error(p->report, place, "\\x00 can't be part of a word (leave it out)");
	*ret_char = (char)value;
	return 0;
}

/* The rest of a quoted piece, after its opening quote at `open`. */
static int lex_quoted(struct parser *p, struct graph_place open)
{
	for (;;) {
		if (at_end(p) || *p->at == '\n')
			return graph_error(p->report, open, "the quote is not closed on this line (write \\n for a newline)");
		struct graph_place place = p->place;
		char c = *p->at;
		if (c != '\t' && ((unsigned char)c < 0x20 || c == 0x7f))
			return bad_char(p, place, (unsigned char)c);
		step(p);
		if (c == '"')
			return 0;
		if (c == '\\') {
			int r = lex_escape(p, place, &c);
			if (r < 0)
				return r;
		}
		*p->strings++ = c;
	}
}

static int lex_word(struct parser *p, struct token *t)
{
	t->type = TOKEN_WORD;
	t->word = p->strings;
	bool slash = false;
	while (!at_end(p)) {
		char c = *p->at;
		if (c == '"') {
			struct graph_place open = p->place;
			step(p);
			t->quoted = true;
			int r = lex_quoted(p, open);
			if (r < 0)
				return r;
			slash |= memchr(t->word, '/', (size_t)(p->strings - t->word)) != NULL;
			continue;
		}
		if (!graph_plain_char((unsigned char)c))
			break;
		step(p);
		if (c == ':' && !slash && !t->colon) {
			t->colon = p->strings;
			t->after_colon = p->place;
		}
		slash |= c == '/';
		*p->strings++ = c;
	}
	*p->strings++ = '\0';
	return 0;
}

/* ---- tokens ---- */

static enum token_type punctuation(char c)
{
	switch (c) {
	case '(': return TOKEN_OPEN;
	case ')': return TOKEN_CLOSE;
	case ',': return TOKEN_COMMA;
	case '=': return TOKEN_EQUALS;
	case '|': return TOKEN_BAR;
	default: return TOKEN_WORD;
	}
}

/* Reads the next token into p->token. */
static int advance(struct parser *p)
{
	enum token_type before = p->token.type;
	bool newline = skip_blanks(p);
	struct token t = { .place = p->place };
	bool joined = p->parentheses || before == TOKEN_EQUALS || before == TOKEN_BAR || (!at_end(p) && *p->at == '|');
	if (newline && !joined) {
		t.type = TOKEN_NEWLINE;
	} else if (at_end(p)) {
		t.type = TOKEN_END;
	} else if ((t.type = punctuation(*p->at)) != TOKEN_WORD) {
		p->parentheses += t.type == TOKEN_OPEN;
		p->parentheses -= t.type == TOKEN_CLOSE && p->parentheses > 0;
		step(p);
	} else if (*p->at == '"' || graph_plain_char((unsigned char)*p->at)) {
		int r = lex_word(p, &t);
		if (r < 0)
			return r;
	} else {
		return bad_char(p, t.place, (unsigned char)*p->at);
	}
	p->token = t;
	return 0;
}

#define EXPORT_FORM "write export NODE as TYPE [NAME] [KEY=VALUE …]"

/* "expected WHAT, not THIS (CURE)", at the next token. */
static int expected(struct parser *p, const char *what, const char *cure)
{
	static const char *const names[] = { [TOKEN_END] = "the end", [TOKEN_NEWLINE] = "the end of the line", [TOKEN_OPEN] = "'('",
					     [TOKEN_CLOSE] = "')'", [TOKEN_COMMA] = "','", [TOKEN_EQUALS] = "'='", [TOKEN_BAR] = "'|'" };
	char word[64];
	const char *is = names[p->token.type];
	if (p->token.type == TOKEN_WORD)
		is = graph_quote(p->token.word, word, sizeof word);
	return graph_error(p->report, p->token.place, "expected %s, not %s (%s)", what, is, cure);
}

/* Consumes a word into *ret. */
static int take_word(struct parser *p, const char *what, const char *cure, struct token *ret)
{
	if (p->token.type != TOKEN_WORD)
		return expected(p, what, cure);
	*ret = p->token;
	return advance(p);
}

static bool is_key(const char *word)
{
	if (!isalpha((unsigned char)word[0]))
		return false;
	for (const char *c = word; *c; c++)
		if (!isalnum((unsigned char)*c) && *c != '_' && *c != '-')
			return false;
	return true;
}

/* The rest of `key = value`; the next token is the '='. */
static int take_value(struct parser *p, const struct token *key, struct graph_arg *ret)
{
	char shown[64];
	graph_quote(key->word, shown, sizeof shown);
	if (!is_key(key->word))
		return graph_error(p->report, key->place, "%s is not an option's name (quote a word that contains '=')", shown);
	int r = advance(p);
	struct token value;
	if (r == 0)
		r = take_word(p, "the option's value", "write KEY=VALUE", &value);
	if (r < 0)
		return r;
	if (p->token.type == TOKEN_OPEN)
		return graph_error(p->report, value.place, "the value of option %s must be a word, not a node (quote a word that contains '(')", shown);
	*ret = (struct graph_arg){ .key = key->word, .word = value.word, .node = -1, .option = -1, .place = key->place };
	return 0;
}

/* ---- nodes ---- */

static int limit(struct parser *p, int r, struct graph_place place, const char *what, unsigned max)
{
	return r == -E2BIG ? graph_error(p->report, place, "too many %s (at most %u)", what, max) : r;
}

static int new_node(struct parser *p, const char *driver, struct graph_place place)
{
	return limit(p, graph_add_node(p->graph, driver, place), place, "nodes", GRAPH_NODES_MAX);
}

static int add_arg(struct parser *p, int node, struct graph_arg arg)
{
	return limit(p, graph_add_arg(&p->graph->nodes[node], arg), arg.place, "arguments", GRAPH_ARGS_MAX);
}

static int add_word(struct parser *p, int node, const char *word, struct graph_place place)
{
	return add_arg(p, node, (struct graph_arg){ .word = word, .node = -1, .option = -1, .place = place });
}

static int parse_call(struct parser *p, const struct token *driver, unsigned depth);

static int parse_arg(struct parser *p, int node, unsigned depth)
{
	struct token first;
	int r = take_word(p, "an argument", "write one, or remove the comma", &first);
	if (r < 0)
		return r;
	struct graph_arg arg = { .word = first.word, .node = -1, .option = -1, .place = first.place };
	const struct graph_node *n = &p->graph->nodes[node];
	if (p->token.type == TOKEN_EQUALS) {
		r = take_value(p, &first, &arg);
	} else if (n->arg_count && n->args[n->arg_count - 1].key) {
		char shown[64];
		graph_quote(first.word, shown, sizeof shown);
		r = graph_error(p->report, first.place, "%s comes after an option (key=value options are last)", shown);
	} else if (p->token.type == TOKEN_OPEN) {
		arg.word = NULL;
		r = arg.node = parse_call(p, &first, depth + 1);
	} else if (p->token.type == TOKEN_BAR) {
		r = graph_error(p->report, p->token.place, "a chain can't be an argument (write the nodes inside one another, or give the chain a name)");
	}
	return r < 0 ? r : add_arg(p, node, arg);
}

/* The next token is the '(' after the driver's name. Returns the node's index. */
static int parse_call(struct parser *p, const struct token *driver, unsigned depth)
{
	if (depth > GRAPH_DEPTH_MAX)
		return graph_error(p->report, driver->place, "nodes are nested too deep (at most %u)", GRAPH_DEPTH_MAX);
	struct graph_place open = p->token.place;
	int node = new_node(p, driver->word, driver->place), r = node < 0 ? node : advance(p);
	if (r == 0 && p->token.type != TOKEN_CLOSE)
		r = parse_arg(p, node, depth);
	while (r == 0 && p->token.type == TOKEN_COMMA) {
		r = advance(p);
		if (r == 0)
			r = parse_arg(p, node, depth);
	}
	if (r == 0 && p->token.type == TOKEN_END)
		r = graph_error(p->report, open, "this parenthesis is not closed (add ')')");
	if (r == 0 && p->token.type != TOKEN_CLOSE)
		r = expected(p, "',' or ')'", "separate arguments by commas");
	if (r == 0)
		r = advance(p);
	return r < 0 ? r : node;
}

/* DRIVER:WORD, the tapdisk way. */
static int parse_split(struct parser *p, const struct token *first)
{
	*first->colon = '\0';
	if (!first->word[0])
		return graph_error(p->report, first->place, "there is no driver before the colon (write DRIVER:WORD)");
	if (!first->colon[1])
		return graph_error(p->report, first->place, "there is nothing after the colon (write DRIVER:WORD)");
	int node = new_node(p, first->word, first->place);
	int r = node < 0 ? node : add_word(p, node, first->colon + 1, first->after_colon);
	return r < 0 ? r : node;
}

/* Is the word taken last neither a driver nor DRIVER:WORD? */
static bool is_bare(const struct parser *p, const struct token *first)
{
	return p->token.type != TOKEN_OPEN && p->token.type != TOKEN_BAR && !first->colon;
}

/* One element of a chain; its first word has been taken. */
static int parse_element(struct parser *p, const struct token *first, unsigned depth)
{
	if (depth > GRAPH_DEPTH_MAX)
		return graph_error(p->report, first->place, "the chain is too long (at most %u nodes)", GRAPH_DEPTH_MAX);
	if (p->token.type == TOKEN_OPEN)
		return parse_call(p, first, depth);
	if (first->colon)
		return parse_split(p, first);
	if (!is_bare(p, first))
		return new_node(p, first->word, first->place);
	int node = new_node(p, NULL, first->place);
	int r = node < 0 ? node : add_word(p, node, first->word, first->place);
	return r < 0 ? r : node;
}

/* Returns the index of the top, the leftmost. */
static int parse_chain(struct parser *p, struct token first)
{
	int top = parse_element(p, &first, 1), above = top;
	for (unsigned depth = 2; above >= 0 && p->token.type == TOKEN_BAR; depth++) {
		int r = advance(p);
		if (r == 0)
			r = take_word(p, "a node after '|'", "write NODE | NODE", &first);
		if (r < 0)
			return r;
		if (is_bare(p, &first) && depth <= GRAPH_DEPTH_MAX) {
			r = add_word(p, above, first.word, first.place);
			return r < 0 ? r : top;
		}
		int below = parse_element(p, &first, depth);
		if (below < 0)
			return below;
		r = add_arg(p, above, (struct graph_arg){ .node = below, .option = -1, .place = first.place });
		if (r < 0)
			return r;
		above = below;
	}
	return above < 0 ? above : top;
}

/* ---- statements ---- */

static bool is_word(const struct token *t, const char *word)
{
	return t->type == TOKEN_WORD && !t->quoted && strcmp(t->word, word) == 0;
}

static int parse_export_args(struct parser *p, struct graph_export *e)
{
	while (p->token.type == TOKEN_WORD) {
		struct token first;
		int r = take_word(p, "an option", "write KEY=VALUE", &first);
		if (r < 0)
			return r;
		if (p->token.type != TOKEN_EQUALS) {
			if (e->name || e->arg_count)
				return graph_error(p->report, first.place, "one word too many (" EXPORT_FORM ")");
			e->name = first.word;
			continue;
		}
		if (e->arg_count == GRAPH_EXPORT_ARGS_MAX)
			return limit(p, -E2BIG, first.place, "options", GRAPH_EXPORT_ARGS_MAX);
		r = take_value(p, &first, &e->args[e->arg_count]);
		if (r < 0)
			return r;
		e->arg_count++;
	}
	return 0;
}

/* After the word `export` at `place`. */
static int parse_export(struct parser *p, struct graph_place place)
{
	struct graph_export e = { .place = place, .node = -1 };
	struct token node, type;
	int r = take_word(p, "a node's name after export", EXPORT_FORM, &node);
	if (r == 0)
		e.place = node.place;
	if (r == 0 && !is_word(&p->token, "as"))
		r = expected(p, "'as'", EXPORT_FORM);
	if (r == 0)
		r = advance(p);
	if (r == 0)
		r = take_word(p, "the type of export after 'as'", EXPORT_FORM, &type);
	if (r < 0)
		return r;
	e.node_name = node.word;
	e.type = type.word;
	e.type_place = type.place;
	r = parse_export_args(p, &e);
	return r < 0 ? r : limit(p, graph_add_export(p->graph, &e), place, "exports", GRAPH_EXPORTS_MAX);
}

static int parse_named(struct parser *p, const struct token *name)
{
	char shown[64];
	graph_quote(name->word, shown, sizeof shown);
	if (!name_valid(name->word))
		return graph_error(p->report, name->place, "%s can't be a node's name (letters, digits, '.', '_' and '-', at most 63)", shown);
	int r = advance(p);
	struct token first;
	if (r == 0)
		r = take_word(p, "a node after '='", "write NAME = NODE", &first);
	if (r < 0)
		return r;
	int node = parse_chain(p, first);
	if (node < 0)
		return node;
	p->graph->nodes[node].name = name->word;
	p->graph->nodes[node].name_place = name->place;
	return 0;
}

static int parse_statement(struct parser *p)
{
	struct token first;
	int r = take_word(p, "a statement", "write DRIVER(…), a file, a volume, NAME = NODE, or export NODE as TYPE", &first);
	if (r < 0)
		return r;
	if (p->token.type == TOKEN_EQUALS)
		return parse_named(p, &first);
	if (is_word(&first, "export") && p->token.type == TOKEN_WORD)
		return parse_export(p, first.place);
	int node = parse_chain(p, first);
	if (node < 0)
		return node;
	if (p->graph->root >= 0)
		return graph_error(p->report, first.place, "a second node without a name (write NAME = in front of all but one, or export them)");
	p->graph->root = node;
	return 0;
}

/* Reports quote the text, and end in JSON: only UTF-8 will do. */
static int check_utf8(struct parser p)
{
	if (p.end - p.at >= 2 && (memcmp(p.at, "\xff\xfe", 2) == 0 || memcmp(p.at, "\xfe\xff", 2) == 0)) /* the mark that editors put before it */
		return graph_error(p.report, p.place, "the text is UTF-16 (write it as UTF-8)");
	while (!at_end(&p)) {
		unsigned n = graph_utf8(p.at, (size_t)(p.end - p.at));
		if (!n)
			return graph_error(p.report, p.place, "byte 0x%02x is not UTF-8 (write \\x%02x inside quotes)", (unsigned char)*p.at,
					   (unsigned char)*p.at);
		for (; n; n--)
			step(&p);
	}
	return 0;
}

static int parse_text(struct parser *p)
{
	int r = check_utf8(*p);
	if (r == 0)
		r = advance(p);
	while (r == 0 && p->token.type != TOKEN_END) {
		if (p->token.type != TOKEN_NEWLINE) {
			r = parse_statement(p);
			if (r == 0 && p->token.type != TOKEN_NEWLINE && p->token.type != TOKEN_END)
				r = expected(p, "the end of the line", "write each statement on a line of its own");
		} else {
			r = advance(p);
		}
	}
	if (r == 0 && p->graph->node_count == 0 && p->graph->export_count == 0)
		r = graph_error(p->report, p->token.place, "there is no node (write one, like raw(/images/a.img))");
	return r;
}

int graph_parse(const char *text, size_t length, struct graph **ret_graph, struct report *report)
{
	if (length > GRAPH_TEXT_MAX)
		return report_set(report, -EINVAL, "the graph is too long (%zu bytes, at most %u)", length, (unsigned)GRAPH_TEXT_MAX);
	struct graph *g = calloc(1, sizeof *g);
	if (!g)
		return -ENOMEM;
	g->root = -1;
	g->strings = malloc(length * 2 + 1); /* a word of n characters takes at most n + 1 bytes */
	size_t mark = sizeof GRAPH_UTF8_MARK - 1, marked = length >= mark && memcmp(text, GRAPH_UTF8_MARK, mark) == 0 ? mark : 0;
	struct parser p = { .at = text + marked, .end = text + length, .place = { 1, 1 }, .strings = g->strings, .graph = g, .report = report };
	int r = g->strings ? parse_text(&p) : -ENOMEM;
	if (r < 0) {
		graph_free(g);
		return r;
	}
	*ret_graph = g;
	return 0;
}
