#!/bin/bash
# A server that is stopped (as one that hangs would be) holds up its own users, and nobody else; and there is a way out.
. "$(dirname "$0")/loop.inc"
begin mkfs.ext4
truncate -s 64M "$work/a.img"
serve $loop_name raw "$work/a.img" || fail "no device"
mkfs.ext4 -q "$device" && mount_it "$device" "$work/m" || fail "mount"
# The mount must not be visible, here or anywhere: nothing of fuse.aquifer in any mount table.
grep -l " - fuse.aquifer " /proc/[0-9]*/mountinfo 2>/dev/null | head -n 1 | grep . && fail "the FUSE mount is visible"
echo x >"$work/m/x"; sync -f "$work/m"
kill -STOP $server
dd if=/dev/zero of="$work/m/y" bs=4k count=1 oflag=direct status=none 2>/dev/null &
writer=$!
sleep 0.3
losetup=$(command -v losetup)
for what in "$losetup -a" "$losetup -l" "$losetup -f" "$losetup -j $work/a.img" "df -l" mount "lsblk" "cat /sys/block/$(basename "$device")/loop/backing_file"; do
	command -v ${what%% *} >/dev/null || continue
	timeout 10 $what >/dev/null 2>&1
	[ $? != 124 ] || fail "$what hangs"
done
timeout 10 "$losetup" -a | grep -q "^$device: .*/aquifer/$loop_name" || fail "losetup does not show the device"
# Others can still be attached and used.
hung=$server hung_device=$device
truncate -s 16M "$work/b.img"
serve $loop_name raw "$work/b.img" || fail "nothing can be attached while another server hangs"
dd if=/dev/zero of="$device" bs=1M count=4 oflag=direct status=none || fail "another device does not work"
detach
# The way out.
timeout 10 "$tools/loopserve" --abort "$hung_device" || fail "abort"
for _ in $(seq 100); do kill -0 $writer 2>/dev/null || break; sleep 0.1; done
kill -0 $writer 2>/dev/null && fail "the writer still hangs after the abort"
timeout 20 umount "$work/m" || fail "umount hangs after the abort"
kill -9 $hung
wait $hung 2>/dev/null
is_free "$hung_device" || fail "the device is not free"
"$tools/loopserve" --abort "$hung_device" 2>/dev/null && fail "aborting a free device is no error"
echo "a stopped server holds up nobody else"
