#!/bin/bash
# make by somebody who may not write the build directory, or who isn't root: each target says what it needs, in one line.
set -u
cd "$(dirname "$0")/../.."
[ "$(id -u)" -eq 0 ] || { echo "skipped: needs root, to be somebody else"; exit 77; }
command -v setpriv >/dev/null || { echo "skipped: setpriv is not installed"; exit 77; }
dir=$(mktemp -d)
trap 'rm -rf "$dir"' EXIT
chmod 755 "$dir"
cp -r Makefile make deploy "$dir"
mkdir "$dir/build"

# says PATTERN TARGET…: as nobody it fails with one line that matches, besides make's own about its failure.
says() {
	local pattern=$1
	shift
	env -u MAKEFLAGS -u MAKELEVEL -u B setpriv --reuid=65534 --regid=65534 --clear-groups make -C "$dir" --no-print-directory "$@" >"$dir/said" 2>&1 &&
		{ echo "FAILED: make $* succeeds"; exit 1; }
	[ "$(grep -vc '^make: \*\*\* .*Error' "$dir/said")" -eq 1 ] && grep -Eq "$pattern" "$dir/said" && return
	echo "FAILED: make $* says: $(cat "$dir/said")"
	exit 1
}
says 'needs root' demo
for target in all check interop crash unit sim; do says "build can't be written by user .*make B=DIR" $target; done
rmdir "$dir/build"
says "can't be written by user" check
says "/root can't be written by user" check B=/root/build
