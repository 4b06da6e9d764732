#!/bin/bash
# Four servers, three copies: one is lost with its disk, and what it had is made elsewhere; then another one, and everything is there; one with a
# new disk joins, one is drained and removed, all while the volume is written or read and verified. What a server that was away
# didn't hear of is deleted when it is back. Beside it another volume is attached all the time, and idle.
cd "$(dirname "$0")/../.."
. tests/interop/lib/cluster
need fio nbdinfo jq
serve_options='--rebuild-interval 1 --lost-after 3 --rebuild-rate 0'
share_catalog

id() { sed -n 's/.* server \([0-9a-f]*\), .*/\1/p' "$data/out$1"; }
servers() { aquifer server list --json | jq -r "$1"; }
# settled N: N servers answer, and none of them has anything left to do
settled() { [ "$(servers 'map(select(.answers and .settled and .missing == 0 and .misplaced == 0)) | length')" = "$1" ]; }
load() { # NAME OPTION…
	fio --name="$1" --ioengine=nbd --uri="$uri" --rw=randwrite --bs=4k --iodepth=16 --verify_state_save=0 --verify=crc32c --verify_fatal=1 --randrepeat=1 "${@:2}" >"$dir/$1" 2>&1 ||
		fail "$1: $(tail -n 5 "$dir/$1")"
}
short() { aquifer cluster status --json 2>/dev/null | jq -e '.problems[] | select(test("volume idle: .* have fewer than"))' >/dev/null; }
full() { ! short; }
copies() { find "$data/$1/segments" -name '*.seg' | wc -l; }

for n in 1 2 3 4; do serve $n; done
aquifer volume create v 192M >"$dir/said" || fail "volume create: $(cat "$dir/said")"
uri=$(aquifer attach v --as nbd) || fail "attach"
aquifer volume create idle 64M >"$dir/said" || fail "volume create: $(cat "$dir/said")"
idle_uri=$(aquifer attach idle --as nbd) || fail "attach idle"
uri=$idle_uri load idle --size=1M --fsync=64
load first --size=96M --fsync=256
until_true 30 settled 4 || fail "before anything: $(aquifer server list)"

# lost with its disk: the others make what it had
lost=$(id 1)
gone 1
rm -rf "$data/1"
load second --offset=96M --size=32M --fsync=64
until_true 60 sh -c "$B/aquifer server list --json | jq -e '.[] | select(.id == \"$lost\" and .state == \"lost\")' >/dev/null" ||
	fail "it isn't lost: $(aquifer server list)"
until_true 60 settled 3 || fail "after the loss: $(aquifer server list)"

# another one; two are left, and they have everything
gone 2
rm -rf "$data/2"
load first --size=96M --verify_only
load second --offset=96M --size=32M --verify_only
refused 1 'there is no server' aquifer server remove 00000000

# new disks; the old servers are gone for good
second=$(servers 'map(select(.answers | not) | .id) | map(select(. != "'"$lost"'")) | .[0]')
serve 2
aquifer server remove "$lost" --force >"$dir/said" || fail "remove: $(cat "$dir/said")"
aquifer server remove "$second" >"$dir/said" || fail "remove what nothing is only on: $(cat "$dir/said")"
until_true 60 sh -c "[ \$($B/aquifer server list --json | jq length) = 3 ]" || fail "removed: $(aquifer server list)"
until_true 60 settled 3 || fail "with a new disk: $(aquifer server list)"
[ "$(copies 2)" -gt 1 ] || fail "nothing is on the new disk"
until_true 20 full || fail "an idle volume stays short of copies: $(aquifer cluster status)"

# what is opened while a server is away is left for segments with all copies when it is back, though nothing is written any more
stop 2
uri=$idle_uri load idle --size=1M --fsync=64
short || fail "the volume isn't short of copies, though a server is away: $(aquifer cluster status)"
serve 2
until_true 20 full || fail "an idle volume stays short of copies when the server is back: $(aquifer cluster status)"
refused 1 'as many as 3 copies, and servers in 2 failure domains would be left' aquifer server drain "$(id 2)"

# drained and removed, with another in its place
serve 1
drained=$(id 3)
refused 1 'cop(y is|ies are) on it' aquifer server remove "${drained:0:8}"
aquifer server drain "${drained:0:8}" --wait >"$dir/said" || fail "drain: $(cat "$dir/said")"
[ "$(copies 3)" = 0 ] || fail "$(copies 3) copies are on the drained server"
aquifer server remove "$drained" >"$dir/said" || fail "remove: $(cat "$dir/said")"
gone 3
until_true 60 settled 3 || fail "after the drain: $(aquifer server list)"
load third --offset=128M --size=32M --fsync=64
for name in first:0:96M second:96M:32M third:128M:32M; do
	IFS=: read -r what offset size <<<"$name"
	load "$what" --offset="$offset" --size="$size" --verify_only
done

# what a server doesn't hear of is deleted when it is back
gone 4
for name in v idle; do
	aquifer detach $name || fail "detach"
	aquifer volume delete $name || fail "delete"
done
serve 4
aquifer cluster gc --json >"$dir/said" || fail "gc: $(cat "$dir/said")"
for n in 1 2 4; do
	[ "$(copies $n)" = 0 ] || fail "$(copies $n) copies are left on server $n: $(cat "$dir/said")"
done
