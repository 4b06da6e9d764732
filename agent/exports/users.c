/* Finds a block device's users in /proc and /sys: mounts in any mount namespace, swap,
 * devices stacked on it (dm, md, loop), and processes that have it open.
 *
 * None of this may hang on a file system that hangs, so paths are compared as text first and
 * only ones that look like device nodes are looked at, without asking any server. */
#include "agent/exports/users.h"

#include <ctype.h>
#include <dirent.h>
#include <errno.h>
#include <fcntl.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/stat.h>
#include <sys/sysmacros.h>
#include <unistd.h>

#define NAMED_MAX 4u /* users named in the text; the rest is counted */
#define NAMESPACES_MAX 256u
#define DEVICES_MAX 129u /* the device and its partitions */

struct search {
	dev_t dev[DEVICES_MAX];
	unsigned dev_count;
	char kernel_name[64]; /* "loop0" */
	struct block_users *users;
	bool serious; /* somebody who won't leave by himself */
	ino_t namespaces[NAMESPACES_MAX]; /* mount namespaces already looked at */
	unsigned namespace_count;
	ino_t own_namespace;
	char elsewhere[96]; /* "" while our own is looked at, else whose it is: who unmounted it here would wonder */
	char here[NAMED_MAX][256]; /* where it is mounted in our own */
	unsigned here_count;
};

static void found(struct search *s, bool probing, const char *what, const char *who)
{
	struct block_users *u = s->users;
	s->serious |= !probing;
	size_t used = strlen(u->text);
	if (u->count < NAMED_MAX)
		snprintf(u->text + used, sizeof u->text - used, "%s%s %s", u->count ? ", " : "", what, who);
	else if (u->count == NAMED_MAX)
		snprintf(u->text + used, sizeof u->text - used, " and others");
	u->count++;
}

static bool is_dev(const struct search *s, unsigned major_number, unsigned minor_number)
{
	for (unsigned i = 0; i < s->dev_count; i++)
		if (s->dev[i] == makedev(major_number, minor_number))
			return true;
	return false;
}

static bool is_device(const struct search *s, const char *path)
{
	if (strncmp(path, "/", 1) != 0 || !strstr(path, "dev/"))
		return false;
	struct statx st;
	return statx(AT_FDCWD, path, AT_STATX_DONT_SYNC, STATX_TYPE, &st) == 0 && S_ISBLK(st.stx_mode) &&
	       is_dev(s, st.stx_rdev_major, st.stx_rdev_minor);
}

/* "COMM (pid N)"; returns COMM in ret_comm. */
static void process_name(const char *pid, char ret_comm[32], char *ret_who, size_t bytes)
{
	char path[64];
	snprintf(path, sizeof path, "/proc/%.16s/comm", pid);
	FILE *f = fopen(path, "re");
	if (!f || !fgets(ret_comm, 32, f))
		strcpy(ret_comm, "?");
	ret_comm[strcspn(ret_comm, "\n")] = 0;
	if (f)
		fclose(f);
	snprintf(ret_who, bytes, "%s (pid %.16s)", ret_comm, pid);
}

/* ---- mounts ---- */

/* Undoes mountinfo's \040 in place. */
static void unescape(char *text)
{
	char *to = text;
	for (const char *p = text; *p; to++) {
		if (p[0] == '\\' && isdigit((unsigned char)p[1]) && isdigit((unsigned char)p[2]) && isdigit((unsigned char)p[3])) {
			*to = (char)((p[1] - '0') * 64 + (p[2] - '0') * 8 + (p[3] - '0'));
			p += 4;
		} else {
			*to = *p++;
		}
	}
	*to = 0;
}

/* Services with a namespace of their own have copies of what is mounted here, which go with it. What has stayed is said when it is gone here. */
static bool copied(struct search *s, const char *point)
{
	for (unsigned i = 0; s->elsewhere[0] && i < s->here_count; i++)
		if (strcmp(s->here[i], point) == 0)
			return true;
	if (!s->elsewhere[0] && s->here_count < NAMED_MAX && strlen(point) < sizeof s->here[0])
		strcpy(s->here[s->here_count++], point);
	return false;
}

