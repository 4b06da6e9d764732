#!/bin/bash
# A volume moves between two hosts (roots) while a guest writes, reads and compares: moved back and forth; one that waits for it (attach --incoming); and with
# tapdisks and agents of either side killed or stopped, a server killed, and etcd gone, at any moment of it. Always one side serves in the end, with all that was acknowledged, and nothing hangs.
# LONG=1: 1000 moves and 200 rounds.
cd "$(dirname "$0")/../.."
. tests/interop/lib/hosts
need jq qemu-io nbdcopy
roam=$B/tools/roam
[ -x "$roam" ] || { echo "skipped: $roam is not built"; exit 77; }
moves=${MOVES:-10} rounds=${ROUNDS:-8} servers=3
[ "${LONG:-0}" = 0 ] || moves=1000 rounds=200
seed=${SEED:-$RANDOM}
RANDOM=$seed
echo "seed $seed"
hosts_up a b
uri() { echo "nbd+unix:///v?socket=$dir/$1/run/aquifer/exports/v.nbd"; }
other() { [ "$1" = a ] && echo b || echo a; }
state_is() { [ "$(at "$1" "${3:-v}" state)" = "$2" ]; }
guest() {
	"$roam" "$seed" 4096 "$(uri a)" "$(uri b)" >"$dir/moves" 2>"$dir/roam.err" &
	clients=$!
}
guest_ends() {
	kill "$clients"
	wait "$clients" || fail "the guest: $(cat "$dir/roam.err")"
	clients=
}
guest_lives() { kill -0 "$clients" 2>/dev/null || fail "the guest: $(cat "$dir/roam.err")"; }
quickly() { timeout 60 "$@"; }

on a volume create v 64M || fail "create"
refused 1 "isn't attached" on a migrate v --to b
refused 1 "there is no volume" on a migrate none --to b
refused 2 'to where|where to' on a migrate v
refused 2 "can't be" on a migrate v --to 'no/host'
on a attach v --as nbd >/dev/null || fail "attach"
refused 1 "no agent of a host 'z'" on a migrate v --to z
refused 1 'on host a already' on a migrate v --to a
refused 1 'on host a already' on b migrate v --to a
refused 2 'goes with neither' on b attach v --incoming --force

# meanwhile snapshots of it are taken, from one host, alone and with another volume that stays: each finds it, wherever it is
on b volume create w 4M --replicas 1 && on b attach w --as nbd >/dev/null || fail "w"
snapshots() {
	local n=0
	while [ -e "$dir/moving" ]; do
		on a snapshot create v@n$n || exit 1
		on a snapshot create v@g$n w@g$n || exit 1
		n=$((n + 1))
	done
	echo $n >"$dir/snapshots"
}
guest
h=a
touch "$dir/moving"
snapshots 2>"$dir/snapshots.err" &
snapping=$!
for i in $(seq $moves); do
	on "$([ $((i % 2)) = 0 ] && echo a || echo b)" migrate v --to "$(other $h)" --json >"$dir/out" || fail "move $i"
	jq -e '.waited_ns > 0' "$dir/out" >/dev/null || fail "move $i: $(cat "$dir/out")"
	state_is $h moved || fail "after move $i: $(on $h list)"
	h=$(other $h)
	state_is $h running || fail "after move $i: $(on $h list)"
	guest_lives
done
rm "$dir/moving"
wait $snapping || fail "snapshots while it moves: $(cat "$dir/snapshots.err")"
[ "$(cat "$dir/snapshots")" -gt 0 ] || fail "no snapshot was taken meanwhile"
on b detach w || fail "detach w"
on a volume show v --json | jq -e --arg h $h '.holder.text | test("device v .*on host " + $h + "$")' >/dev/null || fail "the holder: $(on a volume show v)"
qemu-io -f raw -c 'read 0 4k' "$(uri "$(other $h)")" 2>&1 | grep -qi 'failed' || fail "a volume that has moved away is read"
on "$(other $h)" list | grep -q "moved (to host $h)" || fail "the list: $(on "$(other $h)" list)"
on "$(other $h)" show v | grep -q "moved: to host $h" || fail "show: $(on "$(other $h)" show v)"
refused 1 'moved' on "$(other $h)" attach v --as nbd
on "$(other $h)" detach v || fail "detach what moved away"

# a device that waits for it, made first, under another name; the target's own device is taken then
there=$(other $h)
on "$there" attach v --as nbd --name w --incoming >/dev/null || fail "attach --incoming"
state_is "$there" incoming w || fail "incoming: $(on "$there" list)"
on "$there" list | grep -q "incoming (waiting for host $h)" || fail "incoming: $(on "$there" list)"
on "$there" show w | grep -q "incoming: waiting for host $h" || fail "incoming: $(on "$there" show w)"
timeout 1 qemu-io -f raw -c 'read 0 4k' "nbd+unix:///w?socket=$dir/$there/run/aquifer/exports/w.nbd" >/dev/null 2>&1 && fail "an incoming device is read"
guest_lives
guest_ends
on $h migrate v --to "$there" >"$dir/out" || fail "to a device that waits"
grep -q 'w.nbd' "$dir/out" || fail "not to the device that waited: $(cat "$dir/out")"
state_is "$there" running w || fail "incoming, then: $(on "$there" list)"
# the other way: it comes when the holder lets go of it
on $h detach v || fail "detach"
on $h attach v --as nbd --incoming >/dev/null || fail "attach --incoming"
state_is $h incoming || fail "incoming: $(on $h list)"
on "$there" detach w || fail "detach"
until_true 10 state_is $h running || fail "let go: $(on $h list)"
# one that is detached again before anything comes
on "$there" attach v --as nbd --incoming >/dev/null || fail "attach --incoming"
timeout 30 qemu-io -f raw -c 'read 0 4k' "$(uri "$there")" >"$dir/out" 2>&1 &
waiting=$!
sleep 0.2
on "$there" detach v --force || fail "detach of an incoming device"
wait $waiting && fail "a request of a device that was detached succeeded: $(cat "$dir/out")"
state_is $h running || fail "the other one: $(on $h list)"

