#!/bin/bash
# cluster init, move-catalog (there and back, interrupted, refused while in use), backup and restore: volumes keep their content, and nobody goes on
# with the catalog that was left.
cd "$(dirname "$0")/../.."
. tests/interop/lib/etcd-store
need jq nbdcopy
conf=$AQUIFER_ROOT/etc/aquifer/aquifer.conf
unserve() {
	kill "$server" && wait "$server" || fail "the server's end: $(cat "$store/out")"
	server=
}
content() { # VOLUME [FILE]: as it should be
	uri=$(aquifer attach "$1" --as nbd --name c) || fail "attach $1"
	nbdcopy "$uri" - | cmp -n 4194304 - "$dir/${2:-data}" || fail "content of $1"
	aquifer detach c || fail "detach $1"
}
head -c 4M /dev/urandom >"$dir/data"
head -c 4M /dev/urandom >"$dir/new"

# init, in a file
refused 2 "'foo' is not a catalog URL" aquifer cluster init --catalog foo
refused 2 "absolute" aquifer cluster init --catalog sqlite:here.db
refused 2 "http://" aquifer cluster init --catalog etcd:nowhere:1
refused 2 "is not HOST:PORT" aquifer cluster move-catalog etcd:http://nowhere
refused 1 "127.0.0.1:1:" aquifer cluster init --catalog etcd:http://127.0.0.1:1
file=sqlite:$AQUIFER_ROOT/var/lib/aquifer/catalog.db
[ "$(aquifer cluster init --catalog "$file" --json | jq -r .catalog)" = "$file" ] || fail "init"
grep -q "^catalog = $file\$" "$conf" || fail "the configuration: $(cat "$conf")"
refused 1 "already" aquifer cluster init
refused 1 "move-catalog" aquifer cluster init --catalog "sqlite:$dir/other.db"

# an embedded volume, then one on a server
aquifer volume create e 32M && uri=$(aquifer attach e --as nbd) && nbdcopy --flush "$dir/data" "$uri" || fail "an embedded volume"
etcd_serve
refused 1 "attached as device e" aquifer cluster move-catalog "$url"
aquifer detach e
serve
aquifer volume create v 128M && uri=$(aquifer attach v --as nbd) && nbdcopy --flush "$dir/data" "$uri" || fail "a volume"
aquifer snapshot create v@s && aquifer clone v@s w && aquifer detach v || fail "snapshot, clone"
refused 1 "server at .* runs" aquifer cluster move-catalog "$url"
says "ENODATA" get x # nobody touched it
unserve

refused 1 "there are volumes in" aquifer cluster move-catalog "sqlite:$dir/else/where.db"
[ ! -e "$dir/else" ] || fail "a place to which nothing was moved: $(ls "$dir/else")"

# an attempt that was interrupted keeps everybody out until it is begun again; another place is refused
"$B/tools/catalogcheck" "$file" put store/moved "moving $url" >/dev/null || fail "mark"
refused 1 "being moved to $url" aquifer volume list
refused 1 "somewhere else" aquifer cluster move-catalog "sqlite:$AQUIFER_ROOT/var/lib/aquifer/other.db"
aquifer cluster move-catalog "$url" >"$dir/moved" || fail "move"
grep -q "^catalog = $url\$" "$conf" && [ "$(grep -c catalog "$conf")" = 1 ] || fail "the configuration: $(cat "$conf")"
refused 1 "already" aquifer cluster move-catalog "$url"
says "^ok" get name/v

# nobody goes on with the old one
cp "$conf" "$dir/conf"
echo "catalog = $file" >"$conf"
refused 1 "moved to $url" aquifer volume list
refused 1 "moved to $url" aquifer volume create n 32M
! timeout 10 "$B/aquifer-server" --data "$store/data" --listen "unix:$store/s" >"$store/out" 2>&1 || fail "a server on the old catalog"
grep -q "moved to $url" "$store/out" || fail "$(cat "$store/out")"
cp "$dir/conf" "$conf"

