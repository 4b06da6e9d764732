/* Copies between images, graphs and volumes: image convert, volume import, volume export.
 *
 * A new image grows under the name TARGET.part and is renamed when all of it is durable, so
 * TARGET is never half of an image; a copy that fails or is interrupted removes it. */
#include "agent/cli/transfer.h"

#include <errno.h>
#include <stdlib.h>
#include <string.h>
#include <sys/stat.h>
#include <unistd.h>

#include "agent/cli/copy.h"
#include "agent/cli/graph_cli.h"
#include "core/bytes.h"
#include "core/drivers.h"
#include "core/fiber.h"
#include "core/option.h"
#include "formats/image_lock.h"

/* ---- opening ---- */

static int open_graph(struct cli *c, struct graph *g, bool read_only, struct graph_instance **ret_graph,
		      struct blk_node **ret_node)
{
	char holder[96];
	snprintf(holder, sizeof holder, "aquifer %s (pid %d)", c->command->words, (int)getpid());
	struct graph_how how = { .holder = holder, .root = c->root, .read_only = read_only };
	int r = g->export_count ? report_set(&c->report, -EINVAL, "a graph with exports is not an image (give an expression)") : 0;
	if (r == 0)
		r = graph_open(c->env, g, &how, ret_graph, &c->report);
	if (r < 0) {
		graph_free(g);
		return r;
	}
	*ret_node = graph_root_node(*ret_graph);
	return 0;
}

/* A volume that is in use can't be read, a snapshot of it can; taking it away from its user, which attach offers, is no cure here. */
static int busy_hint(struct cli *c, const char *word, int r)
{
	char *cure = strstr(c->report.text, " (detach it there");
	if (r == -EBUSY && name_valid(word) && cure)
		snprintf(cure, sizeof c->report.text - (size_t)(cure - c->report.text), " (take a snapshot, and use that instead: aquifer snapshot create %s@NAME)", word);
	return r;
}

int transfer_open(struct cli *c, const char *word, struct graph_instance **ret_graph, struct blk_node **ret_node)
{
	struct graph *g;
	int r = cli_graph_load(c, word, &g);
	return r < 0 ? r : busy_hint(c, word, cli_graph_hint(c, word, open_graph(c, g, /* read_only= */ true, ret_graph, ret_node)));
}

int transfer_open_text(struct cli *c, const char *text, bool read_only, struct graph_instance **ret_graph,
		       struct blk_node **ret_node)
{
	struct graph *g;
	int r = graph_read(text, strlen(text), &g, &c->report);
	return r < 0 ? r : open_graph(c, g, read_only, ret_graph, ret_node);
}

int transfer_format(struct cli *c, const char *format, const struct blk_driver **ret_driver)
{
	char list[160] = "";
	for (const struct blk_driver *const *d = driver_table; *d; d++) {
		if (!(*d)->create)
			continue;
		if (!strcmp((*d)->name, format)) {
			*ret_driver = *d;
			return 0;
		}
		snprintf(list + strlen(list), sizeof list - strlen(list), "%s%s", list[0] ? ", " : "", (*d)->name);
	}
	return cli_usage(c, "there is no image format '%s' to make; those that there are: %s", format, list);
}

/* ---- copying ---- */

static volatile bool interrupted;

static void interrupt(int signal_number)
{
	(void)signal_number;
	interrupted = true;
}

/* The second time it ends at once, and leaves what it has: what it reads may be away for ever. */
void transfer_catch(struct transfer_signals *ret_before)
{
	struct sigaction act = { .sa_handler = interrupt, .sa_flags = (int)SA_RESETHAND };
	sigaction(SIGINT, &act, &ret_before->interrupt);
	sigaction(SIGTERM, &act, &ret_before->terminate);
	sigaction(SIGHUP, NULL, &ret_before->hang_up);
	if (ret_before->hang_up.sa_handler != SIG_IGN) /* below nohup */
		sigaction(SIGHUP, &act, NULL);
	act.sa_handler = SIG_IGN; /* nobody may be reading the lines of progress any more */
	sigaction(SIGPIPE, &act, &ret_before->pipe);
}

