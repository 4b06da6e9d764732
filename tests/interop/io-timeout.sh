#!/bin/bash
# How long requests wait when nobody can be reached: for a set time, then each ends with an I/O error, once, and what comes later is good;
# or for ever. Changed while the volume is attached, also for what waits already. `list`, `show` and `volume show` tell.
cd "$(dirname "$0")/../.."
. tests/interop/lib/cluster
need jq qemu-io
share_catalog

io() { qemu-io -f raw "$@" 2>&1; }
# in_background COMMAND…: one qemu-io command, whose end is waited for by `ended`
in_background() {
	io -c "$1" "$uri" >"$dir/said" &
	pid=$!
	clients=$pid
}
ended() { until_true 30 eval '! kill -0 $pid 2>/dev/null' || fail "$1 hangs"; }
failed() { grep -qi 'input/output error' "$dir/said" || fail "$1: $(cat "$dir/said")"; }
waits() { aquifer show v --json | jq -r ".nodes[].waits | select(. != null) | $1"; }

serve 1
refused 2 "io-timeout: 'soon' is not a time" aquifer volume create v 64M --io-timeout soon
refused 2 "from 1s to 7d" aquifer volume create v 64M --io-timeout 8d
aquifer volume create v 64M --io-timeout 2s || fail "volume create"
refused 2 "no setting 'colour'.*io-timeout" aquifer volume set v colour=blue
refused 2 "is not a time" aquifer volume set v io-timeout=-1s
aquifer volume show v | grep -qx 'io-timeout  *2s' || fail "volume show: $(aquifer volume show v)"
uri=$(aquifer attach v --as nbd) || fail "attach"
io -c 'write -P 1 0 64k' -c flush "$uri" | grep -q wrote || fail "write"

# It hangs. A write, a flush and a read end, not before their time.
kill -STOP "${server[1]}"
for what in 'write -P 2 0 4k' flush 'read 32k 4k'; do
	before=$(date +%s%N)
	in_background "$what"
	ended "$what"
	[ "$what" = flush ] || failed "$what" # what was flushed needs no server
	[ "$what" = flush ] || [ $((($(date +%s%N) - before) / 1000000)) -ge 2000 ] || fail "$what: before its time"
done
[ "$(waits '.timed_out >= 2 and .limit_ms == 2000 and .last == "read"')" = true ] || fail "show: $(aquifer show v --json | jq .nodes)"
aquifer show v | grep -q 'requests ended with an I/O error because they had waited too long; the last one, a read, at 20' || fail "show: $(aquifer show v)"
kill -CONT "${server[1]}"
io -c 'write -P 3 0 4k' -c flush -c 'read -P 3 0 4k' -c 'read -P 1 4k 60k' "$uri" >"$dir/said" || fail "after it was back: $(cat "$dir/said")"
! grep -qi 'error\|failed' "$dir/said" || fail "after it was back: $(cat "$dir/said")"
until_true 10 eval '[ "$(waits .oldest_ns)" = 0 ]' || fail "something still waits: $(aquifer show v)"

# For ever, until somebody says otherwise.
aquifer volume set v io-timeout=forever || fail "volume set"
[ "$(aquifer volume show v --json | jq .io_timeout_ms)" = 0 ] || fail "volume show: $(aquifer volume show v)"
gone 1
in_background 'write -P 4 0 4k'
until_true 20 eval '[ "$(waits .requests.write)" = 1 ]' || fail "show hides that it waits: $(aquifer show v)"
waits .for | grep -q '^1 server that its segments belong to; missing: unix:' || fail "for what: $(waits .for)"
[ "$(waits .since_ns)" -gt 0 ] && [ "$(waits .oldest_ns)" -gt 0 ] || fail "since when: $(aquifer show v --json)"
aquifer show v | grep -q '1 write wait since 20.*at most: forever.* for 1 server' || fail "show: $(aquifer show v)"
until_true 10 eval 'aquifer list | grep -q "^  .*1 write wait since 20.* for 1 server"' || fail "the list, below the device: $(aquifer list)"
until_true 10 eval 'field v reason | grep -q "1 write wait since 20.* for 1 server.*missing: unix:"' || fail "list: $(aquifer list)"
sleep 2.5
kill -0 $pid 2>/dev/null || fail "it was given up: $(cat "$dir/said")"
aquifer volume set v io-timeout=1s || fail "volume set while a request waits"
ended "a write for which the limit came later"
failed "a write for which the limit came later"
aquifer volume set v io-timeout=20s || fail "volume set to more than a busy machine takes to connect"
serve 1
io -c 'read -P 1 4k 60k' -c 'write -P 5 0 4k' -c flush "$uri" >"$dir/said" || fail "after it was there again: $(cat "$dir/said")"
! grep -qi 'error\|failed' "$dir/said" || fail "after it was there again: $(cat "$dir/said")"
aquifer volume set v io-timeout=1s || fail "volume set"
aquifer detach v || fail "detach"
aquifer snapshot create v@s && aquifer clone v@s c || fail "clone"
[ "$(aquifer volume show c --json | jq .io_timeout_ms)" = 1000 ] || fail "the clone: $(aquifer volume show c)"
aquifer volume set c io-timeout=forever || fail "volume set of what isn't attached"
[ "$(aquifer volume show c --json | jq .io_timeout_ms)" = 0 ] || fail "the clone: $(aquifer volume show c)"
uri=$(aquifer attach v --as nbd) || fail "attach"
io -c 'read -P 5 0 4k' -c 'read -P 1 4k 60k' "$uri" >"$dir/said" || fail "content at the end: $(cat "$dir/said")"
! grep -qi 'error\|failed' "$dir/said" || fail "content at the end: $(cat "$dir/said")"
echo "requests waited as long as the volume says, and said for what; what came later was good"