/* "36 35 98:0 /root /mount/point options … - type source options". Some file systems (btrfs) show a
 * number of their own; they name the device as the source. */
static void mount_line(struct search *s, char *line)
{
	unsigned major_number, minor_number;
	char point[1024], source[1024];
	char *dash = strstr(line, " - ");
	if (!dash || sscanf(line, "%*u %*u %u:%u %*s %1023s", &major_number, &minor_number, point) != 3 ||
	    sscanf(dash, " - %*s %1023s", source) != 1)
		return;
	unescape(source);
	if (!is_dev(s, major_number, minor_number) && !is_device(s, source))
		return;
	unescape(point);
	if (copied(s, point))
		return;
	char where[sizeof point + sizeof s->elsewhere];
	snprintf(where, sizeof where, "%s%s", point, s->elsewhere);
	found(s, /* probing= */ false, "mounted at", where);
}

static void mounts_of(struct search *s, const char *pid)
{
	char path[64];
	struct stat st;
	snprintf(path, sizeof path, "/proc/%.16s/ns/mnt", pid);
	if (stat(path, &st) < 0)
		return;
	for (unsigned i = 0; i < s->namespace_count; i++)
		if (s->namespaces[i] == st.st_ino)
			return;
	if (s->namespace_count < NAMESPACES_MAX)
		s->namespaces[s->namespace_count++] = st.st_ino;
	char comm[32], who[64];
	process_name(pid, comm, who, sizeof who);
	snprintf(s->elsewhere, sizeof s->elsewhere, st.st_ino == s->own_namespace ? "" : " in the mount namespace of %s", who);
	snprintf(path, sizeof path, "/proc/%.16s/mountinfo", pid);
	FILE *f = fopen(path, "re");
	char *line = NULL;
	size_t room = 0;
	while (f && getline(&line, &room, f) > 0)
		mount_line(s, line);
	free(line);
	if (f)
		fclose(f);
}

/* ---- processes ---- */

static bool probing(const char *comm)
{
	return strcmp(comm, "(udev-worker)") == 0 || strcmp(comm, "systemd-udevd") == 0 || strcmp(comm, "udevd") == 0 ||
	       strcmp(comm, "blkid") == 0;
}

static void opener(struct search *s, const char *pid)
{
	char comm[32], who[64];
	process_name(pid, comm, who, sizeof who);
	found(s, probing(comm), "open by", who);
}

static void open_files_of(struct search *s, const char *pid)
{
	char path[320], target[1024];
	snprintf(path, sizeof path, "/proc/%.16s/fd", pid);
	DIR *d = opendir(path);
	struct dirent *e;
	while (d && (e = readdir(d))) {
		snprintf(path, sizeof path, "/proc/%.16s/fd/%.255s", pid, e->d_name);
		ssize_t n = readlink(path, target, sizeof target - 1);
		if (n <= 0)
			continue;
		target[n] = 0;
		/* Through the descriptor: the name may mean something else where the process lives. */
		struct statx st;
		if (!strstr(target, "dev/") || statx(AT_FDCWD, path, AT_STATX_DONT_SYNC, STATX_TYPE, &st) < 0 ||
		    !S_ISBLK(st.stx_mode) || !is_dev(s, st.stx_rdev_major, st.stx_rdev_minor))
			continue;
		opener(s, pid);
		break;
	}
	if (d)
		closedir(d);
}

static void processes(struct search *s)
{
	DIR *d = opendir("/proc");
	struct dirent *e;
	mounts_of(s, "self"); /* before the copies of it */
	while (d && (e = readdir(d))) {
		if (!isdigit((unsigned char)e->d_name[0]))
			continue;
		mounts_of(s, e->d_name);
		if (atol(e->d_name) != getpid())
			open_files_of(s, e->d_name);
	}
	if (d)
		closedir(d);
}

