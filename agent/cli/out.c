/* What commands print: tables, JSON, progress, times. */
#include <errno.h>
#include <inttypes.h>
#include <stdarg.h>
#include <stdlib.h>
#include <string.h>
#include <sys/ioctl.h>
#include <time.h>
#include <unistd.h>

#include "agent/cli/cli.h"
#include "core/array.h"
#include "core/bytes.h"
#include "core/option.h"

#define REAL_DIGITS 6 /* 0.333, not 0.33300000000000002 */

int cli_print_json(json_t *j)
{
	assert(j);
	json_dumpf(j, stdout, JSON_INDENT(2) | JSON_ENCODE_ANY | JSON_REAL_PRECISION(REAL_DIGITS));
	putchar('\n');
	json_decref(j);
	return 0;
}

/* ---- tables ---- */

struct table {
	unsigned columns, elastic; /* elastic: the one that gives way on a narrow terminal */
	size_t count; /* cells, headings first */
	char **cell;
	size_t note_count;
	char **note;  /* of a row, below it; NULL: none. Those that are missing at the end likewise */
	bool right[16];
};
#define ELASTIC_LEAST 12

static void table_add(struct table *t, char *cell)
{
	if (!cell || array_more(&t->cell, t->count) < 0)
		abort();
	t->cell[t->count++] = cell;
}

struct table *table_new(const char *const *headings)
{
	struct table *t = calloc(1, sizeof *t);
	if (!t)
		abort();
	for (; headings[t->columns]; t->columns++) {
		const char *h = headings[t->columns];
		assert(t->columns < ARRAY_COUNT(t->right));
		t->right[t->columns] = h[0] == '>';
		table_add(t, strdup(h[0] == '>' ? h + 1 : h));
	}
	t->elastic = t->columns;
	return t;
}

void table_elastic(struct table *t, unsigned column) { t->elastic = column; }

void table_cell(struct table *t, const char *format, ...)
{
	char *cell = NULL;
	va_list ap;
	va_start(ap, format);
	if (vasprintf(&cell, format, ap) < 0)
		cell = NULL;
	va_end(ap);
	table_add(t, cell);
}

void table_note(struct table *t, const char *text)
{
	assert(t->count % t->columns == 0 && t->count > t->columns);
	for (size_t row = t->count / t->columns - 2; t->note_count <= row;) {
		if (array_more(&t->note, t->note_count) < 0)
			abort();
		t->note[t->note_count++] = NULL;
	}
	t->note[t->note_count - 1] = strdup(text);
}

/* Columns of a terminal, about: characters of UTF-8. */
static size_t columns_of(const char *text)
{
	size_t n = 0;
	for (; *text; text++)
		n += ((unsigned char)*text & 0xc0) != 0x80;
	return n;
}

char *cut_text(char *text, size_t columns)
{
	size_t n = columns_of(text);
	char *p = text;
	if (n <= columns)
		return text;
	for (size_t k = 0; *p; p++)
		if (((unsigned char)*p & 0xc0) != 0x80 && k++ == columns - 1)
			break;
	memcpy(p, "…", sizeof "…"); /* three bytes: where what is cut away is shorter, the caller has left room */
	return text;
}

/* On a terminal that is too narrow for a row's line the elastic column is cut, as far as that is of use. */
static void fit(struct table *t, FILE *to, size_t *width)
{
	struct winsize w;
	size_t all = 2 * (t->columns - 1);
	if (t->elastic >= t->columns || !isatty(fileno(to)) || ioctl(fileno(to), TIOCGWINSZ, &w) < 0 || w.ws_col == 0)
		return;
	for (unsigned i = 0; i < t->columns; i++)
		all += width[i];
	if (all <= w.ws_col || width[t->elastic] <= ELASTIC_LEAST)
		return;
	size_t most = all - w.ws_col < width[t->elastic] - ELASTIC_LEAST ? width[t->elastic] - (all - w.ws_col) : ELASTIC_LEAST;
	width[t->elastic] = most;
	for (size_t i = t->elastic; i < t->count; i += t->columns) {
		char *longer = realloc(t->cell[i], strlen(t->cell[i]) + sizeof "…");
		if (!longer)
			abort();
		t->cell[i] = cut_text(longer, most);
	}
}

