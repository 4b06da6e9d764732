#include "agent/daemon/plan.h"

#include <errno.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>

#include "core/option.h"

#define EXPORT_DEFAULT "loop"

const char *plan_export_names(char buffer[128])
{
	size_t n = 0;
	buffer[0] = 0;
	for (unsigned i = 0; export_table[i]; i++)
		n += (size_t)snprintf(buffer + n, n < 128 ? 128 - n : 0, "%s%s", n ? ", " : "", export_table[i]->name);
	return buffer;
}

static int find_export(const char *type, const struct export_driver **ret, struct report *report)
{
	char names[128];
	*ret = export_find(type);
	return *ret ? 0 : report_set(report, -EINVAL, "there is no export '%s' (there are: %s)", type, plan_export_names(names));
}

static int put_text(char *to, size_t room, const char *prefix, const char *text, struct report *report)
{
	if ((size_t)snprintf(to, room, "%s%s", prefix, text) >= room)
		return report_set(report, -ENAMETOOLONG, "the address %.40s… is longer than %zu bytes", text, room - 1);
	return 0;
}

int plan_check_listen(const char *listen, struct report *report)
{
	return graph_listen_valid(listen) ? 0 : report_set(report, -EINVAL, "'%s' is no address (" GRAPH_LISTEN_FORM ")", listen);
}

static int set_listen(struct plan_device *d, const char *listen, struct report *report)
{
	if (!d->export->listens)
		return report_set(report, -EINVAL, "the export %s listens on no port (leave out the address, or use nbd)",
				  d->export->name);
	int r = plan_check_listen(listen, report);
	return r < 0 ? r : put_text(d->address, sizeof d->address, "tcp:", listen, report);
}

static int check_name(const char *name, struct report *report)
{
	return name_valid(name) ? 0 : report_set(report, -EINVAL, "'%s' can't be a device's name: a letter or digit, then letters, digits, . _ -, at most 63", name);
}

/* KIND[:ADDRESS], as on the tapdisk's command line. */
static int parse_export(const char *text, struct plan_device *d, struct report *report)
{
	char type[32];
	size_t n = strcspn(text, ":");
	if (n >= sizeof type)
		return report_set(report, -EINVAL, "'%.40s…' is no export", text);
	memcpy(type, text, n);
	type[n] = 0;
	int r = find_export(type, &d->export, report);
	if (r < 0 || !text[n])
		return r;
	const char *address = text + n + 1;
	if (strcmp(type, "nbd")) {
		r = check_name(address, report);
		return r < 0 ? r : put_text(d->name, sizeof d->name, "", address, report);
	}
	if (!strncmp(address, "tcp:", 4))
		return set_listen(d, address + 4, report);
	if (!strncmp(address, "unix:", 5))
		address += 5;
	if (address[0] != '/')
		return report_set(report, -EINVAL, "'%s' is no address (give /PATH of a unix socket, or tcp:HOST:PORT)", address);
	return put_text(d->address, sizeof d->address, "unix:", address, report);
}

const char *plan_volume(const struct graph *g)
{
	const struct graph_node *n = g->node_count == 1 && g->export_count == 0 ? &g->nodes[0] : NULL;
	const char *subject = n && n->blk && strcmp(n->blk->name, "volume") == 0 ? graph_node_subject(n) : NULL;
	return subject && !strchr(subject, '@') ? subject : NULL;
}

/* A snapshot can't be written: attaching it is attaching it read-only. */
static bool is_snapshot(const struct graph *g)
{
	const struct graph_node *n = &g->nodes[g->root];
	const char *subject = n->blk && !strcmp(n->blk->name, "volume") ? graph_node_subject(n) : NULL;
	return subject && strchr(subject, '@');
}

static int from_how(struct plan *p, const struct plan_how *how, struct report *report)
{
	static const char *const default_export = EXPORT_DEFAULT;
	const char *const *exports = how->export_count ? how->exports : &default_export;
	unsigned count = how->export_count ? how->export_count : 1;
	char name[64];
	int r = 0;
	if (count > STATE_DEVICES_MAX)
		return report_set(report, -E2BIG, "more than %d exports of one graph", STATE_DEVICES_MAX);
	if (how->name && how->name[0]) {
		if ((r = check_name(how->name, report)) < 0)
			return r;
		snprintf(name, sizeof name, "%s", how->name);
	} else if ((r = graph_default_name(p->graph, name, report)) < 0) {
		return r;
	}
	for (unsigned i = 0; i < count; i++) {
		struct plan_device *d = &p->device[p->device_count++];
		*d = (struct plan_device){ .read_only = how->read_only || is_snapshot(p->graph), .node = p->graph->root };
		if ((r = parse_export(exports[i], d, report)) < 0)
			return r;
		if (!d->name[0] && i == 0)
			snprintf(d->name, sizeof d->name, "%s", name);
		else if (!d->name[0])
			snprintf(d->name, sizeof d->name, "%.58s.%u", name, i + 1);
		if (how->listen && how->listen[0] && (r = set_listen(d, how->listen, report)) < 0)
			return r;
	}
	return 0;
}

static int from_graph(struct plan *p, const struct plan_how *how, struct report *report)
{
	const struct graph *g = p->graph;
	if (how->name && how->name[0])
		return report_set(report, -EINVAL, "the graph's own exports name its devices (leave out --name)");
	if (how->export_count || (how->listen && how->listen[0]))
		return report_set(report, -EINVAL, "the graph has exports of its own (leave out --as, --export and --listen)");
	if (g->export_count > STATE_DEVICES_MAX)
		return report_set(report, -E2BIG, "%u exports of one graph; the limit is %d (make several graphs)", g->export_count,
				  STATE_DEVICES_MAX);
	for (unsigned i = 0; i < g->export_count; i++) {
		const struct graph_export *e = &g->exports[i];
		struct plan_device *d = &p->device[p->device_count++];
		*d = (struct plan_device){ .read_only = how->read_only || option_bool(&e->options, "read_only"),
					   .queue_depth = (unsigned)option_number(&e->options, "queue_depth"),
					   .node = e->node };
		const char *listen = option_string(&e->options, "listen");
		int r = find_export(e->type, &d->export, report);
		if (r == 0)
			r = put_text(d->name, sizeof d->name, "", e->name ? e->name : e->node_name, report);
		if (r == 0 && listen)
			r = set_listen(d, listen, report);
		if (r < 0)
			return r;
	}
	return 0;
}

static int check_names(const struct plan *p, struct report *report)
{
	for (unsigned i = 0; i < p->device_count; i++)
		for (unsigned j = 0; j < i; j++)
			if (!strcmp(p->device[i].name, p->device[j].name))
				return report_set(report, -EINVAL, "two devices are named %s (names are unique on a host)",
						  p->device[i].name);
	return 0;
}

int plan_make(const char *text, size_t length, const struct plan_how *how, struct plan *ret_plan, struct report *report)
{
	struct plan p = { 0 };
	int r = graph_read(text, length, &p.graph, report);
	if (r < 0)
		return r;
	if (how->directory)
		r = graph_set_directory(p.graph, how->directory);
	if (r == 0)
		r = p.graph->export_count ? from_graph(&p, how, report) : from_how(&p, how, report);
	if (r == 0)
		r = check_names(&p, report);
	if (r < 0) {
		plan_free(&p);
		return r;
	}
	*ret_plan = p;
	return 0;
}

void plan_free(struct plan *p)
{
	graph_free(p->graph);
	p->graph = NULL;
}
