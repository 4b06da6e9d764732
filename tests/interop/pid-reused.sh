#!/bin/bash
# A tapdisk by hand was killed, and another tapdisk has its number: the first one's volume is nobody's. In a pid namespace, where numbers are ours to give.
. tests/interop/lib/agent
[ "$(id -u)" -eq 0 ] && unshare --pid --fork --mount-proc true 2>/dev/null || { echo "skipped: a pid namespace needs root"; exit 77; }

cat >"$dir/within" <<'END'
set -eu
tapdisk=$1/aquifer-tapdisk aquifer=$1/aquifer dir=$2
serve() { # VOLUME NUMBER
	rm -f "$dir/device"
	for try in 1 2 3 4 5; do
		echo $(($2 - 1)) >/proc/sys/kernel/ns_last_pid
		"$tapdisk" --export "nbd:$dir/$1.sock" "$1" >"$dir/device" 2>"$dir/err" &
		[ $! -ne "$2" ] || break
		kill -9 $! && wait $! || true
		sleep 0.1
	done
	[ $! -eq "$2" ] || { echo "it is $!, not $2"; exit 1; }
	for try in $(seq 200); do [ ! -s "$dir/device" ] || return 0; sleep 0.05; done
	cat "$dir/err"
	exit 1
}
"$aquifer" volume create one 64M >/dev/null
"$aquifer" volume create two 64M >/dev/null
serve one 700
! "$aquifer" volume delete one 2>"$dir/said" || { echo "deleted under its tapdisk"; exit 1; }
kill -9 700
wait 700 || true
serve two 700
"$aquifer" volume delete one
! "$aquifer" volume delete two 2>>"$dir/said" || { echo "the other one's is deleted under it"; exit 1; }
kill 700
wait 700
END
unshare --pid --fork --mount-proc bash "$dir/within" "$top/$B" "$dir" >"$dir/out" 2>&1 || fail "$(cat "$dir/out")"
