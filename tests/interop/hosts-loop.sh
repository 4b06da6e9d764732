#!/bin/bash
# A real block device moves between two hosts (roots): who reads the incoming one waits, and gets what the other host wrote; one that nothing comes to is detached
# while somebody waits at it; a mounted file system at rest whose device moved away works on when it is moved back.
cd "$(dirname "$0")/../.."
. tests/interop/lib/hosts
need jq mkfs.ext4 blkid fsck.ext4
need_loop
hosts_up a b
fails() { ! "$@" >/dev/null 2>&1; }
on a volume create v 64M --replicas 1 || fail "create"
there=$(on a attach v) || fail "attach"
mkfs.ext4 -q "$there" && mkdir "$dir/mnt" && mount "$there" "$dir/mnt" || fail "mkfs"
cp -r docs "$dir/mnt/" && umount "$dir/mnt" || fail "copy"

# nothing comes
here=$(on b attach v --incoming) || fail "attach --incoming"
timeout 20 blkid -p "$here" >"$dir/out" 2>&1 &
waiting=$!
sleep 0.3
kill -0 $waiting || fail "an incoming device is read: $(cat "$dir/out")"
timeout 20 losetup -a >/dev/null || fail "losetup hangs"
on b detach v --force || fail "detach of an incoming device"
wait $waiting && fail "it was read: $(cat "$dir/out")"
until_true 5 eval '[ "$(on b list --json)" = "[]" ]' || fail "it is there still: $(on b list)"

# it comes
here=$(on b attach v --incoming) || fail "attach --incoming"
timeout 20 blkid -p "$here" >"$dir/out" 2>&1 &
waiting=$!
sleep 0.3
on a migrate v --to b >/dev/null || fail "migrate"
wait $waiting || fail "who waited: $(cat "$dir/out")"
grep -q ext4 "$dir/out" || fail "who waited saw: $(cat "$dir/out")"
fsck.ext4 -fn "$here" >"$dir/out" 2>&1 || fail "fsck: $(cat "$dir/out")"
mount -o noatime,noinit_itable "$here" "$dir/mnt" && diff -r docs "$dir/mnt/docs" || fail "content"
fails dd if="$there" of=/dev/null bs=4k count=1 iflag=direct || fail "what moved away is read"
on a detach v || fail "detach what moved away"

# away under a mounted file system, and back
dd if=/dev/urandom of="$dir/mnt/file" bs=1M count=4 conv=fsync 2>/dev/null || fail "write"
sum=$(sha256sum <"$dir/mnt/file")
sync -f "$dir/mnt"
on a migrate v --to a >/dev/null || fail "migrate, mounted"
echo 3 >/proc/sys/vm/drop_caches
fails dd if="$here" of=/dev/null bs=4k count=1 iflag=direct || fail "what moved away is read"
refused 1 'mount' on b detach v
on b migrate v --to b >/dev/null || fail "and back"
[ "$(sha256sum <"$dir/mnt/file")" = "$sum" ] || fail "content after it came back"
dd if=/dev/urandom of="$dir/mnt/file2" bs=1M count=4 conv=fsync 2>/dev/null || fail "write after it came back"
umount "$dir/mnt"
fsck.ext4 -fn "$here" >"$dir/out" 2>&1 || fail "fsck: $(cat "$dir/out")"

# the kernel's memory of a device: what was written and not synced goes along, and what another host wrote meanwhile is seen when it comes back, and stays
there=$(on a list --json | jq -r '.[0].device')
block() { head -c 4096 /dev/zero | tr '\0' "$1"; }
put() { block "$2" | dd of="$1" bs=4k seek="$3" conv=notrunc ${4:+oflag=$4} 2>"$dir/out" || fail "write: $(cat "$dir/out")"; } # DEVICE CHARACTER BLOCK [FLAG]
has() { [ "$(dd if="$1" bs=4k skip="$3" count=1 ${4:+iflag=$4} 2>/dev/null | head -c 1)" = "$2" ] || fail "$5"; }
put "$here" 1 0
put "$here" 1 1
while dd if="$here" of=/dev/null bs=4k count=1 2>/dev/null; do :; done & # which keeps it there
reader=$!
on b migrate v --to a >/dev/null || fail "migrate"
has "$there" 1 1 direct "what wasn't synced is lost"
put "$here" 3 2 || true # in memory, of a device that isn't the volume's now
put "$there" 2 0 direct
put "$there" 2 2 direct
on a migrate v --to b >/dev/null || fail "and back"
kill $reader 2>/dev/null && wait $reader || true
has "$here" 2 0 "" "what was in memory before is read"
! sync "$here" 2>/dev/null || fail "nobody is told"
has "$here" 2 2 direct "what was in memory while it was away is written"
refused 1 "Input/output error" on b detach v # it tells of that
on b detach v && on a detach v || fail "detach: $(on a list; on b list)"
echo "a block device moves: who reads it waits; a mounted file system survives the way there and back"
