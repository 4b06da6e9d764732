#!/bin/bash
# A volume whose segments are on an aquifer-server: writes and reads go on when the server is killed and comes back, when
# it is stopped cleanly, and after the tapdisk is killed; all content is verified.
cd "$(dirname "$0")/../.."
. tests/interop/lib/server
need fio nbdinfo
for program in aquifer aquifer-tapdisk; do [ -x "$B/$program" ] || { echo "skipped: $B/$program is not built"; exit 77; }; done
export AQUIFER_ROOT=$dir/root
mkdir -p "$dir/root/etc/aquifer"
echo "catalog = sqlite:$dir/catalog.db" >"$dir/root/etc/aquifer/aquifer.conf"
tapdisk=
end() {
	[ -z "$tapdisk" ] || { kill -9 "$tapdisk" && wait "$tapdisk"; } 2>/dev/null || true
	cleanup
}
trap end EXIT

attach() { tapdisk_up v1; }

# load NAME OPTION…: verified random writes at a part of the volume of their own, in the background
load() {
	name=$1
	shift
	fio --name="$name" --ioengine=nbd --uri="$uri" --rw=randwrite --bs=4k --iodepth=16 --verify_state_save=0 --verify=crc32c \
		--verify_fatal=1 --do_verify=1 --randrepeat=1 --fsync=64 "$@" >"$dir/$name" 2>&1 &
	fio=$!
}

fio_ended() { ! kill -0 "$fio"; }
finish() {
	until_true 60 fio_ended || fail "I/O hangs: $1"
	wait "$fio" || fail "$1: $(tail -n 5 "$dir/$1")"
	! grep -qiE 'verify:|error=|err=[^0 ]' "$dir/$1" || fail "$1: $(grep -iE 'verify|err' "$dir/$1" | head)"
}

start
"$B/aquifer" volume create v1 128M || fail "volume create"
attach
load plain --size=32M
finish plain
[ "$(find "$dir/data/segments" -name '*.seg' | wc -l)" -gt 0 ] || fail "nothing is on the server"

load killed --offset=32M --size=32M --rate_iops=2500
for round in 1 2; do
	sleep 0.8
	kill -0 "$fio" 2>/dev/null || fail "the load ended before kill $round"
	stop KILL
	start
done
finish killed
load stopped --offset=64M --size=32M --rate_iops=2500
sleep 0.8
stop TERM
sleep 0.3
start
finish stopped

# the tapdisk dies; what was flushed is in the log, and the next one takes the volume over
kill -9 "$tapdisk"
wait "$tapdisk" 2>/dev/null || true
rm -f "$dir/n.sock"
attach
for part in plain:0 killed:32M stopped:64M; do
	load "again-${part%%:*}" --offset="${part##*:}" --size=32M --verify_only
	finish "again-${part%%:*}"
done
kill -TERM "$tapdisk"
wait "$tapdisk" || fail "the tapdisk's end: $(cat "$dir/tapdisk.err")"
tapdisk=
"$B/aquifer" volume show v1 | grep -q 'state *free' || fail "the volume isn't free"
stop TERM
[ "$status" = 0 ] || fail "SIGTERM: $status"
echo "verified through two kills and a stop of the server, and a kill of the tapdisk"