void transfer_restore(const struct transfer_signals *before)
{
	sigaction(SIGINT, &before->interrupt, NULL);
	sigaction(SIGTERM, &before->terminate, NULL);
	sigaction(SIGHUP, &before->hang_up, NULL);
	sigaction(SIGPIPE, &before->pipe, NULL);
}

struct watch {
	struct progress progress;
	struct env *env;
};

static void show_progress(void *arg, uint64_t done_bytes)
{
	struct watch *w = arg;
	progress_set(&w->progress, env_now_ns(w->env), done_bytes);
}

int transfer_read(struct cli *c, struct copy *copy)
{
	struct watch w = { .env = c->env };
	copy->progress = show_progress;
	copy->arg = &w;
	progress_start(&w.progress, c, c->command->words, copy->from->info.size);
	int r = copy_run(copy);
	progress_end(&w.progress, r == 0);
	return r;
}

int transfer_copy(struct cli *c, struct blk_node *from, struct blk_node *to)
{
	struct watch w = { .env = c->env };
	struct copy copy = { .from = from, .to = to, .progress = show_progress, .arg = &w, .stop = &interrupted };
	struct transfer_signals before;
	transfer_catch(&before);
	progress_start(&w.progress, c, c->command->words, from->info.size);
	int r = copy_run(&copy);
	progress_end(&w.progress, r == 0);
	transfer_restore(&before);
	if (r == -EINTR)
		return report_set(&c->report, r, "interrupted; nothing was left behind");
	if (r < 0)
		return report_set(&c->report, r, "%s at offset %llu: %s%s", copy.bad_write ? "writing the target" : "reading the source",
				  (unsigned long long)copy.bad_offset, strerror(-r), r == -ENOSPC ? " (free some space)" : "");
	return 0;
}

/* ---- into a file ---- */

/* Opens an image that has just been made. */
static int open_made(struct cli *c, const struct blk_driver *driver, const char *path, struct blk_node **ret_node)
{
	const char *key = NULL;
	struct option_values values;
	int r = option_parse(driver->options, &key, &path, 1, &values, &c->report);
	if (r < 0)
		return r;
	struct blk_open how = { .options = &values, .node_name = driver->name, .holder = c->what, .root = c->root };
	return blk_open(c->env, driver, &how, NULL, 0, ret_node, &c->report);
}

static int sync_directory_of(struct cli *c, const char *path)
{
	char directory[PATHS_MAX];
	const char *slash = strrchr(path, '/');
	snprintf(directory, sizeof directory, "%.*s", slash ? (int)(slash - path) + 1 : 1, slash ? path : ".");
	int r = env_sync_dir(c->env, directory);
	return r < 0 ? report_path(&c->report, r, "open the directory", directory) : 0;
}

static int fill(struct cli *c, const struct blk_driver *driver, const char *part, struct blk_node *from)
{
	struct blk_node *to;
	int r = open_made(c, driver, part, &to);
	if (r < 0)
		return r;
	r = transfer_copy(c, from, to);
	int closed = blk_close(to);
	if (r == 0 && closed < 0)
		r = report_set(&c->report, closed, "closing the target: %s", strerror(-closed));
	return r;
}

void transfer_inherit(const char *path, const char *part, unsigned mode)
{
	struct stat st;
	if (stat(path, &st) < 0)
		return;
	bool all = chown(part, st.st_uid, st.st_gid) == 0, group = all || chown(part, (uid_t)-1, st.st_gid) == 0;
	chmod(part, (st.st_mode & (all ? 07777u : group ? 0777u : 0707u)) | mode);
}

