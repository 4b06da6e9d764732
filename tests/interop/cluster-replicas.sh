#!/bin/bash
# A volume with three copies on three servers: writes go on while one of them is killed, stopped (SIGSTOP), or lost for ever with its
# disk; the volume is taken over with one server away; nothing is lost, all content is verified. With two servers
# away writes wait, and go on when one is back. Blocks that are damaged on the disk of one are read from another.
cd "$(dirname "$0")/../.."
. tests/interop/lib/cluster
need fio nbdinfo nbdcopy jq
share_catalog

# load NAME OPTION…: verified random writes to a part of the volume of their own, in the background
load() {
	name=$1
	shift
	fio --name="$name" --ioengine=nbd --uri="$uri" --rw=randwrite --bs=4k --iodepth=16 --verify_state_save=0 --verify=crc32c --size=24M \
		--verify_fatal=1 --do_verify=1 --randrepeat=1 --fsync=64 "$@" >"$dir/$name" 2>&1 &
	fio=$!
	clients+=" $fio"
}
finish() {
	until_true 60 sh -c "! kill -0 $fio" || fail "I/O hangs: $1"
	wait "$fio" || fail "$1: $(tail -n 5 "$dir/$1")"
	! grep -qiE 'verify:|error=|err=[^0 ]' "$dir/$1" || fail "$1: $(grep -iE 'verify|err' "$dir/$1" | head)"
}
writing() { sleep 0.7; kill -0 "$fio" 2>/dev/null || fail "the load ended before $1"; }

# replicas need servers, and failure domains
aquifer volume create v 128M --replicas 3 >"$dir/said" 2>&1 && fail "three replicas without servers"
grep -q 'server' "$dir/said" || fail "it says: $(cat "$dir/said")"
serve 1
refused 1 'need as many failure domains, and the servers are in 1' aquifer volume create v 128M --replicas 2
refused 1 'min-replicas is more than replicas, 1 here .give less, or --replicas too.' aquifer volume create v 128M --min-replicas 2
for n in 2 3; do serve $n; done
[ "$(aquifer server list --json | jq -r 'map(select(.answers and .total > 0 and .share > 0.3)) | length')" = 3 ] ||
	fail "server list: $(aquifer server list)"
aquifer volume create v 128M >"$dir/said" || fail "volume create: $(cat "$dir/said")"
[ "$(aquifer volume show v --json | jq -r '"\(.replicas) \(.min_replicas)"')" = "3 2" ] || fail "replicas: $(aquifer volume show v)"
uri=$(aquifer attach v --as nbd)
load plain
finish plain
for n in 1 2 3; do
	[ "$(find "$data/$n/segments" -name '*.seg' | wc -l)" -gt 0 ] || fail "nothing is on server $n"
done

# a damaged block is read from another copy: for each server other blocks are damaged, so one that is asked first has some of them
retries() { aquifer show v --json | jq '[.nodes[].items.read_retries // 0] | add'; }
before=$(retries)
for n in 1 2 3; do
	for f in $(find "$data/$n/segments" -name '*.seg' -size +8M); do
		dd if="$f" of="$f.good" bs=4096 skip=$((n * 300)) count=200 status=none
		dd if=/dev/urandom of="$f" bs=4096 seek=$((n * 300)) count=200 conv=notrunc,fsync status=none
	done
done
load damaged --offset=0 --verify_only
finish damaged
[ "$(retries)" -gt "$before" ] || fail "damaged blocks, and nothing was read again"
[ "$(aquifer show v --json | jq '[.nodes[].items.read_errors // 0] | add')" = 0 ] || fail "$(aquifer show v)"
for f in "$data"/*/segments/*/*.good; do
	n=${f#"$data/"}
	dd if="$f" of="${f%.good}" bs=4096 seek=$((${n%%/*} * 300)) conv=notrunc,fsync status=none
	rm "$f"
done

# what one that hangs doesn't answer another does, long before the deadline
for n in 1 2 3; do
	kill -STOP "${server[$n]}"
	load "hung$n" --offset=0 --verify_only
	finish "hung$n"
	kill -CONT "${server[$n]}"
done
[ "$(aquifer show v --json | jq '[.nodes[].items.hedges_won // 0] | add')" -gt 0 ] || fail "no server was asked for what another was late with"

load killed --offset=24M --rate_iops=2500
writing "the kill"
gone 2
sleep 0.7
serve 2
finish killed

# one that hangs costs its deadline, then it is left out
load stopped --offset=48M --rate_iops=2500
writing "the stop"
kill -STOP "${server[3]}"
finish stopped
kill -CONT "${server[3]}"

# lost for ever, and its disk with it
load lost --offset=72M --rate_iops=2500
writing "the loss"
gone 1
rm -rf "$data/1"
finish lost

[ "$(aquifer server list | grep -c "doesn't answer")" = 1 ] || fail "server list: $(aquifer server list)"

# whoever takes over finds it all on the other two
tapdisk=$(aquifer list --json | jq '.[0].pid')
kill -9 "$tapdisk"
until_true 10 sh -c "! kill -0 $tapdisk" || fail "the tapdisk lives"
gone 2 # two of three are away: that is said, and nothing is given up
refused 1 'of its servers answers?, missing: .*/s[12]' aquifer attach v --as nbd
gone 3
refused 1 'none of the servers that hold it answers' aquifer attach v --as nbd
serve 2
serve 3
uri=$(aquifer attach v --as nbd) || fail "attaching with a server lost"
for part in plain:0 killed:24M stopped:48M lost:72M; do
	load "again-${part%%:*}" --offset="${part##*:}" --verify_only
	finish "again-${part%%:*}"
done

# with one copy left writes wait, and say so; they go on when another is back
gone 2
load waits --offset=96M
until_true 10 sh -c "'$top/$B/aquifer' list | grep -q wait" || fail "nobody says that it waits: $(aquifer list)"
serve 2
finish waits
aquifer detach v >/dev/null || fail "detach"

# the server in the host's own domain is asked, but for a read now and then; and who was asked is shown. On a busy machine
# it may seem slow, and is spared then; not each time.
near() { # SERVER
	uri=$(aquifer attach v --as nbd) || fail "attach near server $1"
	nbdcopy "$uri" null: || fail "reading it all near server $1"
	aquifer show v --json >"$data/shown"
	aquifer detach v >/dev/null || fail "detach"
	jq -e --arg near "reads unix:$data/s$1" '[.nodes[].items | to_entries[] | select(.key | startswith("reads "))] |
		(map(.value) | add // 0) as $all | (map(select(.key == $near).value) | add // 0) * 10 > $all * 9' "$data/shown" >/dev/null
}
for n in 2 3; do
	sed -i '/^domain/d' "$conf" && echo "domain = d$n" >>"$conf"
	near $n || near $n || near $n || near $n || fail "near server $n, reads go elsewhere: $(grep -o '"reads[^,]*' "$data/shown")"
done
echo "verified through a kill, a hang and the loss of a server, a takeover, and a wait"
