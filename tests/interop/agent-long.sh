#!/bin/bash
# A root that is too deep for a socket's address: everything works that needs no socket of the user's, and NBD says
# what is wrong; many devices at once.
. tests/interop/lib/agent
need jq nbdinfo
short=$AQUIFER_ROOT
export AQUIFER_ROOT=$dir/$(printf 'deep/%.0s' $(seq 40))root
run=$AQUIFER_ROOT/run/aquifer
mkdir -p "$AQUIFER_ROOT"
[ ${#run} -gt 150 ] || fail "not long"
aquifer agent start >/dev/null
refused 1 'more than 107 characters' aquifer attach 'ram(1M)' --name r --as nbd
nothing_left
uri=$(aquifer attach 'ram(1M)' --name r --as nbd --listen 127.0.0.1:0)
nbdinfo --size "$uri" >/dev/null || fail "over TCP"
aquifer show r | grep -q ram || fail "show"
kill -9 "$(agent_pid)"
[ "$(field r state)" = running ] || fail "not adopted"
aquifer detach r
nothing_left
aquifer agent stop >/dev/null
export AQUIFER_ROOT=$short
run=$AQUIFER_ROOT/run/aquifer

# A few at a time, the same name from several sides: one wins.
for i in 1 2 3 4 5 6; do (aquifer attach 'ram(1M)' --name same --as nbd >"$dir/out.$i" 2>/dev/null || true) & done
for i in 1 2 3 4 5 6; do aquifer attach 'ram(1M)' --name n$i --as nbd >/dev/null & done
wait
[ "$(cat "$dir"/out.* | wc -l)" -eq 1 ] || fail "one name, several devices: $(cat "$dir"/out.*)"
[ "$(aquifer list --json | jq length)" -eq 7 ] || fail "seven devices: $(aquifer list)"
aquifer detach --all
nothing_left
