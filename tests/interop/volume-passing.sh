#!/bin/bash
# What can be done to a volume attached or not can be done while it is being attached and detached, again and again: no command finds it
# in between, alone or in a group.
. tests/interop/lib/agent
need jq
aquifer volume create a 64M
aquifer volume create b 64M
aquifer snapshot create a@s

: >"$dir/on"
come_and_go() {
	while [ -e "$dir/on" ]; do
		aquifer attach "$1" --as nbd >/dev/null 2>>"$dir/$1.err" || :
		aquifer detach "$1" >/dev/null 2>>"$dir/$1.err" || :
	done
}
come_and_go a &
loops=$!
come_and_go b &
loops="$loops $!"
clients=$loops # if it fails
for i in $(seq 8); do
	aquifer snapshot create "a@s$i" || fail "snapshot $i: $(cat "$dir/err")"
	aquifer snapshot create "a@g$i" "b@g$i" || fail "group $i: $(cat "$dir/err")"
	aquifer volume resize a $((64 + i))M || fail "resize $i: $(cat "$dir/err")"
	aquifer volume set a io-timeout=${i}s || fail "set $i: $(cat "$dir/err")"
	aquifer diff a@s a >/dev/null || fail "diff $i: $(cat "$dir/err")"
done 2>"$dir/err"
rm "$dir/on"
wait $loops
