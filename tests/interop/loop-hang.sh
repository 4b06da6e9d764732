#!/bin/bash
# A tapdisk that is stopped (as one that hangs would be) holds up its own users, and nobody else; and there is a way out.
. "$(dirname "$0")/lib/loop"
begin mkfs.ext4
truncate -s 64M "$work/a.img"
attach "$work/a.img" || fail "no device"
mkfs.ext4 -q "$device" && mount_it "$device" "$work/m" || fail "mount"
# The FUSE file system must not be visible in any mount table.
grep -l " - fuse.aquifer " /proc/[0-9]*/mountinfo 2>/dev/null | head -n 1 | grep . && fail "the FUSE mount is visible"
echo x >"$work/m/x"; sync -f "$work/m"
hung=$server hung_device=$device
kill -STOP "$hung"
dd if=/dev/zero of="$work/m/y" bs=4k count=1 oflag=direct status=none 2>/dev/null &
writer=$!
sleep 0.3
for what in "losetup -a" "losetup -l" "losetup -f" "losetup -j $work/a.img" "df -l" mount lsblk \
	"cat /sys/block/$(basename "$device")/loop/backing_file"; do
	command -v ${what%% *} >/dev/null || continue
	timeout 10 $what >/dev/null 2>&1
	[ $? != 124 ] || fail "$what hangs"
done
timeout 10 losetup -a | grep -q "^$device: .*/aquifer/$name" || fail "losetup does not show the device"
# Others can still be attached and used.
truncate -s 16M "$work/b.img"
attach "$work/b.img" "${name}b" || fail "nothing can be attached while another tapdisk hangs"
dd if=/dev/zero of="$device" bs=1M count=4 oflag=direct status=none || fail "another device does not work"
detach "${name}b"
# The way out.
timeout 60 "$B/aquifer" detach --force "$name" || fail "a hung tapdisk can't be detached by force"
for _ in $(seq 100); do kill -0 $writer 2>/dev/null || break; sleep 0.1; done
kill -0 $writer 2>/dev/null && fail "the writer still hangs"
timeout 20 umount "$work/m" || fail "umount hangs"
is_free "$hung_device" || fail "the device is not free"
echo "a stopped tapdisk holds up nobody else"
