/* The table of commands, in the order in which --help shows them. Commands of later issues
 * are absent, so that asking for one is answered honestly. */
#include "agent/cli/cli.h"

static const struct argp_option attach_options[] = {
	{ "name", CLI_NAME, "NAME", 0, "The device's name; default: the volume's name, or the file's without its suffix", 0 },
	{ "as", CLI_AS, "EXPORT", 0, "The kind of device: loop or nbd; default: loop", 0 },
	{ "graph", CLI_GRAPH, "FILE", 0, "Attach the graph in FILE; its exports name the devices", 0 },
	{ "listen", CLI_LISTEN, "ADDR:PORT", 0, "With --as nbd: on a TCP port, not a unix socket", 0 },
	{ "read-only", CLI_READ_ONLY, NULL, 0, "Nothing can be written through the device", 0 },
	{ "force", CLI_FORCE, NULL, 0, "Take the volume or image from another holder", 0 },
	{ "accept-flushed", CLI_ACCEPT_FLUSHED, NULL, 0,
	  "Where a disk write failed: go on with what was flushed, without the writes that came after", 0 },
	{ "incoming", CLI_INCOMING, NULL, 0, "A volume that another host has: make the device now, and let requests wait until it comes", 0 },
	{ 0 },
};
static const struct argp_option migrate_options[] = {
	{ "to", CLI_TO, "HOST", 0, "Where it goes, as in `aquifer agent list`", 0 },
	{ "name", CLI_NAME, "NAME", 0, "The device's name there; default: as here", 0 },
	{ 0 },
};
static const struct argp_option detach_options[] = {
	{ "all", CLI_ALL, NULL, 0, "Detach every device on this host", 0 },
	{ "force", CLI_FORCE, NULL, 0, "Let go now, also while mounted or open", 0 },
	{ 0 },
};
static const struct argp_option show_options[] = {
	{ "dot", CLI_DOT, NULL, 0, "Print the graph in Graphviz' language", 0 },
	{ "svg", CLI_SVG, NULL, 0, "Draw it as SVG; needs the program dot", 0 },
	{ 0 },
};
static const struct argp_option create_options[] = {
	{ "backing", CLI_BACKING, "FILE", 0, "Start as a copy-on-write layer over FILE (formats that can)", 0 },
	{ 0 },
};
static const struct argp_option convert_options[] = {
	{ "to", CLI_TO, "FORMAT", 0, "Format of DST; default: raw", 0 },
	{ "force", CLI_FORCE, NULL, 0, "Replace DST if it exists", 0 },
	{ 0 },
};
static const struct argp_option volume_create_options[] = {
	{ "replicas", CLI_REPLICAS, "N", 0, "Copies of its data, on servers in different failure domains; default: as many as there are, at most 3", 0 },
	{ "min-replicas", CLI_MIN_REPLICAS, "N", 0, "With fewer copies that can be written, writes wait; default: 2 of 3, otherwise 1", 0 },
	{ "io-timeout", CLI_IO_TIMEOUT, "TIME", 0, "How long requests wait for servers that can't be reached before they fail: 30s, 5m; default: forever", 0 },
	{ 0 },
};
static const struct argp_option volume_resize_options[] = {
	{ "force", CLI_FORCE, NULL, 0, "Shrink too: what lies beyond SIZE is lost", 0 },
	{ 0 },
};
static const struct argp_option volume_delete_options[] = {
	{ "with-snapshots", CLI_WITH_SNAPSHOTS, NULL, 0, "Delete its snapshots with it", 0 },
	{ 0 },
};

static const struct argp_option cluster_init_options[] = {
	{ "catalog", CLI_CATALOG, "URL", 0, "sqlite:PATH or etcd:http[s]://HOST:PORT[,HOST:PORT...]; noted in etc/aquifer/aquifer.conf", 0 },
	{ "authority-only", CLI_AUTHORITY_ONLY, NULL, 0, "For a store that is there: only make its authority, which signs certificates", 0 },
	{ 0 },
};
static const struct argp_option cluster_token_options[] = {
	{ "for", CLI_FOR, "ROLE", 0, "server or agent; default: both, each once", 0 },
	{ "host", CLI_HOST, "NAME", 0, "Only the host of that name may use it", 0 },
	{ "ttl", CLI_TTL, "TIME", 0, "How long it is good for: 30m, 1h, 2d; default: 1h", 0 },
	{ 0 },
};
static const struct argp_option cluster_join_options[] = {
	{ "for", CLI_FOR, "ROLE", 0, "server or agent; default: all that the token is for", 0 },
	{ "catalog", CLI_CATALOG, "URL", 0, "The cluster's catalog; noted in etc/aquifer/aquifer.conf", 0 },
	{ 0 },
};
static const struct argp_option cluster_backup_options[] = {
	{ "force", CLI_FORCE, NULL, 0, "Replace FILE if it exists", 0 },
	{ 0 },
};
static const struct argp_option cluster_restore_options[] = {
	{ "confirm", CLI_CONFIRM, NULL, 0, "Without FILE: what the restored catalog doesn't know may be deleted from now on", 0 },
	{ "force", CLI_FORCE, NULL, 0, "With --confirm: also what was written since the backup, if `aquifer cluster recover` wasn't run", 0 },
	{ 0 },
};

