#!/bin/bash
# A user without privileges and with little memory that may be locked: volumes over NBD work, loop devices are refused with the reason.
cd "$(dirname "$0")/../.."
. tests/interop/lib/agent
need qemu-io setpriv jq
[ "$(id -u)" -eq 0 ] || { echo "skipped: needs root, to become another user"; exit 77; }
chmod 755 "$dir"
mkdir "$dir/bin"
cp "$B"/aquifer "$B"/aquifer-agent "$B"/aquifer-tapdisk "$dir/bin"
chmod 755 "$dir/bin"/*
chown 65534:65534 "$AQUIFER_ROOT"
# Every process of this test is that user's, or none could be spoken to.
aquifer() { (ulimit -l 64 && exec setpriv --reuid 65534 --regid 65534 --clear-groups --bounding-set -all --inh-caps -all "$dir/bin/aquifer" "$@"); }

aquifer volume create v 64M || fail "volume create"
uri=$(aquifer attach v --as nbd) || fail "attach"
as_user=$(stat -c %u "/proc/$(field v pid)")
[ "$as_user" = 65534 ] || fail "the tapdisk runs as $as_user"
qemu-io -f raw -c 'write -P 5 0 16M' -c flush -c 'read -P 5 0 16M' "$uri" | grep -q 'read 16777216' || fail "write and read"
aquifer snapshot create v@s || fail "snapshot"
aquifer clone v@s c || fail "clone"
aquifer detach v || fail "detach"
aquifer attach c --as nbd >/dev/null || fail "attach the clone"
[ -r /dev/fuse ] && [ "$(stat -c %a /dev/fuse)" = 666 ] || refused 1 'run as root' aquifer attach v
aquifer detach --all
# root's own agent is no one else's
"$B/aquifer" --root "$dir/roots" agent start >/dev/null || fail "root's agent"
refused 1 "can't be reached: .*Permission denied .it serves root and its own user only" aquifer --root "$dir/roots" list
"$B/aquifer" --root "$dir/roots" agent stop
nothing_left
echo "a volume, a snapshot and a clone over NBD without privileges"
