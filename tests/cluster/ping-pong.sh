#!/bin/bash
# limit: 3600
# A volume is handed over between two hosts again and again, MOVES (12) times, while a guest writes, reads and compares: nothing is lost, the guest waits and sees no other
# error than that of a device whose volume has gone. LONG=1: 1000 times.
cd "$(dirname "$0")/../.."
. tests/cluster/lib
moves=${MOVES:-12}
[ "${LONG:-0}" = 0 ] || moves=${MOVES:-1000}

holder=a
cluster_up
volume_up
guest_up "${SEED:-$SRANDOM}"
for i in $(seq $moves); do
	what="move $i, from $holder"
	move
	guest_lives "$what"
	[ $((i % 40)) != 0 ] || { guest_checks "$what" && checked $holder; } || fail "$what: cluster check: $(cat "$dir/check")"
done
guest_checks "after $moves moves"
guest_ends
[ "$(wc -l <"$dir/guest")" -gt "$moves" ] || fail "the guest noticed $(wc -l <"$dir/guest") moves only"
on $holder detach v || fail "detach: $(on $holder list)"
on "$(other $holder)" detach v >/dev/null || fail "detach what it left behind"
until_true 60 healthy || fail "not healthy at the end: $(cat "$dir/status")"
checked a || fail "cluster check at the end: $(cat "$dir/check")"
grep -v checked "$dir/guest" | sort -n >"$dir/waited"
echo "$moves moves in $SECONDS s: nothing is lost, requests that met one took $(sed -n "$((($(wc -l <"$dir/waited") + 1) / 2))p" "$dir/waited") ms (p50), $(tail -n 1 "$dir/waited") at most"
