#!/bin/bash
# An etcd that was emptied, or replaced by another cluster's, beneath programs that run: they say so and leave it alone, reads and writes of a volume go on, and when
# the right one is back all goes on by itself.
cd "$(dirname "$0")/../.."
. tests/interop/lib/hosts
need jq nbdcopy etcdctl
head -c 4M /dev/urandom >"$dir/data"
etcd_serve
# one that an older program made: no id until it is opened
id() { etcd_ctl get --print-value-only aquifer/id; }
says "^ok" make
[[ $(id) =~ ^[0-9a-f]{32}$ ]] || fail "its id is '$(id)'"
etcd_does del aquifer/id
says "^ok" put old x
first=$(id)
[[ $first =~ ^[0-9a-f]{32}$ ]] || fail "a store without an id got none"
says "^ok" put old y
[ "$(id)" = "$first" ] || fail "its id changes"
etcd_kill 1
rm -r "$dir/etcd1"

hosts_up here
mine=$(id)
on here volume create v 64M || fail "create"
uri=$(on here attach v --as nbd) || fail "attach"
nbdcopy --flush "$dir/data" "$uri" || fail "write"
declare -A waits
for command in "put alien x" "get nothing" "list agent/" "count n 1"; do
	"$check" "$url" after "$dir/go" $command >"$dir/${command%% *}.said" &
	waits[${command%% *}]=$!
done
for c in "${!waits[@]}"; do until_true 10 grep -q open "$dir/$c.said" || fail "$c: $(cat "$dir/$c.said")"; done

etcd_kill 1
mv "$dir/etcd1" "$dir/right"
etcd_serve
refused 1 "there is no store" on here volume list
touch "$dir/go"
for c in "${!waits[@]}"; do
	wait "${waits[$c]}" && fail "$c in an empty etcd"
	grep -q "^ENOTCONN the etcd at 127.0.0.1:[0-9]* is not the cluster's (no id, expected $mine)" "$dir/$c.said" || fail "$c: $(cat "$dir/$c.said")"
done
nbdcopy --flush "$dir/data" "$uri" || fail "write beside the empty etcd"
[ -z "$(etcd_ctl get --prefix "" --keys-only)" ] || fail "somebody wrote into the empty etcd: $(etcd_ctl get --prefix "" --keys-only)"
# now another store is there: as little is written to it
says "^ok" make
"$check" "$url" after "$dir/again" put alien x >"$dir/alien.said" &
waits[alien]=$!
until_true 10 grep -q open "$dir/alien.said" || fail "$(cat "$dir/alien.said")"
theirs=$(id)
sleep 4 # an agent's heartbeat, and some rounds of the server
[ "$(etcd_ctl get --prefix "" --keys-only | xargs)" = "aquifer/format aquifer/id" ] || fail "somebody wrote into another store: $(etcd_ctl get --prefix "" --keys-only)"

etcd_kill 1
mv "$dir/etcd1" "$dir/wrong"
mv "$dir/right" "$dir/etcd1"
etcd_serve
touch "$dir/again"
wait "${waits[alien]}" && fail "another store's program wrote into this one"
grep -q "is not the cluster's (id $mine, expected $theirs)" "$dir/alien.said" || fail "$(cat "$dir/alien.said")"
until_true 15 all_known || fail "the agent isn't there again: $(on here agent list)"
on here snapshot create v@s || fail "snapshot"
nbdcopy "$uri" - | cmp -n 4194304 - "$dir/data" || fail "content"
on here detach v || fail "detach"
echo "emptied, then another's: nothing was written to it, nobody was stopped, and with the right one all went on"
