#!/bin/bash
# The catalog on a real etcd: what all engines do alike; killed, restarted, stopped, compacted, out of quota; users and passwords; TLS.
cd "$(dirname "$0")/../.."
. tests/interop/lib/server
. tests/interop/lib/etcd
need etcdctl openssl
trap 'etcds_end; cleanup' EXIT
url=$(etcd_url)

# nobody there; there, but without a store; then with one
says "ENOTCONN .*127.0.0.1" get a
etcd_serve --quota-backend-bytes $((16 << 20))
says "ENODATA there is no store.*aquifer cluster init" get a
says "^ok" make
says "^ok" make # no harm done
says "^ok" conform
says "^ok" put before restart
[ "$(etcd_ctl get --prefix --keys-only aquifer/ | grep -c .)" = 3 ] || fail "keys are left over"

# several processes take numbers at once
counters=
for _ in 1 2 3; do
	"$check" "$url" count n 20 >/dev/null &
	counters="$counters $!"
done
for p in $counters; do wait "$p" || fail "counting"; done
says "^ok 61$" count n 1

# killed and restarted; standing still; compacted
etcd_kill 1
says "ENOTCONN" get before
etcd_serve --quota-backend-bytes $((16 << 20))
says "^ok restart$" get before
kill -STOP "${etcd_pid[1]}"
says "(ETIMEDOUT|ENOTCONN) .*127.0.0.1" get before
kill -CONT "${etcd_pid[1]}"
etcd_compact
says "^ok restart$" get before
says "^ok 2$" list ""

# a lease's keys go with who had them; a watch tells
"$check" "$url" lease alive 2.5 2 >"$dir/lease" &
until grep -q held "$dir/lease"; do sleep 0.05; done
says "^ok" get alive
timeout 10 "$check" "$url" watch w/ 2 >"$dir/watch" &
watcher=$!
sleep 0.6
woken=$(grep -c woken "$dir/watch")
says "^ok" put w/1 x
sleep 0.4
[ "$(grep -c woken "$dir/watch")" -gt "$woken" ] || fail "the watch slept: $(cat "$dir/watch")"
wait $watcher || fail "watch: $(cat "$dir/watch")"
until grep -q kept "$dir/lease"; do sleep 0.1; done
sleep 0.2
says "ENOENT" get alive

# out of quota: nothing can be put, what is there can be read and deleted
says "^ok" put big0 x
says "^[1-9][0-9]* then EDQUOT" flood big 250000 8 # some are applied, and refused all the same
says "EDQUOT .*database space exceeded" put more x
says "^ok restart$" get before
says "^ok" delete big0
etcd_kill 1
rm -rf "$dir/etcd1"

# users
etcd_serve
says "^ok" make
etcd_auth aq word
says "EACCES .*user" get a
mkdir -p "$dir/r/etc/aquifer"
catalog_root=$dir/r
echo wrong >"$dir/password"
printf 'catalog-user = aq\ncatalog-password-file = %s\n' "$dir/password" >"$dir/r/etc/aquifer/aquifer.conf"
says "EACCES .*authentication failed" put a b
echo word >"$dir/password"
says "^ok" put a b
says "^ok b" get a
says "^ok" conform
# tokens end with the etcd that gave them: whoever has been here for long logs in again
rm -f "$dir/lease"
"$check" --root "$catalog_root" "$url" lease alive 3 2 >"$dir/lease" &
holder=$!
timeout 40 "$check" --root "$catalog_root" "$url" watch w/ 30 >"$dir/watch" &
watcher=$!
until grep -qs held "$dir/lease" && grep -qs woken "$dir/watch"; do sleep 0.05; done
etcd_kill 1
etcd_start 1
wait $holder || fail "a lease with an old token: $(cat "$dir/lease")"
grep -q '^ok kept' "$dir/lease" || fail "a lease with an old token: $(cat "$dir/lease")"
until [ "${told:-0}" -ge 4 ]; do # changes, and wakings by them
	kill -0 $watcher || fail "a watch with an old token hears of nothing: $(cat "$dir/watch")"
	told=$(grep -c woken "$dir/watch")
	for i in 1 2 3 4; do says "^ok" put w/x $RANDOM; done
	told=$(($(grep -c woken "$dir/watch") - told))
done
kill $watcher && wait $watcher || true
etcd_kill 1
catalog_root=
rm -rf "$dir/etcd1"

# TLS: etcd must be who it says, and so must we
(
	cd "$dir"
	openssl req -x509 -newkey ec -pkeyopt ec_paramgen_curve:prime256v1 -nodes -days 2 -subj /CN=ca -keyout ca.key -out ca.pem
	for who in server client; do
		openssl req -newkey ec -pkeyopt ec_paramgen_curve:prime256v1 -nodes -subj /CN=$who -keyout $who.key -out $who.csr
		printf 'subjectAltName=IP:127.0.0.1\nextendedKeyUsage=serverAuth,clientAuth\n' >ext
		openssl x509 -req -in $who.csr -CA ca.pem -CAkey ca.key -CAcreateserial -days 2 -extfile ext -out $who.pem
	done
) >"$dir/openssl.log" 2>&1 || fail "openssl: $(tail -n 3 "$dir/openssl.log")"
etcd_scheme=https
url=$(etcd_url)
catalog_root=$dir/r
conf() { printf '%s\n' "$@" >"$dir/r/etc/aquifer/aquifer.conf"; }
conf "catalog-ca = $dir/ca.pem" "catalog-cert = $dir/client.pem" "catalog-key = $dir/client.key"
etcd_serve --cert-file "$dir/server.pem" --key-file "$dir/server.key" --client-cert-auth --trusted-ca-file "$dir/ca.pem"
says "^ok" make
says "^ok" conform
conf "catalog-ca = $dir/ca.pem"
says "^E(NOTCONN|TIMEDOUT)" get a # no certificate of ours
conf "catalog-cert = $dir/client.pem" "catalog-key = $dir/client.key"
says "ENOTCONN .*certificate" get a # an authority nobody knows
conf "catalog-ca = $dir/no-such-file"
says "ENOENT .*catalog-ca.*No such file" get a
conf "catalog-cert = $dir/client.pem"
says "EINVAL .*go together" get a
echo "the same as SQLite; down, stopped, compacted, full, with users, over TLS: all is said, nothing is lost"
