#!/bin/bash
# A volume can be attached and rolled back again and again, and clones of clones can be deep: more often than what a name
# remembers, or a few ancestors; and nothing is left behind.
. tests/interop/lib/agent
need jq qemu-io

io() { qemu-io -f raw "$@" >"$dir/io" 2>&1; }
volumes() { ls "$AQUIFER_ROOT/var/lib/aquifer/volumes" | wc -l; }

aquifer volume create v 64M
uri=$(aquifer attach v --as nbd)
io -c 'write -P 1 0 1M' -c flush "$uri" || fail "write: $(cat "$dir/io")"
aquifer snapshot create v@a
aquifer detach v

# Attached and detached without a write, after a clean end and after a kill; and looked at while nobody has it.
segments() { find "$AQUIFER_ROOT/var/lib/aquifer/volumes" -name '*.seg' | wc -l; }
before=$(segments)
for ((i = 0; i < 5; i++)); do
	aquifer attach v --as nbd >/dev/null
	aquifer detach v
	aquifer diff v@a v
done
[ "$(segments)" -le "$before" ] || fail "$(segments) segments after 5 attaches, $before before"
for ((i = 0; i < 3; i++)); do
	aquifer attach v --as nbd >/dev/null
	kill -9 "$(field v pid)"
	until_true 5 eval '[ "$(field v state)" = died ]' || fail "death"
	aquifer attach v --as nbd >/dev/null || fail "attach after kill -9"
	aquifer detach v
done
[ "$(segments)" -le $((before + 4)) ] || fail "$(segments) segments after 3 kills, $before before"

for ((i = 0; i < 66; i++)); do
	aquifer snapshot rollback v@a || fail "rollback $i"
done
[ "$(volumes)" -le 2 ] || fail "rolled-back heads are left: $(volumes)"
uri=$(aquifer attach v --as nbd)
io -c 'read -P 1 0 1M' "$uri" || fail "after 66 rollbacks: $(cat "$dir/io")"
aquifer detach v

# Each generation is only held by the next one.
for ((i = 0; i < 34; i++)); do
	aquifer snapshot create "v@s$i"
	aquifer clone "v@s$i" w
	aquifer volume delete v --with-snapshots
	aquifer volume rename w v
done
uri=$(aquifer attach v --as nbd) || fail "a clone 34 deep can't be attached"
io -c 'read -P 1 0 1M' -c 'write -P 2 0 4k' "$uri" || fail "34 deep: $(cat "$dir/io")"
aquifer detach v
aquifer volume delete v
[ "$(aquifer volume list --json | jq length)" -eq 0 ] || fail "volumes are left: $(aquifer volume list)"
[ "$(volumes)" -eq 0 ] || fail "the ancestors of a deleted clone are left: $(volumes)"
nothing_left
