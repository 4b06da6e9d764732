#!/bin/bash
# A full disk under the store (P7): writes are refused at once with ENOSPC, nothing is lost, reads and flushes go on; deleting a
# snapshot or a volume works on the fullest disk, and what is freed can be written again. Twice: full of our own, and of
# somebody else's.
. tests/interop/lib/agent
need jq qemu-io mkfs.ext4
[ "$(id -u)" -eq 0 ] && [ -c /dev/loop-control ] || { echo "skipped: mounting a disk of its own needs root and /dev/loop-control"; exit 77; }
store=$AQUIFER_ROOT/var/lib/aquifer
mkdir -p "$store"
truncate -s 1G "$dir/disk"
mkfs.ext4 -q -m 0 "$dir/disk"
mount -o loop "$dir/disk" "$store"
trap 'aquifer detach --all --force >/dev/null 2>&1 || true; umount "$store" 2>/dev/null || true; cleanup' EXIT

io() { timeout 60 qemu-io -f raw "$@" >"$dir/io" 2>&1 && ! grep -Eq 'Pattern verification failed|failed:' "$dir/io"; }
free_mb() { df -m --output=avail "$store" | tail -n 1 | tr -d ' '; }
quick() { timeout 60 "$top/$B/aquifer" "$@"; }

# ---- full of our own ----
quick volume create v 4G
uri=$(quick attach v --as nbd)
n=0
while io -c "write -P 1 $((n * 32))M 32M" "$uri"; do
	n=$((n + 1))
	[ $n -lt 40 ] || fail "more than the disk holds was taken"
done
grep -q 'No space left on device' "$dir/io" || fail "not refused as it should be: $(cat "$dir/io")"
[ $n -ge 8 ] || fail "full after $((n * 32)) MiB of 1 GiB"
io -c flush "$uri" || fail "flush on a full store: $(cat "$dir/io")"
io -c "read -P 1 0 $((n * 32))M" "$uri" || fail "what was taken isn't there: $(cat "$dir/io")"
io -c 'write -P 2 0 4k' "$uri" && fail "a write to a full store was taken"
told() { field v reason | grep -q 'there is no space for what is written to it'; }
until_true 10 told || fail "the list hides it: $(aquifer list)"
quick snapshot create v@full
io -c 'discard 0 1G' "$uri" || fail "discard on a full store: $(cat "$dir/io")"
io -c 'read -P 0 0 32M' "$uri" || fail "discarded, and still there"
quick snapshot delete v@full
until_true 20 eval 'io -c "write -P 3 0 32M" -c flush "$uri"' || fail "freed, and no space yet: $(cat "$dir/io") $(free_mb) MiB free"
until_true 10 eval '! told' || fail "the list doesn't know that there is space: $(aquifer list)"
quick detach v
uri=$(quick attach v --as nbd)
io -c 'read -P 3 0 32M' "$uri" || fail "after detaching: $(cat "$dir/io")"
quick detach v
quick volume delete v
[ -z "$(ls "$store/volumes")" ] || fail "left: $(ls "$store/volumes")"

# ---- full of somebody else's, to the last byte ----
quick volume create v 1G
quick volume create w 1G
uri=$(quick attach v --as nbd)
io -c 'write -P 1 0 64M' -c flush "$uri" || fail "write: $(cat "$dir/io")"
quick snapshot create v@s
io -c 'write -P 2 0 64M' -c flush "$uri" || fail "write: $(cat "$dir/io")"
fill() { for size in 1M 4k 512; do dd if=/dev/zero of="$store/junk$size" bs=$size 2>/dev/null || true; done; }
fill
[ "$(free_mb)" -eq 0 ] || fail "not full: $(df "$store")"
n=0
while io -c "write -P 4 $((128 + n * 16))M 16M" "$uri"; do
	n=$((n + 1))
	[ $n -lt 16 ] || fail "a full disk takes everything"
done
grep -q 'No space left on device' "$dir/io" || fail "not refused as it should be: $(cat "$dir/io")"
io -c flush -c 'read -P 2 0 64M' "$uri" || fail "what there was isn't there: $(cat "$dir/io")"
kill -9 "$(field v pid)"
until_true 5 eval '[ "$(field v state)" = died ]' || fail "death"
uri=$(quick attach v --as nbd) || fail "a volume on a full disk can't be attached"
io -r -c 'read -P 2 0 64M' "$uri" || fail "after kill -9: $(cat "$dir/io")"
quick snapshot delete v@s
quick volume delete w
rm "$store/junk1M"
until_true 20 eval 'io -c "write -P 5 0 32M" -c flush "$uri"' || fail "space, and still refused: $(cat "$dir/io")"
io -c 'read -P 5 0 32M' -c 'read -P 2 32M 32M' "$uri" || fail "$(cat "$dir/io")"
dd if=/dev/zero of="$store/junk1M" bs=1M 2>/dev/null || true
quick detach --all || true # it may say that not all could be written; the next attach recovers
fill # also what detaching gave back
uri=$(quick attach v --as nbd) || fail "a volume that nobody had can't be attached on a full disk"
io -r -c 'read -P 5 0 32M' -c 'read -P 2 32M 32M' "$uri" || fail "on a full disk: $(cat "$dir/io")"
quick detach v || true
rm "$store"/junk*
uri=$(quick attach v --as nbd)
io -c 'read -P 5 0 32M' -c 'read -P 2 32M 32M' "$uri" || fail "after all: $(cat "$dir/io")"
quick detach v
dd if=/dev/zero of="$store/junk1M" bs=1M 2>/dev/null || true
quick volume delete v --with-snapshots || fail "a volume can't be deleted on a full disk"
[ -z "$(ls "$store/volumes")" ] || fail "left: $(ls "$store/volumes")"
nothing_left
