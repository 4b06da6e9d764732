#!/bin/bash
# Volumes on an aquifer-server, with the catalog on etcd, which is killed, stopped and out of quota while they are written, read and verified:
# writes go on within open segments, the rest waits and says so, nothing is lost. Snapshots, clones, kill -9 of the holder.
# limit: 180
cd "$(dirname "$0")/../.."
. tests/interop/lib/etcd-store
need jq fio nbdcopy nbdinfo etcdctl
url=$(etcd_url)
quota="--quota-backend-bytes $((24 << 20))"
mkdir -p "$AQUIFER_ROOT/etc/aquifer"
echo "catalog = $url" >"$AQUIFER_ROOT/etc/aquifer/aquifer.conf"

refused 1 "127.0.0.1.*" aquifer volume create v 64M
etcd_serve $quota
refused 1 "there is no store.*cluster init" aquifer volume create v 64M
says "^ok" make
refused 1 "start an aquifer-server" aquifer volume create v 64M
serve --catalog "$url"

aquifer volume create v 512M || fail "volume create"
uri=$(aquifer attach v --as nbd) || fail "attach"
head -c 8M /dev/urandom >"$dir/data"
nbdcopy --flush "$dir/data" "$uri" || fail "write"
aquifer snapshot create v@s || fail "snapshot"
aquifer clone v@s w || fail "clone"
# a command that can't ask etcd itself, for want of libcurl, has its agent do it
mkdir "$dir/empty" && : >"$dir/empty/libcurl.so.4"
without_curl() { LD_LIBRARY_PATH=$dir/empty aquifer "$@"; }
refused 1 "libcurl" without_curl volume list
until_true 10 without_curl snapshot create v@agents || fail "a snapshot by the agent: $(without_curl snapshot create v@agents 2>&1)"
refused 1 "v@agents" without_curl snapshot create v@agents
without_curl clone v@agents agents || fail "a clone by the agent"
refused 1 "'agents' already" without_curl clone v@agents agents
refused 1 "v@never" without_curl clone v@never never
aquifer volume delete agents && aquifer snapshot delete v@agents || fail "deleting what the agent made"
reason() { field "$1" reason | grep -q "$2"; }

load() { # NAME OPTION…: verified writes, in the background
	local n=$1
	shift
	fio --name="$n" --ioengine=nbd --uri="$uri" --rw=randwrite --bs=4k --iodepth=16 --verify_state_save=0 --verify=crc32c --verify_fatal=1 --do_verify=1 \
		--randrepeat=1 --fsync=64 "$@" >"$dir/fio.$n" 2>&1 &
	fio=$!
}
finish() {
	wait $fio || fail "$1: $(tail -n 5 "$dir/fio.$1")"
	! grep -qiE 'verify:|error=|err=[^0 ]' "$dir/fio.$1" || fail "$1: $(grep -iE 'verify|err' "$dir/fio.$1" | head -n 3)"
}

# etcd dies under the load, and stays away: what fits into open segments is written and flushed meanwhile
load killed --offset=16M --size=24M
sleep 0.2
etcd_kill 1
finish killed
refused 1 "127.0.0.1" aquifer snapshot create v@none
refused 1 "127.0.0.1" aquifer volume list
# …and what does not fit waits, says so, and goes on when etcd is there again
load waits --offset=64M --size=160M --bs=64k
until_true 30 reason v "waits* since .* for the catalog" || fail "the list hides it: $(aquifer list)"
kill -0 $fio || fail "it didn't wait: $(tail -n 5 "$dir/fio.waits")"
etcd_serve $quota
finish waits
well() { [ "$(field v reason)" = null ]; }
until_true 20 well || fail "all is well, and the list doesn't know: $(aquifer list)"

# it stands still
kill -STOP "${etcd_pid[1]}"
load still --offset=240M --size=16M
finish still
kill -CONT "${etcd_pid[1]}"
aquifer snapshot create v@later || fail "snapshot after it stood still"

# no quota is left: it goes on in what is open; deleting keys and defragmenting ends it
says "then EDQUOT" fill big 250000
load full --offset=260M --size=16M
finish full
refused 1 "space exceeded|quota" aquifer snapshot create v@full
! aquifer cluster status >"$dir/status" 2>&1 || fail "no quota, and all is well"
grep -q 'problems  *the catalog takes no changes: .*space exceeded (give etcd room' "$dir/status" || fail "no quota: $(cat "$dir/status")"
"$B/tools/catalogcheck" "$url" list big >/dev/null
etcd_does del --prefix aquifer/kv/big
etcd_compact
etcd_does defrag
etcd_does alarm disarm
aquifer snapshot create v@room || fail "snapshot with quota again"
! aquifer cluster status 2>&1 | grep 'takes no changes' || fail "with quota again"

# the holder dies; the next one takes over what was flushed; the clone has what it had
kill -9 "$(field v pid)"
until_true 10 test "$(field v state)" = died || true
aquifer detach v >/dev/null 2>&1 || true
uri=$(aquifer attach v --as nbd) || fail "attach after kill -9"
nbdcopy "$uri" - | cmp -n 8388608 - "$dir/data" || fail "content after kill -9"
for part in killed:16M:24M:4k waits:64M:160M:64k still:240M:16M:4k full:260M:16M:4k; do
	IFS=: read -r n offset size bs <<<"$part"
	load "again-$n" --offset="$offset" --size="$size" --bs="$bs" --verify_only
	finish "again-$n"
done
w=$(aquifer attach w --as nbd) || fail "attach the clone"
nbdcopy "$w" - | cmp -n 8388608 - "$dir/data" || fail "content of the clone"
# etcd is lost for good: closing waits for it, and --force ends that, whatever it is at by then; the next one recovers what was flushed
etcd_kill 1
kill -TERM "$(field w pid)"
until_true 5 grep -q 'signal 15' "$run/tapdisks/w/log" || fail "no word of the signal"
sleep 0.3
aquifer detach w --force || fail "detach --force of one that is closing: $(aquifer list)"
[ -z "$(field w pid)" ] || fail "it is still there: $(aquifer list)"
etcd_serve $quota
w=$(aquifer attach w --as nbd) || fail "attach the clone again"
nbdcopy "$w" - | cmp -n 8388608 - "$dir/data" || fail "content of the clone, recovered"
aquifer detach --all || fail "detach"
aquifer volume show v | grep -q 'state *free' || fail "the volume isn't free"
aquifer volume delete v --with-snapshots && aquifer volume delete w || fail "delete"
echo "written, verified and taken over with etcd killed, stopped and full meanwhile; what had to wait said so"
