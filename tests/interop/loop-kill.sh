#!/bin/bash
# kill -9 of the tapdisk under I/O: nothing hangs, the device is freed, attaching again works, and everything acknowledged
# is there. LONG=1: 100 rounds.
. "$(dirname "$0")/lib/loop"
begin mkfs.ext4
rounds=5
[ "$LONG" = 1 ] && rounds=100

truncate -s 64M "$work/a.img"
for i in $(seq $rounds); do
	attach "$work/a.img" || fail "no device in round $i"
	[ "$i" = 1 ] || hammer --check --acked --log "$work/known" "$device" >/dev/null || fail "round $i: acknowledged writes are lost"
	hammer --seconds 10 --threads 8 --zero --discard --until-error --log "$work/known" --kill "$server:0.7" "$device" >/dev/null ||
		fail "round $i: hammer"
	gone || fail "round $i: the killed tapdisk does not end"
	is_free "$device" || fail "round $i: the device is not free"
done
attach "$work/a.img" || fail "no device after the last round"
hammer --check --acked --log "$work/known" "$device" || fail "acknowledged writes are lost"

# Killed while it is just making the device: a thread of its own waits for its answers then.
detach
for i in $(seq $((rounds * 4))); do
	"$B/aquifer" attach "$work/a.img" --as loop --name "$name" >/dev/null 2>&1 &
	attacher=$!
	sleep "0.0$((RANDOM % 60 + 10))"
	for server in $(pgrep -f "aquifer-tapdisk .*--root $work/root "); do
		kill -9 "$server" 2>/dev/null
		gone || fail "a tapdisk killed while it starts does not end: $(cat /proc/$server/task/*/stack 2>/dev/null)"
	done
	wait $attacher
	"$B/aquifer" detach "$name" >/dev/null 2>&1
	is_free "$device" || fail "a tapdisk killed while it starts leaves a device"
done
attach "$work/a.img" || fail "no device after all that"

# Dirty pages in the device's own page cache, and nobody but the tapdisk has it open: it must not wait for itself.
dd if=/dev/urandom of="$device" bs=1M count=48 status=none
kill -9 "$server"
gone || fail "a killed tapdisk waits for its own dirty pages: $(cat "/proc/$server/stack" 2>/dev/null)"
is_free "$device" || fail "the device is not free after dirty pages"

# Mounted: I/O errors, no hang; the device goes with the umount.
attach "$work/a.img" || fail "no device for a file system"
mkfs.ext4 -q "$device" && mount_it "$device" "$work/m" || fail "mount"
dd if=/dev/zero of="$work/m/x" bs=64k count=100000 oflag=direct status=none 2>/dev/null &
writer=$!
sleep 0.5
kill -9 "$server"
gone || fail "the killed tapdisk does not end under a file system"
for _ in $(seq 100); do kill -0 $writer 2>/dev/null || break; sleep 0.1; done
kill -0 $writer 2>/dev/null && fail "a writer hangs"
for what in "losetup -a" df mount lsblk; do
	command -v ${what%% *} >/dev/null || continue
	timeout 10 $what >/dev/null 2>&1
	[ $? != 124 ] || fail "$what hangs"
done
old=$device
attach "$work/a.img" || fail "the image can't be attached while the dead device is mounted"
[ "$device" != "$old" ] || fail "a mounted device was given away"
"$B/aquifer" detach "$name" || fail "detach beside the dead device"
timeout 10 umount "$work/m" || fail "umount hangs"
is_free "$old" || fail "the device is not free after umount"
grep " - fuse.aquifer " /proc/self/mountinfo && fail "a FUSE mount is left"
echo "$((rounds + 2)) kills: no hang, devices freed, everything acknowledged is there"
