/* A catalog as a file, and what is raised when it is restored; the marks that keep others out. */
#include <criterion/criterion.h>
#include <errno.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <unistd.h>

#include "core/bytes.h"
#include "core/config.h"
#include "parallax/catalog/catalog_copy.h"
#include "parallax/catalog/meta.h"
#include "tests/unit/tempdir.h"

static struct catalog_image some(void)
{
	struct catalog_image i = { 0 };
	uint8_t count[8];
	put_le64(count, 77);
	cr_assert_eq(catalog_image_add(&i, "counter/segment", count, 8), 0);
	cr_assert_eq(catalog_image_add(&i, "name/a", "\0\xff\n\"", 4), 0);
	cr_assert_eq(catalog_image_add(&i, "name/empty", "", 0), 0);
	return i;
}

Test(catalog_image, file)
{
	struct catalog_image i = some(), again;
	struct report report = { "" };
	size_t length = 0;
	char *text = catalog_image_encode(&i, 5, &length);
	cr_assert_not_null(text);
	cr_assert_eq(catalog_image_decode(text, length, &again, &report), 0, "%s", report.text);
	cr_assert(catalog_image_equal(&i, &again));
	catalog_image_free(&again);
	/* every cut, every flipped bit is noticed */
	for (size_t n = 0; n < length; n++) {
		report.text[0] = 0;
		cr_assert_eq(catalog_image_decode(text, n, &again, &report), -EUCLEAN, "%zu", n);
		cr_assert(report.text[0] && !again.keys);
	}
	for (size_t n = 0; n < length * 8; n++) {
		text[n / 8] ^= (char)(1 << n % 8);
		int r = catalog_image_decode(text, length, &again, NULL);
		bool same = r == 0 && catalog_image_equal(&i, &again); /* a number of the header that isn't needed may not be noticed */
		cr_assert(r < 0 || same, "bit %zu", n);
		catalog_image_free(&again);
		text[n / 8] ^= (char)(1 << n % 8);
	}
	free(text);
	catalog_image_free(&i);
}

Test(catalog_image, files_refused)
{
	static const char *const bad[] = {
		"", "\n", "hello\n", "{}\n", "{\"aquifer-catalog\":0}\n", "{\"aquifer-catalog\":1}\n{\"key\":\"a\"}\n", "{\"aquifer-catalog\":1}\n{\"keys\":1,\"crc32c\":0}\n",
		"{\"aquifer-catalog\":1}\n[[[[[[\n", "{\"aquifer-catalog\":1}\n{\"a\":{\"a\":{}}}\n", "{\"aquifer-catalog\":1}\n{\"key\":\"store/moved\",\"value\":\"\"}\n",
		"{\"aquifer-catalog\":1}\n{\"key\":\"b\",\"value\":\"\"}\n{\"key\":\"a\",\"value\":\"\"}\n", "{\"aquifer-catalog\":1}\n{\"key\":\"a\\n\",\"value\":\"\"}\n",
	};
	struct catalog_image i;
	for (unsigned n = 0; n < ARRAY_COUNT(bad); n++) {
		struct report report = { "" };
		cr_assert_eq(catalog_image_decode(bad[n], strlen(bad[n]), &i, &report), -EUCLEAN, "%s", bad[n]);
		cr_assert(report.text[0] && !strchr(report.text, '\n') && !i.keys);
	}
	const char *newer = "{\"aquifer-catalog\":2}\n";
	cr_assert_eq(catalog_image_decode(newer, strlen(newer), &i, NULL), -EPROTONOSUPPORT);
}

/* R5: all that is given away from now on is above all that can have been given since the backup. */
Test(catalog_image, raised)
{
	struct catalog_image i = some();
	struct meta_owner held = { .epoch = 9, .state = OWNER_HELD, .pid = 1, .holder = "somebody", .host = "h" }, fresh = { 0 }, now;
	size_t length = 0;
	uint8_t *bytes = meta_owner_encode(&held, &length);
	cr_assert_eq(catalog_image_add(&i, "volume/0000000000000001/owner", bytes, length), 0);
	free(bytes);
	bytes = meta_owner_encode(&fresh, &length);
	cr_assert_eq(catalog_image_add(&i, "volume/0000000000000002/owner", bytes, length), 0);
	free(bytes);
	cr_assert_eq(catalog_image_raise(&i, NULL), 0);
	cr_assert_gt(get_le64(i.keys[0].bytes), 77 + 1000000000);
	cr_assert_lt(get_le64(i.keys[0].bytes) >> 44, 1, "a segment's id has 48 bits, and this may happen more than once");
	cr_assert_eq(meta_owner_decode(i.keys[3].bytes, i.keys[3].length, &now), 0);
	cr_assert(now.epoch > 9 + 1000000000 && now.state == OWNER_FREE && now.pid == 0 && !now.holder[0]);
	cr_assert_eq(meta_owner_decode(i.keys[4].bytes, i.keys[4].length, &now), 0);
	cr_assert_eq(now.epoch, 0); /* never open: its first opener may make its directory */
	i.keys[0].length = 3;
	struct report report = { "" };
	cr_assert_eq(catalog_image_raise(&i, &report), -EUCLEAN);
	cr_assert(strstr(report.text, "counter/segment"));
	i.keys[0].length = 8;
	catalog_image_free(&i);
}

/* ---- marks ---- */

struct rig {
	struct env *env;
	char dir[64], url[96];
	struct report report;
};

static int opens(struct rig *r)
{
	struct catalog *c = NULL;
	r->report.text[0] = 0;
	int e = catalog_open(r->env, r->url, NULL, true, &c, &r->report);
	catalog_close(c);
	return e;
}

