#!/bin/bash
# Two hosts over TLS on etcd: servers, agents and tapdisks all ask for certificates. A volume moves from one to the other while it is written, commands reach it
# from either, who isn't enrolled reaches neither servers nor agents, and a host that is revoked is out until it is enrolled again.
cd "$(dirname "$0")/../.."
tls=1 servers=2
. tests/interop/lib/hosts
need jq nbdcopy qemu-io openssl
hosts_up a b
for n in 1 2; do grep -q ' at tls:127' "$store/out$n" || fail "server $n: $(cat "$store/out$n")"; done
agent_at() { on a agent list --json | jq -r --arg h "$1" '.[] | select(.host == $h) | .address'; }
[[ $(agent_at a) == tls:* && $(agent_at b) == tls:* ]] || fail "agents speak plain text: $(on a agent list)"
head -c 8M /dev/urandom >"$dir/data"
on a volume create v 64M || fail "create"
uri=$(on a attach v --as nbd) || fail "attach"
nbdcopy --flush "$dir/data" "$uri" || fail "write"
on b snapshot create v@s || fail "a snapshot from the other host"
on b migrate v --to b >/dev/null || fail "migrate"
uri=$(at b v device)
nbdcopy "$uri" - | cmp -n 8388608 - "$dir/data" || fail "content after moving"

# a stranger: the catalog, but no certificate
mkdir -p "$dir/x/etc/aquifer"
printf 'catalog = %s\nhost = x\n' "$url" >"$dir/x/etc/aquifer/aquifer.conf"
refused 1 "isn't enrolled" on x volume import "$B/aquifer" w
refused 1 "isn't enrolled" on x snapshot create v@t
# what it fails to attach is nobody's afterwards, for all: it isn't a guest's that might be running there
on a volume create free 64M || fail "create"
refused 1 "none of the servers that hold it can be used from here: this host isn't enrolled in the cluster, or only for another role.*.aquifer cluster join.$" on x attach free --as nbd
[ "$(on a volume show free --json | jq -c '[.state, .holder, .health]')" = '["free",null,"good"]' ] || fail "after a failed attach: $(on a volume show free)"
on a volume delete free || fail "delete what could not be attached elsewhere"
on x agent stop >/dev/null
address=$(agent_at b)
{ sleep 0.5; echo hello; sleep 0.5; } | timeout 10 openssl s_client -connect "${address#tls:}" >"$dir/said" 2>&1 || true
grep -q 'certificate required' "$dir/said" || fail "a stranger at the agent: $(tail -n 3 "$dir/said")"

# certificates of the cluster that aren't good there: a server's, at an agent; one that has run out
as() { # PATTERN CERTIFICATE KEY: at the agent of b
	{ sleep 0.3; echo hello; sleep 0.3; } | timeout 10 openssl s_client -connect "${address#tls:}" -cert "$2" -key "$3" >"$dir/said" 2>&1 || true
	grep -q "$1" "$dir/said" || fail "with $2: $(tail -n 3 "$dir/said")"
}
pki=$dir/a/etc/aquifer/tls
as 'unsupported certificate' "$pki/server.pem" "$pki/server.pem"
openssl req -newkey ec -pkeyopt ec_paramgen_curve:P-256 -nodes -keyout "$dir/k" -out "$dir/q" -subj /CN=a 2>/dev/null
echo subjectAltName=URI:aquifer:agent/a >"$dir/ext"
openssl x509 -req -in "$dir/q" -CA "$pki/authority.crt" -CAkey "$pki/authority.key" -set_serial 77 -days 0 -extfile "$dir/ext" -out "$dir/c" 2>/dev/null
sleep 1
as 'certificate expired' "$dir/c" "$dir/k"

printf 'agent.listen = 0.0.0.0:0\nagent.advertise = x:1\n' >>"$dir/x/etc/aquifer/aquifer.conf"
hosts="$hosts x"
on x agent start >/dev/null || fail "the stranger's agent"
until_true 10 grep -q "isn't loopback, and this host isn't enrolled" "$dir/x/run/aquifer/agent.log" || fail "it listens for all in plain text: $(cat "$dir/x/run/aquifer/agent.log")"

# revoked: b's device waits, for no server lets it in; enrolled again it goes on, with nothing lost
refused 1 "nothing has been heard of a host c" on a cluster revoke c
on a cluster revoke b >/dev/null || fail "revoke"
out() { on b server list | grep -q revoked; }
until_true 10 out || fail "a revoked host is let in: $(on b server list)"
refused 1 "revoked" on b cluster renew
# who can write the catalog can't take that back: those who saw it remember
there() { etcd_ctl "$@" aquifer/kv/access/revoked/b; }
[ "$(there del)" = 1 ] || fail "no revocation in the catalog"
back() { [ -n "$(there get)" ]; }
until_true 15 back || fail "nobody puts the revocation back"
out || fail "a revoked host is let in when the catalog forgets: $(on b server list)"
on b cluster join "$(on a cluster token)" >/dev/null || fail "enrolling again"
qemu-io -f raw -c 'write -P 7 8M 1M' -c flush -c 'read -P 7 8M 1M' "$uri" 2>&1 | grep -qi failed && fail "writing after being enrolled again"
nbdcopy "$uri" - | cmp -n 8388608 - "$dir/data" || fail "content at the end"
echo "moved over TLS; strangers and the revoked stay out"
