#!/bin/bash
# cluster status and check with the catalog on etcd: two servers, and a third host that only runs etcd, are healthy; a member of etcd that is dead
# is named while all goes on; the check finds nothing wrong with the catalog.
cd "$(dirname "$0")/../.."
. tests/interop/lib/agent
. tests/interop/lib/etcd
need jq qemu-io
data=$(mktemp -d -p /var/tmp)
servers=
end() {
	cleanup
	for p in $servers; do { kill -9 "$p" && wait "$p"; } 2>/dev/null || true; done
	etcds_end
	rm -rf "$data"
}
trap end EXIT
etcd_members=3
for m in 1 2 3; do etcd_start $m; done
url=$(etcd_url)
etcd_up
aquifer cluster init --catalog "$url" >/dev/null || fail "init"
aquifer cluster status >"$dir/text" 2>&1 && fail "no server, and all is well"
grep -q 'there is no server in the cluster yet' "$dir/text" || fail "no server: $(cat "$dir/text")"
for n in 1 2; do
	"$B/aquifer-server" --data "$data/$n" --listen "unix:$data/s$n" --domain "host$n" >"$data/out$n" 2>&1 &
	servers+=" $!"
	until_true 20 grep -q ready "$data/out$n" || fail "server $n: $(cat "$data/out$n")"
done
aquifer volume create v 64M && uri=$(aquifer attach v --as nbd) && qemu-io -f raw -c 'write -P 1 0 2M' -c flush "$uri" >/dev/null || fail "volume"
aquifer snapshot create v@a && aquifer clone v@a c || fail "snapshot"
aquifer cluster check --json >"$dir/check" || fail "check: $(cat "$dir/check")"
[ "$(jq -c '[.complete, .faults, ([.volumes[].copies_missing] | add)]' "$dir/check")" = '[true,[],0]' ] || fail "check: $(cat "$dir/check")"
aquifer cluster status --json >"$dir/status" || fail "two servers and three etcds: $(cat "$dir/status")"
[ "$(jq -c '[.healthy, ([.catalog.members[].answers] | length), (.volumes | length), .checked.faults]' "$dir/status")" = '[true,3,2,0]' ] || fail "$(cat "$dir/status")"
aquifer cluster status | grep -q '3 of 3 members do' || fail "the members: $(aquifer cluster status)"
etcd_kill 2
aquifer cluster status >"$dir/text" 2>"$dir/said" && fail "a member is dead, and all is well"
grep -q "the catalog's member http://127.0.0.1:$(etcd_port 2) doesn't answer" "$dir/text" && grep -q '2 of 3 members do' "$dir/text" || fail "a dead member: $(cat "$dir/text")"
qemu-io -f raw -c 'write -P 2 0 2M' -c flush "$uri" >/dev/null && aquifer cluster check >/dev/null || fail "all goes on"
etcd_start 2
until_true 20 aquifer cluster status || fail "it is back: $(aquifer cluster status)"
etcd_kill 2
etcd_kill 3
! aquifer cluster status >"$dir/text" 2>"$dir/said" || fail "no majority, and all is well"
grep -q "catalog can't be used" "$dir/said" && [ "$(grep -c "the catalog's member .* doesn't answer" "$dir/text")" = 3 ] && grep -q '0 of 3 members answer' "$dir/text" ||
	fail "without a majority: $(cat "$dir/text" "$dir/said")"
etcd_start 2
etcd_start 3
until_true 20 aquifer cluster status || fail "they are back: $(aquifer cluster status)"
aquifer detach v || fail "detach"
