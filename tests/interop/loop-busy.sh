#!/bin/bash
# Detaching is refused while the device is in use, naming the user; by force it is not, and the kernel frees the device
# at its last close.
. "$(dirname "$0")/lib/loop"
begin mkfs.ext4 mkfs.btrfs unshare
refused() { # TEXT: a detach now is refused with TEXT
	"$B/aquifer" detach "$name" 2>"$work/errors" && fail "detached in spite of: $1"
	grep -qF "$1" "$work/errors" || fail "wanted: $1; got: $(cat "$work/errors")"
}
sleeps() { for _ in $(seq 200); do [ "$(cat /proc/$sleeper/comm)" = sleep ] && break; sleep 0.05; done; }
truncate -s 128M "$work/a.img"
attach "$work/a.img" || fail "no device"
mkfs.ext4 -q "$device" && mount_it "$device" "$work/m" || fail "mount"
refused "$device is mounted at $work/m"
umount "$work/m"
mkfs.btrfs -fq "$device" >/dev/null && mount "$device" "$work/m" || fail "mount btrfs"
refused "mounted at $work/m"
umount "$work/m"
sleep 60 <"$device" &
sleeper=$!
refused "open by sleep (pid $sleeper)"
# It goes on working after a refusal.
dd if=/dev/urandom of="$device" bs=1M count=1 oflag=direct status=none || fail "the device is broken by the refusal"
kill $sleeper; wait $sleeper 2>/dev/null
inner=$(losetup --show -f "$device") || fail "a loop device over ours"
refused "held by $(basename "$inner")"
losetup -d "$inner"
if unshare -m true 2>/dev/null; then # a mount that our namespace doesn't show
	mkfs.ext4 -Fq "$device"
	unshare -m sh -c "mount '$device' '$work/m' && exec sleep 60" &
	sleeper=$!
	sleeps
	refused "mounted at $work/m in the mount namespace of sleep (pid $sleeper)"
	kill $sleeper; wait $sleeper 2>/dev/null
	# one that ours shows, and that another has a copy of, as services do, is said once
	mount "$device" "$work/m" || fail "mount"
	unshare -m sleep 60 &
	sleeper=$!
	sleeps
	grep -q " $work/m " /proc/$sleeper/mountinfo || fail "no copy of the mount"
	refused "$device is mounted at $work/m (end"
	umount "$work/m"
	refused "$device is mounted at $work/m in the mount namespace of sleep (pid $sleeper) (end"
	kill $sleeper; wait $sleeper 2>/dev/null
fi
if command -v partx >/dev/null; then # a user of a partition, which is none of the device itself
	# An MBR with one Linux partition, from sector 2048 on, of 65536 sectors.
	{ head -c 446 /dev/zero; printf '\0\0\0\0\x83\0\0\0\0\x08\0\0\0\0\1\0'; head -c 48 /dev/zero; printf '\x55\xaa'; } >"$work/table"
	dd if="$work/table" of="$device" status=none && partx -a "$device" || fail "make a partition known"
	partition=${device}p1
	if [ -b "$partition" ]; then
		mkfs.ext4 -Fq "$partition" && mount "$partition" "$work/m" || fail "mount a partition"
		refused "mounted at $work/m"
		umount "$work/m"
		old=$device
		detach
		[ -e "/sys/block/$(basename "$old")/$(basename "$partition")" ] && fail "a partition stays behind"
		attach "$work/a.img" || fail "no device"
	fi
fi
# By force, mounted: the tapdisk ends, the kernel frees the device with the umount.
mkfs.ext4 -Fq "$device" && mount "$device" "$work/m" || fail "mount for force"
timeout 60 "$B/aquifer" detach --force "$name" || fail "force"
gone || fail "the tapdisk does not end by force"
is_free "$device" && fail "freed under a mounted file system"
timeout 10 umount "$work/m" || fail "umount hangs"
is_free "$device" || fail "not freed at the last close"
# Unused, by force: as clean as without; what was in the page cache is written.
attach "$work/a.img" || fail "no device"
hammer --seconds 1 --buffered --flush-every 0 --log "$work/known" "$device" >/dev/null || fail hammer
"$B/aquifer" detach --force "$name" || fail "force without users"
attach "$work/a.img" || fail "no device"
hammer --check --acked --log "$work/known" "$device" >/dev/null || fail "force without users lost buffered writes"
detach
# By force, over a node that does not answer for a while: the connection is cut after 5 s, and the device is free then.
attach "delay(raw($work/a.img), flush=8s)" || fail "no device over a slow node"
"$B/aquifer" detach --force "$name" &
detacher=$!
for _ in $(seq 75); do
	grep -q "^/aquifer/$name\$" "/sys/block/$(basename "$device")/loop/backing_file" 2>/dev/null || break
	sleep 0.1
done
is_free "$device" || fail "a node that does not answer keeps the device"
wait $detacher || fail "force over a slow node"
echo "refusals name the user"
