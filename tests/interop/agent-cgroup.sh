#!/bin/bash
# Each device is a process of its own that ionice, cgroups and kill apply to: limits of its I/O and its CPU, and stopping it, are felt by its device and by no
# other. Control groups of either version; what this machine can't limit is left out, and said.
cd "$(dirname "$0")/../.."
. tests/interop/lib/agent
need jq qemu-io ionice findmnt
[ "$(id -u)" -eq 0 ] || { echo "skipped: control groups need root"; exit 77; }
images=$(mktemp -d -p "${TMPDIR:-/var/tmp}") # not in /tmp, which may be a tmpfs, without direct I/O
declare -A group
end() {
	local g p
	for g in "${group[@]}"; do
		[ ! -e "$g/cgroup.freeze" ] || echo 0 >"$g/cgroup.freeze"
		[ ! -e "$g/freezer.state" ] || echo THAWED >"$g/freezer.state"
	done
	cleanup
	for g in "${group[@]}"; do
		for p in $(cat "$g/cgroup.procs"); do echo "$p" >"${g%/*}/cgroup.procs"; done 2>/dev/null
		rmdir "$g" 2>/dev/null
	done
	rm -rf "$images"
}
trap end EXIT

# group_for CONTROLLER FILE: a group where that can be limited, its directory in ${group[CONTROLLER]}.
group_for() {
	local top g
	for top in "/sys/fs/cgroup/$1" /sys/fs/cgroup /sys/fs/cgroup/unified; do
		[ -d "$top" ] && [ "$(findmnt -n -o FSTYPE -T "$top" | head -c 6)" = cgroup ] || continue
		[ ! -e "$top/cgroup.subtree_control" ] || echo "+$1" >"$top/cgroup.subtree_control" 2>/dev/null || true
		g=$top/aquifer-test-$1-$$
		mkdir "$g" 2>/dev/null || continue
		for file in $2; do [ ! -e "$g/$file" ] || { group[$1]=$g; return 0; }; done
		rmdir "$g"
	done
	return 1
}
into() { echo "$2" >"${group[$1]}/cgroup.procs" || fail "pid $2 can't be put into ${group[$1]}"; }
now_ms() { echo $(($(date +%s%N) / 1000000)); }
io() { timeout 60 qemu-io -f raw "$@" >"${out:-$dir/io}" 2>&1 && ! grep -qi 'failed\|error' "${out:-$dir/io}"; }

uri=()
for n in a b; do
	truncate -s 64M "$images/$n.img"
	uri[${#uri[@]}]=$(aquifer attach "raw($images/$n.img)" --name $n --as nbd) || fail "attach $n"
done
a=${uri[0]} b=${uri[1]}
pid=$(field a pid)
[ "$pid" != "$(field b pid)" ] || fail "one process for two devices"
done_=

# ionice
ionice -c 3 -p "$pid" && [ "$(ionice -p "$pid")" = idle ] && [ "$(ionice -p "$(field b pid)")" != idle ] || fail "ionice: $(ionice -p "$pid")"
io "$a" -c 'write -P 1 0 1M' -c flush || fail "write with an idle priority: $(cat "$dir/io")"
ionice -c 2 -n 0 -p "$pid"
done_="ionice"

# so many bytes per second: 6 MiB at 4 MiB/s take a second at least
if group_for blkio blkio.throttle.write_bps_device || group_for io io.max; then
	disk=$(findmnt -n -o MAJ:MIN -T "$images")
	for g in blkio io; do
		[ -n "${group[$g]:-}" ] || continue
		into $g "$pid"
		case $g in
		blkio) echo "$disk $((4 << 20))" >"${group[$g]}/blkio.throttle.write_bps_device" ;;
		io) echo "$disk wbps=$((4 << 20))" >"${group[$g]}/io.max" ;;
		esac 2>"$dir/refused" || { echo "the I/O of $disk can't be limited: $(cat "$dir/refused")"; continue; }
		began=$(now_ms)
		io "$a" -c 'write -P 2 8M 6M' -c flush -c 'read -P 2 8M 6M' || fail "write within a limit: $(cat "$dir/io")"
		took=$(($(now_ms) - began))
		[ $took -ge 900 ] || fail "6 MiB at 4 MiB/s took $took ms"
		case $g in
		blkio) echo "$disk 0" >"${group[$g]}/blkio.throttle.write_bps_device" ;;
		io) echo "$disk wbps=max" >"${group[$g]}/io.max" ;;
		esac
		done_="$done_, I/O (6 MiB at 4 MiB/s: $took ms)"
	done
fi

# so much CPU: it is held back, and serves all the same
if group_for cpu "cpu.cfs_quota_us cpu.max"; then
	g=${group[cpu]}
	into cpu "$pid"
	if [ -e "$g/cpu.max" ]; then echo "2000 100000" >"$g/cpu.max"; else echo 2000 >"$g/cpu.cfs_quota_us"; fi
	throttled() { [ "$(awk '$1 == "nr_throttled" { print $2 }' "$g/cpu.stat")" -gt 0 ]; }
	for round in $(seq 50); do
		io "$a" -c 'read 0 4M' -c 'write -P 3 16M 4M' || fail "I/O with little CPU: $(cat "$dir/io")"
		! throttled || break
	done
	throttled || fail "2 % of a CPU held nothing back: $(cat "$g/cpu.stat")"
	if [ -e "$g/cpu.max" ]; then echo max >"$g/cpu.max"; else echo -1 >"$g/cpu.cfs_quota_us"; fi
	done_="$done_, CPU (held back at 2 %)"
fi

# stopped and let go on: one device waits, the other doesn't
if group_for freezer freezer.state || group_for freezer cgroup.freeze; then
	g=${group[freezer]}
	into freezer "$pid"
	freeze() { if [ -e "$g/freezer.state" ]; then [ "$1" = 1 ] && echo FROZEN || echo THAWED; else echo "$1"; fi >"$(ls "$g/freezer.state" "$g/cgroup.freeze" 2>/dev/null | head -n 1)"; }
	freeze 1
	out=$dir/waits io "$a" -c 'write -P 4 32M 1M' &
	writer=$!
	clients="$clients $writer"
	io "$b" -c 'write -P 5 0 1M' -c flush || fail "the other device waits, too: $(cat "$dir/io")"
	sleep 0.3
	kill -0 $writer 2>/dev/null || fail "a frozen device answers"
	freeze 0
	wait $writer || fail "what waited isn't done: $(cat "$dir/waits")"
	done_="$done_, freezing"
fi
io "$a" -c 'read -P 1 0 1M' || fail "content: $(cat "$dir/io")"
kill -9 "$pid"
gone() { [ "$(field a state)" != running ]; }
until_true 10 gone || fail "a killed device is shown as running"
io "$b" -c 'read 0 4k' || fail "the other one was killed, too"
[ "$done_" != ionice ] || { echo "skipped in part: no control groups can be made here; ionice and kill are felt"; exit 0; }
echo "felt by one device and not by the other: $done_, kill"
