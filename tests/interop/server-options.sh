#!/bin/bash
# aquifer-server: wrong usage and hopeless surroundings each give one clear line and the right exit status, and
# leave nothing behind.
cd "$(dirname "$0")/../.."
. tests/interop/lib/server
S=$B/aquifer-server
c=sqlite:$dir/catalog.db

"$S" --help | grep -q -- --listen || fail "--help"
"$S" --version | grep -q '^aquifer-server [0-9]' || fail "--version"

refused 2 'data DIR is missing' "$S"
refused 2 'data DIR is missing' "$S" --listen :0 --data ''
refused 2 'listen ADDR:PORT is missing' "$S" --data "$dir/data"
for bad in nonsense 127.0.0.1 127.0.0.1:x 127.0.0.1:70000 ::1:80 '' : 127.0.0.1:-1; do
	refused 2 'is not ADDR:PORT' "$S" --data "$dir/data" --listen "$bad"
done
refused 2 'is not ADDR:PORT' "$S" --data "$dir/data" --listen :0 --advertise nowhere
refused 2 'advertise ADDR:PORT' "$S" --data "$dir/data" --listen 0.0.0.0:7700
refused 2 'the path of a socket has 107 characters at most, and this one 201' "$S" --data "$dir/data" --listen "unix:/$(printf '%0200d' 0)"
refused 2 'advertise: .* 107 characters at most' "$S" --data "$dir/data" --listen :0 --advertise "unix:/$(printf '%0600d' 0)"
refused 2 "'oracle:x' is not a catalog URL" "$S" --data "$dir/data" --listen :0 --catalog oracle:x
refused 2 "http://" "$S" --data "$dir/data" --listen :0 --catalog etcd:nowhere:1
refused 2 "'a b' is not a name" "$S" --data "$dir/data" --listen :0 --domain 'a b'
refused 2 "'much' is not a size" "$S" --data "$dir/data" --listen :0 --size-limit much
refused 2 "'0' is not a number" "$S" --data "$dir/data" --listen :0 --connections 0
refused 2 'unknown option --bogus' "$S" --bogus
refused 2 'unknown option --bogus' "$S" --data "$dir/data" --listen :0 --bogus=1 --domain x
refused 2 'unknown option -x' "$S" -x
refused 2 'data lacks its DIR' "$S" --data
refused 2 'listen lacks its ADDR:PORT' "$S" --data "$dir/data" --listen
refused 2 "what is 'extra'" "$S" --data "$dir/data" --listen :0 extra
[ ! -e "$dir/data" ] || fail "wrong usage made a data directory"

refused 1 "catalog $dir/none/c can't be made: what it should be in isn't there .make that first" "$S" --data "$dir/data" --listen :0 --catalog "sqlite:$dir/none/c"
refused 1 "$dir/none/data" "$S" --data "$dir/none/data" --listen :0 --catalog "$c"
echo 'this is not a database, but long enough to look at' >"$dir/junk"
refused 1 "$dir/junk" "$S" --data "$dir/data" --listen :0 --catalog "sqlite:$dir/junk"
echo file >"$dir/file"
refused 1 "$dir/file" "$S" --data "$dir/file" --listen :0 --catalog "$c"
refused 1 'listening on' "$S" --data "$dir/data" --listen "unix:$dir/none/s" --catalog "$c"
refused 1 "isn't loopback, and this host isn't enrolled" "$S" --data "$dir/data" --listen 192.0.2.1:7700 --catalog "$c" --root "$dir"
refused 1 "isn't loopback, and this host isn't enrolled" "$S" --data "$dir/data" --listen 0.0.0.0:0 --advertise h:1 --catalog "$c" --root "$dir"
refused 1 'listening on' "$S" --data "$dir/data" --listen 192.0.2.1:7700 --catalog "$c" --plain-text
refused 1 'enrolling failed: that is no token' "$S" --data "$dir/data" --listen :0 --token abc --root "$dir" --catalog "$c"
mkdir -p "$dir/root/etc/aquifer"
echo 'catalog' >"$dir/root/etc/aquifer/aquifer.conf"
refused 1 'aquifer.conf, line 1' "$S" --data "$dir/data" --listen :0 --root "$dir/root"
echo "catalog = oracle:x" >"$dir/root/etc/aquifer/aquifer.conf"
refused 1 'oracle:x' env AQUIFER_ROOT="$dir/root" "$S" --data "$dir/data" --listen :0

# a port, a socket and a directory that are in use
start --listen 127.0.0.1:0
port=${at##*:}
refused 1 'listening on tcp:127.0.0.1:.*in use' "$S" --data "$dir/data2" --listen "127.0.0.1:$port" --catalog "$c"
[ ! -e "$dir/data2" ] || fail "a port in use made a data directory"
refused 1 'in use by another' "$S" --data "$dir/data" --listen :0 --catalog "$c"
stop TERM
[ "$status" = 0 ] || fail "SIGTERM: exit status $status"
grep -q 'stopped cleanly' "$dir/out" || fail "no clean stop: $(cat "$dir/out")"
! grep -v "ASan doesn't fully support" "$dir/err" || fail "errors: $(cat "$dir/err")"

# a directory that isn't ours, and one from the future
mkdir "$dir/other" && echo 'not a server' >"$dir/other/server"
refused 1 "$dir/other" "$S" --data "$dir/other" --listen :0 --catalog "$c"
echo "all refused as they should be"
