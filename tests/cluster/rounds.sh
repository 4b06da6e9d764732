#!/bin/bash
# limit: 7200
# A volume with three copies on three servers, in network namespaces, under verified load, through faults that the system promises to survive: one part at a time
# is killed, stopped, cut off, slow, full, wiped, or comes back with the disk that it had before. ROUNDS (6) rounds, whose faults follow from SEED; the kinds go round by turns.
# After each round everything acknowledged is there, the guest has seen no error (unless its own tapdisk was killed or its volume was moved: then the next device takes its
# requests), and cluster check is clean; at the end cluster status is healthy. PARTS (1): so many clusters side by side share the rounds, since a round mostly waits.
#     SEED=n [FIRST=r] ROUNDS=k bash tests/cluster/rounds.sh     the same choices again; KINDS="full wiped": only these; CLUSTER_KEEP=DIR keeps what a failed run leaves
cd "$(dirname "$0")/../.."
rounds=${ROUNDS:-6} seed=${SEED:-$((SRANDOM % 1000000))} first=${FIRST:-1} parts=${PARTS:-1}
[ "${LONG:-0}" = 0 ] || rounds=${ROUNDS:-500}
if [ $parts -gt 1 ]; then
	begun=() failed=0
	trap 'kill "${begun[@]}"; wait; exit 143' INT TERM HUP # each takes its cluster away
	for p in $(seq 0 $((parts - 1))); do
		PARTS=1 SEED=$seed FIRST=$((first + rounds * p / parts)) ROUNDS=$((rounds * (p + 1) / parts - rounds * p / parts)) \
			CLUSTER_KEEP=${CLUSTER_KEEP:+$CLUSTER_KEEP.$p} bash "$0" &
		begun+=($!)
	done
	for p in "${begun[@]}"; do wait "$p" || failed=$?; done
	exit $failed
fi
. tests/cluster/lib
. tests/cluster/faults
kinds=(${KINDS:-killed migrate one-way tapdisk stopped full agent returned link wiped host-link slow etcd paused})
echo "seed $seed, rounds $first to $((first + rounds - 1))"

stage() { # COMMAND…: how long it took, with VERBOSE
	local begin=${EPOCHREALTIME/./} status
	"$@"
	status=$?
	[ -z "${VERBOSE:-}" ] || printf '\t%s: %d ms\n' "$*" $(((${EPOCHREALTIME/./} - begin) / 1000)) | cut -c 1-60
	return $status
}
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

fault_tapdisk() {
	may_fail=1
	kill -9 "$(at $holder pid)"
	attach_again $holder
}
fault_migrate() { may_fail=1; move; pause $ms; [ $((ms % 2)) = 0 ] || move; }
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
volume_up
guest_up "$seed"
for round in $(seq $first $((first + rounds - 1))); do
	draw_choices $round
	kind=${kinds[(round - 1 + seed) % ${#kinds[@]}]}
	may_fail= before=$errors
	what="round $round, $kind ($(choices), volume on $holder)"
	[ -z "${VERBOSE:-}" ] || echo "$SECONDS s: $what"
	guest_lives "$what"
	pause 200
	stage fault_$kind
	stage until_true 30 serves || fail "$what: nobody serves: $(on a list; on b list)"
	stage guest_checks "$what"
	[ -n "$may_fail" ] || [ "$errors" = "$before" ] || fail "$what: the guest saw $((errors - before)) errors"
	stage until_true 20 checked $holder || fail "$what: cluster check: $(cat "$dir/check")"
	# the next fault is of another part: only when there are three copies of everything again is that one fault
	stage until_true 60 settled || fail "$what: copies are missing: $(on a server list)"
	[ -z "${VERBOSE:-}" ] || echo "	requests: $took"
done
guest_ends
on $holder snapshot create v@end >/dev/null || fail "snapshot"
on $holder detach v || fail "detach: $(on $holder list)"
on "$(other $holder)" detach --all --force >/dev/null 2>&1 || true
pause 2500 # two of the servers' looks for what they lack
until_true 60 healthy || fail "not healthy at the end: $(cat "$dir/status")"
checked a || fail "cluster check at the end: $(cat "$dir/check")"

# A bad copy would have gone unnoticed till here, since reads go to the others then: each server has all of it, alone.
export_v() { # FILE
	on a volume export v@end "$1" >/dev/null 2>"$dir/why" || fail "export: $(cat "$dir/why")"
}
export_v "$dir/all"
for n in 1 2 3; do
	for other in 1 2 3; do [ $other = $n ] || killed $other; done
	export_v "$dir/one"
	cmp "$dir/all" "$dir/one" || fail "server $n alone has something else"
	rm "$dir/one"
	for other in 1 2 3; do [ $other = $n ] || server_up $other; done
done
echo "$rounds rounds in $SECONDS s: nothing is lost ($(sed -n 's/^roam: //p' "$dir/guest.err"))"
