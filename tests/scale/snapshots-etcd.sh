#!/bin/bash
# The same with the catalog on etcd and the segments on an aquifer-server.
# limit: 3600
cd "$(dirname "$0")/../.."
. tests/interop/lib/hosts
hosts_up a
export AQUIFER_ROOT=$dir/a
run=$AQUIFER_ROOT/run/aquifer
. tests/scale/lib/snapshots

aquifer volume delete v || fail "delete"
seconds "cluster gc" aquifer cluster gc
good
copies() { find "$store/data1/segments" -name '*.seg' | wc -l; }
until_true 20 sh -c "[ \$(find '$store/data1/segments' -name '*.seg' | wc -l) = 0 ]" || fail "$(copies) copies are left on the server"
