#!/bin/bash
# aquifer-server: a full server refuses, honestly, and goes on with what it has.
cd "$(dirname "$0")/../.."
. tests/interop/lib/server

start --size-limit 100M
blocks=0 n=0 refused=
while [ -z "$refused" ]; do
	n=$((n + 1))
	[ $n -lt 20 ] || fail "20 segments of 8 MiB in 100 MiB less the reserve"
	if ! "$load" append "$at" $n 100000 8 15 0 2048 >"$dir/load" 2>"$dir/load.err"; then
		grep -q 'No space left' "$dir/load.err" || fail "refused, but how: $(cat "$dir/load.err")"
		refused=yes
		continue
	fi
	grep -q 'status=0' "$dir/load" || fail "$(cat "$dir/load")"
	acked=$(sed 's/acked=\([0-9]*\).*/\1/' "$dir/load")
	[ "$acked" -gt 2000 ] || fail "segment $n took $acked blocks only"
	blocks=$((blocks + acked))
done
[ $n -gt 3 ] || fail "full after $n segments"
[ "$(du -sm "$dir/data" | cut -f1)" -le 100 ] || fail "the limit was exceeded: $(du -sm "$dir/data")"
"$load" verify "$at" 1 2000 >/dev/null || fail "what was answered isn't there"
"$load" sync "$at" 1 2000 >/dev/null || fail "a full server must sync"
for i in 1 2; do "$load" delete "$at" $i >/dev/null || fail "a full server must delete"; done
"$load" append "$at" 100 20 8 15 0 2048 >"$dir/load" || fail "after deleting: $(cat "$dir/load")"
stop TERM
[ "$status" = 0 ] || fail "SIGTERM: $status"
echo "refused when full, $blocks blocks taken, space came back"
