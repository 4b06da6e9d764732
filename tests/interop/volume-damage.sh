#!/bin/bash
# A store that was damaged, is of a newer version or lost a part: each command says so in one line that names the cure, nothing is
# made anew in the place of what is missing, and what is whole goes on working.
cd "$(dirname "$0")/../.."
. tests/interop/lib/agent
need jq python3 qemu-io
store=$AQUIFER_ROOT/var/lib/aquifer
volume=$store/volumes/0000000000000001

restore() {
	aquifer detach --all --force || fail "detach"
	rm -rf "$store"
	cp -a "$dir/good" "$store"
}
# newer FILE OFFSET CRC_AT CRC_BYTES: the version at 8 of the structure at OFFSET becomes 9, under a right checksum
newer() {
	python3 - "$@" <<-'P'
		import struct, sys
		path, offset, crc_at = sys.argv[1], int(sys.argv[2]), int(sys.argv[3])
		def crc32c(data):
		    c = 0xffffffff
		    for b in data:
		        c ^= b
		        for _ in range(8): c = (c >> 1) ^ (0x82f63b78 if c & 1 else 0)
		    return c ^ 0xffffffff
		f = open(path, "r+b"); f.seek(offset)
		s = bytearray(f.read(crc_at)); s[8:12] = struct.pack("<I", 9)
		f.seek(offset); f.write(s + struct.pack("<I", crc32c(s)))
	P
}
log() { # log HEX: the first two bytes of v's log record
	python3 - "$store/catalog.db" "$1" <<-'P'
		import sqlite3, sys
		c = sqlite3.connect(sys.argv[1]); key = "volume/0000000000000001/log"
		v = c.execute("select value from kv where key=?", (key,)).fetchone()[0]
		c.execute("update kv set value=? where key=?", (bytes.fromhex(sys.argv[2]) + v[2:], key)); c.commit()
	P
}

aquifer volume create v 64M || fail "create"
uri=$(aquifer attach v --as nbd) || fail "attach"
qemu-io -f raw -c 'write -P 5 0 8M' -c flush "$uri" | grep -q wrote || fail "write"
aquifer snapshot create v@s || fail "snapshot"
aquifer detach v || fail "detach"
aquifer clone v@s c && aquifer volume create other 8M || fail "clone"
cp -a "$store" "$dir/good"
segment=$(cd "$store" && find . -name '*.seg' | head -n 1)

dd if=/dev/urandom of="$store/$segment" bs=4096 seek=100 count=1 conv=notrunc status=none
uri=$(aquifer attach v --as nbd) || fail "attach with a damaged block"
qemu-io -f raw -c 'read 0 8M' "$uri" 2>&1 | grep -qi 'input/output error' || fail "a damaged block was read"
qemu-io -f raw -c 'read -P 5 4M 4M' "$uri" | grep -q 'read 4194304' || fail "the others can't be read"
until_true 10 eval 'field v reason | grep -q "reads failed"' || fail "the list hides it: $(aquifer list)"
refused 1 "Input/output error" aquifer volume export v@s "$dir/x.raw"
[ ! -e "$dir/x.raw" ] || fail "half an export"
restore

rm "$store/$segment"
refused 1 "damaged or missing" aquifer attach v --as nbd
restore
newer "$store/$segment" 0 508 && newer "$store/$segment" 4096 508
refused 1 "newer.*upgrade" aquifer attach v --as nbd
restore
newer "$volume/server" 0 4092
refused 1 "newer.*upgrade" aquifer attach v --as nbd
refused 1 "newer.*upgrade" aquifer snapshot create v@t
restore
dd if=/dev/urandom of="$volume/server" bs=100 count=1 conv=notrunc status=none
refused 1 "server is damaged .restore" aquifer attach v --as nbd
restore

# Nothing is made anew where something is missing.
mv "$store/volumes" "$dir/away"
refused 1 "data is missing.*mounted" aquifer attach v --as nbd
[ ! -e "$volume" ] || fail "a new directory was made for an old volume"
rm -rf "$store/volumes" && mv "$dir/away" "$store/volumes"
uri=$(aquifer attach v --as nbd) || fail "attach after it came back"
qemu-io -f raw -c 'read -P 5 0 8M' "$uri" | grep -q 'read 8388608' || fail "content after it came back"
qemu-io -f raw -c 'write -P 6 0 1M' -c flush "$uri" | grep -q wrote || fail "write"
kill -9 "$(field v pid)"
until_true 5 eval '[ "$(field v state)" = died ]' || fail "death"
find "$volume/segments" -name '*.seg' -newer "$store/$segment" -delete
refused 1 "segment [0-9]* is missing" aquifer attach v --as nbd
restore
rm "$store"/catalog.db*
for lost in gone empty; do
	[ $lost = gone ] || : >"$store/catalog.db"
	refused 1 "catalog.db is missing, but there are volumes" aquifer volume list
	refused 1 "catalog.db is missing, but there are volumes" aquifer volume create v 64M
done
restore

# What can't be opened is no empty store.
rm "$store"/catalog.db* && mkdir "$store/catalog.db"
mv "$store/volumes" "$dir/away"
refused 1 "catalog.db: Is a directory" aquifer volume list
rm -rf "$dir/away"
restore

head -c 20000 /dev/urandom >"$store/catalog.db" && rm -f "$store"/catalog.db-*
refused 1 "catalog.db is damaged" aquifer volume list
restore
python3 -c 'import sqlite3, sys; sqlite3.connect(sys.argv[1]).execute("pragma user_version=7")' "$store/catalog.db"
refused 1 "newer than this program knows" aquifer attach v --as nbd
restore
log 0809
refused 1 "newer.*upgrade" aquifer attach v --as nbd
aquifer volume list | grep -q '^v .*newer' || fail "list: $(aquifer volume list)"
aquifer volume list | grep -q '^other .*good' || fail "list: $(aquifer volume list)"
log ffff
refused 1 "damaged" aquifer volume show v
aquifer volume list | grep -q '^v .*damaged' || fail "list: $(aquifer volume list)"
aquifer attach other --as nbd >/dev/null || fail "another volume"
restore
uri=$(aquifer attach c --as nbd) || fail "attach"
qemu-io -f raw -c 'read -P 5 0 8M' "$uri" | grep -q 'read 8388608' || fail "content at the end"
aquifer detach c || fail "detach"
nothing_left
echo "damaged, newer and incomplete stores are refused with the reason; nothing was made in place of what is missing"
