#!/bin/bash
# Two writers of one image are refused, naming the holder; a device in use stays, naming the user; --force lets go, also
# of a tapdisk that hangs.
. tests/interop/lib/agent
need jq qemu-io nbdinfo
io() { qemu-io -f raw "$@" >"$dir/io" 2>&1 && ! grep -q failed "$dir/io"; }

aquifer image create raw "$dir/a.img" 64M
uri=$(aquifer attach "$dir/a.img" --as nbd)
tap=$(field a pid)

refused 1 "in use by device a \(tapdisk pid $tap\)" aquifer attach "$dir/a.img" --as nbd --name b
refused 1 "in use by device a \(tapdisk pid $tap\)" aquifer attach "$dir/a.img" --as nbd --name b --read-only
refused 1 "in use by device a" aquifer image convert "$dir/a.img" "$dir/new"
[ "$(aquifer list --json | jq length)" -eq 1 ] || fail "a refused attach is listed: $(aquifer list)"
! pgrep -f "aquifer-tapdisk.*--name b .*$dir/a.img" >/dev/null || fail "a refused attach left a process"
aquifer detach a
# Readers share.
aquifer attach "$dir/a.img" --as nbd --read-only >/dev/null
aquifer attach "$dir/a.img" --as nbd --read-only --name b >/dev/null
aquifer image info "$dir/a.img" | grep -q '64.0 MiB' || fail "image info beside readers"
refused 1 'in use by device [ab]' aquifer attach "$dir/a.img" --as nbd --name c
# --force takes an image from the tapdisks that have it, all of them, and says who it is that it doesn't take it from.
aquifer attach "$dir/a.img" --as nbd --name c --force >/dev/null || fail "attach --force over two readers"
[ "$(aquifer list --json | jq -r 'map(select(.state == "running").name) | join(" ")')" = c ] || fail "readers stayed: $(aquifer list)"
uri=$(aquifer attach "$dir/a.img" --as nbd --name d --force) || fail "attach --force over a writer"
io -c 'write -P 5 0 64k' "$uri" || fail "write: $(cat "$dir/io")"
kill -STOP "$(field d pid)" # it can't let go by itself
uri=$(aquifer attach "$dir/a.img" --as nbd --name e --force) || fail "attach --force over a writer that stands still"
[ "$(aquifer list --json | jq -r 'map(select(.state == "running").name) | join(" ")')" = e ] || fail "the holder stayed: $(aquifer list)"
io -c 'read -P 5 0 64k' "$uri" || fail "what was written before --force: $(cat "$dir/io")"
refused 1 'in use by device e' aquifer attach "$dir/a.img" --as nbd --name f
aquifer detach --all
mkfifo "$dir/qemu"
qemu-io -f raw "$dir/a.img" <"$dir/qemu" >"$dir/said" 2>&1 &
clients=$!
exec 7>"$dir/qemu"
echo 'read 0 4k' >&7
until_true 5 grep -q 'read 4096' "$dir/said" || fail "qemu-io: $(cat "$dir/said")"
refused 1 'another process.*--force ends only tapdisks' aquifer attach "$dir/a.img" --as nbd --force
refused 1 'another process' aquifer attach "$dir/a.img" --as nbd
kill -0 $clients || fail "--force ended somebody else"
exec 7>&-
wait $clients || true
clients=
# A layer of copy-on-write: what was written and not flushed is there too.
uri=$(aquifer attach "cow($dir/l.cow, $dir/a.img)" --name l --as nbd) || fail "attach cow"
io -c 'write -P 6 0 64k' "$uri" || fail "write: $(cat "$dir/io")"
refused 1 "l.cow is in use by device l" aquifer attach "cow($dir/l.cow, $dir/a.img)" --name m --as nbd
uri=$(aquifer attach "cow($dir/l.cow, $dir/a.img)" --name m --as nbd --force) || fail "attach --force of a layer"
io -c 'read -P 6 0 64k' "$uri" || fail "the layer's content: $(cat "$dir/io")"
aquifer detach --all
rm "$dir/l.cow"
nothing_left

# In use over NBD.
uri=$(aquifer attach "$dir/a.img" --as nbd)
mkfifo "$dir/commands"
qemu-io -f raw "$uri" <"$dir/commands" >/dev/null 2>&1 &
client=$!
clients=$client
exec 7>"$dir/commands"
until_true 5 eval '[ "$(aquifer show a --json | jq .devices[0].clients)" = 1 ]' || fail "the client is not counted"
refused 1 "pid $client" aquifer detach a
refused 1 "pid $client" aquifer detach --all
[ "$(field a state)" = running ] || fail "state after a refused detach: $(aquifer list)"
echo 'write -P 9 0 4k' >&7
until_true 5 eval '[ "$(aquifer show a --json | jq .nodes[0].counters.write.requests)" = 1 ]' || fail "the device stopped working"
aquifer detach a --force
nothing_left
exec 7>&-
wait $client || true
clients=

# SIGTERM ends a tapdisk that nobody uses, orderly; one in use only when it isn't any more.
aquifer attach "$dir/a.img" --as nbd >/dev/null
kill "$(field a pid)"
until_true 5 eval '[ "$(aquifer list --json | jq length)" -eq 0 ]' || fail "SIGTERM: $(aquifer list)"
nothing_left
aquifer attach "$dir/a.img" --as nbd >/dev/null
qemu-io -f raw "$uri" <"$dir/commands" >/dev/null 2>&1 &
client=$!
clients=$client
exec 7>"$dir/commands"
until_true 5 eval '[ "$(aquifer show a --json | jq .devices[0].clients)" = 1 ]' || fail "the client is not counted"
kill "$(field a pid)"
until_true 5 grep -q "in use" "$run/tapdisks/a/log" || fail "it doesn't say why it goes on: $(cat "$run/tapdisks/a/log")"
[ "$(field a state)" = running ] || fail "it gave way: $(aquifer list)"
exec 7>&-
wait $client || true
clients=
until_true 10 eval '[ "$(aquifer list --json | jq length)" -eq 0 ]' || fail "it doesn't end when it is free: $(aquifer list)"
nothing_left

# A tapdisk that hangs: --force gets rid of it.
aquifer attach "$dir/a.img" --as nbd >/dev/null
kill -STOP "$(field a pid)"
aquifer detach a --force || fail "detach --force of a tapdisk that hangs"
nothing_left

# Mounted, over the loop export.
need_loop
need mkfs.ext4 mount
device=$(aquifer attach "$dir/a.img")
[ -b "$device" ] || fail "$device is no block device"
mkfs.ext4 -q "$device"
mkdir "$dir/mnt"
mount "$device" "$dir/mnt"
echo hello >"$dir/mnt/file"
refused 1 "mounted at $dir/mnt" aquifer detach a
refused 1 "mounted at $dir/mnt" aquifer detach "$device"
sync
[ "$(cat "$dir/mnt/file")" = hello ] || fail "the file system is gone"
umount "$dir/mnt"
aquifer detach "$device"
nothing_left
[ ! -e "/sys/block/$(basename "$device")/loop" ] || ! grep -q "$dir" "/sys/block/$(basename "$device")/loop/backing_file" || fail "the loop device stays"
[ "$(aquifer attach "$dir/a.img" --as loop --read-only | xargs blockdev --getro)" = 1 ] || fail "read only"
aquifer detach a
nothing_left
