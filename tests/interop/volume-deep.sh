#!/bin/bash
# A volume can be rolled back again and again, and clones of clones can be deep: both more often than what a name remembers, or
# a few ancestors.
. tests/interop/lib/agent
need jq qemu-io

io() { qemu-io -f raw "$@" >"$dir/io" 2>&1; }
volumes() { ls "$AQUIFER_ROOT/var/lib/aquifer/volumes" | wc -l; }

aquifer volume create v 64M
uri=$(aquifer attach v --as nbd)
io -c 'write -P 1 0 1M' -c flush "$uri" || fail "write: $(cat "$dir/io")"
aquifer snapshot create v@a
aquifer detach v
for ((i = 0; i < 70; i++)); do
	aquifer snapshot rollback v@a || fail "rollback $i"
done
[ "$(volumes)" -le 2 ] || fail "rolled-back heads are left: $(volumes)"
uri=$(aquifer attach v --as nbd)
io -c 'read -P 1 0 1M' "$uri" || fail "after 70 rollbacks: $(cat "$dir/io")"
aquifer detach v

# Each generation is only held by the next one.
for ((i = 0; i < 40; i++)); do
	aquifer snapshot create "v@s$i"
	aquifer clone "v@s$i" w
	aquifer volume delete v --with-snapshots
	aquifer volume rename w v
done
uri=$(aquifer attach v --as nbd) || fail "a clone 40 deep can't be attached"
io -c 'read -P 1 0 1M' -c 'write -P 2 0 4k' "$uri" || fail "40 deep: $(cat "$dir/io")"
aquifer detach v
aquifer volume delete v
[ "$(aquifer volume list --json | jq length)" -eq 0 ] || fail "volumes are left: $(aquifer volume list)"
[ "$(volumes)" -eq 0 ] || fail "the ancestors of a deleted clone are left: $(volumes)"
nothing_left
