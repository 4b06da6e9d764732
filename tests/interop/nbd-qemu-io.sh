#!/bin/bash
# qemu-io: patterns, FUA, flush, discard, write zeroes (with and without unmap), odd offsets, and errors.
. tests/interop/lib/nbd
need qemu-io truncate

truncate -s 16M "$dir/a.img"
serve "raw($dir/a.img)"
io() {
	out=$(qemu-io -f raw "$@" "$uri" 2>&1) || fail "qemu-io $*: $out"
	case $out in
	*[Ff]ailed* | *rror* | *mismatch*) fail "qemu-io $*: $out" ;;
	esac
}
io -c 'write -P 0x11 0 1M' -c 'write -P 0x22 1M 4k' -c 'write -f -P 0x33 8k 512' -c 'flush' \
	-c 'read -P 0x11 0 8k' -c 'read -P 0x33 8k 512' -c 'read -P 0x11 8704 7680' -c 'read -P 0x22 1M 4k'
io -c 'write -z 64k 64k' -c 'read -P 0 64k 64k' -c 'write -z -u 128k 64k' -c 'read -P 0 128k 64k' -c 'read -P 0x11 192k 64k'
io -c 'discard 256k 64k' -c 'read -P 0x11 320k 64k'
io -c 'aio_write -P 0x44 2M 2M' -c 'aio_write -P 0x55 4M 3M' -c 'aio_write -P 0x66 512 512' -c 'aio_flush' \
	-c 'read -P 0x44 2M 2M' -c 'read -P 0x55 4M 3M' -c 'read -P 0x66 512 512'
io -c 'writev -P 0x77 10M 512 1k 64k 512' -c 'readv -P 0x77 10M 64k 1k 512 512'
io -c 'write -P 0x88 100 1000' -c 'read -P 0x88 100 1000' -c 'read -P 0x11 0 100'
out=$(qemu-io -f raw -c 'write 16M 4k' "$uri" 2>&1) || true
case $out in *failed* | *beyond*) ;; *) fail "a write beyond the end: $out" ;; esac
unserve
[ "$(od -An -tx1 -j8192 -N1 "$dir/a.img" | tr -d ' ')" = 33 ] || fail "the file has something else"

read_only=yes
serve "raw($dir/a.img)"
qemu-io -r -f raw -c 'read -P 0x77 10M 512' "$uri" >/dev/null || fail "reading a read-only export"
! qemu-io -f raw -c 'write 0 512' "$uri" >/dev/null 2>&1 || fail "writing to a read-only export"
unserve
