#!/bin/sh
# mutants.sh TESTS: runs unit tests built with planted bugs over tests/unit/plants. Each plant must make a test fail, and without one the same
# tests must pass.
set -u
tests=$1
list=$(dirname "$0")/plants
log=$(mktemp)
trap 'rm -f "$log"' EXIT
bad=0
found=0
while read -r name filter; do
	case $name in '#'* | '') continue ;; esac
	if AQ_PLANT=$name timeout 120 "$tests" --filter "$filter" >"$log" 2>&1; then
		! grep -q 'Tested: 0 ' "$log" || echo "mutants: no test is called $filter"
		echo "mutants: $name: NOT SEEN by $filter"
		bad=$((bad + 1))
	elif ! grep -q 'Failing: [1-9]\|Crashing: [1-9]' "$log"; then
		echo "mutants: $name: $filter ended without a verdict: $(tail -n 1 "$log")"
		bad=$((bad + 1))
	else
		found=$((found + 1))
		echo "mutants: $name: seen: $(sed 's/\x1b\[[0-9;]*m//g' "$log" | grep -m1 '^\[FAIL')"
	fi
done <"$list"
for filter in $(sed -n 's/^[a-z][^ ]* \(.*\)/\1/p' "$list" | sort -u); do
	if ! timeout 120 "$tests" --filter "$filter" >"$log" 2>&1; then
		echo "mutants: without a plant $filter fails:"
		sed 's/\x1b\[[0-9;]*m//g' "$log" | grep '^\[FAIL\|^\[----'
		bad=$((bad + 1))
	fi
done
echo "mutants: $found seen by unit tests, $bad bad"
[ "$bad" -eq 0 ]
