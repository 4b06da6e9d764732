#!/bin/bash
# nbdcopy and qemu-img, in and out, over several connections and many requests, compared byte for byte.
. tests/interop/lib/nbd
need nbdcopy qemu-img cmp dd truncate

truncate -s 64M "$dir/source.img"
dd if=/dev/urandom of="$dir/source.img" bs=1M seek=3 count=20 conv=notrunc status=none
dd if=/dev/urandom of="$dir/source.img" bs=512 seek=100001 count=777 conv=notrunc status=none
truncate -s 64M "$dir/a.img"
serve "raw($dir/a.img)"

nbdcopy "$dir/source.img" "$uri"
cmp "$dir/source.img" "$dir/a.img" || fail "nbdcopy into it"
nbdcopy --connections=4 --requests=64 "$uri" "$dir/out.img"
cmp "$dir/source.img" "$dir/out.img" || fail "nbdcopy out of it"
[ "$(du -k "$dir/out.img" | cut -f1)" -lt 40000 ] || fail "nbdcopy saw no holes"

qemu-img convert -f raw -O qcow2 "$uri" "$dir/out.qcow2"
qemu-img compare -f raw -F qcow2 "$uri" "$dir/out.qcow2" >/dev/null || fail "qemu-img convert out of it"
qemu-img map -f raw --output=json "$uri" >"$dir/map"
grep -q '"zero": true, "data": false' "$dir/map" || { cat "$dir/map"; fail "qemu-img map sees no holes"; }
unserve

truncate -s 0 "$dir/a.img"
truncate -s 64M "$dir/a.img"
serve "raw($dir/a.img)"
qemu-img convert -n -f qcow2 -O raw "$dir/out.qcow2" "$uri"
qemu-img compare -f raw -F raw "$dir/source.img" "$uri" >/dev/null || fail "qemu-img convert into it"
unserve
cmp "$dir/source.img" "$dir/a.img" || fail "qemu-img convert into it, as the file has it"
