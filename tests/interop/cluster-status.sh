#!/bin/bash
# cluster status: "good" and exit status 0 when all is well: on the embedded store, on two servers for volumes of two copies, on three; otherwise
# it names what isn't: a server that is away, since when; a volume that waits, and for what; one whose holder died; a check that found something;
# servers that are nearly full.
cd "$(dirname "$0")/../.."
. tests/interop/lib/cluster
need jq qemu-io python3
serve_options='--rebuild-interval 1'
good() {
	aquifer cluster status --json >"$dir/status" 2>"$dir/said" || fail "status: $(cat "$dir/said") $(jq -c .problems "$dir/status")"
	[ "$(jq -c '[.healthy, .problems]' "$dir/status")" = '[true,[]]' ] || fail "status: $(cat "$dir/status")"
	aquifer cluster status >"$dir/text" || fail "as text: $(cat "$dir/text")"
	grep -q '^health  *good$' "$dir/text" && [ "$(wc -l <"$dir/text")" -le 40 ] || fail "as text: $(cat "$dir/text")"
}
# bad PATTERN: a problem that matches
bad() {
	aquifer cluster status >"$dir/text" 2>"$dir/said" && fail "all is well, it says; and not: $1"
	grep -qE "^(problems)?  *.*($1)" "$dir/text" || fail "not said: $1: $(cat "$dir/text")"
	[ "$(wc -l <"$dir/said")" = 1 ] && grep -q '^aquifer: cluster status failed: not all is well: [0-9]* problem' "$dir/said" || fail "its last line: $(cat "$dir/said")"
}
json() { aquifer cluster status --json >"$dir/status" 2>/dev/null && fail "as JSON all is well: $(cat "$dir/status")"; jq -e '.problems | length > 0' "$dir/status" >/dev/null; }
waits() { aquifer volume show v --json | jq -r .health >"$dir/health" && grep -q 'it waits, for [0-9]* s now, for 2 servers .*missing' "$dir/health"; }

# embedded
aquifer cluster status >/dev/null 2>"$dir/said" && fail "there is no store, and all is well"
aquifer volume create v 64M && good
[ "$(jq -c '[.checked, .scrubbed]' "$dir/status")" = '[null,null]' ] || fail "nobody has checked anything: $(cat "$dir/status")"
aquifer cluster check >/dev/null && good
jq -e '.checked.when_ns > 0 and .checked.faults == 0 and .directory.total > 0' "$dir/status" >/dev/null || fail "checked: $(cat "$dir/status")"
uri=$(aquifer attach v --as nbd) && good || fail "attach"
jq -e '.volumes[0] | .state == "attached" and .failed == 0 and .waits_for == ""' "$dir/status" >/dev/null || fail "attached: $(cat "$dir/status")"
kill -9 "$(field v pid)"
until_true 10 eval '[ "$(aquifer volume show v --json | jq -r .state)" = free ]' || fail "killed"
bad 'volume v: its holder died'
aquifer cluster check >/dev/null && good || fail "the check recovers it"
echo 'warn-full = 1,2' >"$conf" && bad 'the file system of .* is [0-9]* % full'
echo 'warn-full = 9,2' >"$conf" && refused 1 'no list of rising percentages' aquifer cluster status
aquifer volume delete v

# two servers are enough for volumes of two copies
share_catalog
serve 1 && serve 2
aquifer volume create w 64M || fail "create"
[ "$(aquifer volume show w --json | jq .replicas)" = 2 ] || fail "two servers, and $(aquifer volume show w)"
uri=$(aquifer attach w --as nbd) && qemu-io -f raw -c 'write -P 1 0 1M' -c flush "$uri" >/dev/null && good || fail "two servers"
[ "$(jq -c '[.servers[].answers, .groups.complete, (.servers[0].software | test("^aquifer [0-9]"))]' "$dir/status")" = '[true,true,256,true]' ] || fail "two servers: $(cat "$dir/status")"
aquifer detach w && aquifer volume delete w

# three copies: one server away, then two
serve 3
aquifer volume create v 64M && uri=$(aquifer attach v --as nbd) && qemu-io -f raw -c 'write -P 1 0 1M' -c flush "$uri" >/dev/null && good || fail "three servers"
gone 3
bad "server unix:$data/s3 doesn't answer"
grep -q '256 of 256 placement groups have fewer copies than wanted' "$dir/text" || fail "the groups: $(cat "$dir/text")"
json || fail "$(cat "$dir/status")"
since=$(jq '.servers[] | select(.answers | not) | .away_since_ns' "$dir/status")
gone 2
qemu-io -f raw -c 'write -P 2 0 1M' "$uri" >/dev/null &
writer=$!
until_true 15 waits || fail "it waits, and volume show says: $(cat "$dir/health")"
bad "volume v: it waits, for [0-9]* s now, for 2 servers .*missing: .*$data/s"
json
jq -e '.volumes[0].waits_since_ns > 0' "$dir/status" >/dev/null || fail "since when: $(cat "$dir/status")"
[ "$(jq '.servers[] | select(.answers | not) | .away_since_ns' "$dir/status" | sort -n | head -n 1)" = "$since" ] || fail "away since: $(cat "$dir/status")"
serve 2
wait $writer || fail "the write failed"
bad 'volume v: [0-9]* of the [0-9]* segments of its log have fewer than 3 copies'
serve 3
[ "$(aquifer cluster status --json 2>/dev/null | jq '[.servers[].away_since_ns] | add')" = 0 ] || fail "back: $(aquifer cluster status)"
aquifer detach v
sleep 2.5 # each has looked for what it lacks since then
until_true 30 aquifer cluster status || fail "what is missing isn't made: $(aquifer cluster status)"
good

# what a check found is told until one finds nothing
python3 - "$data/catalog.db" "insert into kv values('clone/0000000000000001/0000000000000063/0000000000000063', x'', 1)" <<-'P'
	import sqlite3, sys
	c = sqlite3.connect(sys.argv[1]); c.execute(sys.argv[2]); c.commit()
	P
aquifer cluster check >/dev/null 2>&1 && fail "the check finds nothing"
bad 'the last check found 1 fault'
python3 - "$data/catalog.db" "delete from kv where key like 'clone/%'" <<-'P'
	import sqlite3, sys
	c = sqlite3.connect(sys.argv[1]); c.execute(sys.argv[2]); c.commit()
	P
aquifer cluster check >/dev/null && good
