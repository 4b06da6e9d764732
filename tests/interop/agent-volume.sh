#!/bin/bash
# The store from the command line: volumes, snapshots, clones, diff, import and export, with devices attached or not.
. tests/interop/lib/agent
need jq qemu-io cmp nbdinfo
io() { qemu-io -f raw "$@" >"$dir/io" 2>&1 && ! grep -q 'Pattern verification failed' "$dir/io"; }

[ "$(aquifer volume list --json | jq length)" -eq 0 ] || fail "volumes in a new store"
refused 1 'volume' aquifer volume show web1
[ "$(aquifer volume create json 1M --json)$(aquifer volume delete json --json)" = "{}{}" ] || fail "--json of a command with nothing to say"
aquifer volume create web1 256M
refused 1 'web1' aquifer volume create web1 256M
refused 2 'multiple' aquifer volume create w 1000
refused 2 'not a size' aquifer volume create w big
refused 2 'name of a volume' aquifer volume create 'a/b' 1M
[ "$(aquifer volume show web1 --json | jq -c '[.name, .size, .state]')" = '["web1",268435456,"free"]' ] || fail "show"

uri=$(aquifer attach web1 --as nbd)
tap=$(field web1 pid)
[ "$(field web1 graph)" = 'volume(web1)' ] || fail "graph: $(aquifer list)"
io -c 'write -P 1 0 4M' -c flush "$uri" || fail "write: $(cat "$dir/io")"
aquifer volume show web1 | grep -q "device web1 (tapdisk pid $tap)" || fail "the holder isn't shown: $(aquifer volume show web1)"
# One writer.
refused 1 "device web1 \(tapdisk pid $tap\)" aquifer attach web1 --as nbd --name w2
refused 1 "device web1 .tapdisk pid $tap. on host .*take a snapshot, and use that instead: aquifer snapshot create web1@NAME.$" aquifer volume import web1 w2
refused 1 "device web1 \(tapdisk pid $tap\)" "$B/aquifer" volume delete web1
# Two nodes on one volume: neither is a stranger, who'd have to detach; nor is one to fence the other.
aquifer volume create twice 1M
refused 1 'volume-2: this tapdisk has it already \(use one node for both' aquifer attach 'verify(twice, twice)' --name twice --as nbd
refused 1 'volume-2: this tapdisk has it already \(use one node for both' aquifer attach 'verify(twice, twice)' --name twice --as nbd --force
aquifer volume delete twice
# A bare word in an expression may be meant as a file.
truncate -s 1M "$dir/bare.img"
(cd "$dir" && refused 1 "volume-1: there is no volume 'bare.img' \(if the file is meant: ./bare.img\)" aquifer attach 'ro(bare.img)' --name bare) || fail "a bare word"
# Snapshots of an attached volume, asked of its tapdisk.
aquifer snapshot create web1@one
refused 1 'one' aquifer snapshot create web1@one
refused 2 'not VOLUME@SNAP' aquifer snapshot create web1
refused 1 'none' aquifer snapshot create none@one
io -c 'write -P 2 1M 1M' -c 'discard 2M 1M' -c flush "$uri" || fail "write: $(cat "$dir/io")"
aquifer snapshot create web1@two
[ "$(aquifer snapshot list web1 --json | jq -r '[.[].name] | join(" ")')" = 'one two' ] || fail "list: $(aquifer snapshot list)"
[ "$(aquifer diff web1@one web1@two | head -n 1)" = '1048576 1048576 data' ] || fail "diff: $(aquifer diff web1@one web1@two)"
[ "$(aquifer diff web1@one web1@two --json | jq '[.[].length] | add')" = 2097152 ] || fail "diff: $(aquifer diff web1@one web1@two)"
refused 1 'attached|in use|detach' aquifer snapshot rollback web1@one

# A snapshot is read only; a clone isn't.
old=$(aquifer attach web1@one --as nbd --name old)
io -r -c 'read -P 1 0 4M' "$old" || fail "snapshot: $(cat "$dir/io")"
! qemu-io -f raw -c 'write 0 4k' "$old" 2>&1 | grep -q '^wrote' || fail "a snapshot was written"
aquifer clone web1@one copy
refused 1 'copy' aquifer clone web1@one copy
refused 1 'none' aquifer clone web1@none other
new=$(aquifer attach copy --as nbd)
io -c 'read -P 1 0 4M' -c 'write -P 3 0 64k' -c flush "$new" || fail "clone: $(cat "$dir/io")"
io -c 'read -P 1 0 1M' -c 'read -P 2 1M 1M' -c 'read -P 1 3M 1M' "$uri" || fail "head: $(cat "$dir/io")"

# The tapdisk is killed: nothing acknowledged is lost, the volume can be attached at once.
io -c 'write -P 4 8M 1M' -c flush "$uri" || fail "write: $(cat "$dir/io")"
kill -9 "$(field web1 pid)"
until_true 5 eval '[ "$(field web1 state)" = died ]' || fail "death"
[ "$(aquifer attach web1 --as nbd)" = "$uri" ] || fail "another address"
io -c 'read -P 4 8M 1M' "$uri" || fail "after kill -9: $(cat "$dir/io")"
aquifer detach --all

