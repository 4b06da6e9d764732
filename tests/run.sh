#!/bin/bash
# run.sh [SCRIPT…]: runs test scripts (all of tests/interop/*.sh without arguments), from the top of the tree, JOBS (1) at
# a time, for most of their time is waiting. One whose name is in ALONE runs beside no other. One line each: result, seconds,
# name, and for a skipped one its reason; for a failed one the end of its output. Last line: "N passed, N failed, N skipped".
# Fails if one failed.
#
# A script passes with 0 and skips with 77. It has TEST_LIMIT seconds (default 120), or what a line "# limit: N" in it
# says; then its process group gets SIGTERM, so that its trap cleans up, and SIGKILL ten seconds later.
# Each has a mount namespace of its own, if we may: a copy of its mounts that another one's `unshare -m` made would keep its file systems in use after
# umount, so that fsck finds them dirty; and what it leaves mounted goes with it.
# Whole outputs are kept in $B/test-logs/.
#
# With programs built with sanitizers (make asan; B=build/asan) what these say goes to files of its own, $B/test-logs/san/NAME.PID: they
# remark on swapcontext() in every process, which is no error, and daemons' errors would be read by nobody. A script during
# which one of them found an error fails, whatever it says itself. Everything is slower: scripts have three times as long.
set -u
cd "$(dirname "$0")/.." || exit 1
export B=${B:-build}
logs=$B/test-logs
mkdir -p "$logs"
passed=0 failed=0 skipped=0
[ $# -gt 0 ] || set -- tests/interop/*.sh

# Ends the group $1 after $2 seconds.
watchdog() {
	sleep "$2" &
	sleeper=$!
	trap 'kill $sleeper 2>/dev/null; exit 0' TERM
	wait $sleeper
	echo "run.sh: $2 seconds are over" >>"$3"
	kill -TERM -- "-$1" 2>/dev/null
	sleep 10
	kill -KILL -- "-$1" 2>/dev/null
}

# The scripts that run are groups: they don't get our signals by themselves. Each has a shell that does.
trap 'kill $(jobs -p) 2>/dev/null; wait; exit 143' TERM INT HUP

apart=
! unshare --mount --propagation slave true 2>/dev/null || apart='unshare --mount --propagation slave'

now() { date +%s%N; }

sanitized=
stretch=1
asan=${ASAN_OPTIONS:+$ASAN_OPTIONS:} ubsan=${UBSAN_OPTIONS:+$UBSAN_OPTIONS:}print_stacktrace=1:
! ldd "$B/aquifer" 2>/dev/null | grep -q 'lib[aut]*san' || sanitized=1 stretch=3

# What the sanitizers found in the processes of script $1: into the log $2. True if there is something.
sanitizers_found() {
	local found
	found=$(grep -lE 'ERROR: |runtime error: |SUMMARY: ' "$logs/san/$1".* 2>/dev/null) || return 1
	# shellcheck disable=SC2086
	{ echo "run.sh: a sanitizer found an error:"; head -n 40 $found; } >>"$2"
}

# Runs script $1, and writes its line, and what belongs below it, into the file $2.
run_one() {
	local script=$1 result=$2 name log limit start status seconds pid= dog=
	name=$(basename "$script" .sh)
	log=$logs/$name.log
	trap '{ [ -z "$dog" ] || kill "$dog"; [ -z "$pid" ] || { kill -TERM -- "-$pid"; wait "$pid"; }; } 2>/dev/null; exit 143' TERM INT HUP
	if [ ! -r "$script" ]; then
		echo "FAIL       - $script: no such script" >"$result"
		return
	fi
	limit=$(sed -n 's/^# limit: *\([0-9][0-9]*\).*/\1/p' "$script" | head -n 1)
	start=$(now)
	if [ -n "$sanitized" ]; then
		mkdir -p "$logs/san"
		chmod 1777 "$logs/san" # for scripts that are somebody else
		rm -f "$logs/san/$name".*
		export ASAN_OPTIONS="${asan}log_path=$(realpath "$logs")/san/$name" UBSAN_OPTIONS="${ubsan}log_path=$(realpath "$logs")/san/$name"
	fi
	# A process group of its own, whose leader is the script.
	set -m
	$apart bash "$script" >"$log" 2>&1 </dev/null &
	pid=$!
	set +m
	watchdog $pid $((${limit:-${TEST_LIMIT:-120}} * stretch)) "$log" >/dev/null 2>&1 &
	dog=$!
	wait $pid 2>/dev/null
	status=$?
	kill -TERM $dog 2>/dev/null
	wait $dog 2>/dev/null
	! sanitizers_found "$name" "$log" || [ $status -ne 0 ] || status=1
	seconds=$(awk "BEGIN { printf \"%.1f\", ($(now) - $start) / 1e9 }")
	case $status in
	0) printf 'pass  %6s s  %s\n' "$seconds" "$name" ;;
	77) printf 'skip  %6s s  %s (%s)\n' "$seconds" "$name" "$(tail -n 1 "$log" | sed 's/^skip[a-z]*: *//')" ;;
	*)
		printf 'FAIL  %6s s  %s (status %d; all of it in %s)\n' "$seconds" "$name" $status "$log"
		tail -n 20 "$log" | sed 's/^/    /'
		;;
	esac >"$result"
}

declare -A results=() # of what runs, by pid
# Waits until no more than $1 run.
wait_for() {
	local pid
	while [ ${#results[@]} -gt "$1" ]; do
		wait -n -p pid "${!results[@]}" 2>/dev/null
		[ -s "${results[$pid]}" ] || echo "FAIL       - ${results[$pid]}: nothing is known of it" >"${results[$pid]}"
		case $(head -c 4 "${results[$pid]}") in
		pass) passed=$((passed + 1)) ;;
		skip) skipped=$((skipped + 1)) ;;
		*) failed=$((failed + 1)) ;;
		esac
		cat "${results[$pid]}"
		rm "${results[$pid]}"
		unset "results[$pid]"
	done
}

for script; do
	name=$(basename "$script" .sh)
	alone=
	[[ " ${ALONE:-} " != *" $name "* ]] || alone=1
	wait_for $((alone ? 0 : ${JOBS:-1} - 1))
	rm -f "$logs/$name.result"
	run_one "$script" "$logs/$name.result" &
	results[$!]=$logs/$name.result
	[ -z "$alone" ] || wait_for 0
done
wait_for 0
echo "$passed passed, $failed failed, $skipped skipped"
[ $failed -eq 0 ]
