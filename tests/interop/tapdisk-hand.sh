#!/bin/bash
# A tapdisk by hand: prints its devices, serves several exports of one graph, ends with SIGTERM, fails in one line.
. tests/interop/lib/agent
need nbdinfo jq
truncate -s 8M "$dir/a.img"
start() {
	: >"$dir/devices"
	"$B/aquifer-tapdisk" "$@" >"$dir/devices" 2>"$dir/err" &
	tap=$!
	clients=$tap
	until_true 5 test -s "$dir/devices" || fail "no device: $(cat "$dir/err")"
}
stop() {
	kill -TERM $tap
	status=0
	wait $tap || status=$?
	clients=
	[ $status -eq 0 ] || fail "it ended with $status: $(cat "$dir/err")"
}
start --export "nbd:$dir/s.sock" --export nbd:tcp:127.0.0.1:0 "raw($dir/a.img)"
[ "$(wc -l <"$dir/devices")" -eq 2 ] || fail "devices: $(cat "$dir/devices")"
while read -r uri; do [ "$(nbdinfo --size "$uri")" = 8388608 ] || fail "$uri"; done <"$dir/devices"
[ -S "$dir/s.sock" ] || fail "the socket is elsewhere"
# Its locks are seen by an agent's tapdisks.
refused 1 "in use by device a \(tapdisk pid $tap\)" aquifer attach "$dir/a.img" --as nbd
stop
[ ! -e "$dir/s.sock" ] || fail "the socket stays"

# A terminal that is closed ends it as SIGTERM does; not below nohup.
start --export "nbd:$dir/s.sock" "raw($dir/a.img)"
kill -HUP $tap
stop
[ ! -e "$dir/s.sock" ] || fail "the socket stays after SIGHUP"
: >"$dir/devices"
(trap '' HUP && exec "$B/aquifer-tapdisk" --export "nbd:$dir/s.sock" "raw($dir/a.img)" >"$dir/devices" 2>"$dir/err") &
tap=$!
clients=$tap
until_true 5 test -s "$dir/devices" || fail "no device: $(cat "$dir/err")"
kill -HUP $tap
sleep 0.2
nbdinfo --size "$(cat "$dir/devices")" >/dev/null || fail "SIGHUP ended it below nohup"
stop

cat >"$dir/g.graph" <<'G'
disk = raw(a.img)
export disk as nbd
G
: >"$dir/devices"
(cd "$dir" && exec "$top/$B/aquifer-tapdisk" --graph g.graph --read-only >devices 2>err) &
tap=$!
clients=$tap
until_true 5 test -s "$dir/devices" || fail "no device: $(cat "$dir/err")"
nbdinfo "$(cat "$dir/devices")" | grep -q 'is_read_only: true' || fail "--read-only"
# An agent whose own tapdisk can't have the name leaves the socket where it is.
refused 1 'somebody serves there already' aquifer attach 'ram(1M)' --name disk --as nbd
nbdinfo --size "$(cat "$dir/devices")" >/dev/null || fail "an attach that failed has removed the socket of another"
stop

fails() {
	want=$1 pattern=$2 status=0
	shift 2
	timeout 10 "$B/aquifer-tapdisk" "$@" >"$dir/out" 2>"$dir/err" || status=$?
	[ $status -eq $want ] || fail "status $status: $*: $(cat "$dir/err")"
	[ "$(wc -l <"$dir/err")" -eq 1 ] || fail "not one line: $*: $(cat "$dir/err")"
	grep -Eq "^aquifer-tapdisk: .* failed: .*$pattern" "$dir/err" || fail "$*: $(cat "$dir/err")"
}
fails 2 missing
fails 2 'no export' --export floppy 'ram(1M)' --name x
fails 1 'line 1' --export nbd 'ram(' --name x
fails 1 'No such file' --export "nbd:$dir/s.sock" "raw($dir/none)"
fails 1 'No such file|not exist' --export "nbd:$dir/none/s.sock" 'ram(1M)' --name x
fails 1 'one too many' --export "nbd:$dir/s.sock" 'ro(ram(1M), ram(1M))' --name x
