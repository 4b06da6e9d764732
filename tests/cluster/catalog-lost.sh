#!/bin/bash
# limit: 120
# The catalog is lost amid everything: etcd with its disk, and all processes killed at the same moment. What the backup has is old: since then the volume was moved and
# written on the other host, marked, cloned, and the clone written. All of that is there again, with every write that was acknowledged.
cd "$(dirname "$0")/../.."
. tests/cluster/lib
command -v qemu-io >/dev/null || skip "qemu-io is not installed"
io() { qemu-io -f raw -c "$1" -c flush "nbd+unix:///w?socket=$dir/$2/run/aquifer/exports/w.nbd" >"$dir/io" 2>&1 && ! grep -qiE 'failed|error' "$dir/io" || fail "$1 on $2: $(cat "$dir/io")"; }
# What is on a host dies: its agent, its tapdisks.
host_dies() {
	local p
	for p in $(ip netns pids "$net$1"); do kill -9 "$p" 2>/dev/null || true; done
}

cluster_up
volume_up
guest_up "${SEED:-1}"
sleep 0.5
on a cluster backup "$dir/backup" >/dev/null || fail "backup"
holder=a what=moving
move
on a snapshot create v@since >/dev/null || fail "snapshot"
on a clone v@since w >/dev/null && on a attach w --as nbd >/dev/null || fail "clone"
io "write -P 7 0 4M" a
on a detach w || fail "detach w"
on a attach w --as nbd >/dev/null || fail "attach w"
io "write -P 8 1M 1M" a
guest_checks "before"

for n in e 1 2 3 lag; do killed $n; done
host_dies a
host_dies b
rm -rf "$dir/etcd"
etcd_up
on a cluster restore "$dir/backup" >/dev/null || fail "restore"
lag_up
for n in 1 2; do server_up $n; done
! on a cluster recover >"$dir/out" 2>&1 || fail "without a server that may have what is newest"
grep -q "${address[3]}:7000.*--force" "$dir/out" || fail "a server is missing: $(cat "$dir/out")"
server_up 3
for n in a b; do on $n agent start >/dev/null || fail "the agent of $n"; done
! on a attach v --as nbd >"$dir/out" 2>&1 || fail "attached before what was written since was found"
on a cluster recover >"$dir/out" || fail "recover: $(cat "$dir/out")"
grep -q "^v: has what was written since.*, with 1 snapshot made since" "$dir/out" && grep -q "^w: was made since" "$dir/out" || fail "recover: $(cat "$dir/out")"
on a attach v --as nbd >/dev/null || fail "attach v"
guest_checks "after the catalog was lost"
on b attach w --as nbd >/dev/null || fail "attach w"
for c in "read -P 7 0 1M" "read -P 8 1M 1M" "read -P 7 2M 2M"; do io "$c" b; done
guest_ends
checked a || fail "cluster check: $(cat "$dir/check")"
on a cluster restore --confirm >/dev/null || fail "confirm"
on a cluster gc >/dev/null || fail "gc"
checked a || fail "cluster check after gc: $(cat "$dir/check")"
until_true 60 healthy || fail "not healthy at the end: $(cat "$dir/status")"
echo "etcd was lost with an old backup, and all was killed: nothing that was acknowledged is lost"
