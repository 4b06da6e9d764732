#!/bin/bash
# aquifer-server where it may have few files open: it says so, and segments leave room for connections.
cd "$(dirname "$0")/../.."
. tests/interop/lib/server
S=$B/aquifer-server
said='warning: this process may have'

start
! grep "$said" "$dir/out" || [ "$(ulimit -Hn)" -lt 3200 ] || fail "it has enough"
stop TERM

ulimit -n 300
start
grep -q "$said 300 files open.* it takes [0-9]* connections at a time (raise LimitNOFILE" "$dir/out" || fail "nothing is said: $(cat "$dir/out")"
[ "$(awk '/^Max open files/ { print $4, $5 }' "/proc/$server/limits")" = "300 300" ] || fail "the limit"
"$load" many "$at" 1 500 11111111111111111111111111111111 >"$dir/load" || fail "500 segments: $(cat "$dir/load")"
"$load" stat "$at" 500 >/dev/null || fail "nobody can connect any more"
[ "$(ls "/proc/$server/fd" | wc -l)" -lt 200 ] || fail "$(ls "/proc/$server/fd" | wc -l) files are open"
stop TERM
[ "$status" = 0 ] || fail "exit status $status: $(cat "$dir/err")"

# a soft limit alone is no limit
(
	ulimit -Sn 100
	start
	[ "$(awk '/^Max open files/ { print $4 }' "/proc/$server/limits")" = 300 ] || fail "the soft limit stays"
	stop TERM
) || exit 1
echo "few files: said, and survived"