static const struct argp_option cluster_recover_options[] = {
	{ "force", CLI_FORCE, NULL, 0, "Also without servers that don't answer: what only they have is not found", 0 },
	{ 0 },
};

static const struct argp_option server_drain_options[] = {
	{ "wait", CLI_WAIT, NULL, 0, "Wait until nothing is on it any more", 0 },
	{ "undo", CLI_UNDO, NULL, 0, "Use it again", 0 },
	{ "force", CLI_FORCE, NULL, 0, "Also if volumes will have fewer copies than they should", 0 },
	{ 0 },
};
static const struct argp_option server_remove_options[] = {
	{ "force", CLI_FORCE, NULL, 0, "Also while something may be only there: that is lost; or if volumes will have fewer copies than they should", 0 },
	{ 0 },
};

static const struct argp_option cluster_revoke_options[] = {
	{ "force", CLI_FORCE, NULL, 0, "Also if nothing has been heard of such a host", 0 },
	{ 0 },
};

const struct cli_command cli_commands[] = {
	{ "attach", "GRAPH|VOLUME|VOLUME@SNAP|FILE", "Make a block device and print it",
	  "The device is printed: a /dev path for loop, an NBD URI for nbd. The agent is started if it isn't running.\n\n"
	  "A FILE contains a slash; a bare word is a volume. A file that ends in .graph is a graph file, and its exports name "
	  "the devices, one line each.\n\n"
	  "  aquifer attach ./disk.img\n"
	  "  aquifer attach web1 --as nbd\n"
	  "  aquifer attach 'cow(/vms/top.cow, ro(raw(/images/gold.raw)))' --name vm1\n",
	  attach_options, 0, 1, true, cli_attach },
	{ "detach", "NAME|DEVICE", "Take a device away",
	  "Refused while the device is mounted or open, naming the user; --force lets go now, and the kernel frees the "
	  "device at its last close.\n",
	  detach_options, 0, 1, true, cli_detach },
	{ "migrate", "VOLUME --to HOST", "Hand an attached volume over to another host, while it is in use",
	  "A device of the same kind and name is made there, requests wait for some milliseconds, and are served there. No data is copied. The device here answers "
	  "nothing but errors afterwards, until it is detached, or the volume is moved back. If it can't be done, all is as before.\n",
	  migrate_options, 1, 1, true, cli_migrate },
	{ "list", "", "The devices on this host",
	  "STATE: starting, running, stopping, hung (it doesn't answer), or died, with the reason; of a volume that is on its way incoming, leaving or moved. Of what runs it is said, too, "
	  "what is wrong with it: which requests wait, since when and for what.\n", NULL, 0, 0, true, cli_list },
	{ "show", "NAME|DEVICE", "A device's graph, with live counters for each node",
	  "Requests, bytes, mean time and errors, and the driver's own counters, which its manual page explains: aquifer-driver-NAME(7).\n", show_options, 1, 1, true, cli_show },

	{ "agent start", "", "Start this host's agent; nothing if it runs", NULL, NULL, 0, 0, true, cli_agent_start },
	{ "agent stop", "", "Stop the agent; devices stay", NULL, NULL, 0, 0, true, cli_agent_stop },
	{ "agent status", "", "Whether the agent runs, and what is attached", "Fails if it doesn't run.\n", NULL, 0, 0, true,
	  cli_agent_status },
	{ "agent restart", "", "Stop and start the agent; devices aren't disturbed", NULL, NULL, 0, 0, true,
	  cli_agent_restart },
	{ "agent list", "", "The agents of all hosts that share this store's catalog",
	  "STATE is `up` while an agent lives, as its lease says, `gone` when it has died without saying goodbye; SINCE is when it started.\n", NULL, 0, 0, true,
	  cli_agent_list },

	{ "image create", "FORMAT FILE SIZE", "Make an empty image", "FILE must not exist yet.\n", create_options, 3, 3, false,
	  cli_image_create },
	{ "image info", "FILE|GRAPH", "Format, size and allocated space of an image", "A FILE has a slash in its name; VOLUME and VOLUME@SNAP are graphs, too.\n", NULL, 1, 1, true, cli_image_info },
	{ "image check", "FILE|GRAPH", "Read all of an image's data; fails if some can't be read",
	  "A FILE has a slash in its name; VOLUME and VOLUME@SNAP are graphs, too.\n", NULL, 1, 1, true,
	  cli_image_check },
	{ "image convert", "SRC DST", "Copy an image, graph or volume into a new file",
	  "SRC is a file (with a slash in its name), a graph, VOLUME or VOLUME@SNAP; DST is a file. What is zero in SRC stays "
	  "a hole in DST. DST appears under its name only when it is complete.\n",
	  convert_options, 2, 2, false, cli_image_convert },
	{ "graph check", "GRAPH|FILE", "Parse and check a graph; print its canonical form", "A FILE ends in .graph. The language is explained in aquifer-graph(7). Nothing is opened.\n", NULL, 1, 1, true,
	  cli_graph_check },

	{ "volume create", "NAME SIZE", "Make an empty volume",
	  "SIZE is digits with K, M, G or T, powers of 1024: a multiple of 4K, 64T at most. Space is taken as it is written.\n", volume_create_options, 2, 2, false, cli_volume_create },
	{ "volume list", "", "The volumes of the store", "USED is what its blocks take that aren't zero, also those that it shares with snapshots and clones.\n", NULL, 0, 0, true, cli_volume_list },
	{ "volume show", "NAME", "Size, space, holder and health of a volume", "`exclusive` is what deleting it gives back.\n", NULL, 1, 1, true, cli_volume_show },
	{ "volume set", "NAME KEY=VALUE", "Change a property of a volume",
	  "io-timeout=TIME (1s to 7d, or forever): how long requests wait for servers or the catalog when these can't be reached, before they fail with an I/O "
	  "error. Also while it is attached, and for requests that wait already.\n",
	  NULL, 2, 2, false, cli_volume_set },
	{ "volume resize", "NAME SIZE", "Grow a volume; shrink it with --force",
	  "Attached or not; a loop device follows at once, NBD clients when they connect again. SIZE as for `volume create`.\n", volume_resize_options, 2, 2, false,
	  cli_volume_resize },
	{ "volume rename", "OLD NEW", "Give a volume another name", "Refused while it is attached.\n", NULL, 2, 2, false, cli_volume_rename },
	{ "volume delete", "NAME", "Delete a volume", "Refused while it is attached, and while it has snapshots unless --with-snapshots is given. Clones don't need it.\n", volume_delete_options, 1, 1, false, cli_volume_delete },
	{ "volume import", "SRC NAME", "Make a volume from an image, a graph or another volume",
	  "SRC is a file (with a slash in its name), a graph, VOLUME or VOLUME@SNAP. NAME is there when all of it is; if it fails or is interrupted, nothing is left.\n", NULL, 2, 2, false,
	  cli_volume_import },
	{ "volume export", "NAME[@SNAP] DST", "Write a volume or snapshot into a new image file",
	  "A volume that is attached is exported by way of a snapshot. What is zero stays a hole in DST, which appears under its name only when it is complete.\n", convert_options, 2, 2,
	  false, cli_volume_export },

	{ "snapshot create", "VOLUME@SNAP...", "Freeze a volume, in use or not; several at one instant",
	  "What was acknowledged is in it, but not what a mounted file system still has in memory: sync first, or fsfreeze. Several volumes: all or none, and no snapshot shows a write without all that were acknowledged before it began.\n", NULL, 1, CLI_ARGS_MAX, false,
	  cli_snapshot_create },
	{ "snapshot list", "[VOLUME]", "Snapshots of a volume, or all", "FREES, with VOLUME: what deleting that one, and no other, would give back.\n", NULL, 0, 1, true, cli_snapshot_list },
	{ "snapshot delete", "VOLUME@SNAP...", "Delete snapshots, in any order", "None is deleted if one of them isn't there.\n", NULL, 1, CLI_ARGS_MAX, false, cli_snapshot_delete },
	{ "snapshot rollback", "VOLUME@SNAP", "Make the volume what it was then; it must not be attached",
	  "What was written since is lost, if no snapshot has it. Snapshots stay, also later ones.\n", NULL, 1, 1, false,
	  cli_snapshot_rollback },
	{ "clone", "VOLUME@SNAP NEW", "Make a volume that begins as a snapshot", "Nothing is copied, and either can be deleted without the other.\n", NULL, 2, 2, false, cli_clone },
	{ "diff", "VOLUME@A VOLUME[@B]", "Extents that differ between two points of a volume",
	  "One extent per line: offset and length in bytes, and `data` or `zero`.\n", NULL, 2, 2, true, cli_diff },

	{ "server list", "", "The servers of the cluster: which answer, and how full they are",
	  "SHARE is the part of all copies that belongs there. Waits up to two seconds for those that don't answer.\n", NULL, 0, 0, true, cli_server_list },
	{ "server drain", "ID", "Have what is on a server moved to others, while it is in use",
	  "ID is a server's id, or its beginning, or its address. Its copies are made where they belong instead, then deleted there; `server list` says how far "
	  "that is. Refused while that would leave volumes fewer failure domains than they have copies.\n",
	  server_drain_options, 1, 1, false, cli_server_drain },
	{ "server remove", "ID", "Take a server out of the cluster: one that is drained, or lost",
	  "Refused while copies are on it, while something may be on no other server, or if that would leave volumes fewer failure domains than they "
	  "have copies.\n", server_remove_options, 1, 1, false, cli_server_remove },

	{ "cluster init", "", "Make the store: its catalog, in a file or in etcd",
	  "On one host nothing needs this: the store is made with the first volume. In etcd only this makes one.\n", cluster_init_options, 0, 0, true,
	  cli_cluster_init },
	{ "cluster status", "", "Whether all is well, and if not, what isn't",
	  "Exit status 0 if all is well, else 1. Servers and holders that don't answer are waited for up to two seconds. It looks, it doesn't verify: `aquifer cluster "
	  "check` and `aquifer cluster scrub` do, and when they did last is said.\n", NULL, 0, 0, true, cli_cluster_status },
	{ "cluster gc", "", "Have the servers delete copies that nobody needs",
	  "They do it by themselves, too, every hour. Such copies are what dead writers left, and what a server that was away didn't hear of. One is deleted only if its volume is gone, or doesn't list it and "
	  "can't any more.\n",
	  NULL, 0, 0, true, cli_cluster_gc },
	{ "cluster check", "[VOLUME]", "Recompute what is in use, and compare it with what is recorded",
	  "With what volumes, catalog and servers say. One line for each fault; no fault: exit status 0. What volumes that are attached have written since their last checkpoint is not looked at; a volume whose "
	  "holder died is recovered first, as attaching it would. Data is read by `aquifer cluster scrub`, not here.\n",
	  NULL, 0, 1, true, cli_cluster_check },
	{ "cluster scrub", "[VOLUME]", "Read all data again, and repair what is damaged",
	  "On every server, and from other copies. Waits until the servers are done; ending this command doesn't stop them. They do the same by themselves, slowly, once in two weeks. What isn't sealed, "
	  "the newest part of each attached volume, isn't read. Embedded volumes have one copy: damage is only reported.\n",
	  NULL, 0, 1, true, cli_cluster_scrub },
	{ "cluster move-catalog", "URL", "Move the catalog from a file to etcd, or back; no data moves",
	  "Volumes must be detached and servers stopped meanwhile. The copy is compared with the original before it counts; the original is marked, and nobody "
	  "opens it again. This host's etc/aquifer/aquifer.conf is changed; do the same on the others.\n",
	  NULL, 1, 1, true, cli_cluster_move_catalog },
	{ "cluster backup", "FILE", "Write the catalog, as it is at this moment, into FILE", "While everything goes on. It holds no data of volumes.\n",
	  cluster_backup_options, 1, 1, true, cli_cluster_backup },
	{ "cluster restore", "[FILE]", "Fill an empty catalog from a backup",
	  "All servers must be stopped and all volumes detached. Then start the servers, and `aquifer cluster recover` finds what was written since the backup; until "
	  "that no volume can be attached. Nothing is deleted for being unknown to the catalog until `aquifer cluster restore --confirm`.\n",
	  cluster_restore_options, 0, 1, true, cli_cluster_restore },
	{ "cluster recover", "", "Find on the servers what was written since the backup",
	  "For use after `cluster restore`. Volumes go on from the newest checkpoint and the log behind it that their segments have, however old the backup is; those made since are there again, "
	  "those deleted since are forgotten. One line for each that isn't as in the backup. Can be repeated until `aquifer cluster restore --confirm`.\n",
	  cluster_recover_options, 0, 0, true, cli_cluster_recover },
	{ "cluster token", "", "Print a token that lets a host take part",
	  "On the host of the cluster's authority, where `cluster init` was done; its agent answers who comes with the token, and is started if it isn't "
	  "running.\n", cluster_token_options, 0, 0, true, cli_cluster_token },
	{ "cluster join", "[TOKEN]", "Enrol this host: get its certificates",
	  "Servers of an enrolled host let in only who has a certificate of the cluster. Where the authority is, no token is needed. Start servers and the agent "
	  "again afterwards.\n", cluster_join_options, 0, 1, false, cli_cluster_join },
	{ "cluster renew", "", "Renew this host's certificates now", "The agent does so by itself, 60 days before they run out.\n", NULL, 0, 0, false,
	  cli_cluster_renew },
	{ "cluster revoke", "HOST", "From now on a host's certificates count no more",
	  "Its connections to servers end within seconds. It can be enrolled again, with a new token. Refused if nothing has been heard of such a host.\n",
	  cluster_revoke_options, 1, 1, false, cli_cluster_revoke },
	{ 0 },
};