# all is there; a backup of it
serve
for n in e v w; do content $n; done
aquifer cluster backup "$dir/backup" | grep -q "keys" || fail "backup"
refused 1 "exists" aquifer cluster backup "$dir/backup"
aquifer cluster backup "$dir/backup" --force >/dev/null || fail "backup --force"
refused 1 "isn't an ordinary file" aquifer cluster backup "$dir" --force
before=$(aquifer volume show v --json | jq .epoch)
aquifer volume create later 32M && uri=$(aquifer attach later --as nbd) && nbdcopy --flush "$dir/data" "$uri" && aquifer detach later || fail "what the backup doesn't know"
# written, and marked, since
uri=$(aquifer attach v --as nbd) && nbdcopy --flush "$dir/new" "$uri" && aquifer snapshot create v@since && aquifer detach v || fail "written since"
uri=$(aquifer attach e --as nbd) && nbdcopy --flush "$dir/new" "$uri" && aquifer detach e || fail "embedded, written since"
aquifer volume create brief 32M && aquifer volume delete brief || fail "made and deleted since"
unserve

# the catalog is lost, restored, and everything that is given from then on is new
refused 1 "there is a store already" aquifer cluster restore "$dir/backup"
etcd_kill 1
rm -rf "$dir/etcd1"
etcd_serve
refused 1 "there is no store" aquifer volume list
head -c 300 "$dir/backup" >"$dir/cut"
refused 1 "ends too early, at line [0-9]+ \(take another backup\)" aquifer cluster restore "$dir/cut"
sed 's/"name\/v"/"name\/x"/' "$dir/backup" >"$dir/changed"
refused 1 "damaged" aquifer cluster restore "$dir/changed"
refused 1 "there is no store" aquifer volume list
aquifer cluster restore "$dir/backup" >/dev/null || fail "restore"
refused 1 "there is a store already" aquifer cluster restore "$dir/backup"
refused 1 "don't answer that may have what was written since.*--force" aquifer cluster recover
serve
refused 1 "aquifer cluster recover" aquifer attach v --as nbd
aquifer volume list --json | jq -r '.[].name' | grep -q later && fail "a volume from the future"
aquifer cluster recover >"$dir/recovered" || fail "recover: $(cat "$dir/recovered")"
grep -q "^v: has what was written since.*, with 1 snapshot made since$" "$dir/recovered" && grep -q "^later: was made since the backup, and is back" "$dir/recovered" || fail "$(cat "$dir/recovered")"
for n in later w; do content $n; done
content e new
aquifer cluster recover --json | jq -e '.complete and all(.volumes[]; .is == "same")' >/dev/null || fail "again"
content v new
content v@since new
[ "$(aquifer volume show v --json | jq .epoch)" -gt $((before + 4000000000)) ] || fail "the epoch: $(aquifer volume show v)"
aquifer cluster restore --confirm >/dev/null || fail "confirm"
refused 1 "nothing to recover" aquifer cluster recover
aquifer cluster check >/dev/null || fail "check: $(aquifer cluster check)"
aquifer volume create fresh 64M && uri=$(aquifer attach fresh --as nbd) && nbdcopy --flush "$dir/data" "$uri" && aquifer detach fresh || fail "a new volume"
content fresh
unserve

# and back into a file
back=sqlite:$AQUIFER_ROOT/var/lib/aquifer/back.db
aquifer cluster move-catalog "$back" --json | jq -e '.keys > 10' >/dev/null || fail "move back"
serve
for n in w fresh; do content $n; done
for n in e v; do content $n new; done
aquifer volume delete w && aquifer volume delete v --with-snapshots && aquifer volume delete e || fail "delete"
says "EREMCHG" get x
echo "made, moved, moved back, backed up and restored; the old ones are marked, the content is as it was"
