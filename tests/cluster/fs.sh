#!/bin/bash
# limit: 3600
# ext4 and xfs on loop devices, one on each host, and a third volume as an NBD export, in a cluster with three copies on three servers. Programs write and compare in all three
# (fio --verify, trees of files) while one part after the other fails; nobody notices. Then the load stops, fsck finds the file systems clean, the volumes change hosts, all is
# compared there, and once more after the tapdisks were killed under load: what had been synced is there, fsck finds no damage. FAULTS (3) faults, whose choices follow
# from SEED, before the first change of hosts and as many before the kill; LONG=1: 20, five times.
# Mounts and loop devices are of this test's own making. A file system whose device hangs would hang whoever touches it: when this ends early, the tapdisks are killed
# first, which fails all that waits, and only then is anything unmounted.
cd "$(dirname "$0")/../.."
disk3_size=8G
. tests/cluster/lib
. tests/cluster/faults
for t in fio mkfs.xfs xfs_repair fsck.ext4; do command -v $t >/dev/null || skip "$t is not installed"; done
[ -c /dev/fuse ] && [ -c /dev/loop-control ] || skip "needs /dev/fuse and /dev/loop-control"
faults=${FAULTS:-3} seed=${SEED:-$((SRANDOM % 1000000))} passes=1
[ "${LONG:-0}" = 0 ] || faults=${FAULTS:-20} passes=5
kinds=(${KINDS:-killed returned stopped slow one-way wiped link full agent host-link etcd})
echo "seed $seed"

declare -A on_host=([ext4]=a [xfs]=b [raw]=a) device=() load=()
round=0 what=begin holder=a

# ---- the load ----

# fio writes SIZE in random order, and reads it back: FILE|URI SEED
verified() {
	local to=(--ioengine=libaio --direct=1 --filename="$1")
	case $1 in nbd*) to=(--ioengine=nbd --uri="$1") ;; esac
	fio --name=verified "${to[@]}" --size=8M --rw=randwrite --bsrange=4k-32k --iodepth=4 --fsync=64 --randseed="$2" --verify=crc32c --verify_fatal=1 --verify_state_save=0 \
		--group_reporting --output-format=terse
}
# Until told to stop: each pass overwrites the file of the last one, and leaves a tree beside that of the pass before.
load_fs() { # FS
	local m=$dir/mnt/$1 i
	trap - ERR
	i=$(cat "$dir/$1.synced")
	while [ ! -e "$dir/stop" ]; do
		i=$((i + 1))
		verified "$m/verified" $i || return
		rm -rf "$m/new" "$m/tree$i" && cp -a "$dir/tree" "$m/new" && mv "$m/new" "$m/tree$i" && sync -f "$m" || return
		echo $i >"$dir/$1.synced"
		rm -rf "$m/tree$((i - 1))" || return
	done
}
load_raw() {
	local i=0
	trap - ERR
	while [ ! -e "$dir/stop" ]; do
		i=$((i + 1))
		verified "nbd+unix:///raw?socket=$dir/${on_host[raw]}/run/aquifer/exports/raw.nbd" $i || return
	done
}
loads_up() {
	local fs
	rm -f "$dir/stop"
	for fs in ext4 xfs raw; do
		set -m # groups of their own, to be killed as a whole
		case $fs in raw) load_raw ;; *) load_fs $fs ;; esac >"$dir/load.$fs" 2>&1 </dev/null &
		set +m
		load[$fs]=$!
		loads="$loads $!"
	done
}
loads_live() {
	local fs
	for fs in ext4 xfs raw; do kill -0 "${load[$fs]}" 2>/dev/null || fail "$what: $fs: $(tail -n 5 "$dir/load.$fs")"; done
}
loads_end() {
	local fs
	touch "$dir/stop"
	for fs in ext4 xfs raw; do wait "${load[$fs]}" || fail "$what: $fs: $(tail -n 5 "$dir/load.$fs")"; done
	loads=
}

# ---- devices and file systems ----

