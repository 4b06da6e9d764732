#!/bin/bash
# verify under another implementation's load: two raw images stay equal, and one that is changed underneath is noticed.
. tests/interop/lib/nbd
need fio qemu-io truncate cmp dd

truncate -s 32M "$dir/a.img" "$dir/oracle.img"
serve "verify(delay(raw($dir/a.img), jitter=500us), raw($dir/oracle.img))"
(cd "$dir" && exec fio --name=v --ioengine=nbd --uri="$uri" --rw=randrw --bsrange=512-192k --iodepth=24 --size=32M --runtime=4 --time_based \
	--verify_state_save=0 --verify=crc32c --verify_fatal=1) >"$dir/fio" 2>&1 || { cat "$dir/fio" "$dir/errors"; fail "fio"; }
qemu-io -f raw "$uri" -c 'write -z 3M 5M' -c 'discard 1000k 300k' -c 'write -P 7 1M 3000k' -c 'read -P 7 1M 3000k' \
	-c 'read -P 0 4M 4M' -c flush >"$dir/io" 2>&1 || { cat "$dir/io"; fail "qemu-io"; }
! grep -q 'failed' "$dir/io" || { cat "$dir/io"; fail "qemu-io: a request"; }
unserve
! grep -q difference "$dir/errors" || { cat "$dir/errors"; fail "a difference where there is none"; }
cmp "$dir/a.img" "$dir/oracle.img" || fail "the images differ after a clean end"

printf 'x' | dd of="$dir/a.img" bs=1 seek=5000000 conv=notrunc status=none
serve "verify(raw($dir/a.img), raw($dir/oracle.img))"
qemu-io -r -f raw "$uri" -c 'read 0 1M' >"$dir/io" 2>&1
! grep -q 'failed' "$dir/io" || { cat "$dir/io"; fail "what is equal can't be read"; }
qemu-io -r -f raw "$uri" -c 'read 4M 1M' -c 'read 0 4k' >"$dir/io" 2>&1 || true
[ "$(grep -c 'read failed: Input/output error' "$dir/io")" = 2 ] || { cat "$dir/io"; fail "the difference isn't an error for good"; }
grep -q 'first difference at byte 5000000: raw-1 has 78' "$dir/errors" || { cat "$dir/errors"; fail "the log doesn't say where"; }
unserve 1 # it could not flush