# Rollback, rename, resize, delete.
aquifer snapshot rollback web1@one
aquifer volume resize web1 512M
refused 1 'force' aquifer volume resize web1 128M
aquifer volume resize web1 256M --force
aquifer volume rename web1 web9
uri=$(aquifer attach web9 --as nbd)
io -c 'read -P 1 0 4M' -c 'read -P 0 8M 1M' "$uri" || fail "rollback: $(cat "$dir/io")"
refused 1 'attached as device web9' aquifer volume rename web9 web8
aquifer detach web9

# A device follows its volume's size.
uri=$(aquifer attach web9 --as nbd)
aquifer volume resize web9 384M
[ "$(nbdinfo --size "$uri")" = 402653184 ] || fail "NBD: the size after a resize: $(nbdinfo --size "$uri")"
aquifer detach web9
if [ "$(id -u)" -eq 0 ] && [ -c /dev/loop-control ] && [ -c /dev/fuse ]; then
	device=$(aquifer attach web9)
	aquifer volume resize web9 448M
	[ "$(blockdev --getsize64 "$device")" = 469762048 ] || fail "the loop device's size: $(blockdev --getsize64 "$device")"
	dd if=/dev/urandom of="$device" bs=1M seek=447 count=1 conv=fsync oflag=direct status=none || fail "write behind the old end"
	aquifer volume resize web9 256M --force
	[ "$(blockdev --getsize64 "$device")" = 268435456 ] || fail "the loop device's size: $(blockdev --getsize64 "$device")"
	aquifer detach web9
	device=$(aquifer attach 'delay(error(web9, rate=1, op=map))' --name web9) # also through nodes that have no size of their own
	aquifer volume resize web9 448M
	[ "$(blockdev --getsize64 "$device")" = 469762048 ] || fail "the loop device's size, below other nodes: $(blockdev --getsize64 "$device")"
	aquifer volume resize web9 256M --force
	[ "$(blockdev --getsize64 "$device")" = 268435456 ] || fail "the loop device's size, below other nodes: $(blockdev --getsize64 "$device")"
	aquifer detach web9
else
	aquifer volume resize web9 256M --force
fi

# Out and in again.
aquifer volume export web9@two "$dir/two.raw"
aquifer volume export web9 "$dir/head.raw"
aquifer volume import "$dir/two.raw" again
aquifer volume export again "$dir/again.raw"
cmp "$dir/two.raw" "$dir/again.raw" || fail "import and export"
[ "$(stat -c %b "$dir/again.raw")" -lt 20000 ] || fail "export isn't sparse"
head -c 4M "$dir/head.raw" | cmp - <(head -c 4M /dev/zero | tr '\0' '\1') || fail "export of the head"
refused 1 'exists' aquifer volume export web9 "$dir/head.raw"
refused 1 'No such file' aquifer volume import "$dir/nothing" other
refused 1 'again' aquifer volume import "$dir/two.raw" again
aquifer volume export again "$dir/kept.raw"
cmp "$dir/two.raw" "$dir/kept.raw" || fail "a refused import changed the volume"
aquifer image convert web9 "$dir/converted.raw"
cmp "$dir/head.raw" "$dir/converted.raw" || fail "convert"

# A layer over a volume knows it by more than its name and size, and isn't locked out when it has grown.
over() { aquifer attach "cow($dir/over.cow, $1)" --name over --as nbd; }
aquifer volume create base 1M
aquifer volume create likewise 1M
over base >/dev/null && aquifer detach over
aquifer volume rename base gold
aquifer volume resize gold 2M
over gold >/dev/null && aquifer detach over || fail "over a volume that has grown"
refused 1 'over another parent than likewise' over likewise
aquifer snapshot create gold@a
refused 1 'over another parent than gold@a .*rebase=on' over gold@a
over 'gold@a, rebase=on' >/dev/null && aquifer detach over || fail "over what has the same content"
over 'gold@a' >/dev/null && aquifer detach over || fail "over what it was moved to"
aquifer snapshot create gold@b
refused 1 'over another parent than gold@b' over gold@b
over 'gold, rebase=on' >/dev/null && aquifer detach over
aquifer snapshot rollback gold@a
refused 1 'over another parent than gold' over gold
over 'gold@b, rebase=on' >/dev/null && aquifer detach over
over 'gold@b' >/dev/null && aquifer detach over || fail "over a snapshot of a volume that was rolled back"
aquifer volume delete gold --with-snapshots
aquifer volume delete likewise

refused 1 'snapshot' aquifer volume delete web9
uri=$(aquifer attach web9@two --as nbd --name reader)
aquifer snapshot delete web9@two
aquifer volume delete web9 --with-snapshots
aquifer volume delete copy
aquifer volume delete again
[ "$(aquifer volume list --json | jq length)" -eq 0 ] || fail "volumes are left: $(aquifer volume list)"

# What somebody reads stays until they have gone; then it goes with the next deletion.
qemu-img convert -f raw -O raw "$uri" "$dir/read.raw" || fail "a deleted snapshot can't be read by who has it"
cmp "$dir/read.raw" "$dir/two.raw" || fail "a deleted snapshot reads as something else"
aquifer detach reader
aquifer volume create last 4K
aquifer volume delete last
[ -z "$(ls "$AQUIFER_ROOT/var/lib/aquifer/volumes")" ] || fail "space is left: $(ls "$AQUIFER_ROOT/var/lib/aquifer/volumes")"
nothing_left
