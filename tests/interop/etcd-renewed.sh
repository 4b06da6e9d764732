#!/bin/bash
# etcd's password, our certificate for it and its address are changed while devices, a server and an agent run: they take the new ones from the files that the
# configuration names, and what waits meanwhile goes on.
# limit: 120
cd "$(dirname "$0")/../.."
. tests/interop/lib/etcd-store
need jq nbdcopy etcdctl openssl
etc=$AQUIFER_ROOT/etc/aquifer
mkdir -p "$etc"
catalog_root=$AQUIFER_ROOT
(
	cd "$dir"
	for ca in old new; do
		openssl req -x509 -newkey ec -pkeyopt ec_paramgen_curve:prime256v1 -nodes -days 2 -subj /CN=$ca -keyout $ca.key -out $ca.pem
		openssl req -newkey ec -pkeyopt ec_paramgen_curve:prime256v1 -nodes -subj /O=aq -keyout $ca-us.key -out $ca-us.csr
		printf 'subjectAltName=IP:127.0.0.1\nextendedKeyUsage=serverAuth,clientAuth\n' >ext
		openssl x509 -req -in $ca-us.csr -CA $ca.pem -CAkey $ca.key -CAcreateserial -days 2 -extfile ext -out $ca-us.pem
	done
) >"$dir/openssl.log" 2>&1 || fail "openssl: $(tail -n 3 "$dir/openssl.log")"
etcd_scheme=https
url=$(etcd_url)
serving() { etcd_start 1 --cert-file "$dir/$1-us.pem" --key-file "$dir/$1-us.key" --client-cert-auth --trusted-ca-file "$dir/$1.pem"; }
given() { # CA: what the operator puts into the files
	cp "$dir/$1.pem" "$etc/etcd-ca.pem" && cp "$dir/$1-us.pem" "$etc/etcd.pem" && cp "$dir/$1-us.key" "$etc/etcd.key"
}
etcd_ctl_options=(--cacert "$etc/etcd-ca.pem" --cert "$etc/etcd.pem" --key "$etc/etcd.key")
printf '%s\n' "catalog = $url" "catalog-ca = $etc/etcd-ca.pem" "catalog-cert = $etc/etcd.pem" "catalog-key = $etc/etcd.key" "catalog-user = us" \
	"catalog-password-file = $etc/etcd.password" >"$etc/aquifer.conf"
echo one >"$etc/etcd.password"
given old
serving old
etcd_up
etcd_auth us one
says "^ok" make
serve --catalog "$url"
aquifer volume create v 512M || fail "volume create"
uri=$(aquifer attach v --as nbd) || fail "attach"
head -c 8M /dev/urandom >"$dir/data"
nbdcopy --flush "$dir/data" "$uri" || fail "write"
aquifer snapshot create v@before || fail "snapshot"

# who may only read is told so, and not that nobody can write
etcd_does --user root:secret user add reader:words
etcd_does --user root:secret role add reader
etcd_does --user root:secret role grant-permission reader read aquifer/ aquifer0
etcd_does --user root:secret user grant-role reader reader
mkdir -p "$dir/reader/etc/aquifer"
sed 's/^catalog-user = .*/catalog-user = reader/; s|^catalog-password-file = .*|catalog-password-file = '"$dir/words|" "$etc/aquifer.conf" >"$dir/reader/etc/aquifer/aquifer.conf"
echo words >"$dir/words"
AQUIFER_ROOT=$dir/reader aquifer cluster status >"$dir/status" || fail "status, of who may only read: $(cat "$dir/status")"
grep -q "^catalog .*; whether it takes changes isn't known: its user here may only read$" "$dir/status" || fail "status doesn't say that it may only read: $(cat "$dir/status")"
AQUIFER_ROOT=$dir/reader aquifer cluster status --json | jq -e '.healthy and .catalog.read_only' >/dev/null || fail "status --json"
for c in "volume create w 64M" "volume export v@before $dir/exported"; do
	AQUIFER_ROOT=$dir/reader refused 1 "the catalog.*: etcd.*: permission denied \(grant its user readwrite on aquifer/ aquifer0" aquifer $c
done

# another password: it counts from now on, the file has it later; what doesn't fit into open segments waits meanwhile
write() { nbdcopy --flush "$dir/data" "$uri" >"$dir/copied" 2>&1 & copy=$!; }
copied() { wait $copy && cmp -n 201326592 "$dir/data" <(nbdcopy "$uri" -) || fail "what was written while $1: $(cat "$dir/copied"; aquifer list)"; }
waits() { field v reason | grep -q 'for the catalog'; }
head -c 192M /dev/urandom >"$dir/data"
etcd_does --user root:secret user passwd us --interactive=false <<<two
write
until_true 30 waits || fail "nothing waits: $(aquifer list)"
echo two >"$etc/etcd.password"
copied "the password was another"
until_true 10 aquifer snapshot create v@password || fail "a snapshot after the password was changed: $(aquifer snapshot create v@password 2>&1)"

# another authority, and a certificate by it; etcd starts anew with that
head -c 192M /dev/urandom >"$dir/data"
etcd_kill 1
serving new
write
until_true 30 waits || fail "nothing waits: $(aquifer list)"
given new
etcd_up
copied "the certificate was another"
until_true 10 aquifer snapshot create v@certificate || fail "a snapshot after the certificate was changed: $(aquifer snapshot create v@certificate 2>&1)"
# and another address
etcd_kill 1
etcd_base=$((etcd_base + 1))
sed -i "s|^catalog = .*|catalog = $(etcd_url)|" "$etc/aquifer.conf"
write
until_true 30 waits || fail "nothing waits: $(aquifer list)"
url=$(etcd_url)
serving new
etcd_up
copied "it was elsewhere"
well() { [ "$(field v reason)" = null ]; }
until_true 20 well || fail "all is well, and the list doesn't know: $(aquifer list)"
until_true 30 eval 'aquifer cluster status >"$dir/status"' || fail "not all of the cluster has the new ones: $(cat "$dir/status")"
aquifer detach v || fail "detach"
kill "$server" && wait "$server" || fail "the server's end: $(cat "$store/out")"
server=
echo "the password, the certificate and the address were changed under devices in use: who runs has the new ones"
