#!/bin/bash
# raw on a block device with 4096-byte sectors: 512-byte requests, zeroes, discard, locks, and fio's verification
# of mixed sizes, compared with what the kernel reads; one that is mounted.
. tests/interop/lib/nbd
need qemu-io truncate losetup fio cmp mkfs.ext4
[ "$(id -u)" -eq 0 ] && [ -c /dev/loop-control ] || { echo "skipped: needs root and loop devices"; exit 77; }

backing=$(mktemp "${TMPDIR:-/var/tmp}/aquifer-raw.XXXXXX") # not in a tmpfs: direct I/O is tested
truncate -s 64M "$backing"
loop=$(losetup --find --show --sector-size 4096 --direct-io=on "$backing" 2>/dev/null) ||
	{ rm -f "$backing"; echo "skipped: no loop device with 4096-byte sectors"; exit 77; }
trap 'umount "$dir/mnt" 2>/dev/null || true; cleanup; losetup -d "$loop"; rm -f "$backing"' EXIT

# Mounted, it is only for readers; and what is written here can't be mounted.
refused() {
	if timeout 20 "$B/aquifer-tapdisk" --root "$dir/root" --export "nbd:$dir/second.sock" --name second "raw($loop)" >"$dir/second.log" 2>&1; then
		fail "it was let in: $1"
	fi
	grep -q "$1" "$dir/second.log" || fail "the refusal doesn't say '$1': $(cat "$dir/second.log")"
}
mkdir "$dir/mnt"
mkfs.ext4 -q "$loop" && mount "$loop" "$dir/mnt"
refused "$loop is mounted, or a part of another device"
serve "ro(raw($loop))"
unserve
umount "$dir/mnt"
serve "raw($loop)"
! mount "$loop" "$dir/mnt" 2>/dev/null || { umount "$dir/mnt"; fail "a device that is written can be mounted"; }
io() {
	out=$(qemu-io -f raw "$@" "$uri" 2>&1) || fail "qemu-io $*: $out"
	case $out in
	*[Ff]ailed* | *rror* | *mismatch*) fail "qemu-io $*: $out" ;;
	esac
}
io -c 'write -P 0x11 0 1M' -c 'write -P 0x22 512 512' -c 'write -f -P 0x33 1536 4k' -c 'flush' \
	-c 'read -P 0x11 0 512' -c 'read -P 0x22 512 512' -c 'read -P 0x11 1k 512' -c 'read -P 0x33 1536 4k' \
	-c 'read -P 0x11 5632 2560'
io -c 'write -z 8704 512' -c 'read -P 0x11 8k 512' -c 'read -P 0 8704 512' -c 'read -P 0x11 9216 512'
io -c 'write -z -u 64k 64k' -c 'read -P 0 64k 64k' -c 'write -z 255k 66k' -c 'read -P 0 255k 66k' -c 'read -P 0x11 254k 1k' \
	-c 'read -P 0x11 321k 1k'
io -c 'discard 512k 64k' -c 'discard 700k 512' -c 'read -P 0x11 576k 64k'
[ "$(dd if="$loop" bs=4096 count=1 iflag=direct status=none | od -An -tx1 -j512 -N1 | tr -d ' ')" = 22 ] ||
	fail "the device has something else"

(cd "$dir" && fio --name=x --ioengine=nbd --uri="$uri" --filesize=32M --size=32M --io_size=24M --rw=randwrite \
	--bsrange=512-48k --blockalign=512 --iodepth=16 --verify_state_save=0 --verify=crc32c --do_verify=1 --verify_fatal=1 >fio.log 2>&1) ||
	fail "fio: $(tail -n 5 "$dir/fio.log")"

refused "$loop is in use by .*pid"
unserve
