#!/bin/bash
# check.sh [SUITE…]: builds, and runs the suites one after the other, each within its budget; without arguments all of them.
# A suite over its budget is shown as such, and ended, as a failure, at three times it: other work on the machine alone must not
# fail a check. SOAK=1 (make soak): the long versions, without that limit. Last line: "N passed, N failed, N skipped", over all suites; fails
# if something failed. Whole outputs are kept in build/check/. B= and J= (jobs, default 2) as for make.
set -u
cd "$(dirname "$0")/.." || exit 1
B=${B:-build}
J=${J:-2}
logs=$B/check
mkdir -p "$logs"
passed=0 failed=0 skipped=0
begin=$SECONDS

# name, budget in seconds, what. The sum of the budgets is 17 minutes at most; they are for two cores.
suites='
build 80 programs, tools and unit tests, with warnings as errors
tidy 20 house rules that a script can check
unit 40 unit tests
interop 440 the programs against real tools
crash 50 kill -9 of everything, under verified load
cluster 110 three servers, two hosts and etcd in network namespaces, through faults
sim 80 seeds of the simulator, every scenario
model 50 the protocol of the store, by exhaustive search
fuzz 130 builds the fuzzers and runs each briefly
dirt 10 the build has written nothing but build/
'

# What a run is: brief, or long.
if [ "${SOAK:-0}" = 1 ]; then
	export LONG=1 TEST_LIMIT=3600
	cluster_rounds=${ROUNDS:-500} sim_seeds=${SIM_SEEDS:-5000} fuzz_seconds=${FUZZ_SECONDS:-60} crash_rounds=${CRASH_ROUNDS:-100} stretch=1000
else
	cluster_rounds=${ROUNDS:-20} sim_seeds=${SIM_SEEDS:-100} fuzz_seconds=${FUZZ_SECONDS:-3} crash_rounds=${CRASH_ROUNDS:-10} stretch=30
fi

has_target() { make -qp 2>/dev/null | grep -q "^$1:"; }

# Each prints what it does; its last line may be "N passed, N failed, N skipped". 77: skipped.
suite_build() { make -s -j"$J" WERROR=1 all unit tools $([ ! -e tests/sim/main.c ] || echo "$B/sim" "$B/scale"); }
suite_tidy() { make -s tidy; }
suite_unit() {
	local status=0
	make -s unit && "$B/unit" >"$logs/unit.out" 2>&1 || status=$?
	sed 's/\x1b\[[0-9;]*m//g' "$logs/unit.out" | sed -n '/^\[\(FAIL\|----\|ERR \)/p' | tail -n 50
	sed 's/\x1b\[[0-9;]*m//g' "$logs/unit.out" |
		sed -n 's/.*Tested: \([0-9]*\) | Passing: \([0-9]*\) | Failing: \([0-9]*\) | Crashing: \([0-9]*\).*/\2 \3 \4/p' |
		{ read -r p f c && echo "$p passed, $((f + c)) failed, 0 skipped" || echo "0 passed, 1 failed, 0 skipped"; }
	return $status
}
suite_interop() { JOBS=$J bash tests/run.sh; }
suite_crash() { B="$B" bash tests/crash/crash.sh "$crash_rounds"; }
suite_cluster() { JOBS=$J PARTS=2 ROUNDS=$cluster_rounds bash tests/run.sh tests/cluster/{rounds,fs,split-brain,lapsed,catalog-lost,full,disk-fails,ping-pong}.sh; } # the long ones first
suite_sim() {
	has_target sim || { echo "skipped: there is no simulator"; return 77; }
	make -s sim SEEDS="$sim_seeds"
}
suite_model() { sh tests/model/check.sh $([ "${SOAK:-0}" != 1 ] || echo all); }
suite_fuzz() {
	make -s -j"$J" fuzz && make -s fuzz-brief FUZZ_SECONDS="$fuzz_seconds" | tee "$logs/fuzz.out"
	local status=${PIPESTATUS[0]} good bad
	good=$(grep -c 'nothing found' "$logs/fuzz.out")
	bad=$(grep -c 'FAILED' "$logs/fuzz.out")
	echo "$good passed, $bad failed, 0 skipped"
	[ "$status" -eq 0 ] && [ "$bad" -eq 0 ] && [ "$good" -gt 0 ]
}
suite_dirt() {
	git rev-parse --git-dir >/dev/null 2>&1 || { echo "skipped: no git here"; return 77; }
	git status --porcelain >"$logs/dirt.after"
	diff "$logs/dirt.before" "$logs/dirt.after" && return 0
	echo "the build or a test wrote into the tree"
	return 1
}

# Runs one with its budget; a group of its own, so that all of it ends.
run_suite() {
	local name=$1 budget=$2 log=$logs/$1.log start=$SECONDS status=0 last
	set -m
	(suite_"$name") >"$log" 2>&1 </dev/null &
	local pid=$!
	set +m
	while kill -0 $pid 2>/dev/null; do
		if [ $((SECONDS - start)) -ge $((budget * stretch / 10)) ]; then
			echo "check.sh: far over its budget of $budget s: ended" >>"$log"
			kill -TERM -- -$pid 2>/dev/null
			sleep 10
			kill -KILL -- -$pid 2>/dev/null
			break
		fi
		sleep 0.2
	done
	wait $pid 2>/dev/null || status=$?
	last=$(grep -E '^[0-9]+ passed, [0-9]+ failed, [0-9]+ skipped$' "$log" | tail -n 1)
	local p=0 f=0 s=0
	if [ -n "$last" ]; then
		read -r p _ f _ s _ <<<"$last"
		[ $status -eq 0 ] || [ "$f" -gt 0 ] || f=1
	elif [ $status -eq 0 ]; then
		p=1
	elif [ $status -eq 77 ]; then
		s=1
	else
		f=1
	fi
	passed=$((passed + p)) failed=$((failed + f)) skipped=$((skipped + s))
	local note=
	[ $status -ne 77 ] || note="  ($(tail -n 1 "$log"))"
	[ $((SECONDS - start)) -le "$budget" ] || [ "${SOAK:-0}" = 1 ] || note="$note  over its budget"
	printf '%-8s %4d s of %3d   %s passed, %s failed, %s skipped%s\n' "$name" $((SECONDS - start)) "$budget" "$p" "$f" "$s" "$note"
	[ "$s" -eq 0 ] || [ $status -eq 77 ] || grep -E '^skip ' "$log" | sed 's/^/    /'
	[ "$f" -eq 0 ] || grep -v '^pass ' "$log" | tail -n 40 | sed 's/^/    /'
}

git status --porcelain >"$logs/dirt.before" 2>/dev/null || true
[ "$(id -u)" -eq 0 ] || echo "not root: tests that need loop devices or mounts are skipped"
want=" $* "
while read -r name budget _; do
	[ -n "$name" ] || continue
	[ "$want" = "  " ] || [[ $want == *" $name "* ]] || continue
	run_suite "$name" "$budget"
	[ "$name" != build ] || [ $failed -eq 0 ] || break
done <<<"$suites"
printf 'all in %d s\n' $((SECONDS - begin))
echo "$passed passed, $failed failed, $skipped skipped"
[ $failed -eq 0 ]
