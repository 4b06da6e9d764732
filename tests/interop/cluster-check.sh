#!/bin/bash
# cluster check: finds nothing where nothing is wrong, after snapshots, clones, discards, deletions and kills, on the embedded store, one server and
# three, also of volumes that are attached; and names what was damaged on purpose: in the catalog, in a segment's file, in what a server believes to be free.
cd "$(dirname "$0")/../.."
. tests/interop/lib/cluster
need jq python3 qemu-io
store=$AQUIFER_ROOT/var/lib/aquifer

# good [VOLUME]: the check finds nothing
good() {
	aquifer cluster check "$@" --json >"$dir/check" 2>"$dir/said" || fail "check $*: $(cat "$dir/said"; jq -c .faults "$dir/check")"
	[ "$(jq -c '[.faults == [], .complete]' "$dir/check")" = "[true,true]" ] || fail "check $*: $(cat "$dir/check")"
}
# bad PATTERN: it finds what matches, and fails
bad() {
	aquifer cluster check >"$dir/check" 2>"$dir/said" && fail "the check finds nothing; it should say: $1"
	grep -qE "^fault: .*($1)" "$dir/check" || fail "it should say: $1; it says: $(cat "$dir/check" "$dir/said")"
	[ "$(wc -l <"$dir/said")" = 1 ] && grep -q '^aquifer: cluster check failed: [0-9]* fault' "$dir/said" || fail "its last line: $(cat "$dir/said")"
}
sql() { # sql FILE STATEMENT: of a catalog
	python3 - "$@" <<-'P'
		import sqlite3, sys
		c = sqlite3.connect(sys.argv[1])
		n = c.execute(sys.argv[2]).rowcount
		c.commit()
		sys.exit(0 if n else 1)
	P
}
# free_in FILE: the first block that it doesn't know to be free becomes so, under right checksums
free_in() {
	python3 - "$@" <<-'P'
		import struct, sys
		def crc32c(data):
		    c = 0xffffffff
		    for b in data:
		        c ^= b
		        for _ in range(8): c = (c >> 1) ^ (0x82f63b78 if c & 1 else 0)
		    return c ^ 0xffffffff
		f = open(sys.argv[1], "r+b")
		for slot in 0, 4096:
		    f.seek(slot); s = bytearray(f.read(4096))
		    if not struct.unpack_from("<I", s, 92)[0]: s[512:] = bytes(4096 - 512)
		    bit = next(b for b in range(2, 20000) if not s[512 + b // 8] >> b % 8 & 1)
		    s[512 + bit // 8] |= 1 << bit % 8
		    struct.pack_into("<I", s, 92, struct.unpack_from("<I", s, 92)[0] + 1)
		    struct.pack_into("<I", s, 104, crc32c(s[512:512 + 3584]))
		    struct.pack_into("<I", s, 508, crc32c(s[:508]))
		    f.seek(slot); f.write(s)
	P
}
idle() { [ "$(aquifer volume show "$1" --json | jq -r .state)" = free ]; }
# life: a volume with a history, clones, and what was given up of it
life() {
	aquifer volume create v 64M || fail "create"
	uri=$(aquifer attach v --as nbd) || fail "attach"
	qemu-io -f raw -c 'write -P 1 0 6M' -c flush "$uri" >/dev/null || fail "write"
	aquifer snapshot create v@a && qemu-io -f raw -c 'write -P 2 2M 6M' -c 'discard 0 1M' -c flush "$uri" >/dev/null || fail "write"
	aquifer snapshot create v@b && qemu-io -f raw -c 'write -P 3 4M 2M' -c 'discard 60M 4M' -c flush "$uri" >/dev/null || fail "write"
	aquifer snapshot create v@c && aquifer clone v@b k || fail "clone"
	[ "$1" = attached ] && good
	aquifer detach v && good
	uri=$(aquifer attach k --as nbd) && qemu-io -f raw -c 'write -P 4 1M 3M' -c flush "$uri" >/dev/null || fail "clone"
	aquifer snapshot create k@x && aquifer clone k@x kk && aquifer snapshot delete v@a && aquifer snapshot delete v@b || fail "snapshots"
	good
	aquifer detach k && aquifer snapshot rollback v@c && good
	uri=$(aquifer attach v --as nbd) && qemu-io -f raw -c 'write -P 6 0 1M' -c 'write -P 7 20M 2M' -c flush "$uri" >/dev/null || fail "after the rollback"
	kill -9 "$(field v pid)" || fail "kill"
	until_true 10 idle v || fail "killed, and $(aquifer volume show v)"
	good v
	good
	aquifer detach v --force >/dev/null 2>&1
	good
	# what volume show says is what there is: of v and k, what v was before the rollback included; kk has nothing of its own
	[ "$(for n in v k kk; do aquifer volume show $n --json; done | jq -s '[.[].exclusive] | add')" = "$(jq '[.volumes[].live] | add' "$dir/check")" ] ||
		fail "exclusive: $(aquifer volume show v; aquifer volume show k; cat "$dir/check")"
	aquifer volume delete kk && aquifer volume delete k --with-snapshots && good
}

# ---- the embedded store ----
aquifer cluster check >/dev/null 2>"$dir/said" && fail "there is no store, and the check is good"
life attached
refused 2 "" aquifer cluster check 'a/b'
refused 1 "there is no volume" aquifer cluster check none
# attached and being written: no fault, whether or not the check comes to an end
uri=$(aquifer attach v --as nbd) || fail "attach"
(for i in {1..20}; do qemu-io -f raw -c "write -P $i 0 4M" -c flush "$uri" >/dev/null; done) &
writer=$!
aquifer cluster check --json >"$dir/check" 2>&1 || fail "while it is written: $(cat "$dir/check")"
wait $writer
aquifer detach v && good
cp -a "$store" "$dir/good"
restore() {
	rm -rf "$store"
	cp -a "$dir/good" "$store"
}
db=$store/catalog.db
damage() { # damage SQL PATTERN
	sql "$db" "$1" || fail "nothing to damage: $1"
	bad "$2"
	restore
}
v=$(aquifer volume show v --json | jq -r '.id')
log=$(printf 'volume/%016x/log' "$v")
segment=$(find "$store/volumes/$(printf %016x "$v")" -name '*.seg' | sort | head -n 1)
damage "update kv set value = x'00' || substr(value, 2) where key = '$log'" "$log can't be understood|newer"
damage "delete from kv where key like 'volume/%/owner' and key like '%$(printf %016x "$v")%'" 'volume v .* has no owner record'
damage "delete from kv where key = 'name/v'" 'volume v .* has no name'
damage "delete from kv where key like 'clone/%'" 'clone of a snapshot that nothing holds'
damage "delete from kv where key like 'snapname/%'" 'snapshot c of volume v has no name'
damage "delete from kv where key like 'snapshot/%'" 'names a snapshot that isn.t there'
damage "update kv set value = x'0100000000000000' where key = 'counter/segment'" 'counter/segment is behind'
damage "insert into kv values('clone/0000000000000001/0000000000000063/0000000000000063', x'', 1)" "holds a snapshot that isn.t there"
damage "insert into kv values('snapshot/0000000000000063/0000000000000001', (select value from kv where key like 'snapshot/%' limit 1), 1)" "of a volume that isn.t there"
free_in "$segment" && bad "volume v: segment [0-9]*: 1 blocks that are in use are free in its directory"
restore
mv "$segment" "$dir/away" && bad "volume v: .*there is no copy"
restore
mkdir -p "${segment%/*/*}/01" && cp "$segment" "${segment%/*/*}/01/000000000001.seg"
good # what is nobody's goes as soon as the volume is opened, and the check does that before it complains
[ ! -e "${segment%/*/*}/01/000000000001.seg" ] || fail "a copy that is nobody's is still there"
restore
good

# ---- servers ----
rm -rf "$store"
share_catalog
db=$data/catalog.db
serve 1
life attached
aquifer volume delete v --with-snapshots && good
for n in 2 3; do serve $n; done
life detached
# the segment that has most of what is in use
file=$(cd "$data/1" && find . -name '*.seg' -printf '%b %p\n' | sort -n | tail -n 1 | cut -d ' ' -f 2)
stop 2
good v
[ "$(jq '.volumes[0].copies_away > 0' "$dir/check")" = true ] || fail "a server is away: $(cat "$dir/check")"
stop 3
stop 1
mv "$data/1/$file" "$dir/away"
serve 1
bad "none of the servers that answer has a copy|can.t be read: Transport"
grep -q "may be on the servers that don't answer: start those" "$dir/said" || fail "what to do: $(cat "$dir/said")"
stop 1
mv "$dir/away" "$data/1/$file"
serve 1
serve 3
rm "$data/2/$file"
serve 2
good
mended() { good && [ "$(jq '[.volumes[].copies_missing] | add' "$dir/check")" = 0 ]; }
until_true 20 mended || fail "a copy is missing: $(cat "$dir/check")" # servers make it again
stop 1
free_in "$data/1/$file"
serve 1
bad "blocks that are in use are free in unix:.*/s"
for n in 1 2 3; do
	stop $n
	rm -f "$data/$n/$file"
done
for n in 1 2 3; do serve $n; done
bad "volume v.*: segment [0-9]*, with [0-9]* blocks in use: there is no copy"
