#!/bin/bash
# A cow layer on a file system that is full: writes are refused, and what was not refused can be flushed and is there afterwards. On ext4 and xfs.
. tests/interop/lib/nbd
need qemu-io mkfs.ext4 mkfs.xfs truncate
[ "$(id -u)" -eq 0 ] && [ -c /dev/loop-control ] || { echo "skipped: mounting a disk of its own needs root and /dev/loop-control"; exit 77; }
trap 'umount -l "$dir/mnt" 2>/dev/null || true; cleanup' EXIT
mkdir "$dir/mnt"
truncate -s 2G "$dir/gold.img"
io() { timeout 60 qemu-io -f raw "$@" >"$dir/io" 2>&1 && ! grep -Eq 'Pattern verification failed|failed:' "$dir/io"; }

for fs in ext4 xfs; do
	truncate -s 300M "$dir/disk"
	"mkfs.$fs" -q "$dir/disk" && mount -o loop "$dir/disk" "$dir/mnt" || fail "$fs"
	serve "cow($dir/mnt/top.cow, ro(raw($dir/gold.img)))"
	io -c flush "$uri" || fail "$fs: flush: $(cat "$dir/io")"
	for size in 1M 4k; do dd if=/dev/zero of="$dir/mnt/junk$size" bs=$size 2>/dev/null || true; done
	truncate -s -40k "$dir/mnt/junk1M"
	n=0
	while io -c "write -P $((n + 1)) $((n * 63))M 4k" "$uri"; do
		n=$((n + 1))
		[ $n -lt 30 ] || fail "$fs: not full: $(df "$dir/mnt")"
	done
	grep -q 'No space left on device' "$dir/io" || fail "$fs: not refused as it should be: $(cat "$dir/io")"
	io -c flush "$uri" || fail "$fs: of $n writes a flush fails: $(cat "$dir/io")"
	unserve || fail "$fs: closing: $(cat "$dir/errors")"
	serve "cow($dir/mnt/top.cow, ro(raw($dir/gold.img)))"
	for i in $(seq 0 $((n - 1))); do io -c "read -P $((i + 1)) $((i * 63))M 4k" "$uri" || fail "$fs: write $i is lost: $(cat "$dir/io")"; done
	unserve
	umount "$dir/mnt"
	rm "$dir/disk"
	echo "$fs: $n groups were taken, and are there"
done