static int copy_to_file(struct cli *c, const struct blk_driver *driver, const char *target, struct blk_node *from)
{
	char part[PATHS_MAX];
	if ((size_t)snprintf(part, sizeof part, "%s.part", target) >= sizeof part)
		return report_set(&c->report, -ENAMETOOLONG, "the path %.60s… is too long", target);
	struct transfer_signals before;
	transfer_catch(&before); /* also while the file is being made and opened */
	int r = driver->create(c->env, part, from->info.size, NULL, &c->report);
	if (r == -EEXIST)
		c->report.text[0] = 0, report_set(&c->report, r, "%s exists: another copy is under way, or was killed (remove it)", part);
	bool made = r == 0;
	if (r == 0) {
		transfer_inherit(target, part, S_IRUSR | S_IWUSR); /* it is opened again */
		r = fill(c, driver, part, from);
		transfer_inherit(target, part, 0);
	}
	if (r == 0 && (r = env_rename(c->env, part, target)) < 0)
		report_set(&c->report, r, "rename to %s: %s", target, strerror(-r));
	if (r < 0 && made)
		env_unlink(c->env, part);
	transfer_restore(&before);
	return r < 0 ? r : sync_directory_of(c, target);
}

/* FIBER. Nobody has the image open: what he writes would go to a file without a name. */
static int not_in_use(struct cli *c, const char *path)
{
	struct image_lock_who who = { .holder = c->what };
	struct image_lock lock;
	struct file *f;
	if (file_open(c->env, path, FILE_OPEN_WRITE, &f) < 0) /* else it can't be locked */
		return 0; /* whether it can be replaced is the directory's matter */
	int r = image_lock_take(c->env, c->root, f, path, /* exclusive= */ true, &who, &lock, &c->report);
	image_lock_release(c->env, &lock);
	file_close(c->env, f);
	return r;
}

/* It would be replaced, not written to. */
static int not_ordinary(struct cli *c, const char *path)
{
	return report_set(&c->report, -EINVAL, "%s is there and isn't an ordinary file (give the name of a new one)", path);
}

/* What a symbolic link leads to is what is replaced, not the link: who made it wants the file to be there. */
static int follow_link(struct cli *c, const char *path, char ret_path[PATHS_MAX])
{
	struct stat st;
	if (lstat(path, &st) < 0 || !S_ISLNK(st.st_mode)) {
		if ((size_t)snprintf(ret_path, PATHS_MAX, "%s", path) >= PATHS_MAX)
			return report_set(&c->report, -ENAMETOOLONG, "the path %.60s… is too long", path);
		return 0;
	}
	/* stat() goes where opening it would: if the kernel doesn't follow somebody else's link in /tmp, neither do we. */
	if (stat(path, &st) < 0)
		return errno == ENOENT ? report_set(&c->report, -ENOENT, "%s is a symbolic link to what isn't there (remove it, or name the file itself)", path)
				       : report_path(&c->report, -errno, "open", path);
	if (!S_ISREG(st.st_mode)) /* a pipe that is /dev/stdout has no path */
		return not_ordinary(c, path);
	char *real = realpath(path, NULL);
	int r = real ? 0 : -errno;
	if (r == 0 && strlen(real) >= PATHS_MAX)
		r = -ENAMETOOLONG;
	if (r == 0)
		strcpy(ret_path, real);
	free(real);
	return r < 0 ? report_path(&c->report, r, "open", path) : 0;
}

int transfer_target(struct cli *c, const char *path, const char *cure, char ret_path[PATHS_MAX])
{
	struct stat st;
	int r = follow_link(c, path, ret_path);
	if (r < 0 || stat(ret_path, &st) < 0)
		return r;
	if (!S_ISREG(st.st_mode))
		return not_ordinary(c, path);
	return cli_flag(c, CLI_FORCE) ? not_in_use(c, ret_path) : report_set(&c->report, -EEXIST, "%s exists (%s)", path, cure);
}

int transfer_to_file(struct cli *c, const char *source, const char *target)
{
	const char *format = cli_option(c, CLI_TO);
	const struct blk_driver *driver;
	struct graph_instance *graph;
	struct blk_node *from;
	char path[PATHS_MAX];
	int r = transfer_format(c, format ? format : "raw", &driver);
	if (r < 0)
		return r;
	if ((r = transfer_target(c, target, "--force replaces it", path)) < 0)
		return r;
	if ((r = transfer_open(c, source, &graph, &from)) < 0)
		return r;
	r = copy_to_file(c, driver, path, from);
	graph_close(graph);
	return r;
}
