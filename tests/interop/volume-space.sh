#!/bin/bash
# Space comes back (P6). On a disk of its own: a volume two thirds full under random overwrites for several times its size takes at
# most 1.5 of its live data and what the log and open segments may; nothing is ever refused, all of it reads as it was written;
# the same after a crash. What a file system on it discards is free within a minute, and what a snapshot held, once that is deleted.
. tests/interop/lib/agent
need jq qemu-io fio mkfs.ext4 fstrim
need_loop
fio --enghelp | grep -qw nbd || { echo "skipped: fio has no nbd engine"; exit 77; }
store=$AQUIFER_ROOT/var/lib/aquifer
mkdir -p "$store" "$dir/mnt"
truncate -s 1G "$dir/disk"
mkfs.ext4 -q -m 0 "$dir/disk"
mount -o loop "$dir/disk" "$store"
trap 'umount "$dir/mnt" 2>/dev/null || true; aquifer detach --all --force >/dev/null 2>&1 || true; umount "$store" 2>/dev/null || true; cleanup' EXIT

used_mb() { du -sm "$store" | cut -f 1; }
# The part that isn't live: no more than half of what is, and 3 segments of 16 MiB, the pool of 2, the log of 192 MiB.
most_mb() { echo $(($1 * 3 / 2 + 5 * 16 + 200)); }
load() { # SEED MIB
	timeout 120 fio --ioengine=nbd --uri="$uri" --name=load --rw=randwrite --bs=4k --iodepth=32 --size=128m --io_size="$2m" --norandommap \
		--randseed="$1" --output="$dir/fio" || fail "writing: $(cat "$dir/fio")"
}

# ---- random overwrites ----
aquifer volume create v 216M
uri=$(aquifer attach v --as nbd)
timeout 60 qemu-io -f raw -c 'write -P 7 128M 16M' "$uri" >/dev/null
for round in 1 2; do
	load $round 320
	[ "$(used_mb)" -le "$(most_mb 144)" ] || fail "round $round: $(used_mb) MiB are taken for 144 live ones, $(most_mb 144) allowed"
done
timeout 60 fio --ioengine=nbd --uri="$uri" --name=pattern --rw=randwrite --bs=4k --iodepth=32 --size=128m --verify_state_save=0 --verify=crc32c --do_verify=0 \
	--randseed=9 --output="$dir/fio" || fail "writing: $(cat "$dir/fio")"
verify() {
	timeout 60 fio --ioengine=nbd --uri="$uri" --name=pattern --rw=randwrite --bs=4k --iodepth=32 --size=128m --verify_state_save=0 --verify=crc32c --verify_only \
		--randseed=9 --output="$dir/fio" || fail "$1: $(cat "$dir/fio")"
	timeout 60 qemu-io -f raw -c 'read -P 7 128M 16M' "$uri" | grep -q 'read 16777216/16777216' || fail "$1: what was written once is gone"
}
verify "after packing"
kill -9 "$(field v pid)"
until_true 10 eval '! aquifer show v >/dev/null 2>&1 || [ "$(field v state)" != running ]' || true
aquifer detach v --force >/dev/null 2>&1 || true
uri=$(aquifer attach v --as nbd)
verify "after a crash"
aquifer detach v
aquifer volume delete v
until_true 20 eval '[ "$(used_mb)" -lt 60 ]' || fail "the volume is gone, and $(used_mb) MiB are taken"

# ---- discards, and snapshots ----
aquifer volume create d 400M
dev=$(aquifer attach d)
mkfs.ext4 -q "$dev"
mount "$dev" "$dir/mnt"
dd if=/dev/urandom of="$dir/mnt/keep" bs=1M count=20 status=none
dd if=/dev/urandom of="$dir/mnt/gone" bs=1M count=200 status=none
sync -f "$dir/mnt/gone"
sum=$(md5sum <"$dir/mnt/keep")
[ "$(used_mb)" -ge 220 ] || fail "220 MiB were written, $(used_mb) are taken"
rm "$dir/mnt/gone"
sync -f "$dir/mnt"
fstrim "$dir/mnt"
until_true 60 eval '[ "$(used_mb)" -le 110 ]' || fail "discarded a minute ago, and $(used_mb) MiB are taken"
dd if=/dev/urandom of="$dir/mnt/held" bs=1M count=100 status=none
sync -f "$dir/mnt"
aquifer snapshot create d@s
rm "$dir/mnt/held"
sync -f "$dir/mnt"
fstrim "$dir/mnt"
sleep 1
[ "$(used_mb)" -ge 120 ] || fail "a snapshot holds 120 MiB, and only $(used_mb) are taken"
aquifer snapshot create d@s2
refused 1 "no snapshot 'd@s3'" aquifer snapshot delete d@s d@s3
aquifer snapshot delete d@s d@s2
until_true 60 eval '[ "$(used_mb)" -le 110 ]' || fail "the snapshot is gone, and $(used_mb) MiB are taken"
[ "$(md5sum <"$dir/mnt/keep")" = "$sum" ] || fail "what was kept has changed"
umount "$dir/mnt"
aquifer detach d
