#!/bin/bash
# A server is started with a wrong catalog, and with the right one again: that doesn't know of the former start, so that it might be an old one. Status says so, and not that a
# backup was restored; when it was confirmed, all is well.
cd "$(dirname "$0")/../.."
. tests/interop/lib/agent
B=$(cd "$B" && pwd)
top=
. tests/interop/lib/store
need nbdcopy
unserve() {
	kill "$server" && wait "$server" || fail "the server's end: $(cat "$store/out")"
	server=
}
serve
aquifer volume create v 64M --replicas 1 || fail "create"
head -c 4M /dev/urandom >"$dir/data"
uri=$(aquifer attach v --as nbd) && nbdcopy --flush "$dir/data" "$uri" && aquifer detach v || fail "write"
unserve
serve --catalog "sqlite:$store/wrong.db"
unserve
serve
! aquifer cluster status >"$dir/status" 2>&1 || fail "all is well: $(cat "$dir/status")"
grep -q "a server came that had a newer catalog than this, or another one meanwhile" "$dir/status" || fail "$(cat "$dir/status")"
! grep -q "restored from a backup" "$dir/status" || fail "no backup was restored: $(cat "$dir/status")"
! aquifer cluster gc >"$dir/gc" 2>&1 && grep -q "a server came that had another" "$dir/gc" || fail "gc: $(cat "$dir/gc")"
aquifer cluster restore --confirm >/dev/null || fail "confirm"
aquifer cluster status >"$dir/status" 2>&1 || fail "it was confirmed: $(cat "$dir/status")"
uri=$(aquifer attach v --as nbd) && nbdcopy "$uri" - | cmp -n 4194304 - "$dir/data" || fail "content"
aquifer detach v || fail "detach"
echo "a server that had another catalog is told of as that"
