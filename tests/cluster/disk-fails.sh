#!/bin/bash
# limit: 180
# A server's file system becomes read only: it is one that failed, and it is said which and why. With another one away as well writes wait, however long that takes, and go on when
# that is back; and all becomes well when the disk is mended.
cd "$(dirname "$0")/../.."
. tests/cluster/lib

cluster_up
volume_up
guest_up "${SEED:-1}"
sleep 0.5
mount -o remount,abort "$dir/disk3"
guest_checks "with a disk that fails"
[ "$errors" = 0 ] || fail "a disk of three fails, and the guest saw $errors errors"
named() { ! healthy && grep -q "volume v: .* have fewer than 3 copies; disks that fail: tls:${address[3]}:7000 (Read-only file system)" "$dir/status"; }
until_true 30 named || fail "status doesn't say which: $(cat "$dir/status")"
killed 1
waits() { on a list | grep ' wait since ' | grep -q "${address[1]}:7000.*${address[3]}:7000 (Read-only file system)"; }
until_true 30 waits || fail "one is away and one fails: $(on a list)"
sleep 15 # longer than one asks again where there is one server only
waits || fail "one is away and one fails, for long: $(on a list)"
server_up 1
guest_checks "with the other one back"
[ "$errors" = 0 ] || fail "one server was away and one's disk failed, and the guest saw $errors errors"
killed 3
umount "$dir/disk3"
fsck.ext4 -fy "$dir/image3" >"$dir/fsck" 2>&1 || [ $? -le 2 ] || fail "fsck: $(cat "$dir/fsck")"
mount -o loop "$dir/image3" "$dir/disk3"
server_up 3
until_true 60 healthy || fail "the disk is mended: $(cat "$dir/status")"
guest_ends
checked a || fail "cluster check: $(cat "$dir/check")"
echo "a disk failed, and another server was away: no errors, nothing is lost"