void table_print(struct table *t, FILE *to)
{
	assert(t->count % t->columns == 0);
	size_t width[ARRAY_COUNT(t->right)] = { 0 };
	for (size_t i = 0; i < t->count; i++)
		width[i % t->columns] = MAX(width[i % t->columns], columns_of(t->cell[i]));
	fit(t, to, width);
	for (size_t i = 0; i < t->count && t->count > t->columns; i++) {
		size_t column = i % t->columns;
		bool last = column == t->columns - 1;
		int w = (int)(width[column] + strlen(t->cell[i]) - columns_of(t->cell[i])); /* printf() counts bytes */
		fprintf(to, "%*s%s", t->right[column] ? w : last ? 0 : -w, t->cell[i], last ? "\n" : "  ");
		size_t row = i / t->columns;
		if (last && row > 0 && row <= t->note_count && t->note[row - 1])
			fprintf(to, "  %s\n", t->note[row - 1]);
	}
	for (size_t i = 0; i < t->note_count; i++)
		free(t->note[i]);
	free(t->note);
	for (size_t i = 0; i < t->count; i++)
		free(t->cell[i]);
	free(t->cell);
	free(t);
}

/* ---- progress ---- */

#define BAR_WIDTH 30
#define BAR_LEAST 5
#define BAR_EVERY_NS (NS_PER_S / 5)
#define LINE_EVERY_PERCENT 10

void progress_start(struct progress *p, const struct cli *c, const char *what, uint64_t total)
{
	*p = (struct progress){ .what = what, .total = total, .last_percent = -1, .patience = c->patience };
	p->lines = cli_flag(c, CLI_PROGRESS);
	p->bar = !p->lines && isatty(STDERR_FILENO) && !cli_flag(c, CLI_JSON);
}

/* "5 of 11 copies", "1.0 GiB of 4.0 GiB" */
static const char *progress_text(const struct progress *p, uint64_t done, char text[80])
{
	char a[24], b[24];
	if (p->unit)
		snprintf(text, 80, "%" PRIu64 " of %" PRIu64 " %s", done, p->total, p->unit);
	else
		snprintf(text, 80, "%s of %s", format_size_human(done, a), format_size_human(p->total, b));
	return text;
}

/* One that is as wide as the terminal would go on in the next row, and stay there; so the bar is shorter where that is narrow, or isn't there, or the line is cut. */
static const char *bar_line(const struct progress *p, int percent, const char *text, char *line, size_t bytes)
{
	struct winsize w;
	int columns = ioctl(STDERR_FILENO, TIOCGWINSZ, &w) == 0 && w.ws_col ? w.ws_col - 1 : 79;
	int room = columns - snprintf(NULL, 0, "%s [] %3d %% %s", p->what, percent, text), width = MIN(room, BAR_WIDTH);
	char bar[BAR_WIDTH + 1];
	for (int i = 0; i < width; i++)
		bar[i] = i * 100 < percent * width ? '#' : '.';
	bar[MAX(width, 0)] = 0;
	if (width >= BAR_LEAST)
		snprintf(line, bytes, "%s [%s] %3d %% %s", p->what, bar, percent, text);
	else
		snprintf(line, bytes - sizeof "…", "%s %3d %% %s", p->what, percent, text);
	return cut_text(line, (size_t)MAX(columns, 1));
}

void progress_set(struct progress *p, uint64_t now_ns, uint64_t done)
{
	int percent = p->total ? (int)((double)done * 100 / (double)p->total) : 100;
	char text[80];
	if (p->lines && percent / LINE_EVERY_PERCENT != p->last_percent / LINE_EVERY_PERCENT) {
		p->last_percent = percent;
		patience_clear(p->patience, true);
		fprintf(stderr, "%s: %d %%, %s\n", p->what, percent, progress_text(p, done, text));
	}
	bool same = p->drawn && done == p->last_done, soon = p->drawn && now_ns - p->last_ns < BAR_EVERY_NS;
	if (!p->bar || same || (soon && done != p->total))
		return;
	p->last_ns = now_ns;
	p->last_done = done;
	p->drawn = true;
	char line[256];
	patience_clear(p->patience, true);
	fprintf(stderr, "\r%s\033[K", bar_line(p, percent, progress_text(p, done, text), line, sizeof line));
	fflush(stderr);
}

void progress_end(struct progress *p, bool good)
{
	if (p->drawn)
		fprintf(stderr, good ? "\n" : "\r\033[K");
	p->drawn = false;
}

void cli_say(const struct cli *c, struct progress *p, const char *format, ...)
{
	va_list ap;
	progress_end(p, false);
	patience_clear(c->patience, false);
	va_start(ap, format);
	vprintf(format, ap);
	va_end(ap);
	putchar('\n');
	fflush(stdout);
}

const char *cli_time(uint64_t ns, char buffer[32])
{
	time_t seconds = (time_t)(ns / NS_PER_S);
	struct tm tm;
	if (!localtime_r(&seconds, &tm) || !strftime(buffer, 32, "%Y-%m-%d %H:%M:%S", &tm))
		snprintf(buffer, 32, "-");
	return buffer;
}
