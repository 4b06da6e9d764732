#!/bin/bash
# limit: 120
# A server that is full is one that failed, as long as others have room: also for segments that were made while one of those was away, which have two copies, one of
# them on the full one. With one full and one away nothing is refused: it waits.
cd "$(dirname "$0")/../.."
. tests/cluster/lib

cluster_up
volume_up
guest_up "${SEED:-1}"
sleep 0.5
kill -STOP "${pid[1]}"
sleep 3
guest_checks "with a server stopped"
kill -CONT "${pid[1]}"
until_true 20 settled || fail "it is back: $(on a server list)"
fill_disk
sleep 2
guest_checks "with a full server"
[ "$errors" = 0 ] || fail "a server of three is full, and the guest saw $errors errors"
# With another one away as well writes wait, and it is said for whom; then they go on.
kill -STOP "${pid[1]}"
waits() { on a list | grep ' wait since ' | grep -q "${address[1]}:7000.*${address[3]}:7000 (full)"; }
until_true 20 waits || fail "one is away and one is full: $(on a list)"
kill -CONT "${pid[1]}"
guest_checks "with the other one back"
[ "$errors" = 0 ] || fail "one server was away and one full, and the guest saw $errors errors"
empty_disk
until_true 60 settled || fail "with room again: $(on a server list)"
guest_ends
checked a || fail "cluster check: $(cat "$dir/check")"
echo "one server away, then another one full, then both: no errors, nothing is lost"
