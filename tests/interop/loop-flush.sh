#!/bin/bash
# Flush, FUA, discard and write-zeroes arrive at the node, as counted there.
. "$(dirname "$0")/loop.inc"
begin blkdiscard fstrim mkfs.ext4

# more OP FIELD COMMAND…: the command must raise the counter
more() {
	local op=$1 field=$2 before after
	shift 2
	before=$(counter "$op" "$field")
	"$@" || fail "$*"
	after=$(counter "$op" "$field")
	[ "$after" -gt "$before" ] || fail "$*: no $op arrived"
	grown=$((after - before))
}

truncate -s 128M "$work/a.img"
serve $loop_name raw "$work/a.img" || fail "no device"
name=$(basename "$device")
[ "$(cat "/sys/block/$name/loop/dio")" = 1 ] || fail "direct I/O is off"
[ "$(cat "/sys/block/$name/queue/write_cache")" = "write back" ] || fail "the device claims to need no flushes"

more write 3 dd if=/dev/urandom of="$device" bs=1M count=64 oflag=direct status=none
[ $grown = $((64 << 20)) ] || fail "64 MiB written, $grown bytes arrived"
more flush 2 sync "$device"
more flush 2 dd if=/dev/zero of="$device" bs=4k count=1 oflag=direct,dsync conv=notrunc status=none # FUA, as far as loop has it
more discard 3 blkdiscard -o 8M -l 4M "$device"
[ $grown = $((4 << 20)) ] || fail "4 MiB discarded, $grown bytes arrived"
more zero 3 blkdiscard -z -o 16M -l 4M "$device"
[ $grown = $((4 << 20)) ] || fail "4 MiB zeroed, $grown bytes arrived"
cmp -n $((4 << 20)) -i $((8 << 20)):0 "$device" /dev/zero || fail "discarded blocks are not zeroes"
cmp -n $((4 << 20)) -i $((16 << 20)):0 "$device" /dev/zero || fail "zeroed blocks are not zeroes"
before=$(stat -c %b "$work/a.img")
more discard 3 blkdiscard "$device"
[ "$(stat -c %b "$work/a.img")" -lt $before ] || fail "a discard freed nothing in the file"

mkfs.ext4 -q "$device" || fail mkfs
mount_it "$device" "$work/m" || fail mount
dd if=/dev/urandom of="$work/m/x" bs=1M count=16 status=none
more flush 2 sync -f "$work/m/x"
rm "$work/m/x"; sync -f "$work/m"
more discard 3 fstrim "$work/m"
[ $grown -ge $((16 << 20)) ] || fail "fstrim: only $grown bytes arrived"
umount "$work/m"
detach

serve --read-only $loop_name raw "$work/a.img" || fail "no read-only device"
[ "$(blockdev --getro "$device")" = 1 ] || fail "the device is not read-only"
mount_it "$device" "$work/m" "-o ro" || fail "read-only mount"
umount "$work/m"
dd if=/dev/zero of="$device" bs=4k count=1 oflag=direct status=none 2>/dev/null && fail "a read-only device took a write"
blkdiscard "$device" 2>/dev/null && fail "a read-only device took a discard"
detach
echo "flush, FUA, discard, write-zeroes and read-only arrive"