static int body_marks(void *arg)
{
	struct rig *r = arg;
	struct catalog *c;
	char text[64];
	cr_assert_eq(opens(r), 0);
	cr_assert_eq(catalog_open_any(r->env, r->url, NULL, false, &c, &r->report), 0);
	cr_assert_eq(catalog_mark(c, STORE_MOVED, "moved sqlite:/there", &r->report), 0);
	cr_assert_eq(opens(r), -EREMCHG);
	cr_assert(strstr(r->report.text, "moved to sqlite:/there"), "%s", r->report.text);
	cr_assert_eq(catalog_mark(c, STORE_MOVED, "moving etcd:x", &r->report), 0);
	cr_assert_eq(opens(r), -EREMCHG);
	cr_assert(strstr(r->report.text, "being moved to etcd:x"), "%s", r->report.text);
	cr_assert_eq(catalog_mark_read(c, STORE_MOVED, text, sizeof text, NULL), 0);
	cr_assert_str_eq(text, "moving etcd:x");
	cr_assert_eq(catalog_mark(c, STORE_MOVED, NULL, NULL), 0);
	cr_assert_eq(catalog_mark(c, STORE_INCOMING, "file", NULL), 0);
	cr_assert_eq(opens(r), -EINPROGRESS);
	cr_assert_eq(catalog_mark(c, STORE_INCOMING, NULL, NULL), 0);
	cr_assert_eq(catalog_mark_read(c, STORE_INCOMING, text, sizeof text, NULL), 0);
	cr_assert(!text[0]);
	cr_assert_eq(opens(r), 0);
	/* a copy is what the original was; marks are no part of it */
	struct catalog_image i = some(), again;
	cr_assert_eq(catalog_mark(c, STORE_RESTORED, "now", NULL), 0);
	cr_assert_eq(catalog_image_write(c, &i, &r->report), 0);
	cr_assert_eq(catalog_image_read(c, &again, &r->report), 0);
	cr_assert(catalog_image_equal(&i, &again));
	catalog_image_free(&again);
	cr_assert_eq(catalog_image_erase(c, &r->report), 0);
	cr_assert_eq(catalog_image_read(c, &again, &r->report), 0);
	cr_assert_eq(again.count, 0);
	cr_assert_eq(catalog_mark_read(c, STORE_RESTORED, text, sizeof text, NULL), 0);
	cr_assert_str_eq(text, "now");
	catalog_image_free(&again);
	catalog_image_free(&i);
	catalog_close(c);
	return 0;
}

/* Without its lease a manager would be elected for ever, and a dead reader's snapshot never go. */
static int body_leased(void *arg)
{
	static const char *const keys[] = { "alive/0123456789abcdef", "manager", "reader/1/2/3", "name/a" };
	struct rig *r = arg;
	struct catalog *c;
	struct catalog_image i;
	struct catalog_txn t;
	cr_assert_eq(catalog_open(r->env, r->url, NULL, true, &c, &r->report), 0);
	catalog_txn_init(&t);
	for (unsigned n = 0; n < ARRAY_COUNT(keys); n++)
		catalog_txn_put(&t, keys[n], "x", 1);
	cr_assert_eq(catalog_txn(c, &t, NULL), 0);
	cr_assert_eq(catalog_image_read(c, &i, &r->report), 0);
	cr_assert_eq(i.count, 1);
	cr_assert_str_eq(i.keys[0].key, "name/a");
	catalog_image_free(&i);
	/* nor does one stay where another catalog is to be */
	cr_assert_eq(catalog_image_erase(c, &r->report), 0);
	struct catalog_value v;
	for (unsigned n = 0; n < ARRAY_COUNT(keys); n++)
		cr_assert_eq(catalog_get(c, keys[n], &v), -ENOENT, "%s", keys[n]);
	catalog_close(c);
	return 0;
}

static int body_config(void *arg)
{
	struct rig *r = arg;
	char value[CONFIG_VALUE_BYTES], path[128], text[256] = "";
	cr_assert_eq(config_set(r->env, r->dir, "catalog", "sqlite:/a", &r->report), 0, "%s", r->report.text);
	cr_assert_eq(config_get(r->env, r->dir, "catalog", value, NULL), 0);
	cr_assert_str_eq(value, "sqlite:/a");
	snprintf(path, sizeof path, "%s/etc/aquifer/aquifer.conf", r->dir);
	FILE *f = fopen(path, "w");
	fputs("# mine\ncatalog=x # old\nother = 1\ncatalog = y", f);
	fclose(f);
	cr_assert_eq(config_set(r->env, r->dir, "catalog", "etcd:http://h:1", &r->report), 0, "%s", r->report.text);
	f = fopen(path, "r");
	cr_assert_gt(fread(text, 1, sizeof text - 1, f), 0);
	fclose(f);
	cr_assert_str_eq(text, "# mine\nother = 1\ncatalog = etcd:http://h:1\n");
	return 0;
}

static void run(int (*body)(void *arg))
{
	struct rig r = { .dir = "/tmp/aqimage.XXXXXX" };
	cr_assert(mkdtemp(r.dir));
	snprintf(r.url, sizeof r.url, "sqlite:%s/catalog.db", r.dir);
	cr_assert_eq(env_linux_create(0, &r.env), 0);
	cr_assert_eq(env_linux_run_fiber(r.env, body, &r), 0);
	env_linux_destroy(r.env);
	tempdir_remove(r.dir);
}

Test(catalog_image, marks) { run(body_marks); }
Test(catalog_image, leased_keys_stay) { run(body_leased); }
Test(catalog_image, configuration) { run(body_config); }
