#!/bin/bash
# Two versions of the protocol in one cluster: an old host and a new one (programs that speak only the version before, make versions), servers of both. A
# volume is written and verified, moves from old to new and back, and is taken over either way after a kill; an old server's copies are rebuilt on a new one; servers
# are upgraded in place, one by one, while it is written. A server that speaks no version of ours is named so.
# limit: 60
cd "$(dirname "$0")/../.."
. tests/interop/lib/hosts
need jq fio nbdinfo
old=${OLD:-$B/old} next=$B/next/aquifer-server
for program in "$old/aquifer-server" "$next"; do
	[ -x "$program" ] || { echo "skipped: $program is not built (make versions)"; exit 77; }
done

# Host a is old, b is new; servers 1 and 3 are old, until they are upgraded.
declare -A kind=([a]=old [b]=new [1]=old [2]=new [3]=old [4]=new) server=()
programs() { [ "${kind[$1]}" = old ] && echo "$old" || echo "$B"; }
on() {
	local h=$1
	shift
	AQUIFER_ROOT=$dir/$h "$(programs "$h")/aquifer" "$@"
}
server_up() {
	local n=$1
	: >"$store/out$n" # what the one before said
	AQUIFER_ROOT=$dir/b "$(programs "$n")/aquifer-server" --data "$store/data$n" --listen "unix:$store/s$n" --domain "d$n" \
		--rebuild-interval 1 --rebuild-rate 0 --lost-after 2 >"$store/out$n" 2>&1 &
	server[$n]=$!
	server_pids="$server_pids $!"
	until_true 20 grep -q ready "$store/out$n" || fail "server $n: $(cat "$store/out$n")"
}
server_gone() { # NUMBER [SIGNAL]
	kill "-${2:-TERM}" "${server[$1]}"
	wait "${server[$1]}" 2>/dev/null || true
}
uri() { echo "nbd+unix:///v?socket=$dir/$1/run/aquifer/exports/v.nbd"; }
# load HOST NAME OFFSET [OPTION…]: 4 MiB at a place of its own, written and verified
load() {
	local h=$1 name=$2 offset=$3
	shift 3
	fio --ioengine=nbd --uri="$(uri "$h")" --rw=randwrite --bs=16k --iodepth=8 --verify_state_save=0 --verify=crc32c --verify_fatal=1 --randrepeat=1 \
		--thread --fsync=32 --size=4M --name="$name" --offset="${offset}M" "$@" >"$dir/$name" 2>&1 || fail "$name on $h: $(grep -E 'verify|error|err=' "$dir/$name" | head -n 3)"
}
parts=0
write_more() { # HOST: a part more, and all that was there is right
	local i read=
	for i in $(seq 0 $((parts - 1))); do read="$read --name=part$i --offset=$((i * 4))M --verify_only"; done
	# shellcheck disable=SC2086 — these are several words
	load "$1" "part$parts" $((parts * 4)) $read
	parts=$((parts + 1))
}
spoken() { on b server list --json | jq -c 'map(select(.answers) | .protocol) | sort'; }
kill_tapdisk() { # HOST
	local p
	p=$(at "$1" v pid)
	kill -9 "$p"
	until_true 10 sh -c "! kill -0 $p" || fail "the tapdisk of $1 lives"
}

servers=3
hosts_up a b
[ "$(spoken)" = '[1,1,2]' ] || fail "server list: $(on b server list)"
[ "$(on b agent list --json | jq -c 'map([.host, .protocol]) | sort')" = '[["a",1],["b",2]]' ] || fail "agent list: $(on b agent list)"
on b cluster status >"$dir/status" || true
grep -q 'protocol 2, .*; 2 servers and 1 host speak only protocol 1' "$dir/status" || fail "cluster status: $(cat "$dir/status")"
[ "$(on b cluster status --json | jq -c '[.versions.protocol, .versions.protocol_of_all]')" = '[2,1]' ] || fail "cluster status: $(on b cluster status --json)"

# either way
on a volume create v 64M --replicas 3 >/dev/null || fail "create"
on a attach v --as nbd >/dev/null || fail "attach"
write_more a
on a migrate v --to b >/dev/null || fail "from old to new"
write_more b
on a snapshot create v@then >/dev/null || fail "a snapshot, asked for by the old host"
on a clone v@then w || fail "clone"
on b migrate v --to a >/dev/null || fail "from new to old"
write_more a
kill_tapdisk a
on b detach v >/dev/null 2>&1 || true
on b attach v --as nbd --force >/dev/null || fail "the new host takes over"
write_more b
kill_tapdisk b
on a detach v >/dev/null 2>&1 || true
on a attach v --as nbd --force >/dev/null || fail "the old host takes over"
write_more a

# an old server is replaced by a new one, which gets what that had, from old ones and a new one
server_up 4
first=$(sed -n 's/.* server \([0-9a-f]*\), .*/\1/p' "$store/out1")
on b server drain "$first" --wait >"$dir/out" 2>&1 || fail "drain: $(cat "$dir/out")"
on b server remove "$first" >"$dir/out" 2>&1 || fail "remove: $(cat "$dir/out")"
server_gone 1 KILL
rm -rf "$store/data1"
[ "$(find "$store/data4/segments" -name '*.seg' | wc -l)" -gt 0 ] || fail "nothing is on the new server"
write_more a

# the rest is upgraded, and one goes back again, while an old host writes
load a during 40 --rate_iops=150 --size=3M &
loading=$!
server_gone 3
kind[3]=new
server_up 3
server_gone 2
kind[2]=old
server_up 2
wait $loading || fail "while servers were restarted: $(cat "$dir/during")"
[ "$(spoken)" = '[1,2,2]' ] || fail "server list: $(on b server list)"

# the old host's agent is upgraded above its tapdisk, which goes on
tapdisk=$(at a v pid)
on a agent stop >/dev/null || fail "stop the old agent"
kind[a]=new
on a agent start >/dev/null || fail "the new agent"
[ "$(at a v pid) $(at a v state)" = "$tapdisk running" ] || fail "after the agent's upgrade: $(on a list)"
on a show v --json | jq -e '.nodes | length > 0' >/dev/null || fail "show: $(on a show v)"
write_more a
on a detach v >/dev/null || fail "detach"
on b attach v --as nbd >/dev/null || fail "attach"
write_more b
load b during 40 --size=3M --verify_only
on b cluster check >"$dir/check" 2>&1 || fail "check: $(cat "$dir/check")"

# one that speaks no version of ours is no riddle
on b detach v >/dev/null || fail "detach"
server_gone 4
: >"$store/out4"
AQUIFER_ROOT=$dir/b "$next" --data "$store/data4" --listen "unix:$store/s4" --domain d4 >"$store/out4" 2>&1 &
server_pids="$server_pids $!"
until_true 20 grep -q ready "$store/out4" || fail "the next server: $(cat "$store/out4")"
until_true 10 sh -c "AQUIFER_ROOT=$dir/b '$B/aquifer' server list | grep -q 'the server speaks versions 3 to 4 of the protocol, the client 1 to 2 (upgrade the older)'" ||
	fail "server list: $(on b server list)"
on b attach v --as nbd >/dev/null || fail "attach without it"
write_more b
echo "verified: $parts parts, written by old and new hosts on old and new servers"
