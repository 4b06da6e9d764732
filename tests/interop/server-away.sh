#!/bin/bash
# A volume on an aquifer-server that doesn't answer, and one that --force took away: `list` and `detach` say so, nothing hangs
# for ever, and what was flushed is there afterwards.
cd "$(dirname "$0")/../.."
. tests/interop/lib/agent
. tests/interop/lib/store
need jq nbdcopy qemu-io
mkdir -p "$AQUIFER_ROOT/etc/aquifer"
echo "catalog = sqlite:$store/catalog.db" >"$AQUIFER_ROOT/etc/aquifer/aquifer.conf"

# It answered, and the agent didn't have to wait until it can be said that it doesn't.
ended_itself() { ! grep "doesn't answer and is killed" "$run/agent.log" || fail "a tapdisk had to be killed"; }
reason() { field "$1" reason | grep -q "$2"; }

serve --catalog "sqlite:$store/catalog.db"
aquifer volume create v 64M || fail "volume create"
head -c 4M /dev/urandom >"$dir/data"
uri=$(aquifer attach v --as nbd) || fail "attach"
nbdcopy --flush "$dir/data" "$uri" || fail "write"

# Taken away: the old device answers only errors, and says why.
refused 1 "attached as device v" aquifer attach v --name w --as nbd
new=$(aquifer attach v --name w --as nbd --force) || fail "attach --force"
nbdcopy "$new" - | cmp -n 4194304 - "$dir/data" || fail "content after --force"
qemu-io -f raw -c 'write -P 1 0 4k' -c flush "$uri" 2>&1 | grep -qi 'failed' || fail "the old holder still writes"
until_true 10 reason v "taken over by another holder" || fail "the list hides it: $(aquifer list)"
refused 1 "another holder" aquifer detach v

# The server stands still, with a write under way.
qemu-io -f raw -c 'write -P 7 8M 4k' -c flush "$new" | grep -q wrote || fail "write"
kill -STOP "$server"
qemu-io -f raw -c 'write -P 9 16M 4k' "$new" >/dev/null 2>&1 &
clients="$clients $!"
until_true 20 reason w "write waits* since .* for 1 server.*missing: unix:" || fail "the list hides it: $(aquifer list)"
kill -9 $! && wait $! 2>/dev/null || true
refused 1 "(waits? since|in use by).*detach --force" timeout 100 "$top/$B/aquifer" detach w
tap=$(field w pid)
timeout 60 "$top/$B/aquifer" detach w --force || fail "detach --force: $(aquifer list)"
ended_itself
[ ! -d "/proc/$tap" ] || fail "its tapdisk is still there"
[ -z "$(field w state)" ] || fail "it is still listed: $(aquifer list)"
refused 1 "doesn't answer" aquifer attach v --as nbd
kill -CONT "$server"
uri=$(aquifer attach v --as nbd) || fail "attach after it came back"
nbdcopy "$uri" - | cmp -n 4194304 - "$dir/data" || fail "content after all"
qemu-io -f raw -c 'read -P 7 8M 4k' "$uri" >/dev/null || fail "what was flushed"

# The same without --force, by SIGTERM, also when nothing is under way: it ends in bounded time, and nothing acknowledged is lost.
qemu-io -f raw -c 'write -P 11 24M 64k' "$uri" | grep -q wrote || fail "write"
kill -STOP "$server"
tap=$(field v pid)
kill "$tap"
until_true 30 eval '! kill -0 "$tap"' || fail "SIGTERM doesn't end it: $(cat "$run/tapdisks/v/log")"
until_true 5 eval '[ "$(field v state)" = died ]' || fail "the list hides it: $(aquifer list)"
reason v "the next attach recovers it" || fail "the reason: $(aquifer list)"
kill -CONT "$server"
uri=$(aquifer attach v --as nbd) || fail "attach after SIGTERM"
qemu-io -f raw -c 'read -P 11 24M 64k' "$uri" >/dev/null || fail "what was acknowledged"
kill -STOP "$server"
timeout 60 "$top/$B/aquifer" detach v --force || fail "detach --force of an idle one"
ended_itself
kill -CONT "$server"
uri=$(aquifer attach v --as nbd) || fail "attach after detach --force"
qemu-io -f raw -c 'read -P 11 24M 64k' "$uri" >/dev/null || fail "what was acknowledged, after detach --force"
aquifer detach v || fail "detach"
# A file system on it, and what it reads is what hangs.
if [ "$(id -u)" -eq 0 ] && [ -c /dev/loop-control ] && [ -c /dev/fuse ] && command -v mkfs.ext4 >/dev/null; then
	device=$(aquifer attach v --as loop) || fail "attach as a loop device"
	mkfs.ext4 -q "$device" && mkdir "$dir/mnt" && mount "$device" "$dir/mnt" && sync || fail "mkfs and mount"
	kill -STOP "$server"
	dd if=/dev/zero of="$dir/mnt/file" bs=1M count=1 conv=fsync >/dev/null 2>&1 & # never in this shell, which would hang too
	clients=$!
	sleep 0.5
	timeout 60 "$top/$B/aquifer" detach v --force || fail "detach --force of a mounted one"
	ended_itself
	umount -l "$dir/mnt"
	wait "$clients" || true
	clients=
	kill -CONT "$server"
fi
echo "a volume taken away and a server that is away are shown; nothing hung, nothing was lost"
