#!/bin/bash
# crash.sh [ROUNDS [SEED [FIRST]]]: kills real processes with -9 under verified load and demands everything back.
#
# Two hosts in directories of their own: one with the embedded store, one whose store is an aquifer-server. In each a volume
# under load, and a bystander: another volume, with a mounted ext4, whose tapdisk is never killed. A round:
#
#     attach (NBD, loop) ─ load ─ snapshot under load ─ kill -9 of the tapdisk, the agent, the server, or several
#       ─ attach again at once (or twice, the first time killed too) ─ everything acknowledged is there
#       ─ snapshots are what they were ─ the bystander's files too ─ detach ─ the accounting is exact (cluster check) ─ nothing is left behind
#
# A snapshot is created or deleted, or a clone made, at the moment of the kill: it must have happened or not.
# Power stays on, so what was acknowledged must be there whether it had been flushed or not.
# All choices of round N follow from SEED and N: `make crash SEED=s FIRST=n ROUNDS=1` makes them again (on new volumes).
# CRASH_KEEP=1 keeps the directory of a failed run. Exit: 0, 1, or 77 with a reason.
set -u
cd "$(dirname "$0")/../.." || exit 1
. tests/crash/lib

rounds=${1:-10}
seed=${2:-$((SRANDOM % 1000000))}
first=${3:-1}
again="make crash SEED=$seed FIRST=\$round ROUNDS=1"

crash_setup

# choose: this round's choices. What is killed and how the device is shown go round by turns, so that a few rounds have
# all of them; the rest is random.
choose() {
	local turn=$(((round - 1) / 2 + seed)) victims
	RANDOM=$((seed * 1000 + round))
	place=embedded victims=(tapdisk agent tapdisk+agent)
	[ $((round % 2)) = 1 ] || { place=server victims=(tapdisk server tapdisk+agent+server); }
	victim=${victims[turn % 3]}
	as=nbd
	[ $((turn % 2)) = 0 ] || as=loop
	[ $can_loop = 1 ] || as=nbd
	draw 1000; kill_ms=$((100 + REPLY))
	pick 0 1 8 64 512; flush_every=$REPLY
	pick 4K 64K 256K 1M; max=$REPLY
	pick '' --zero '--zero --discard'; clear=$REPLY
	pick none snapshot snapshot; under_load=$REPLY
	pick none create delete clone; race=$REPLY
	draw 60; race_ms=$REPLY
	pick 0 0 1; twice=$REPLY
	draw 150; twice_ms=$REPLY
	draw 300; down_ms=$REPLY
	pick convert nbd clone; look=$REPLY
	draw 1000; which=$REPLY
}

start=$SECONDS
for round in $(seq "$first" $((first + rounds - 1))); do
	choose
	crash_round
done
crash_end
echo "$rounds rounds of seed $seed in $((SECONDS - start)) s: $kills processes killed, $checked written blocks of 512 demanded back," \
	"$looked snapshots compared, attach after a kill took ${slowest} ms at most"
