#!/bin/bash
# 100 volumes attached on one host, with the catalog on etcd and two copies of each on two servers.
# limit: 900
cd "$(dirname "$0")/../.."
. tests/interop/lib/hosts
servers=2
hosts_up a
export AQUIFER_ROOT=$dir/a
run=$AQUIFER_ROOT/run/aquifer
others() {
	# shellcheck disable=SC2086
	needs "a server" $server_pids
	# shellcheck disable=SC2086
	echo "  idle, both servers: $(idle 5 $server_pids)"
	echo "  idle, etcd: $(idle 5 "${etcd_pid[@]}")"
}
. tests/scale/lib/attached
aquifer cluster gc >"$dir/said" 2>&1 || fail "gc: $(cat "$dir/said")"
[ -z "$(find "$store" -name '*.seg' | head -n 1)" ] || fail "copies are left"
