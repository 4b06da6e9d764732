#!/bin/bash
# Snapshots of several volumes at one instant, of three devices under a writer that writes 1, 2, 3, … round robin over
# them, each when the one before is flushed: a snapshot never shows a number without all before it. Also while a tapdisk is stopped or killed:
# all or none, one line that says why, and the writes of the others go on.
. tests/interop/lib/agent
. tests/interop/lib/counter
need jq od
as=nbd
[ "$(id -u)" -ne 0 ] || [ ! -c /dev/loop-control ] || [ ! -c /dev/fuse ] || as=loop
volumes='g0 g1 g2'
groups=0
written=0

attach() { targets+=("$(aquifer attach "$1" --as $as)"); }
attach_all() {
	targets=()
	for v in $volumes; do attach "$v"; done
}
start() {
	"$counter" "$written" "${targets[@]}" >"$dir/written" 2>"$dir/counter.err" &
	clients=$!
}
stop() {
	kill "$clients"
	wait "$clients" || fail "the writer: $(cat "$dir/counter.err")"
	clients=
}
number() { # NAME: what the first block of a volume or snapshot holds
	rm -f "$dir/out.raw"
	aquifer volume export "$1" "$dir/out.raw"
	od -An -tu8 -N8 "$dir/out.raw" | tr -d ' '
}
names() { for v in $volumes; do echo "$v@$1"; done; }
# there NAME: of how many volumes there is such a snapshot
there() { aquifer snapshot list --json | jq --arg n "$1" '[.[] | select(.name == $n)] | length'; }
# consistent NAME LEAST: the group shows no number without all before it, and at least LEAST
consistent() {
	local seen=()
	for v in $volumes; do seen+=("$(number "$v@$1")"); done
	in_turn "$1" "$2" "${seen[@]}"
}
# get_on: the writer does
get_on() {
	local before
	aquifer snapshot create "g0@before$groups" && aquifer snapshot create "g1@before$groups"
	before=$(number "g0@before$groups")
	until_true 10 eval 'aquifer snapshot delete g1@before'$groups'; aquifer snapshot create g1@before'$groups' && [ "$(number g1@before'$groups')" -gt '"$before"' ]' ||
		fail "the writer doesn't get on: $(cat "$dir/counter.err")"
	groups=$((groups + 1))
}

for v in $volumes idle; do aquifer volume create "$v" 1M; done
refused 2 'twice' aquifer snapshot create g0@a g0@b
refused 1 'none' aquifer snapshot create g0@a none@a
refused 2 'not VOLUME@SNAP' aquifer snapshot create g0@a g1

# Nobody has them.
aquifer snapshot create g0@idle g1@idle g2@idle
[ "$(there idle)" = 3 ] || fail "idle: $(aquifer snapshot list)"

attach_all
start
last=0
get_on
for i in 1 2 3 4 5; do
	aquifer snapshot create $(names "s$i") || fail "group $i"
	[ "$(there "s$i")" = 3 ] || fail "s$i: $(aquifer snapshot list)"
	consistent "s$i" "$last"
done
[ "$last" -gt 0 ] || fail "the writer has written nothing"
refused 1 'g1@s1' aquifer snapshot create g0@t g1@s1 g2@t
[ "$(there t)" = 0 ] || fail "some of a group that was refused"
aquifer snapshot create g0@mixed idle@mixed || fail "an attached volume and an idle one"

# A tapdisk is stopped: it fails soon, takes none, and the others' writes go on.
pid=$(field g1 pid)
kill -STOP "$pid"
begin=$SECONDS
refused 1 'g1' timeout 30 "$B/aquifer" snapshot create $(names stopped)
[ $((SECONDS - begin)) -lt 20 ] || fail "a stopped tapdisk held it up for $((SECONDS - begin)) s"
[ "$(there stopped)" = 0 ] || fail "stopped: $(aquifer snapshot list)"
timeout 20 "$B/aquifer" snapshot create g0@others g2@others || fail "the others, while one is stopped"
kill -CONT "$pid"
get_on
aquifer snapshot create $(names on) || fail "after a tapdisk went on"
consistent on "$last"

# One is killed at any moment: all or none, and it ends.
for i in 1 2 3 4; do
	timeout 30 "$B/aquifer" snapshot create $(names "k$i") >/dev/null 2>"$dir/group.err" &
	group=$!
	sleep "0.0$((RANDOM % 40))"
	kill -9 "$(field g2 pid)"
	status=0
	wait $group || status=$?
	[ $status -le 1 ] || fail "the command: $status $(cat "$dir/group.err")"
	wait "$clients" || true
	clients=
	written=$(cat "$dir/written")
	n=$(there "k$i")
	[ "$n" = 0 ] || [ "$n" = 3 ] || fail "a part of k$i: $(aquifer snapshot list)"
	[ $status -ne 0 ] || [ "$n" = 3 ] || fail "k$i was taken, and there are $n"
	[ "$n" = 0 ] || consistent "k$i" "$last"
	[ "$n" = 3 ] || grep -q '^aquifer: .* failed: ' "$dir/group.err" || fail "no reason: $(cat "$dir/group.err")"
	until_true 10 eval 'attach g2' || fail "g2 can't be attached again"
	aquifer detach --all
	attach_all
	start
	get_on
done
# So is the command.
for i in 1 2 3 4; do
	"$B/aquifer" snapshot create $(names "c$i") >/dev/null 2>&1 &
	group=$!
	sleep "0.0$((RANDOM % 30))"
	kill -9 $group 2>/dev/null || true
	wait $group || true
	n=$(there "c$i")
	[ "$n" = 0 ] || [ "$n" = 3 ] || fail "a part of c$i: $(aquifer snapshot list)"
done
get_on
aquifer snapshot create $(names last) || fail "at the end: group"
consistent last 1
stop
aquifer detach --all
nothing_left
