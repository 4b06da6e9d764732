#!/bin/bash
# Several devices of one tapdisk: what is done to one of them, by force too, leaves the others alone; and what is told of them is true, also when
# the agent was killed meanwhile.
cd "$(dirname "$0")/../.."
. tests/interop/lib/agent
need jq qemu-io


# FILE of two devices, a and b; what a is asked for takes so long.
graph() { printf 'a = delay(ram(1M), write=%s)\nb = ram(1M)\nexport a as nbd\nexport b as nbd\n' "$1" >"$dir/two.graph"; }
names() { aquifer list --json | jq -r '[.[].name] | sort | join(" ")'; }
reads() { qemu-io -f raw -c 'read 0 4k' "$1" 2>&1 | grep -q 'read 4096/4096'; }
ask_slow() { # a write that is under way
	qemu-io -f raw -c 'write 0 4k' "$a" >/dev/null 2>&1 &
	clients="$clients $!"
	until_true 10 eval '[ "$(aquifer show a --json | jq ".nodes[] | select(.driver == \"delay\").counters.in_flight")" = 1 ]' || fail "no write is under way"
}
up() {
	graph "$1"
	aquifer attach "$dir/two.graph" >/dev/null || fail attach
	a=$(field a device)
	b=$(field b device)
}

# two at once take the same one away
up 4s
ask_slow
aquifer detach a --force & first=$!
sleep 0.5
aquifer detach a --force || fail "the second one"
wait $first || fail "the first one"
reads "$b" || fail "the other one was taken with it: $(aquifer list)"
[ "$(names)" = b ] || fail "the list: $(aquifer list)"
aquifer detach b || fail "the other one"
nothing_left

# it takes too long: the process isn't killed while it serves another, and what is gone at last isn't listed
up 14s
ask_slow
refused 1 'serves b too' aquifer detach a --force
reads "$b" || fail "the other one was killed: $(aquifer list)"
until_true 20 eval '[ "$(jq -c "[.devices[].name]" "$run"/tapdisks/*/status)" = "[\"b\"]" ]' || fail "it doesn't go: $(cat "$run"/tapdisks/*/status)"
[ "$(aquifer agent status --json | jq .devices)" = 1 ] || fail "it is gone, and counted: $(aquifer agent status)"
[ "$(names)" = b ] || fail "it is gone, and listed: $(aquifer list)"
aquifer detach b || fail "the other one"
nothing_left

# unless all are to go
up 60s
ask_slow
aquifer detach --all --force || fail "all"
nothing_left

# or it answers nobody
up 0s
kill -STOP "$(field a pid)"
aquifer detach a --force || fail "one that hangs"
[ "$(field b state)" = died ] || fail "the other one's end is hidden: $(aquifer list)"
aquifer detach b

# it dies under a detach: the other one has died, too
up 20s
ask_slow
aquifer detach a --force & first=$!
sleep 0.5
kill -9 "$(field a pid)"
wait $first || fail "one that died meanwhile"
[ "$(names)" = b ] && [ "$(field b state)" = died ] || fail "the other one: $(aquifer list)"
# a dead one that was taken off the list doesn't come back with the next agent
up 0s
kill -9 "$(field a pid)"
until_true 5 eval '[ "$(field a state)" = died ]' || fail "a death nobody sees"
aquifer detach a
kill -9 "$(agent_pid)"
until_true 10 aquifer agent start
[ "$(names)" = b ] || fail "the dead come back: $(aquifer list)"
aquifer detach b
nothing_left
