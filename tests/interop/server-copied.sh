#!/bin/bash
# A server's data directory is copied while it runs, and the copy started, as a server at another address: that is refused as long as the first one answers. If it doesn't, the
# copy is the server, and the first one ends when it goes on: two would answer as one, each with a part of what is written.
cd "$(dirname "$0")/../.."
. tests/interop/lib/agent
B=$(cd "$B" && pwd)
top=
. tests/interop/lib/store
need jq nbdcopy
copied=
end() {
	[ -z "$copied" ] || kill -9 "$copied" 2>/dev/null || true
	store_end
}
trap end EXIT
mkdir "$store/sockets"
serve
id=$(sed -n 's/.* server \([0-9a-f]*\), .*/\1/p' "$store/out")
aquifer volume create v 64M || fail "create"
head -c 4M /dev/urandom >"$dir/data"
uri=$(aquifer attach v --as nbd) && nbdcopy --flush "$dir/data" "$uri" || fail "write"
cp -a --sparse=always "$store/data" "$store/copy"
copy_up() { exec "$@" "$B/aquifer-server" --data "$store/copy" --listen "unix:$store/sockets/s" >"$store/copied" 2>&1; }
! (copy_up timeout 20) || fail "a copy is started beside the first one"
grep -q "runs already, at unix:$store/s: one of the two is a copy" "$store/copied" || fail "$(cat "$store/copied")"
nbdcopy "$uri" - | cmp -n 4194304 - "$dir/data" || fail "content"
aquifer detach v || fail "detach"

kill -STOP "$server"
copy_up env & copied=$!
until_true 10 grep -q "ready.* server $id" "$store/copied" || fail "the first one doesn't answer, and the copy: $(cat "$store/copied")"
kill -CONT "$server"
until_true 20 sh -c "! kill -0 $server 2>/dev/null" || fail "both run: $(cat "$store/out")"
! wait "$server" || fail "it ended in order: $(cat "$store/out")"
server=
grep -q "was started at unix:$store/sockets/s, from another copy" "$store/out" || fail "$(cat "$store/out")"
kill -0 $copied 2>/dev/null || fail "the copy ended as well: $(cat "$store/copied")"
echo "of a server whose directory was copied one runs"
