#!/bin/bash
# cow under real tools: what is written over a parent, against qemu-img's view of a plain copy; the parent unchanged; space
# given back; a second layer over the same parent; refusals.
. tests/interop/lib/nbd
need qemu-io qemu-img fio cmp truncate

dd if=/dev/urandom of="$dir/gold.img" bs=1M count=8 status=none
truncate -s 80M "$dir/gold.img" # two groups of the layer
cp --sparse=always "$dir/gold.img" "$dir/copy.img"
before=$(md5sum <"$dir/gold.img")
graph="cow($dir/top.cow, ro(raw($dir/gold.img)))"

serve "$graph"
# The same writes to the layer and to the copy; 63 MiB is where one group ends and the next begins.
for target in "$uri" "$dir/copy.img"; do
	qemu-io -f raw -c 'write -P 0x11 0 512' -c 'write -P 0x22 5000 3000' -c 'write -P 0x33 1M 1M' -c 'write -P 0x44 64511k 5k' \
		-c 'write -z 3M 100k' -c 'write -z -u 4M 1M' -c 'write -P 0x55 4500k 3k' -c 'write -f -P 0x66 79M 1M' -c 'flush' \
		"$target" >/dev/null || fail "qemu-io $target"
done
qemu-img compare -f raw -F raw "$uri" "$dir/copy.img" >"$dir/out" || fail "$(cat "$dir/out")"
unserve

# The layer again, from its file: the same; and read-only too.
serve "$graph"
qemu-img compare -f raw -F raw "$uri" "$dir/copy.img" >"$dir/out" || fail "after opening it again: $(cat "$dir/out")"
qemu-io -f raw -c 'write -P 0x77 10M 20M' -c 'flush' "$uri" >/dev/null
used=$(du -k "$dir/top.cow" | cut -f1)
qemu-io -f raw -c 'discard 10M 20M' -c 'flush' -c 'read -P 0 10M 20M' "$uri" >"$dir/out" || fail "discard: $(cat "$dir/out")"
[ "$(du -k "$dir/top.cow" | cut -f1)" -lt $((used - 18000)) ] || fail "discarding gave no space back"
(cd "$dir" && fio --name=x --ioengine=nbd --uri="$uri" --size=80M --io_size=24M --rw=randwrite --bsrange=512-48k \
	--blockalign=512 --iodepth=16 --verify_state_save=0 --verify=crc32c --do_verify=1 --verify_fatal=1 >fio.log 2>&1) ||
	fail "fio: $(tail -n 5 "$dir/fio.log")"
unserve
[ "$(md5sum <"$dir/gold.img")" = "$before" ] || fail "the parent has changed"

# Two layers in one process over one parent.
cat >"$dir/two.graph" <<END
gold = ro(raw($dir/gold.img))
one = cow($dir/one.cow, gold)
two = cow($dir/two.cow, gold, size=100M)
export one as nbd
export two as nbd
END
"$B/aquifer" graph check "$dir/two.graph" >/dev/null || fail "the graph of two layers"

# refused WHAT PATTERN GRAPH
refused() {
	if "$B/aquifer-tapdisk" --root "$dir/root" --export "nbd:$dir/r.sock" --name r "$3" >/dev/null 2>"$dir/err"; then
		fail "$1 was let in"
	fi
	grep -q -- "$2" "$dir/err" || fail "$1: it says: $(cat "$dir/err")"
}
refused "a raw image as a layer" "is not a cow layer" "cow($dir/copy.img, ro(raw($dir/gold.img)))"
truncate -s 1M "$dir/other.img"
size=$(stat -c %s "$dir/top.cow")
refused "another parent" "made over a parent of .*, but $dir/other.img has 1M" "cow($dir/top.cow, ro(raw($dir/other.img)))"
refused "another parent, to be grown" "made over a parent of" "cow($dir/top.cow, ro(raw($dir/other.img)), size=4G)"
[ "$(stat -c %s "$dir/top.cow")" = "$size" ] || fail "a layer that was refused has grown"
ln -s nowhere/top.cow "$dir/link.cow"
refused "a link to nothing" "link.cow is a symbolic link to what isn't there" "cow($dir/link.cow, ro(raw($dir/gold.img)))"
[ -L "$dir/link.cow" ] || fail "a link was replaced by $(ls -l "$dir/link.cow")"
mkdir "$dir/nowhere" # it leads to an empty file: the layer is made there
: >"$dir/nowhere/top.cow"
serve "cow($dir/link.cow, ro(raw($dir/gold.img)))"
unserve
[ -L "$dir/link.cow" ] && [ -s "$dir/nowhere/top.cow" ] || fail "a link to an empty file: $(ls -l "$dir/link.cow" "$dir/nowhere")"
refused "a missing directory" "No such file" "cow($dir/none/top.cow, ro(raw($dir/gold.img)))"

# A disk that is discarded as a whole, as mkfs does, takes as much memory as the manual says: 4 KiB for 63 MiB.
serve "cow($dir/large.cow, null(128G))"
resident() { sed -n 's/^VmRSS:[^0-9]*\([0-9]*\).*/\1/p' "/proc/$server/status"; }
before=$(resident)
for first in 0 64; do
	commands=()
	for i in $(seq $first $((first + 63))); do commands+=(-c "discard ${i}G 1G"); done
	qemu-io -f raw "${commands[@]}" "$uri" >/dev/null || fail "discard"
done
[ $(($(resident) - before)) -lt 14000 ] || fail "the map of 128G takes $(($(resident) - before)) KiB"
unserve
