#!/bin/bash
# Concurrent verified writers on a loop device of ours: direct, buffered, both, with discards and zeroings; on blocks of 512
# bytes and of 4096; and everything is still there after a detach. LONG=1: a minute each.
. "$(dirname "$0")/lib/loop"
begin blkdiscard
run=2
[ "$LONG" = 1 ] && run=60

truncate -s 192M "$work/a.img"
attach "$work/a.img" || fail "no device"
hammer --seconds $run --threads 16 --fresh "$device" || fail "16 direct writers"
blkdiscard "$device" || fail "blkdiscard"
hammer --seconds $run --threads 16 --fresh --zero --discard "$device" || fail "with discards and zeroings"
# After that much warming up, the tapdisk must not need memory any more: it would be asked to write just when there is none.
faults() { cut -d' ' -f10 "/proc/$server/stat"; }
before=$(faults)
hammer --seconds $run --threads 32 --max 4K "$device" || fail "32 writers of small requests"
hammer --seconds $run --buffered "$device" || fail "buffered writers"
hammer --seconds $run --buffered --direct --discard --zero "$device" || fail "buffered and direct writers"
[ $(($(faults) - before)) -lt 64 ] || fail "$(($(faults) - before)) page faults under load: memory is not allocated beforehand"
# Dirty pages of a buffered writer that has closed the device: a detach must write them out.
hammer --seconds 1 --buffered --flush-every 0 --log "$work/known" "$device" || fail "buffered writers without a flush"
[ "$(counter flush requests)" -gt 0 ] || fail "no flush arrived"
detach
attach "$work/a.img" || fail "no device the second time"
hammer --check --acked --log "$work/known" "$device" || fail "a detach lost buffered writes"
detach
