#!/bin/bash
# The catalog moves away from etcd, and on another host nobody changes aquifer.conf: the agent there, which has it open, does nothing in it any more, and says why. (It took snapshots
# and made clones, which nobody else saw, and opened volumes with epochs that the new catalog gave as well.)
cd "$(dirname "$0")/../.."
. tests/interop/lib/hosts
need jq nbdcopy
hosts_up here there
head -c 4M /dev/urandom >"$dir/data"
on here volume create v 64M || fail "create"
uri=$(on here attach v --as nbd) || fail "attach"
nbdcopy --flush "$dir/data" "$uri" || fail "write"
on here detach v || fail "detach"
on there snapshot create v@before || fail "a snapshot by the other host's agent"

# who has it open finds another store there while it moves, and his own again if it stays
"$check" "$url" after "$dir/during" get name/v >"$dir/during.said" & during=$!
"$check" "$url" after "$dir/later" get name/v >"$dir/later.said" & later=$!
for c in during later; do until_true 10 grep -q open "$dir/$c.said" || fail "$c: $(cat "$dir/$c.said")"; done
"$check" "$url" aside "moving sqlite:/nowhere" "$dir/stays" >"$dir/aside.said" & aside=$!
until_true 10 grep -q aside "$dir/aside.said" || fail "$(cat "$dir/aside.said")"
touch "$dir/during"
! wait $during || fail "it is there for who had it open: $(cat "$dir/during.said")"
grep -q "^ENOTCONN the catalog has moved away from the etcd at 127.0.0.1:[0-9]*, or is being moved" "$dir/during.said" || fail "$(cat "$dir/during.said")"
refused 1 "is being moved to sqlite:/nowhere" on there volume list
touch "$dir/stays"
wait $aside || fail "it stays: $(cat "$dir/aside.said")"
touch "$dir/later"
wait $later || fail "it stayed, and who had it open: $(cat "$dir/later.said")"
until_true 20 on there snapshot create v@stayed || fail "it stayed, and the other host: $(on there snapshot create v@stayed 2>&1)"

for p in $server_pids; do kill "$p" && wait "$p" || fail "the server's end: $(cat "$store"/out*)"; done
server_pids=
file=sqlite:$dir/here/var/lib/aquifer/catalog.db
on here cluster move-catalog "$file" >/dev/null || fail "move"
server_up 1 --domain d1
refused 1 "moved to $file" on there volume list
refused 1 "moved" on there snapshot create v@alone
refused 1 "moved" on there clone v@before w
refused 1 "moved" on there attach v --as nbd
[ "$(on here volume list --json | jq -r '.[].name' | xargs)" = v ] || fail "$(on here volume list)"
[ "$(on here snapshot list v --json | jq -r '.[].name' | xargs)" = "before stayed" ] || fail "$(on here snapshot list v --json)"
uri=$(on here attach v --as nbd) || fail "attach"
nbdcopy "$uri" - | cmp -n 4194304 - "$dir/data" || fail "content"
on here detach v || fail "detach"
on here cluster check >"$dir/checked" || fail "$(cat "$dir/checked")"
echo "a catalog that has moved away is nobody's any more, also not theirs who had it open"
