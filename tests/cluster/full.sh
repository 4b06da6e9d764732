#!/bin/bash
# limit: 120
# A server that is full is one that failed, as long as others have room: also for segments that were made while one of those was away, which have two copies, one of
# them on the full one.
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
empty_disk
until_true 60 settled || fail "with room again: $(on a server list)"
guest_ends
checked a || fail "cluster check: $(cat "$dir/check")"
echo "one server away, then another one full: no errors, nothing is lost"
