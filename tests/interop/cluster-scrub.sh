#!/bin/bash
# cluster scrub: what is damaged on one of three servers' disks is found and repaired from the others: a block in place, a footer by another copy of the
# whole; what is damaged everywhere is reported, and cluster status tells. Servers do it by themselves, too. On the embedded store it is reported.
# And servers say when they are nearly full.
cd "$(dirname "$0")/../.."
. tests/interop/lib/cluster
need jq qemu-io
serve_options='--rebuild-interval 1'
store=$AQUIFER_ROOT/var/lib/aquifer
scrubbed() { # scrubbed BAD REPAIRED [VOLUME]
	local bad=$1 repaired=$2 status=0
	shift 2
	aquifer cluster scrub "$@" --json >"$dir/scrub" 2>"$dir/said" || status=$?
	[ "$(jq -c '[.bad, .repaired, .complete]' "$dir/scrub")" = "[$bad,$repaired,true]" ] && [ $status = $((bad > repaired)) ] ||
		fail "scrub $*: status $status: $(cat "$dir/said" "$dir/scrub")"
}
biggest() { (cd "$1" && find . -name '*.seg' -printf '%b %p\n' | sort -n | tail -n 1 | cut -d ' ' -f 2); }
spoil() { dd if=/dev/urandom of="$1" bs=4096 seek="$2" count=1 conv=notrunc,fsync status=none; } # spoil FILE BLOCK

# embedded: one copy
aquifer volume create e 64M && uri=$(aquifer attach e --as nbd) && qemu-io -f raw -c 'write -P 1 0 4M' -c flush "$uri" >/dev/null || fail "embedded"
scrubbed 0 0
aquifer detach e
scrubbed 0 0
[ "$(jq '.bytes > 4 * 1048576 and .copies > 0' "$dir/scrub")" = true ] || fail "what was read: $(cat "$dir/scrub")"
aquifer cluster status --json | jq -e '.scrubbed.faults == 0' >/dev/null || fail "status"
file=$(find "$store" -name '*.seg' -printf '%b %p\n' | sort -n | tail -n 1 | cut -d ' ' -f 2)
cp "$file" "$dir/whole"
spoil "$file" 300
refused 2 "" aquifer cluster scrub a/b
scrubbed 1 0 e
grep -q 'segment [0-9]*, block 29[0-9] is damaged' "$dir/scrub" || fail "which: $(cat "$dir/scrub")"
scrubbed 1 0
aquifer cluster status >"$dir/text" 2>&1 && fail "all is well: $(cat "$dir/text")"
grep -q 'the last scrub found 1 damaged block' "$dir/text" || fail "status: $(cat "$dir/text")"
cp "$dir/whole" "$file" && spoil "$file" $(($(stat -c %s "$file") / 4096 - 1))
scrubbed 1 0
cp "$dir/whole" "$file" && scrubbed 0 0 && aquifer cluster status >/dev/null || fail "whole again"
aquifer volume delete e

# three servers
share_catalog
for n in 1 2 3; do serve $n; done
aquifer volume create v 64M && aquifer volume create w 64M || fail "create"
for v in v w; do
	uri=$(aquifer attach $v --as nbd) && qemu-io -f raw -c 'write -P 7 0 6M' -c flush "$uri" >/dev/null && aquifer detach $v || fail "$v"
done
scrubbed 0 0
[ "$(jq '.copies >= 6 and .bytes > 36 * 1048576' "$dir/scrub")" = true ] || fail "what was read: $(cat "$dir/scrub")"
file=$(biggest "$data/1")
spoil "$data/1/$file" 400 && spoil "$data/1/$file" 500 && spoil "$data/3/$file" 700
scrubbed 3 3
scrubbed 0 0
cmp -s <(dd if="$data/1/$file" bs=4096 skip=2 count=1500 status=none) <(dd if="$data/2/$file" bs=4096 skip=2 count=1500 status=none) || fail "the copies differ"
grep -q 'scrub: segment [0-9]*, block [0-9]* was damaged: repaired' "$data/out1" || fail "the log: $(cat "$data/out1")"
aquifer cluster scrub >"$dir/text" && grep -q 'copies read, .* 0 damaged' "$dir/text" || fail "as text: $(cat "$dir/text")"
# only a volume's own
spoil "$data/2/$file" 400
sum=0
for v in v w; do
	aquifer cluster scrub $v --json >"$dir/scrub" || fail "scrub $v: $(cat "$dir/scrub")"
	sum=$((sum + $(jq .repaired "$dir/scrub")))
