#!/bin/bash
# Flush, FUA, discard and write-zeroes arrive at the node, as counted there.
. "$(dirname "$0")/lib/loop"
begin blkdiscard fstrim mkfs.ext4 blockdev

# more OP FIELD COMMAND…: the command must raise the counter, by $grown
more() {
	local op=$1 field=$2 before after
	shift 2
	before=$(counter "$op" "$field")
	"$@" || fail "$*"
	after=$(counter "$op" "$field")
	[ "$after" -gt "$before" ] || fail "$*: no $op arrived"
	grown=$((after - before))
}
grew() { [ "$grown" = "$1" ] || fail "$2: $1 bytes sent, $grown arrived"; }

truncate -s 128M "$work/a.img"
attach "$work/a.img" || fail "no device"
sys=/sys/block/$(basename "$device")
[ "$(cat "$sys/loop/dio")" = 1 ] || fail "direct I/O is off"
[ "$(cat "$sys/queue/write_cache")" = "write back" ] || fail "the device claims to need no flushes"

more write bytes dd if=/dev/urandom of="$device" bs=1M count=64 oflag=direct status=none
grew $((64 << 20)) dd
more flush requests sync "$device"
more flush requests dd if=/dev/zero of="$device" bs=4k count=1 oflag=direct,dsync conv=notrunc status=none # FUA, as loop has it
more discard bytes blkdiscard -o 8M -l 4M "$device"
grew $((4 << 20)) blkdiscard
more zero bytes blkdiscard -z -o 16M -l 4M "$device"
grew $((4 << 20)) "blkdiscard -z"
cmp -n $((4 << 20)) -i $((8 << 20)):0 "$device" /dev/zero || fail "discarded blocks are not zeroes"
cmp -n $((4 << 20)) -i $((16 << 20)):0 "$device" /dev/zero || fail "zeroed blocks are not zeroes"
before=$(stat -c %b "$work/a.img")
more discard bytes blkdiscard "$device"
[ "$(stat -c %b "$work/a.img")" -lt "$before" ] || fail "a discard freed nothing in the file"

mkfs.ext4 -q "$device" || fail mkfs
mount_it "$device" "$work/m" || fail mount
dd if=/dev/urandom of="$work/m/x" bs=1M count=16 status=none
more flush requests sync -f "$work/m/x"
rm "$work/m/x"; sync -f "$work/m"
more discard bytes fstrim "$work/m"
[ "$grown" -ge $((16 << 20)) ] || fail "fstrim: only $grown bytes arrived"
umount "$work/m"
detach

attach "$work/a.img" "$name" --read-only || fail "no read-only device"
[ "$(blockdev --getro "$device")" = 1 ] || fail "the device is not read-only"
mount_it "$device" "$work/m" "-o ro" || fail "read-only mount"
umount "$work/m"
dd if=/dev/zero of="$device" bs=4k count=1 oflag=direct status=none 2>/dev/null && fail "a read-only device took a write"
blkdiscard "$device" 2>/dev/null && fail "a read-only device took a discard"
detach

# An error below comes out above, on flushes too, and is no lasting one.
attach "error(raw($work/a.img), op=flush)" || fail "no device over an error node"
sync "$device" 2>/dev/null && fail "a failed flush was reported as done"
"$B/aquifer" detach --force "$name" >/dev/null 2>&1 || fail "forced detach"
is_free "$device" || fail "the device is not free"
echo "flush, FUA, discard, write-zeroes, read-only and errors arrive"
