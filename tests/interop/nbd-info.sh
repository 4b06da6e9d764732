#!/bin/bash
# nbdinfo: the list, names, sizes, flags, contexts and the map, as told by another implementation.
. tests/interop/lib/nbd
need nbdinfo nbdcopy cmp truncate dd

truncate -s 8M "$dir/a.img"
dd if=/dev/urandom of="$dir/a.img" bs=64K seek=16 count=4 conv=notrunc status=none
serve "raw($dir/a.img)"

[ "$(stat -c %a "$dir/s.sock")" = 600 ] || fail "the socket is open to others"
[ "$(nbdinfo --size "$uri")" = 8388608 ] || fail "size"
nbdinfo "$uri" >"$dir/info"
for expect in 'protocol: newstyle-fixed without TLS, using structured packets' 'export="disk"' 'base:allocation' \
	'is_read_only: false' 'can_flush: true' 'can_fua: true' 'can_trim: true' 'can_zero: true' 'can_df: true' \
	'can_cache: true' 'block_size_minimum: 512' 'block_size_maximum: 33554432'; do
	grep -qF "$expect" "$dir/info" || { cat "$dir/info"; fail "nbdinfo doesn't say '$expect'"; }
done
nbdinfo --list "nbd+unix:///?socket=$dir/s.sock" | grep -q 'export="disk"' || fail "the list"
[ "$(nbdinfo --size "nbd+unix:///?socket=$dir/s.sock")" = 8388608 ] || fail "the default export"
! nbdinfo --size "nbd+unix:///other?socket=$dir/s.sock" 2>/dev/null || fail "an export that isn't there"
nbdinfo --map "$uri" >"$dir/map"
awk '{ n[$3] += $2; if ($1 != at) bad = 1; at += $2 }
	END { exit !(!bad && at == 8388608 && n[0] == 262144 && n[3] == 8388608 - 262144) }' "$dir/map" ||
	{ cat "$dir/map"; fail "the map"; }
unserve

read_only=yes
serve "raw($dir/a.img)"
nbdinfo "$uri" | grep -q 'is_read_only: true' || fail "read-only"
unserve

# TCP: on the loopback only, unless an address is named.
read_only=
for address in tcp:0 tcp:127.0.0.1:0; do
	serve "raw($dir/a.img)"
	case $uri in nbd://127.0.0.1:*/disk) ;; *) fail "the URI is $uri" ;; esac
	[ "$(nbdinfo --size "$uri")" = 8388608 ] || fail "size over TCP"
	nbdcopy "$uri" "$dir/out.img"
	cmp "$dir/a.img" "$dir/out.img" || fail "nbdcopy over TCP"
	unserve
done
