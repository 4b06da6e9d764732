#!/bin/bash
# nbdfuse: the export as a file, with ordinary tools upon it.
. tests/interop/lib/nbd
need nbdfuse fusermount3 cmp dd truncate
[ -c /dev/fuse ] || { echo "skipped: no /dev/fuse"; exit 77; }

truncate -s 32M "$dir/a.img"
serve "raw($dir/a.img)"
mkdir "$dir/mnt"
nbdfuse "$dir/mnt/disk" "$uri" &
fuse=$!
i=0
while [ ! -e "$dir/mnt/disk" ]; do
	i=$((i + 1))
	[ $i -lt 100 ] || fail "nbdfuse does not mount"
	sleep 0.05
done
dd if=/dev/urandom of="$dir/data" bs=1M count=10 status=none
dd if="$dir/data" of="$dir/mnt/disk" bs=256K seek=3 conv=notrunc,fsync status=none || fail "writing through nbdfuse"
dd if="$dir/mnt/disk" of="$dir/back" bs=64K skip=12 count=160 status=none || fail "reading through nbdfuse"
cmp "$dir/data" "$dir/back" || fail "nbdfuse reads something else"
[ "$(stat -c %s "$dir/mnt/disk")" = 33554432 ] || fail "the size through nbdfuse"
fusermount3 -u "$dir/mnt"
wait $fuse || true
unserve
cmp -n 10485760 -i 786432:0 "$dir/a.img" "$dir/data" || fail "the file has something else"
