#!/bin/bash
# The cluster's authority is lost, and another one made, as docs/cluster.md says: every host trusts both for a while, and is enrolled by the new one, one after the other. Whoever
# writes meanwhile waits for nobody, though all connections begin anew; at the end the old one's certificates count no more.
# limit: 180
cd "$(dirname "$0")/../.."
tls=1 servers=3
. tests/interop/lib/hosts
need jq nbdcopy etcdctl openssl
server_up() { # NUMBER: each on a host of its own
	local n=$1 all=(here there yonder) h
	h=${all[n - 1]}
	AQUIFER_ROOT=$dir/$h "$B/aquifer-server" --data "$store/data$n" --listen 127.0.0.1:0 --domain "d$n" >"$store/out$n" 2>&1 &
	server_pids="$server_pids $!"
	until_true 20 grep -q ready "$store/out$n" || fail "server $n: $(cat "$store/out$n")"
}
hosts_up here there yonder
healthy() { on "$1" cluster status >"$dir/status" 2>&1; }
all_healthy() { healthy here && healthy there && healthy yonder; }
until_true 30 all_healthy || fail "at first: $(cat "$dir/status")"
on here volume create v 64M --min-replicas 3 || fail "create" # so that who is away is waited for
uri=$(on here attach v --as nbd) || fail "attach"
writes() { # WHEN
	head -c 1M /dev/urandom >"$dir/data"
	timeout 20 nbdcopy --flush "$dir/data" "$uri" || fail "$1: a write: $(on here list)"
	all_healthy || fail "$1: $(cat "$dir/status")"
}
at_tls() { echo "$dir/$1/etc/aquifer/tls"; }

# the new one
mv "$(at_tls here)/authority.crt" "$dir/old.crt" && rm "$(at_tls here)/authority.key" || fail "what there was"
ETCDCTL_API=3 etcdctl --endpoints "127.0.0.1:$(etcd_port 1)" del aquifer/kv/access/authority >/dev/null || fail "the note of it"
on here cluster init --authority-only >/dev/null && cat "$dir/old.crt" >>"$(at_tls here)/authority.crt" || fail "another authority"
for h in there yonder; do cp "$(at_tls here)/authority.crt" "$dir/both.crt" && mv "$dir/both.crt" "$(at_tls $h)/authority.crt" || fail "trust of $h"; done
sleep 11 # files are looked at every ten seconds
writes "with both trusted"
on here cluster join >/dev/null || fail "here: join"
sleep 11
writes "here has a new certificate"
for h in there yonder; do on $h cluster join "$(on here cluster token --host $h)" >/dev/null || fail "$h: join"; done
sleep 11
writes "all have new certificates"
for h in here there yonder; do
	openssl x509 -in "$(at_tls here)/authority.crt" -out "$dir/new.crt" && mv "$dir/new.crt" "$(at_tls $h)/authority.crt" || fail "the old one goes from $h"
	for role in agent server; do openssl verify -CAfile "$(at_tls $h)/authority.crt" "$(at_tls $h)/$role.pem" >/dev/null || fail "$h: whose certificate is $role.pem?"; done
done
sleep 11
writes "with the new one alone"
on there migrate v --to there >/dev/null || fail "migrate"
on there snapshot create v@end || fail "snapshot"
echo "the authority was replaced, and nobody waited"
