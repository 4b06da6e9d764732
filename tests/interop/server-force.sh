#!/bin/bash
# Who took a volume by force on the same host keeps it: one that comes later without is refused, also when the one it was taken from has gone.
cd "$(dirname "$0")/../.."
. tests/interop/lib/agent
B=$(cd "$B" && pwd)
top=
. tests/interop/lib/store
need jq nbdcopy
mkdir -p "$AQUIFER_ROOT/var/lib/aquifer"
serve --catalog "sqlite:$AQUIFER_ROOT/var/lib/aquifer/catalog.db"
aquifer volume create v 128M || fail "volume create"
aquifer attach v --as nbd --name a >/dev/null || fail "attach"
refused 1 "attached as device a" aquifer attach v --as nbd --name b
uri=$(aquifer attach v --as nbd --name b --force) || fail "attach --force"
refused 1 "taken its volume over" aquifer detach a --force
refused 1 "attached as device b" aquifer attach v --as nbd --name c
head -c 4M /dev/urandom >"$dir/data"
nbdcopy --flush "$dir/data" "$uri" || fail "the one that took it by force has lost it"
aquifer detach b || fail "detach"
aquifer attach v --as nbd --name c >/dev/null && aquifer detach c || fail "it is free, and can't be attached"
echo "taken by force, and kept when the first holder has gone"
