#!/bin/bash
# A file system under the store that turns read only while it is in use, as ext4 does after an error: clear errors, no hang, nothing
# that was flushed is lost, and everything works again after a remount. First an embedded store
# with its catalog, then the data directory of an aquifer-server.
. tests/interop/lib/agent
need jq qemu-io mkfs.ext4
[ "$(id -u)" -eq 0 ] && [ -c /dev/loop-control ] || { echo "skipped: mounting a disk of its own needs root and /dev/loop-control"; exit 77; }
store=$AQUIFER_ROOT/var/lib/aquifer
data=$dir/data
server=
mkdir -p "$store" "$data"
stop_server() {
	[ -n "$server" ] || return 0
	kill -9 "$server" 2>/dev/null || true
	wait "$server" 2>/dev/null || true
	server=
}
trap 'aquifer detach --all --force >/dev/null 2>&1 || true; stop_server; umount "$store" 2>/dev/null || true; umount "$data" 2>/dev/null || true; cleanup' EXIT

io() { timeout 60 qemu-io -f raw "$@" >"$dir/io" 2>&1 && ! grep -Eq 'Pattern verification failed|failed:' "$dir/io"; }
quick() { timeout 60 "$top/$B/aquifer" "$@"; }
# io_fails ARGUMENT…: an error in time, not a hang.
io_fails() {
	local status=0
	timeout 60 qemu-io -f raw "$@" >"$dir/io" 2>&1 || status=$?
	[ $status -ne 124 ] || fail "hangs: $*"
	[ $status -ne 0 ] || grep -q 'failed:' "$dir/io" || fail "went well on a read-only file system: $* ($(cat "$dir/io"))"
}
# says PATTERN COMMAND…: fails in time, with one line.
says() { refused 1 "$1" timeout 60 "$top/$B/aquifer" "${@:2}"; }
# Detached in time; it may say that not all was in order.
gone() {
	local status=0
	quick detach v --force >"$dir/out" 2>"$dir/err" || status=$?
	[ $status -ne 124 ] || fail "detaching hangs"
	[ "$(wc -l <"$dir/err")" -le 1 ] || fail "detach: $(cat "$dir/err")"
	until_true 10 eval '[ "$(aquifer list --json | jq length)" -eq 0 ]' || fail "detached, and there: $(aquifer list)"
}
# The file system under DIR stops taking writes, as if it had found an error.
turn_readonly() {
	mount -o remount,abort "$1" 2>/dev/null || { echo "skipped: mount -o remount,abort isn't taken here"; exit 77; }
	! touch "$1/x" 2>/dev/null || { echo "skipped: mount -o remount,abort changes nothing here"; exit 77; }
}
remount() {
	until_true 10 umount "$1" || fail "$1 is still in use: $(grep "$1" /proc/mounts)"
	mount -o loop "$2" "$1"
}

# ---- an embedded store ----
truncate -s 512M "$dir/disk"
mkfs.ext4 -q -m 0 "$dir/disk"
mount -o loop "$dir/disk" "$store"
quick volume create v 1G
uri=$(quick attach v --as nbd)
io -c 'write -P 1 0 8M' -c flush "$uri" || fail "write: $(cat "$dir/io")"
quick snapshot create v@before
turn_readonly "$store"
io -r -c 'read -P 1 0 8M' "$uri" || fail "it can't even be read: $(cat "$dir/io")"
io_fails -c 'write -P 2 16M 4M' -c flush "$uri" # the volume stops with EIO (R14) when that lasts
io -r -c 'read -P 1 0 8M' "$uri" || ! grep -q 'Pattern verification failed' "$dir/io" || fail "wrong data"
quick list >/dev/null || fail "list"
says 'read-only' volume create w 1G
says 'read-only|Read-only' snapshot create v@x
gone
says 'read-only|Read-only' attach v --as nbd
remount "$store" "$dir/disk"
uri=$(quick attach v --as nbd 2>"$dir/err") || fail "after the remount: $(cat "$dir/err")"
io -c 'read -P 1 0 8M' -c 'write -P 3 8M 8M' -c flush -c 'read -P 3 8M 8M' "$uri" || fail "after the remount: $(cat "$dir/io")"
quick snapshot create v@after
quick detach v
[ "$(quick snapshot list v --json | jq length)" -eq 2 ] || fail "snapshots: $(quick snapshot list v)"
quick volume delete v --with-snapshots
[ -z "$(ls "$store/volumes")" ] || fail "left: $(ls "$store/volumes")"
nothing_left
umount "$store"

# ---- a server's data directory; its catalog is elsewhere ----
rm -f "$dir/disk"
truncate -s 512M "$dir/disk"
mkfs.ext4 -q -m 0 "$dir/disk"
mount -o loop "$dir/disk" "$data"
start_server() {
	: >"$dir/server.out"
	"$top/$B/aquifer-server" --data "$data/s" --listen "unix:$dir/sock" --catalog "sqlite:$store/catalog.db" >"$dir/server.out" 2>"$dir/server.err" &
	server=$!
	until_true 20 grep -q ready "$dir/server.out" || fail "the server doesn't start: $(cat "$dir/server.err")"
}
rm -rf "$store"
mkdir -p "$store"
start_server
quick volume create v 1G
uri=$(quick attach v --as nbd)
io -c 'write -P 1 0 8M' -c flush "$uri" || fail "write: $(cat "$dir/io")"
turn_readonly "$data"
# As a server that can make no segment may be mended, or another one come, that is waited for, and said. Where what it has can't be settled, that ends with EIO (R14).
status=0
timeout 20 qemu-io -f raw -c 'write -P 2 16M 4M' -c flush "$uri" >"$dir/io" 2>&1 &
writer=$!
sleep 5
quick list >"$dir/list" || fail "list"
wait $writer || status=$?
if [ $status -eq 124 ]; then
	grep -q 'wait since .*Read-only file system' "$dir/list" || fail "it waits, and isn't said to for that: $(cat "$dir/list")"
elif [ $status -eq 0 ] && ! grep -q 'failed:' "$dir/io"; then
	fail "went well on a read-only file system: $(cat "$dir/io")"
fi
kill -0 "$server" || fail "the server died: $(cat "$dir/server.err")"
quick list >/dev/null || fail "list"
gone
stop_server
status=0
timeout 20 "$top/$B/aquifer-server" --data "$data/s" --listen "unix:$dir/sock" --catalog "sqlite:$store/catalog.db" >"$dir/out" 2>"$dir/err" || status=$?
[ $status -eq 1 ] && grep -qi 'read-only' "$dir/err" || fail "a server on a read-only file system: status $status, $(cat "$dir/out" "$dir/err")"
remount "$data" "$dir/disk"
start_server
uri=$(quick attach v --as nbd) || fail "after the remount of the server's"
io -c 'read -P 1 0 8M' -c 'write -P 3 8M 8M' -c flush -c 'read -P 3 8M 8M' "$uri" || fail "after the remount of the server's: $(cat "$dir/io")"
quick detach v
quick volume delete v
nothing_left
stop_server
umount "$data"
