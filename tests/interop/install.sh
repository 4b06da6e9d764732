#!/bin/bash
# make install and uninstall, where names have blanks: all is there, systemd finds the programs, and all goes.
cd "$(dirname "$0")/../.."
. tests/interop/lib/common
need make systemd-analyze
[ -x "$B/aquifer-server" ] || { echo "skipped: $B/aquifer-server is not built"; exit 77; }
dir=$(mktemp -d)
trap 'rm -rf "$dir"' EXIT
prefix="$dir/a place"
make_it() { MAKEFLAGS='' make -s -o all B="$B" "$1" PREFIX="$prefix" DESTDIR="${2:-}" >"$dir/said" 2>&1 || fail "make $1: $(cat "$dir/said")"; }

make_it install
for u in agent server; do
	unit="$prefix/lib/systemd/system/aquifer-$u.service"
	systemd-analyze verify --man=no "$unit" 2>"$dir/said" || fail "systemd: $(cat "$dir/said")"
	! grep '@[A-Z]*@' "$unit" || fail "a place that isn't filled in"
done
"$prefix/bin/aquifer" --version >/dev/null && "$prefix/sbin/aquifer-server" --version >/dev/null || fail "programs"
make_it install "$dir/another place"
[ -x "$dir/another place$prefix/bin/aquifer" ] || fail "DESTDIR: $(find "$dir" -name aquifer)"
make_it uninstall "$dir/another place"
make_it uninstall
left=$(find "$dir" ! -type d ! -name said)
[ -z "$left" ] || fail "uninstall left $left"
