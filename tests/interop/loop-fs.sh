#!/bin/bash
# File systems on a loop device of ours: stress-ng's file stressors on ext4, xfs and btrfs, a tree copied and compared after
# a detach, and what fsck says. LONG=1: a minute each, and all of stress-ng's file system stressors in turn (set TEST_LIMIT=900).
. "$(dirname "$0")/lib/loop"
begin mkfs.ext4 mkfs.xfs mkfs.btrfs xfs_repair stress-ng fstrim
run=3
[ "$LONG" = 1 ] && run=60

check_fs() {
	case $1 in
	ext4) fsck.ext4 -fn "$device" ;;
	xfs) xfs_repair -n "$device" ;;
	btrfs) btrfs check --readonly "$device" ;;
	esac >"$work/fsck" 2>&1 || { tail -n 20 "$work/fsck"; fail "$1: fsck finds damage"; }
}

for fs in ext4 xfs btrfs; do
	truncate -s 1G "$work/$fs.img"
	attach "$work/$fs.img" || fail "no device"
	"mkfs.$fs" -q "$device" >/dev/null || fail "$fs: mkfs"
	mount_it "$device" "$work/m" || fail "$fs: mount"
	cp -a "$here/core" "$work/m/tree"
	stress-ng --temp-path "$work/m" --timeout ${run}s --hdd 1 --hdd-bytes 16M --hdd-opts direct,fsync --iomix 1 --iomix-bytes 16M \
		--aiol 1 --copy-file 1 --copy-file-bytes 128M --fallocate 1 --fallocate-bytes 16M --verify \
		>"$work/stress" 2>&1 || { tail -n 20 "$work/stress"; fail "$fs: stress-ng"; }
	if [ "$LONG" = 1 ]; then # 3: some of them have something missing on this machine
		stress-ng --class filesystem --sequential 1 --timeout 1s --temp-path "$work/m" --verify >"$work/stress" 2>&1
		case $? in 0|3) ;; *) tail -n 20 "$work/stress"; fail "$fs: stress-ng --class filesystem" ;; esac
	fi
	fstrim "$work/m" || fail "$fs: fstrim"
	umount "$work/m" || fail "$fs: umount"
	check_fs $fs
	detach
	attach "$work/$fs.img" || fail "no device the second time"
	mount_it "$device" "$work/m" || fail "$fs: mount again"
	diff -r "$here/core" "$work/m/tree" || fail "$fs: the tree is not what was copied"
	umount "$work/m"
	detach
	rm "$work/$fs.img"
	echo "$fs: stressed for $run s, checked, compared"
done
