#!/bin/sh
# mutants.sh SIM [NAME]: runs the simulator built with planted bugs over tests/sim/plants. Each plant
# must be found within its number of seeds, and without a plant the same seeds must be good.
set -u
sim=$1
only=${2:-}
list=$(dirname "$0")/plants
log=$(mktemp)
trap 'rm -f "$log"' EXIT
bad=0
found=0

while read -r name scenario seeds; do
	case $name in '#'* | '') continue ;; esac
	[ -z "$only" ] || [ "$only" = "$name" ] || continue
	if timeout 300 "$sim" --scenario "$scenario" --plant "$name" --seeds "$seeds" >"$log" 2>&1; then
		echo "mutants: $name: NOT FOUND in $seeds seeds of $scenario"
		bad=$((bad + 1))
	elif [ $? -eq 124 ]; then
		echo "mutants: $name: nothing found in 300 s"
		bad=$((bad + 1))
	else
		found=$((found + 1))
		echo "mutants: $name: found: $(grep -m1 '^sim:' "$log")"
	fi
done <"$list"

# What finds them must be the plants, not a simulator that always complains.
for scenario in $(awk '!/^#/ && NF == 3 { if ($3 > most[$2]) most[$2] = $3 } END { for (s in most) print s ":" most[s] }' "$list"); do
	[ -z "$only" ] || break
	if ! "$sim" --scenario "${scenario%:*}" --seeds "${scenario#*:}" >"$log" 2>&1; then
		echo "mutants: without a plant ${scenario%:*} fails:"
		cat "$log"
		bad=$((bad + 1))
	fi
done
echo "mutants: $found found, $bad bad"
[ "$bad" -eq 0 ]