attach_on() { # VOLUME HOST [OPTION]
	local as=loop
	[ "$1" != raw ] || as=nbd
	on_host[$1]=$2
	device[$1]=$(on "$2" attach "$1" --as $as ${3:-} 2>"$dir/why") || fail "$what: attach $1 on $2: $(cat "$dir/why")"
}
mount_fs() { # FS
	timeout 60 mount "${device[$1]}" "$dir/mnt/$1" || fail "$what: mount $1"
	mounts="$mounts $dir/mnt/$1"
}
umount_fs() { # FS; who had a file of it open may be just ending
	until_true 60 timeout 60 umount "$dir/mnt/$1" || fail "$what: umount $1"
	local m=" $dir/mnt/$1"
	mounts=${mounts/"$m"/}
}
check_fs() { # FS
	case $1 in
	ext4) fsck.ext4 -fn "${device[$1]}" ;;
	xfs) xfs_repair -n "${device[$1]}" ;;
	esac >"$dir/fsck" 2>&1 || fail "$what: fsck of $1: $(tail -n 20 "$dir/fsck")"
}
compare_fs() { # FS
	diff -r "$dir/tree" "$dir/mnt/$1/tree$(cat "$dir/$1.synced")" >"$dir/diff" 2>&1 || fail "$what: $1: what was synced isn't there: $(head -n 5 "$dir/diff")"
}

# Clean, and elsewhere.
change_hosts() {
	local fs
	loads_end
	for fs in ext4 xfs; do umount_fs $fs; done
	for fs in ext4 xfs; do check_fs $fs; done
	for fs in ext4 xfs raw; do
		on "${on_host[$fs]}" detach $fs 2>"$dir/why" || fail "$what: detach $fs: $(cat "$dir/why")"
		attach_on $fs "$(other "${on_host[$fs]}")"
	done
	for fs in ext4 xfs; do mount_fs $fs && compare_fs $fs; done
	loads_up
}
# As if both hosts lost power, but that the other one has the volume at once.
kill_all() {
	local fs
	for fs in ext4 xfs raw; do kill -9 "$(on "${on_host[$fs]}" list --json | jq -r --arg n $fs '.[] | select(.name == $n).pid')"; done
	for fs in ext4 xfs raw; do wait "${load[$fs]}" && fail "$what: $fs: its tapdisk was killed, and its user noticed nothing" || true; done
	loads=
	for fs in ext4 xfs; do umount_fs $fs; done
	for fs in ext4 xfs raw; do
		on "${on_host[$fs]}" detach $fs --force >/dev/null 2>&1 || true
		attach_on $fs "$(other "${on_host[$fs]}")" --force
	done
	for fs in ext4 xfs; do mount_fs $fs && umount_fs $fs && check_fs $fs && mount_fs $fs && compare_fs $fs; done
	loads_up
}
fail_parts() {
	local kind hosts=(a b)
	for _ in $(seq $faults); do
		round=$((round + 1))
		draw_choices $round
		kind=${kinds[(round - 1 + seed) % ${#kinds[@]}]}
		draw 2; holder=${hosts[REPLY]}
		what="fault $round, $kind ($(choices), host $holder)"
		[ -z "${VERBOSE:-}" ] || echo "$SECONDS s: $what"
		pause 300
		fault_$kind
		loads_live
		until_true 300 settled || fail "$what: copies are missing: $(on a server list)"
		loads_live
	done
}

cluster_up
mkdir "$dir/tree" "$dir/mnt" "$dir/mnt/ext4" "$dir/mnt/xfs"
cp -a core proto formats "$dir/tree"
for v in ext4 xfs raw; do
	on a volume create $v 320M >/dev/null || fail "volume create"
	attach_on $v "${on_host[$v]}"
	[ $v = raw ] || { echo 0 >"$dir/$v.synced" && cp -a "$dir/tree" "$dir/tree0" && mkfs.$v -q "${device[$v]}" && mount_fs $v && mv "$dir/tree0" "$dir/mnt/$v"; } || fail "mkfs $v"
done
loads_up
for pass in $(seq $passes); do
	fail_parts
	what="pass $pass, change of hosts"
	[ -z "${VERBOSE:-}" ] || echo "$SECONDS s: $what"
	change_hosts
	fail_parts
	what="pass $pass, kill"
	[ -z "${VERBOSE:-}" ] || echo "$SECONDS s: $what"
	kill_all
done
what=end
loads_end
for v in ext4 xfs; do umount_fs $v && check_fs $v; done
for v in ext4 xfs raw; do on "${on_host[$v]}" detach $v || fail "detach $v"; done
until_true 60 healthy || fail "not healthy at the end: $(cat "$dir/status")"
checked a || fail "cluster check at the end: $(cat "$dir/check")"
echo "$round faults, $passes changes of hosts, $passes kills in $SECONDS s: ext4 and xfs are clean, nothing is lost"
