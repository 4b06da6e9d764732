#!/bin/bash
# aquifer-server: clean stops, kill -9 under load, stale sockets. What was answered is there afterwards, whole; each
# start is a new incarnation; what was fenced stays fenced; clients of the old incarnation are refused.
cd "$(dirname "$0")/../.."
. tests/interop/lib/server
ROUNDS=${ROUNDS:-5}

start --domain rack1
[ "$(incarnation)" = 1 ] || fail "first incarnation: $(incarnation)"
"$load" append "$at" 1 300 8 3 50 >"$dir/load" || fail "append"
read -r acked < <(sed 's/acked=\([0-9]*\).*/\1/' "$dir/load")
[ "$acked" = 1201 ] || fail "append: $(cat "$dir/load")"
stop TERM
[ "$status" = 0 ] || fail "SIGTERM: $status"

start
[ "$(incarnation)" = 2 ] || fail "second incarnation: $(incarnation)"
"$load" verify "$at" 1 "$acked" >/dev/null || fail "after a clean stop"
"$load" append "$at" 1 1 1 1 0 | grep -q 'acked=0 .*status=22' || fail "another record where there is one"
"$load" fence "$at" 1 7 | grep -q 'fenced=7' || fail "fence"
stop INT
[ "$status" = 0 ] || fail "SIGINT: $status"

start
kill -HUP "$server"
"$load" stat "$at" 1 | grep -q 'fenced=7' || fail "a fence was forgotten, or SIGHUP ended it"
"$load" verify "$at" 1 "$acked" >/dev/null || fail "after two clean stops"
refused 1 'Operation not permitted' "$load" fence "$at" 1 6

total=0
for round in $(seq "$ROUNDS"); do
	segment=$((round + 1))
	"$load" append "$at" $segment 1000000 32 $((round % 3 + 1)) 100 >"$dir/load" 2>"$dir/load.err" &
	loader=$!
	tries=0
	# some load must have got through before the end
	until [ "$("$load" stat "$at" $segment 2>/dev/null | sed 's/length=\([0-9]*\).*/\1/')" -gt 200 ] 2>/dev/null; do
		tries=$((tries + 1))
		[ $tries -lt 400 ] || fail "no load"
		sleep 0.02
	done
	kill -9 "$server"
	wait "$server" 2>/dev/null || true
	wait $loader || fail "the loader: $(cat "$dir/load.err")"
	grep -q 'status=107' "$dir/load" || fail "the loader doesn't say ENOTCONN: $(cat "$dir/load")"
	acked=$(sed 's/acked=\([0-9]*\).*/\1/' "$dir/load")
	[ "$acked" -gt 200 ] || fail "nothing was answered: $(cat "$dir/load")"
	[ -S "$dir/s" ] || fail "no stale socket to start over"
	before=$(incarnation)
	start
	[ "$(incarnation)" -gt "$before" ] || fail "incarnation $(incarnation) after $before"
	"$load" verify "$at" $segment "$acked" >"$dir/verified" || fail "round $round: $(cat "$dir/verified" "$dir/load")"
	total=$((total + acked))
done
# a segment is deleted, and stays so
"$load" delete "$at" 2 >/dev/null || fail "delete"
stop KILL
start
"$load" stat "$at" 2 | grep -q 'state=3' || fail "a deleted segment is back"
stop TERM

# a file system's copy of the data directory, older than the catalog: its open copies count for nothing
cp -a "$dir/data" "$dir/old"
start
"$load" append "$at" 50 20 4 1 10 >/dev/null
stop TERM
rm -r "$dir/data" && mv "$dir/old" "$dir/data"
start
refused 1 "isn't whole" "$load" verify "$at" 1 1
stop TERM

# a directory that has lost its segments isn't one
mv "$dir/data/segments" "$dir/segments"
refused 1 "no directory 'segments'.*begin with an empty directory" timeout 20 "$B/aquifer-server" --data "$dir/data" --listen "unix:$dir/s" --catalog "sqlite:$dir/catalog.db"
mv "$dir/segments" "$dir/data/segments"
start
stop TERM
echo "$ROUNDS kills under load, $total blocks answered and all there"