/* ---- the kernel ---- */

/* Calls `each` for every partition the kernel knows, with its directory below /sys. */
static void partitions(struct search *s, void (*each)(struct search *s, const char *directory))
{
	char path[400];
	snprintf(path, sizeof path, "/sys/block/%s", s->kernel_name);
	DIR *d = opendir(path);
	struct dirent *e;
	while (d && (e = readdir(d))) {
		if (strncmp(e->d_name, s->kernel_name, strlen(s->kernel_name)) != 0)
			continue;
		snprintf(path, sizeof path, "/sys/block/%s/%.255s", s->kernel_name, e->d_name);
		each(s, path);
	}
	if (d)
		closedir(d);
}

static void partition_dev(struct search *s, const char *directory)
{
	char path[420];
	unsigned major_number, minor_number;
	snprintf(path, sizeof path, "%s/dev", directory);
	FILE *f = fopen(path, "re");
	if (f && fscanf(f, "%u:%u", &major_number, &minor_number) == 2 && s->dev_count < DEVICES_MAX)
		s->dev[s->dev_count++] = makedev(major_number, minor_number);
	if (f)
		fclose(f);
}

static void holders_of(struct search *s, const char *directory)
{
	char path[420];
	snprintf(path, sizeof path, "%s/holders", directory);
	DIR *d = opendir(path);
	struct dirent *e;
	while (d && (e = readdir(d)))
		if (e->d_name[0] != '.')
			found(s, /* probing= */ false, "held by", e->d_name);
	if (d)
		closedir(d);
}

static void holders(struct search *s)
{
	char path[128];
	snprintf(path, sizeof path, "/sys/block/%s", s->kernel_name);
	holders_of(s, path);
	partitions(s, holders_of);
}

static void swaps(struct search *s)
{
	char line[1024];
	FILE *f = fopen("/proc/swaps", "re");
	while (f && fgets(line, sizeof line, f)) {
		line[strcspn(line, " \t\n")] = 0;
		if (is_device(s, line))
			found(s, /* probing= */ false, "used as", "swap");
	}
	if (f)
		fclose(f);
}

static void loops_over(struct search *s)
{
	DIR *d = opendir("/sys/block");
	struct dirent *e;
	while (d && (e = readdir(d))) {
		char path[320], backing[1024];
		snprintf(path, sizeof path, "/sys/block/%.255s/loop/backing_file", e->d_name);
		FILE *f = fopen(path, "re");
		if (!f)
			continue;
		if (fgets(backing, sizeof backing, f)) {
			backing[strcspn(backing, "\n")] = 0;
			if (is_device(s, backing))
				found(s, /* probing= */ false, "held by", e->d_name);
		}
		fclose(f);
	}
	if (d)
		closedir(d);
}

int block_users(const char *device, struct block_users *ret_users)
{
	struct stat st;
	if (stat(device, &st) < 0)
		return -errno;
	if (!S_ISBLK(st.st_mode))
		return -ENOTBLK;
	*ret_users = (struct block_users){ 0 };
	struct search s = { .dev = { st.st_rdev }, .dev_count = 1, .users = ret_users };
	struct stat own;
	s.own_namespace = stat("/proc/self/ns/mnt", &own) == 0 ? own.st_ino : 0;
	char path[64], target[256];
	snprintf(path, sizeof path, "/sys/dev/block/%u:%u", major(st.st_rdev), minor(st.st_rdev));
	ssize_t n = readlink(path, target, sizeof target - 1);
	if (n > 0) {
		target[n] = 0;
		const char *slash = strrchr(target, '/');
		snprintf(s.kernel_name, sizeof s.kernel_name, "%.63s", slash ? slash + 1 : target);
	}
	partitions(&s, partition_dev);
	processes(&s);
	holders(&s);
	swaps(&s);
	loops_over(&s);
	ret_users->only_probing = ret_users->count > 0 && !s.serious;
	return 0;
}
