#!/bin/bash
# A server with 100,000 small segments: how fast they are written, how long it takes to start, stopped in order or killed, with a size limit; what it
# needs of memory, threads and files; that requests go on while it looks through all of them for rebuilding, gc and scrubbing; then a second server,
# which takes its share. SEGMENTS=
# limit: 3600
cd "$(dirname "$0")/../.."
. tests/interop/lib/cluster
need jq fio od
SEGMENTS=${SEGMENTS:-100000}
segload=$B/tools/segload
[ -x "$segload" ] || { echo "skipped: $segload is not built (make tools)"; exit 77; }
serve_options='--rebuild-interval 5 --rebuild-rate 0 --gc-interval 10'
share_catalog

now() { echo "${EPOCHREALTIME/./}"; }
took() { awk -v us=$(($(now) - $2)) -v w="$1" 'BEGIN { printf "%s: %.2f s\n", w, us / 1e6 }'; }
status() { # N: memory, threads, files of server N
	local p=/proc/${server[$1]}
	awk '/^VmRSS/ { rss = $2 } /^VmHWM/ { top = $2 } /^Threads/ { t = $2 } END { printf "  memory %d MiB (at most %d), %d threads, ", rss / 1024, top / 1024, t }' "$p/status"
	echo "$(ls "$p/fd" | wc -l) files"
}
copies() { find "$data/$1/segments" -name '*.seg' | wc -l; }
told() { aquifer server list --json | jq -r "map(select(.domain == \"d$1\"))[0].copies"; } # once it has looked at all
# rebuilt N COPIES: server N has looked through all it has, at least so many
rebuilt() { [ "$(told "$1")" -ge "$2" ]; }
start_again() { # WHAT OPTION…
	local begin
	begin=$(now)
	serve 1 "${@:2}"
	took "start $1" "$begin"
	status 1
}
# goes_on WHAT COMMAND…: while it runs, 4k writes and reads of a volume there are answered; none waits for as long as it takes to be taken for dead
goes_on() {
	local what=$1 begin load worst
	shift
	fio --name=load --ioengine=nbd --uri="$uri" --rw=randrw --bs=4k --iodepth=1 --size=32M --time_based --runtime=3600 --output-format=json \
		--output="$dir/load" >/dev/null 2>&1 &
	load=$!
	sleep 1
	begin=$(now)
	"$@" >"$dir/said" 2>&1 || fail "$what: $(tail -n 3 "$dir/said")"
	took "$what" "$begin"
	kill -INT $load
	wait $load || true
	worst=$(sed -n '/^{/,$p' "$dir/load" | jq -r '.jobs[0] | [.read, .write] | map(.clat_ns.percentile["99.900000"], .clat_ns.max) | map(. / 1e6 | floor) | @tsv') ||
		fail "fio: $(tail -n 3 "$dir/load")"
	# shellcheck disable=SC2086
	printf '  meanwhile, ms: reads p99.9 %s, worst %s; writes p99.9 %s, worst %s\n' $worst
	[ "$(awk '{ print ($2 > $4 ? $2 : $4) < 2000 }' <<<"$worst")" = 1 ] || fail "requests waited too long"
}

serve 1
aquifer volume create v 64M || fail "create"
uri=$(aquifer attach v --as nbd) || fail "attach"
fio --name=fill --ioengine=nbd --uri="$uri" --rw=write --bs=1M --size=64M --end_fsync=1 >"$dir/said" 2>&1 || fail "fill: $(tail -n 3 "$dir/said")"
one=$(find "$data/1/segments" -name '*.seg' | head -n 1)
uuid=$(od -An -v -tx1 -j48 -N16 "$one" | tr -d ' \n')
begin=$(now)
# above all that the volume was given, so that nobody can say yet that they aren't wanted (R31)
"$segload" many "unix:$data/s1" 1000000 "$SEGMENTS" "$uuid" >"$dir/said" 2>&1 || fail "segload: $(cat "$dir/said")"
took "$SEGMENTS segments written" "$begin"
cat "$dir/said"
status 1
aquifer detach v || fail "detach"
all=$(copies 1)

begin=$(now)
stop 1
took "stop" "$begin"
start_again "after a stop"
uri=$(aquifer attach v --as nbd) || fail "attach"
goes_on "looking through all of them, after a start" until_true 120 rebuilt 1 "$all"
status 1
goes_on "cluster gc" aquifer cluster gc
[ "$(copies 1)" -ge "$SEGMENTS" ] || fail "gc took $((all - $(copies 1))) of those that nobody can have judged"
goes_on "cluster scrub" aquifer cluster scrub
status 1
aquifer detach v || fail "detach"
gone 1
start_again "after kill -9"
stop 1
start_again "with a size limit" --size-limit 1T
stop 1
start_again "once more"

begin=$(now)
serve 2
settled() { [ "$(aquifer server list --json | jq 'map(select(.answers and .settled and .missing == 0 and .misplaced == 0)) | length')" = 2 ]; }
sleep 3
uri=$(aquifer attach v --as nbd) || fail "attach"
goes_on "a second server has taken its share" until_true 1500 settled
took "since it was started" "$begin"
status 1
status 2
echo "copies: $(copies 1) and $(copies 2)"
[ $(($(copies 1) + $(copies 2))) -ge "$all" ] && [ "$(copies 2)" -gt $((SEGMENTS / 3)) ] || fail "not all are there, or not where they belong: $(copies 1) and $(copies 2)"
fio --name=fill --ioengine=nbd --uri="$uri" --rw=read --bs=1M --size=64M >"$dir/said" 2>&1 || fail "read: $(tail -n 3 "$dir/said")"

# the volume goes: so does all of it
aquifer detach v || fail "detach"
aquifer volume delete v || fail "delete"
begin=$(now)
aquifer cluster gc >"$dir/said" 2>&1 || fail "gc: $(cat "$dir/said")"
took "gc of all of them" "$begin"
[ "$(copies 1)$(copies 2)" = 00 ] || fail "$(copies 1) and $(copies 2) copies are left: $(cat "$dir/said")"
