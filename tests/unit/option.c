/* Options: sizes, names, tables, and what is said about wrong ones. */
#include <criterion/criterion.h>
#include <errno.h>
#include <stdlib.h>
#include <string.h>

#include "core/option.h"

static void size_is(const char *text, uint64_t want)
{
	uint64_t got = 1;
	cr_assert_eq(parse_size(text, &got), 0, "%s", text);
	cr_assert_eq(got, want, "%s", text);
}

static void size_fails(const char *text, int status)
{
	uint64_t got = 77;
	cr_assert_eq(parse_size(text, &got), status, "%s", text);
	cr_assert_eq(got, 77, "%s: written though it failed", text);
}

Test(option, sizes)
{
	size_is("0", 0);
	size_is("512", 512);
	size_is("64K", 65536);
	size_is("64k", 65536);
	size_is("1M", 1 << 20);
	size_is("3GiB", UINT64_C(3) << 30);
	size_is("2TB", UINT64_C(2) << 40);
	size_is("15E", UINT64_C(15) << 60);
	size_is("18446744073709551615", UINT64_MAX);
	size_fails("16E", -ERANGE);
	size_fails("18446744073709551616", -ERANGE);
	static const char *const wrong[] = { "", "K", "-1", "+1", " 1", "1 K", "1.5G", "1X", "1Kx", "1KiBs", "0x10", "1KK" };
	for (size_t i = 0; i < sizeof wrong / sizeof wrong[0]; i++)
		size_fails(wrong[i], -EINVAL);
}

Test(option, formatted_sizes_parse_back)
{
	static const uint64_t sizes[] = { 0, 1, 511, 512, 1023, 1024, 1025, 65536, 1 << 20, (1 << 20) + 1, UINT64_C(5) << 40,
					  UINT64_C(15) << 60, UINT64_MAX };
	char buffer[24];
	for (size_t i = 0; i < sizeof sizes / sizeof sizes[0]; i++)
		size_is(format_size(sizes[i], buffer), sizes[i]);
	cr_assert_str_eq(format_size(65536, buffer), "64K");
	cr_assert_str_eq(format_size(65537, buffer), "65537");
	cr_assert_str_eq(format_size_human(65536, buffer), "64.0 KiB");
	cr_assert_str_eq(format_size_human(1000, buffer), "1000 B");
	cr_assert_str_eq(format_size_human(UINT64_MAX, buffer), "16.0 EiB");
}

Test(option, names)
{
	char longest[65];
	memset(longest, 'a', 64);
	longest[64] = 0;
	cr_assert_not(name_valid(longest));
	longest[63] = 0;
	cr_assert(name_valid(longest));
	cr_assert(name_valid("a"));
	cr_assert(name_valid("0.b_c-D"));
	static const char *const wrong[] = { "", ".a", "-a", "_a", "a b", "a/b", "a@b", "a\n", "\xc3\xa9" };
	for (size_t i = 0; i < sizeof wrong / sizeof wrong[0]; i++)
		cr_assert_not(name_valid(wrong[i]), "%s", wrong[i]);
}

static const struct option_spec spec[] = {
	{ .name = "file", .type = OPTION_STRING, .positional = true, .required = true, .help = "the file" },
	{ .name = "size", .type = OPTION_SIZE, .positional = true, .number_default = 4096, .number_min = 512, .number_max = 1 << 20 },
	{ .name = "depth", .type = OPTION_NUMBER, .number_default = 3 },
	{ .name = "sync", .type = OPTION_BOOL },
	{ 0 },
};

/* Words as "key=value" or "value", the last one NULL. */
static int parse(const char *const *words, struct option_values *v, struct report *report)
{
	static char copy[8][64];
	const char *key[8], *value[8];
	unsigned n = 0;
	for (; words[n]; n++) {
		strcpy(copy[n], words[n]);
		char *equals = strchr(copy[n], '=');
		key[n] = equals ? copy[n] : NULL;
		value[n] = equals ? equals + 1 : copy[n];
		if (equals)
			*equals = 0;
	}
	*report = (struct report){ 0 };
	return option_parse(spec, key, value, n, v, report);
}
#define WORDS(...) ((const char *const[]){ __VA_ARGS__, NULL })

Test(option, values_and_defaults)
{
	struct option_values v;
	struct report report;
	cr_assert_eq(parse(WORDS("/a", "8K", "sync=on"), &v, &report), 0);
	cr_assert_str_eq(option_string(&v, "file"), "/a");
	cr_assert_eq(option_number(&v, "size"), 8192);
	cr_assert_eq(option_number(&v, "depth"), 3);
	cr_assert(option_bool(&v, "sync"));
	cr_assert(option_given(&v, "size"));
	cr_assert_not(option_given(&v, "depth"));
	cr_assert_eq(parse(WORDS("size=1K", "file=/b"), &v, &report), 0);
	cr_assert_str_eq(option_string(&v, "file"), "/b");
	cr_assert_eq(option_number(&v, "size"), 1024);
	cr_assert_not(option_bool(&v, "sync"));
}

static void fails(const char *const *words, const char *said)
{
	struct option_values v;
	struct report report;
	cr_assert_eq(parse(words, &v, &report), -EINVAL, "%s", words[0]);
	cr_assert(strstr(report.text, said), "'%s' does not say '%s'", report.text, said);
	cr_assert_not(strchr(report.text, '\n'));
}

Test(option, wrong_ones_are_named_with_the_cure)
{
	fails(WORDS("size=1K"), "file is missing");
	fails(WORDS("/a", "colour=red"), "unknown option 'colour' (it has file, size, depth, sync)");
	fails(WORDS("/a", "1K", "/b"), "one argument too many");
	fails(WORDS("/a", "file=/b"), "'file' is given twice");
	fails(WORDS("/a", "1X"), "is not a size");
	fails(WORDS("/a", "1"), "out of range (512 to 1M)");
	fails(WORDS("/a", "2M"), "out of range");
	fails(WORDS("/a", "depth=-1"), "is not a number (give digits)");
	fails(WORDS("/a", "depth=99999999999999999999"), "out of range");
	fails(WORDS("/a", "sync=maybe"), "is not a switch (give on or off)");
}

Test(option, switches)
{
	struct option_values v;
	struct report report;
	static const char *const yes[] = { "sync=on", "sync=yes", "sync=TRUE", "sync=1" };
	static const char *const no[] = { "sync=off", "sync=No", "sync=false", "sync=0" };
	for (int i = 0; i < 4; i++) {
		cr_assert_eq(parse(WORDS("/a", yes[i]), &v, &report), 0);
		cr_assert(option_bool(&v, "sync"));
		cr_assert_eq(parse(WORDS("/a", no[i]), &v, &report), 0);
		cr_assert_not(option_bool(&v, "sync"));
	}
}
