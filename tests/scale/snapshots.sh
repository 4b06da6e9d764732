#!/bin/bash
# 10,000 snapshots and 1,000 clones of one volume, deleted in random order, on the embedded store. SNAPSHOTS=, CLONES=, SEED=
# limit: 3600
cd "$(dirname "$0")/../.."
. tests/interop/lib/agent
need python3
. tests/scale/lib/snapshots

aquifer volume delete v || fail "delete"
good
store=$AQUIFER_ROOT/var/lib/aquifer
[ -z "$(find "$store" -name '*.seg' | head -n 1)" ] || fail "segments are left: $(find "$store" -name '*.seg' | head -n 3)"
left=$(python3 -c 'import sqlite3, sys
print(*[k for k, in sqlite3.connect(sys.argv[1]).execute("select key from kv") if k.split("/")[0] in ("volume", "snapshot", "snapname", "clone", "reap", "name", "server", "alive")])' "$store/catalog.db")
[ -z "$left" ] || fail "the catalog keeps ${left:0:300}"