# the target can't: its name is taken, its agent is gone
on "$there" attach 'ram(1M)' --name v --as nbd >/dev/null || fail "attach ram"
refused 1 'the name v is taken.*' on $h migrate v --to "$there"
state_is $h running || fail "after a refusal: $(on $h list)"
on $h migrate v --to "$there" --name v2 >/dev/null || fail "--name"
on "$there" migrate v --to $h >/dev/null || fail "and back"
on "$there" detach --all
kill -9 "$(agent_of "$there")"
refused 1 "host $there" timeout 60 env AQUIFER_ROOT="$dir/$h" "$B/aquifer" migrate v --to "$there"
state_is $h running || fail "after a refusal: $(on $h list)"
on "$there" agent start >/dev/null
until_true 10 all_known || fail "agents: $(on a agent list)"
# the agent here is: the command starts it
kill -9 "$(agent_of $h)"
on $h migrate v --to "$there" >/dev/null || fail "with an agent that was just started"
on "$there" migrate v --to $h >/dev/null || fail "and back"

# Anything dies, or stops for a while, at any moment.
guest
serves() { # sets $h to who has it and serves
	local x
	for x in a b; do
		[ "$(at $x v state)" = running ] && [ "$(timeout 5 "$B/aquifer" --root "$dir/$x" show v --json | jq -r '.nodes[0].items.failed // 1')" = 0 ] && h=$x && return 0
	done
	return 1
}
attach_somewhere() { # a dead holder is believed to live for a lease's time, but on his own host
	serves && return 0
	local x
	for x in $h "$(other $h)"; do
		case $(at $x v state) in moved | died) quickly "$B/aquifer" --root "$dir/$x" detach v --force >/dev/null 2>&1 ;; esac
		quickly "$B/aquifer" --root "$dir/$x" attach v --as nbd >/dev/null 2>"$dir/why" && h=$x && return 0
	done
	return 1
}
server_again() { # NUMBER: one that was killed
	local pids=(${server_pids}) n=$1
	server_pids=
	server_up "$n" --domain "d$n"
	pids[n - 1]=${server_pids# }
	server_pids=" ${pids[*]}"
}
good=0
for i in $(seq $rounds); do
	there=$(other $h)
	what=$(((i - 1) % 8))
	victim=
	case $what in
	0) victim=$(at $h v pid) ;;
	1) victim=$(agent_of $h) ;;
	2) victim=$(agent_of "$there") ;;
	esac
	quickly "$B/aquifer" --root "$dir/$h" migrate v --to "$there" >"$dir/out" 2>"$dir/err" &
	moving=$!
	sleep "0.$(printf %03d $((RANDOM % 250)))"
	case $what in
	0 | 1 | 2) kill -9 "$victim" ;;
	3) victim=$(at "$there" v pid) && [ -z "$victim" ] || kill -9 "$victim" ;;
	4) kill -STOP "${etcd_pid[1]}" && sleep 1 && kill -CONT "${etcd_pid[1]}" ;;
	5) kill -9 $moving ;;
	7) kill -9 "$(cut -d' ' -f$((i / 8 % 3 + 1)) <<<"${server_pids# }")" ;;
	6) victim=$(at "$there" v pid) && [ -z "$victim" ] || { kill -STOP "$victim" && sleep 2 && kill -CONT "$victim"; } ;;
	esac 2>/dev/null || true
	status=0
	wait $moving 2>/dev/null || status=$?
	[ $status -ne 124 ] || fail "round $i ($what): migrate hangs"
	[ $status -ne 1 ] || [ "$(wc -l <"$dir/err")" = 1 ] || fail "round $i ($what): not one line: $(cat "$dir/err")"
	[ $status -ne 0 ] || good=$((good + 1))
	[ $what -ne 7 ] || server_again $((i / 8 % 3 + 1))
	for x in a b; do on $x agent start >/dev/null || fail "round $i: agent"; done
	until_true 40 attach_somewhere || fail "round $i ($what): nobody serves: $(cat "$dir/err" "$dir/why"); $(on a list; on b list)"
	guest_lives
	before=$(on $h show v --json | jq '.nodes[0].counters.write.requests')
	more() { [ "$(on $h show v --json | jq '.nodes[0].counters.write.requests')" -gt "$before" ]; }
	until_true 30 more || fail "round $i ($what): the guest doesn't get on: $(on a list; on b list)"
	until_true 10 all_known || fail "agents: $(on a agent list)"
done
guest_ends
for x in a b; do on $x detach --all || fail "detach on $x: $(on $x list)"; done
echo "$moves moves, $rounds rounds with something killed or stopped ($good of them moved all the same): one side serves, nothing is lost"