done
[ $sum = 1 ] || fail "v and w by themselves repaired $sum"
# a footer: nothing can be verified by it; another copy takes its place
spoil "$data/1/$file" $(($(stat -c %s "$data/1/$file") / 4096 - 1))
scrubbed 1 1
grep -q 'footer is damaged, it will be replaced' "$dir/scrub" || fail "the footer: $(cat "$dir/scrub")"
healthy() { aquifer cluster status >"$dir/text" 2>&1; }
until_true 20 eval 'healthy && aquifer cluster scrub >"$dir/text" && grep -q " 0 damaged" "$dir/text"' || fail "it isn't replaced: $(cat "$dir/text"; tail -n 3 "$data"/out*)"
aquifer cluster check >"$dir/text" || fail "the check: $(cat "$dir/text")"
# what a read finds is repaired at once, and nobody scrubs: in a segment that is written, and in a sealed one. Of three blocks each server has two wrong, so
# that the one that is read from, whichever it is, has what is to be repaired
aquifer volume create r 64M && uri=$(aquifer attach r --as nbd) && qemu-io -f raw -c 'write -P 5 0 6M' -c flush "$uri" >/dev/null || fail "r"
for new in $(cd "$data/1" && find . -name '*.seg'); do # the one that has it
	[ "$(dd if="$data/1/$new" bs=4096 skip=400 count=1 status=none | tr -d '\005' | wc -c)" != 0 ] || break
done
blocks_of() { dd if="$data/$1/$new" bs=4096 skip=2 count=1500 status=none; }
blocks_of 2 >"$dir/whole"
is_whole() { blocks_of "$1" | cmp -s - "$dir/whole"; }
spoil_new() { # BLOCK: it, and the next two; no copy has all of them
	local at
	for at in 1+0 2+0 2+1 3+1 1+2 3+2; do spoil "$data/${at%+*}/$new" $(($1 + ${at#*+})); done
}
repaired() {
	qemu-io -f raw -c 'read -P 5 1M 1M' "$uri" >"$dir/read" 2>&1
	is_whole 1 || is_whole 2 || is_whole 3
}
is_whole 1 && is_whole 3 || fail "the copies differ"
spoil_new 400
until_true 30 repaired && ! grep failed "$dir/read" || fail "the open copy isn't repaired: $(aquifer show r) $(tail -qn 3 "$data"/out?)"
aquifer show r --json | jq -e '[.nodes[].items | (.read_damaged // 0), (.repairs_asked // 0)] | add > 1' >/dev/null || fail "counters: $(aquifer show r)"
aquifer detach r && uri=$(aquifer attach r --as nbd) || fail "r again"
spoil_new 410
until_true 30 repaired && ! grep failed "$dir/read" || fail "the sealed copy isn't repaired: $(aquifer show r) $(tail -qn 3 "$data"/out?)"
grep -q 'found by a reader: segment [0-9]*, block [0-9]* was damaged: repaired' "$data"/out? || fail "the log: $(cat "$data"/out?)"
aquifer cluster status --json | jq -e '[.servers[].scrub] | (map(.read_repaired) | add) >= 4 and all(.read_bad == .read_repaired)' >/dev/null || fail "status: $(aquifer cluster status --json)"
aquifer cluster status | grep -q '^reads .* damaged blocks found by reading; repaired: ' || fail "status: $(aquifer cluster status)"
aquifer detach r && aquifer volume delete r || fail "r deleted"
# everywhere
for n in 1 2 3; do dd if=/dev/urandom of="$data/$n/$file" bs=4096 seek=440 count=20 conv=notrunc,fsync status=none; done # places differ where it was replaced
aquifer cluster scrub >"$dir/text" 2>&1 && fail "all is well: $(cat "$dir/text")"
grep -q '^damaged: unix:.*: segment [0-9]*, block [0-9]* is damaged, and no other copy has it' "$dir/text" || fail "damaged everywhere: $(cat "$dir/text")"
healthy && fail "healthy"
grep -q 'damaged block.* could not repair\|could not be repaired' "$dir/text" || fail "status: $(cat "$dir/text")"
aquifer volume delete v && aquifer volume delete w

# by itself; and nearly full
aquifer volume create x 64M && uri=$(aquifer attach x --as nbd) && qemu-io -f raw -c 'write -P 9 0 6M' -c flush "$uri" >/dev/null && aquifer detach x || fail "x"
stop 1
file=$(biggest "$data/2")
[ -f "$data/1/$file" ] && spoil "$data/1/$file" 400
rm -f "$data/1/scrub"
serve 1 --scrub-interval 5 --warn-full 1,2,100
until_true 20 grep -q 'scrub: segment [0-9]*, block [0-9]* was damaged: repaired' "$data/out1" || fail "it doesn't scrub by itself: $(cat "$data/out1")"
grep -q 'warning: [0-9]* % of the space is used' "$data/out1" || fail "it doesn't warn: $(cat "$data/out1")"
stop 2
aquifer cluster scrub --json >"$dir/scrub" || fail "one is away: $(cat "$dir/scrub")"
[ "$(jq -c '[.complete, (.skipped | length)]' "$dir/scrub")" = '[false,1]' ] || fail "one is away: $(cat "$dir/scrub")"
