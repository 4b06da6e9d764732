#!/bin/bash
# fio's nbd engine: verified random writes of mixed sizes, with trims and flushes between them.
. tests/interop/lib/nbd
need fio truncate
fio --enghelp 2>/dev/null | grep -qw nbd || { echo "skipped: fio has no nbd engine"; exit 77; }

truncate -s 64M "$dir/a.img"
serve "raw($dir/a.img)"
cd "$dir"
verified() {
	fio --name=job --ioengine=nbd --uri="$uri" --size=64M --verify_state_save=0 --verify=crc32c --verify_fatal=1 --do_verify=1 \
		--randseed=42 --output="$dir/fio.out" "$@" || { cat "$dir/fio.out"; fail "fio $*"; }
}
verified --rw=randwrite --bsrange=4k-128k --bs_unaligned=0 --blockalign=4k --iodepth=32 --io_size=128M --fsync=64
verified --rw=randwrite --bs=4k --iodepth=64 --io_size=32M
verified --rw=write --bs=1M --iodepth=8
verified --rw=randtrimwrite --bs=64k --iodepth=16 --io_size=32M
cd - >/dev/null
unserve
