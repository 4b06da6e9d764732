#!/bin/bash
# Three hosts (roots with names of their own) share a catalog on etcd and a server. Their agents find one another; snapshots are taken, of one volume or of
# several at one instant, wherever the volumes are attached; clones are made on any host, also while the parent is written; a second attach names the
# holder, and fences him with --force. Who doesn't know an agent's token gets nothing.
cd "$(dirname "$0")/../.."
. tests/interop/lib/hosts
. tests/interop/lib/counter
need jq od nbdcopy qemu-io
hosts_up a b c d

[ "$(on b agent list --json | jq -r '[.[].host] | sort | join(" ")')" = "a b c d" ] || fail "agents: $(on b agent list)"
on a agent list | grep -q '^b .*127.0.0.1:.* up ' || fail "the table: $(on a agent list)"

# one that is killed is seen as gone (later: its lease lasts for a while); one that is stopped leaves, and comes back
kill -9 "$(agent_of d)"
hosts='a b c'
is() { [ "$(on a agent list --json | jq -r '.[] | select(.host == "'"$1"'").state')" = "$2" ]; }
on c agent stop >/dev/null
is c '' || fail "an agent that was stopped: $(on a agent list)"
on c agent start >/dev/null
until_true 10 is c up || fail "an agent that was started again: $(on a agent list)"
# a second one of the same name doesn't take its place
mkdir -p "$dir/e/etc/aquifer"
cp "$dir/c/etc/aquifer/aquifer.conf" "$dir/e/etc/aquifer/"
on e agent start >/dev/null
until_true 10 grep -q 'is called c too' "$dir/e/run/aquifer/agent.log" || fail "two agents of one name: $(cat "$dir/e/run/aquifer/agent.log")"
on e agent stop >/dev/null
until_true 10 all_known || fail "agents: $(on a agent list)"

for v in g0 g1 g2; do on a volume create $v 4M --replicas 1 || fail create; done
t0=$(on a attach g0 --as nbd) && t1=$(on b attach g1 --as nbd) && t2=$(on c attach g2 --as nbd) || fail attach
refused 1 'attached as device g1 .* on host b' on a attach g1 --as nbd
"$counter" 0 "$t0" "$t1" "$t2" >"$dir/written" 2>"$dir/counter.err" &
clients=$!
number() {
	rm -f "$dir/out.raw"
	on "$1" volume export "$2" "$dir/out.raw" || fail "export $2 on $1"
	od -An -tu8 -N8 "$dir/out.raw" | tr -d ' '
}
# consistent NAME: it shows no number without all before it, and no less than the one before
consistent() { in_turn "$1" "${last:-0}" "$(number b "g0@$1")" "$(number b "g1@$1")" "$(number b "g2@$1")"; }
n=0
for h in a b c a b; do
	on $h snapshot create g0@s$n g1@s$n g2@s$n || fail "group $n from $h"
	consistent s$n
	n=$((n + 1))
done
[ "$last" -gt 0 ] || fail "nothing was written"

# one volume's, from another host; a clone of it there, and of it on a third one, while it is being written
on a snapshot create g1@one || fail "a snapshot of a volume attached elsewhere"
on c clone g1@one copy || fail "clone"
[ "$(number a copy)" -ge "$last" ] || fail "the clone shows $(number a copy), $last had been flushed"
on b clone g1@one second || fail "a second clone"
[ "$(number a copy)" = "$(number c second)" ] || fail "two clones of one snapshot differ"
on c volume resize g1 8M || fail "resize from another host"
[ "$(on b show g1 --json | jq '.nodes[0].size')" = 8388608 ] || fail "the device's size: $(on b show g1)"

# a snapshot that is read on one host, deleted on another, of a volume attached on a third, stays until it isn't read any more
on a volume create read 4M --replicas 1 && t3=$(on a attach read --as nbd) || fail "attach read"
qemu-io -f raw -c 'write -P 1 0 4M' -c flush "$t3" >/dev/null && on a snapshot create read@old && qemu-io -f raw -c 'write -P 2 0 4M' -c flush "$t3" >/dev/null || fail "writing"
reader=$(on b attach read@old --read-only --as nbd --name reader) || fail "attach read@old"
on c snapshot delete read@old || fail "delete read@old"
kept() { on c volume show read --json | jq .snapshot_bytes; }
look_again() { on a snapshot create "read@$1" && on a snapshot delete "read@$1"; }
look_again l0 || fail "snapshots of read"
[ "$(kept)" -ge 4194304 ] || fail "read@old is being read, and $(kept) bytes of it are kept"
qemu-io -r -f raw -c 'read -P 1 0 4M' "$reader" | grep -q 'read 4194304' || fail "read@old can't be read"
on b detach reader || fail "detach reader"
look_again l1 || fail "snapshots of read"
until_true 10 eval '[ "$(kept)" -lt 1048576 ]' || fail "nobody reads read@old, and $(kept) bytes are kept"

# a tapdisk elsewhere is stopped, its agent is dead: one line that says so, none is taken, the others go on
pid=$(at b g1 pid)
kill -STOP "$pid"
refused 1 'g1' timeout 30 env AQUIFER_ROOT="$dir/a" "$B/aquifer" snapshot create g0@x g1@x g2@x
kill -CONT "$pid"
kill -9 "$(agent_of b)"
refused 1 'host b' timeout 30 env AQUIFER_ROOT="$dir/a" "$B/aquifer" snapshot create g0@x g1@x g2@x
[ "$(on a snapshot list --json | jq '[.[] | select(.name == "x")] | length')" = 0 ] || fail "some of x: $(on a snapshot list)"
on b agent start >/dev/null
entered() { [ "$(grep -c 'registered as the agent' "$dir/b/run/aquifer/agent.log")" -ge 2 ]; } # the entry of the dead one is good for 10 s
until_true 10 entered || fail "agents: $(on a agent list)"
on a snapshot create g0@y g1@y g2@y || fail "a group afterwards"
consistent y
kill $clients
wait $clients || fail "the writer: $(cat "$dir/counter.err")"
clients=

# by force
there=$(on c attach g1 --as nbd --force) || fail "attach --force"
[ "$(nbdcopy "$there" - | od -An -tu8 -N8 | tr -d ' ')" -ge "$last" ] || fail "content after --force"
qemu-io -f raw -c 'write -P 1 0 4k' -c flush "$t1" 2>&1 | grep -qi failed || fail "who lost it still writes"

# not without the token
address=$(on a agent list --json | jq -r '.[] | select(.host == "b").address')
exec 7<>"/dev/tcp/127.0.0.1/${address##*:}"
head -c 4096 /dev/urandom >&7 2>/dev/null || true
exec 7>&-
on b list >/dev/null || fail "the agent, after nonsense on its port"
for h in a b c; do on $h detach --all --force >/dev/null 2>&1 || true; done
until_true 20 is d gone || fail "a dead agent: $(on a agent list)"
on a agent list | grep -q '^d .* gone ' || fail "a dead agent: $(on a agent list)"
on d agent start >/dev/null
until_true 10 is d up || fail "an agent that began again: $(on a agent list)"
on d agent stop >/dev/null
echo "agents find one another; snapshots at one instant on three hosts, clones everywhere"
