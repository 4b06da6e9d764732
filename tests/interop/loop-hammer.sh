#!/bin/bash
# Concurrent verified writers on a loop device of ours: direct, buffered, both, with discards and zeroings; on blocks of 512
# and of 4096 bytes' worth of neighbours; and everything is still there after a detach.
. "$(dirname "$0")/loop.inc"
begin
run=3
[ "$LONG" = 1 ] && run=60

truncate -s 192M "$work/a.img"
serve $loop_name raw "$work/a.img" || fail "no device"
"$tools/hammer" --seconds $run --threads 16 --fresh "$device" || fail "16 direct writers"
blkdiscard "$device" || fail "blkdiscard"
"$tools/hammer" --seconds $run --threads 16 --fresh --zero --discard "$device" || fail "with discards and zeroings"
"$tools/hammer" --seconds $run --threads 32 --max 4K "$device" || fail "32 writers of small requests"
"$tools/hammer" --seconds $run --buffered "$device" || fail "buffered writers"
"$tools/hammer" --seconds $run --buffered --direct --discard --zero "$device" || fail "buffered and direct writers"
# Dirty pages of a buffered writer that has closed the device: a detach must write them out.
"$tools/hammer" --seconds 1 --buffered --flush-every 0 --log "$work/known" "$device" || fail "buffered writers without a flush"
[ "$(counter flush 2)" -gt 0 ] || fail "no flush arrived"
detach
serve $loop_name raw "$work/a.img" || fail "no device the second time"
"$tools/hammer" --check --acked --log "$work/known" "$device" || fail "a detach lost buffered writes"
detach
