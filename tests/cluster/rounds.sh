#!/bin/bash
# limit: 7200
# A volume with three copies on three servers, in network namespaces, under verified load, through faults that the system promises to survive: one part at a time
# is killed, stopped, cut off, full or wiped. ROUNDS (6) rounds, whose faults follow from SEED; the kinds go round by turns. After each round everything acknowledged is
# there, the guest has seen no error (unless its own tapdisk was killed or its volume was moved: then the next device takes its requests), and cluster check is clean; at the end cluster status is healthy.
#     SEED=n ROUNDS=k bash tests/cluster/rounds.sh     the same choices again; KINDS="full wiped": only these; CLUSTER_KEEP=DIR keeps what a failed run leaves
cd "$(dirname "$0")/../.."
. tests/cluster/lib
rounds=${ROUNDS:-6} seed=${SEED:-$((SRANDOM % 1000000))}
[ "${LONG:-0}" = 0 ] || rounds=${ROUNDS:-500}
kinds=(${KINDS:-killed migrate one-way tapdisk stopped full agent link wiped host-link etcd paused})
echo "seed $seed, $rounds rounds"

draw() { REPLY=$((RANDOM % $1)); } # below $1
pause() { sleep "$(printf '%d.%03d' $(($1 / 1000)) $(($1 % 1000)))"; } # ms
holder=a
may_fail= # the guest may see errors in this round

# Makes the holder serve, on either host: after its tapdisk died, or was fenced.
serves() {
	local x
	for x in a b; do [ "$(at $x state)" != running ] || fenced $x || { holder=$x && return 0; }; done
	return 1
}
attach_again() { # HOST
	on "$1" detach v --force >/dev/null 2>&1 || true
	on "$1" attach v --as nbd ${2:-} >/dev/null 2>"$dir/why" || fail "$what: attach on $1: $(cat "$dir/why"); $(on a list; on b list)"
	holder=$1
}
move() { # to the other host
	local to
	to=$(other $holder)
	on "$to" detach v --force >/dev/null 2>&1 || true
	on $holder migrate v --to "h$to" >/dev/null 2>"$dir/why" || fail "$what: migrate: $(cat "$dir/why")"
	holder=$to
}

fault_killed() { killed $n; pause $ms; server_up $n; }
# longer than the deadline, after which it is left out
fault_stopped() { kill -STOP "${pid[$n]}"; pause $((2500 + ms)); kill -CONT "${pid[$n]}"; }
fault_tapdisk() {
	may_fail=1
	kill -9 "$(at $holder pid)"
	attach_again $holder
}
fault_agent() {
	kill -9 "$(agent_pid $holder)"
	pause $ms
	on $holder agent start >/dev/null || fail "$what: the agent of $holder"
}
fault_link() { link $n down; pause $((500 + 3 * ms)); link $n up; }
fault_host-link() { link $holder down; pause $((500 + 3 * ms)); link $holder up; }
fault_one-way() {
	cut_off $n "$way" a b
	pause $((500 + 3 * ms))
	let_back $n
}
fault_etcd() { killed e; pause $ms; etcd_up; }
fault_migrate() { may_fail=1; move; pause $ms; [ $((ms % 2)) = 0 ] || move; }
fault_full() { fill_disk; pause $((1000 + 2 * ms)); empty_disk; } # server 3's file system, by somebody else's file
fault_wiped() {
	local old
	old=$(server_id $n)
	killed $n
	rm -rf "$dir/disk$n/data"
	pause $ms
	server_up $n
	on a server remove "$old" --force >/dev/null 2>"$dir/why" || fail "$what: server remove: $(cat "$dir/why")"
}
# the holder hangs beyond its lease, is taken over from, and goes on: it is refused
fault_paused() {
	local old=$holder tapdisk
	may_fail=1
	tapdisk=$(at $holder pid)
	kill -STOP "$tapdisk"
	pause $((10500 + ms))
	attach_again "$(other $old)" --force
	kill -CONT "$tapdisk"
	until_true 20 fenced "$old" || fail "$what: the old holder believes to have it: $(on $old list)"
}

cluster_up
guest_up "$seed"
for round in $(seq $rounds); do
	RANDOM=$(((seed * 1000 + round) % 32768))
	kind=${kinds[(round - 1 + seed) % ${#kinds[@]}]}
	draw 3; n=$((REPLY + 1))
	draw 1000; ms=$REPLY
	draw 3; ways=(in out both) way=${ways[REPLY]}
	may_fail= before=$errors
	what="round $round, $kind (server $n, $way, $ms ms, volume on $holder)"
	[ -z "${VERBOSE:-}" ] || echo "$SECONDS s: $what"
	guest_lives "$what"
	pause 200
	fault_$kind
	until_true 30 serves || fail "$what: nobody serves: $(on a list; on b list)"
	guest_checks "$what"
	[ -n "$may_fail" ] || [ "$errors" = "$before" ] || fail "$what: the guest saw $((errors - before)) errors"
	until_true 20 checked $holder || fail "$what: cluster check: $(cat "$dir/check")"
	# the next fault is of another part: only when there are three copies of everything again is that one fault
	until_true 60 settled || fail "$what: copies are missing: $(on a server list)"
done
guest_ends
on $holder detach v || fail "detach: $(on $holder list)"
on "$(other $holder)" detach --all --force >/dev/null 2>&1 || true
until_true 60 healthy || fail "not healthy at the end: $(cat "$dir/status")"
checked a || fail "cluster check at the end: $(cat "$dir/check")"
echo "$rounds rounds in $SECONDS s: nothing is lost ($(sed -n 's/^roam: //p' "$dir/guest.err"))"
