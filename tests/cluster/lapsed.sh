#!/bin/bash
# limit: 240
# A host can't reach etcd any more, but all servers: its lease runs out, and its guest goes on. Nothing that another host does, but attaching, takes the volume from it; when etcd can
# be reached again all is as before, with no error for the guest.
cd "$(dirname "$0")/../.."
. tests/cluster/lib
command -v qemu-io >/dev/null || skip "qemu-io is not installed"
command -v jq >/dev/null || skip "jq is not installed"

io() { timeout 60 qemu-io -f raw -c "$1" -c flush "$(uri a)" >"$dir/io" 2>&1 && ! grep -qiE 'failed|error' "$dir/io" || fail "$2: $1: $(cat "$dir/io")"; }
lapsed() { on b volume show v | grep -q "t renewed its lease"; }
# refused COMMAND...: on b, and why
refused() {
	! on b "$@" >/dev/null 2>"$dir/why" || fail "$*: it was done"
	grep -q "on host ha, which hasn't renewed its lease" "$dir/why" || fail "$*: $(cat "$dir/why")"
}

cluster_up
volume_up
on a detach v >/dev/null 2>&1 || true
on b detach v >/dev/null 2>&1 || true
on a attach v --as nbd >/dev/null || fail "attach"
on b snapshot create v@before || fail "snapshot"
io "write -P 1 0 2M" "before"
cut_off a both e
until_true 40 lapsed || fail "its lease doesn't run out: $(on b volume show v)"
io "write -P 2 0 1M" "cut off"
refused snapshot create v@during
refused volume resize v 8G
refused volume rename v u
refused volume delete v --with-snapshots
refused snapshot rollback v@before
on b snapshot delete v@before || fail "snapshot delete"
on b cluster check --json v >"$dir/check" || fail "cluster check: $(cat "$dir/check")"
[ "$(jq -r '.volumes[0] | "\(.attached) \(.complete)"' "$dir/check")" = "true false" ] || fail "cluster check: $(cat "$dir/check")"
io "write -P 3 1M 1M" "after commands"
io "read -P 2 0 1M" "after commands"
let_back a
until_true 40 on b snapshot create v@after || fail "the lease is renewed, and yet: $(on b snapshot create v@after 2>&1)"
io "write -P 4 0 4k" "let back"
io "read -P 3 1M 1M" "let back"
on a detach v || fail "detach"
checked b || fail "cluster check: $(cat "$dir/check")"
echo "a host whose lease had run out kept its volume, in $SECONDS s"
