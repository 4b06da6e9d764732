#!/bin/bash
# A tiny store that was written by the first version (tests/fixtures/store-1.tar.gz, made by tests/fixtures/make-store) is opened and read by the programs
# of today, from end to end: a volume whose tapdisk was killed, its snapshots, a clone, one with freed blocks; and it is written on. What is
# newer than these programs is refused, and stays as it is.
cd "$(dirname "$0")/../.."
. tests/interop/lib/agent
need jq qemu-io nbdinfo
store=$AQUIFER_ROOT/var/lib/aquifer
mkdir -p "$store"
tar -C "$store" -xSzf tests/fixtures/store-1.tar.gz
io() { qemu-io -f raw "$@" >"$dir/io" 2>&1 && ! grep -q 'failed' "$dir/io" || fail "$*: $(head -n 5 "$dir/io")"; }
sums() { (cd "$store" && find . -type f | sort | xargs md5sum); }

# a catalog of a newer layout first: the file's user_version, its bytes 60 to 63
cp "$store/catalog.db" "$store/catalog.db-wal" "$dir"
rm "$store/catalog.db-wal"
printf '\0\0\0\2' | dd of="$store/catalog.db" bs=1 seek=60 conv=notrunc status=none
sums >"$dir/before"
refused 1 'catalog.db is of version 2, newer than this program knows \(1\): upgrade this program' aquifer volume list
refused 1 'newer than this program knows' aquifer volume create other 1M
refused 1 'newer than this program knows' aquifer volume delete dense
sums | grep -v 'db-shm\|db-wal' >"$dir/after"
cmp -s "$dir/before" "$dir/after" || fail "a newer store was changed: $(diff "$dir/before" "$dir/after" | head -n 3)"
rm -f "$store"/catalog.db-*
cp "$dir/catalog.db" "$dir/catalog.db-wal" "$store"

[ "$(aquifer volume list --json | jq -c '[.[] | [.name, .size]] | sort')" = '[["copy",67108864],["dense",16777216],["web1",67108864]]' ] || fail "list: $(aquifer volume list)"
[ "$(aquifer snapshot list web1 --json | jq -r '[.[].name] | join(" ")')" = 'one two' ] || fail "snapshots: $(aquifer snapshot list web1)"
one=$(aquifer attach web1@one --as nbd --name one) || fail "attach web1@one"
two=$(aquifer attach web1@two --as nbd --name two) || fail "attach web1@two"
io -r -c 'read -P 1 0 1M' -c 'read -P 0 1M 63M' "$one"
io -r -c 'read -P 1 0 256k' -c 'read -P 2 256k 256k' -c 'read -P 0 512k 256k' -c 'read -P 1 768k 256k' -c 'read -P 0 1M 63M' "$two"
uri=$(aquifer attach web1 --as nbd) || fail "attach web1"
head() { # what web1 has; N: in [512k, 768k)
	io -c 'read -P 1 0 256k' -c 'read -P 2 256k 256k' -c "read -P $1 512k 256k" -c 'read -P 1 768k 256k' -c 'read -P 0 1M 1M' -c 'read -P 4 2M 256k' \
		-c 'read -P 0 2304k 60M' "$uri"
}
head 0
copy=$(aquifer attach copy --as nbd) || fail "attach copy"
io -c 'read -P 3 0 64k' -c 'read -P 1 64k 960k' -c 'read -P 0 1M 63M' "$copy"
dense=$(aquifer attach dense --as nbd) || fail "attach dense"
reads=()
for at in $(seq 0 128 2047); do reads+=(-c "read -P 6 ${at}k 64k" -c "read -P 5 $((at + 64))k 64k"); done
io "${reads[@]}" -c 'read -P 0 2M 14M' "$dense"

# and on: today's writes, snapshots and frees follow those of then
io -c 'write -P 7 512k 256k' -c flush "$uri"
aquifer snapshot create web1@three || fail "snapshot"
io -c 'write -P 8 0 2M' -c flush "$dense"
aquifer snapshot delete web1@one || fail "delete web1@one" # what its clone needs stays
io -c 'read -P 3 0 64k' -c 'read -P 1 64k 960k' "$copy"
aquifer detach --all >/dev/null || fail "detach"
aquifer volume delete copy || fail "delete copy"
uri=$(aquifer attach web1 --as nbd) || fail "attach web1 again"
head 7
aquifer detach --all >/dev/null || fail "detach"
aquifer cluster check >"$dir/said" 2>&1 || fail "check: $(cat "$dir/said")"
echo "read from end to end, and written on"
