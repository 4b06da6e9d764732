#!/bin/sh
# check.sh [all]: the protocol as designed is found right, and each bug planted in it is found, by an exhaustive search. Without
# `all` the cases that take seconds and less than 1 GiB. Last line: "N passed, N failed, N skipped"; exits 0, 1, or 77 without spin.
command -v spin >/dev/null && command -v gcc >/dev/null || { echo "skipped: spin or gcc is not installed (deploy/install-deps)"; exit 77; }
cd "$(dirname "$0")" || exit 1
out=$(mktemp -d)
trap 'rm -rf "$out"' EXIT
all=${1:-brief}
passed=0 failed=0

# case ERRORS FILE NAME: the line of good.sh or bugs.sh that begins so, which must end with that many errors.
case_run() {
	line=$(grep "^\./run\.sh $3 " "$2") || { echo "$3: not in $2"; failed=$((failed + 1)); return; }
	MODEL_TRAIL=$out sh -c "T=1200; $(grep '^[SPGN]="' "$2"); $line" >"$out/$3" 2>&1
	cat "$out/$3"
	if grep -q " errors=$1 " "$out/$3" && { [ "$1" = 1 ] || grep -q ' rc=0 ' "$out/$3"; }; then
		passed=$((passed + 1))
	else
		echo "FAILED: $3: not errors=$1"
		failed=$((failed + 1))
	fi
}
names() { sed -n 's/^\.\/run\.sh \([^ ]*\) .*/\1/p' "$1"; }

if [ "$all" = all ]; then
	good=$(names good.sh) bugs=$(names bugs.sh)
else
	good='r2 power r2-of-3 r3-min2 group-first trim returning-brief'
	bugs='no-fence no-epoch trust-doubtful flush-rest ack-in-hold hold-unseen frees-go'
	export WIDTH=22
fi
for name in $good; do case_run 0 good.sh "$name"; done
for name in $bugs; do case_run 1 bugs.sh "$name"; done
echo "$passed passed, $failed failed, 0 skipped"
[ "$failed" -eq 0 ]
