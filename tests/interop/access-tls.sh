#!/bin/bash
# Access control with real programs: three hosts (three roots) with one catalog, servers on loopback that ask for certificates. Who is
# enrolled writes and reads; strangers of every kind get nothing and hear why; tokens count once; certificates are renewed. (Moves and revocation: hosts-tls.sh.)
cd "$(dirname "$0")/../.."
. tests/interop/lib/server
need openssl fio python3
B=$(cd "$B" && pwd)
S=$B/aquifer-server segload=$B/tools/segload
declare -A server_pid
tapdisk=
end() {
	for p in $tapdisk "${server_pid[@]}"; do { kill -9 "$p" && wait "$p"; } 2>/dev/null || true; done
	AQUIFER_ROOT=$dir/alpha "$B/aquifer" agent stop >/dev/null 2>&1 || true
	cleanup
}
trap end EXIT
on() { # HOST COMMAND…
	host=$1
	shift
	AQUIFER_ROOT=$dir/$host "$B/aquifer" "$@"
}
for host in alpha beta gamma; do
	mkdir -p "$dir/$host/etc/aquifer"
	printf 'host = %s\ncatalog = sqlite:%s/store/catalog.db\n' $host "$dir" >"$dir/$host/etc/aquifer/aquifer.conf"
done
serve() { # HOST OPTION…: sets $at
	host=$1
	shift
	: >"$dir/out.$host" # what the one before said
	AQUIFER_ROOT=$dir/$host "$S" --data "$dir/data.$host" --listen "${port[$host]:-127.0.0.1:0}" --domain "$host" "$@" >"$dir/out.$host" 2>"$dir/err.$host" &
	server_pid[$host]=$!
	until_true 20 grep -q ready "$dir/out.$host" || fail "the server of $host doesn't start: $(cat "$dir/err.$host")"
	at=$(sed -n 's/.* at \(.*\), server .*/\1/p' "$dir/out.$host")
	port[$host]=${at#*:}
}
declare -A port

# the authority; tokens
refused 1 "no store yet" on alpha cluster token
on alpha cluster init >/dev/null || fail "init"
tls=$dir/alpha/etc/aquifer/tls
[ "$(stat -c %a "$tls/authority.key")" = 600 ] || fail "the authority's key can be read by others"
refused 1 "authority isn't on this host" on beta cluster token
refused 1 "a token is needed" on beta cluster join
refused 2 "neither server nor agent" on alpha cluster token --for guest
refused 2 "is not a time" on alpha cluster token --ttl soon
refused 2 "30 days" on alpha cluster token --ttl 31d
refused 2 "no token, or not all of it" on beta cluster join aquifer1.abc
on alpha cluster join >/dev/null || fail "the authority's own host"
token=$(on alpha cluster token --for agent --ttl 30m) || fail "token"
# The catalog knows the token, and not its secret (docs/formats/access.md has the bytes of both)
on alpha cluster backup "$dir/backup" >/dev/null || fail "backup"
python3 - "$dir/backup" "$token" <<'EOF' || fail "what the catalog holds of a token"
import base64, json, sys
token = base64.urlsafe_b64decode(sys.argv[2].removeprefix("aquifer1.") + "=")
name, secret = "access/token/%x" % int.from_bytes(token[:8], "little"), token[9:41]
values = {e["key"]: base64.b64decode(e["value"]) for e in map(json.loads, open(sys.argv[1])) if "key" in e}
assert len(secret) == 32 and any(int(k.rsplit("/", 1)[1], 16) == int(name.rsplit("/", 1)[1], 16) for k in values if k.startswith("access/token/")), sorted(values)
assert not any(secret in v for v in values.values()), "the secret"
EOF
refused 1 "isn't for a server" on beta cluster join "$token" --for server
on beta cluster join "$token" >/dev/null || fail "join"
[ "$(stat -c %a "$dir/beta/etc/aquifer/tls/agent.pem")" = 600 ] || fail "a key can be read by others"
[ ! -e "$dir/beta/etc/aquifer/tls/server.pem" ] || fail "enrolled as more than it should be"
refused 1 "has been used or has expired" on gamma cluster join "$token"
refused 1 "is for host beta" on gamma cluster join "$(on alpha cluster token --ttl 2d --host beta)"

# servers: only with certificates; the second one enrols itself
serve alpha
[[ $at == tls:127.0.0.1:* ]] || fail "it is registered as $at"
serve beta --token "$(on alpha cluster token --for server)"
[[ $at == tls:* ]] || fail "it is registered as $at"
address=${port[alpha]}

# who is enrolled writes and reads, through a tapdisk
on beta volume create v 64M --replicas 2 >/dev/null || fail "create"
AQUIFER_ROOT=$dir/beta tapdisk_up v
load() {
	fio --name=load --ioengine=nbd --uri="$(cat "$dir/uri")" --rw=randwrite --bs=4k --iodepth=16 --size=6M --verify_state_save=0 --verify=crc32c --verify_fatal=1 \
		--do_verify=1 --fsync=64 "$@" >"$dir/fio" 2>&1 || fail "$(tail -n 5 "$dir/fio")"
	! grep -qiE 'verify:|error=|err=[^0 ]' "$dir/fio" || fail "$(grep -iE 'verify|err' "$dir/fio" | head)"
}
load
grep -q . "$dir/data.beta/server" || fail "nothing is on the second server"

# a restart amid it; new certificates while all go on
on beta cluster renew >/dev/null || fail "renew"
kill -9 "${server_pid[alpha]}" && wait "${server_pid[alpha]}" 2>/dev/null || true
serve alpha
load --randseed=2 --offset=16M

# strangers: without a certificate, with another's, with an older TLS, with plain text, with nothing to say
openssl req -x509 -newkey ec -pkeyopt ec_paramgen_curve:P-256 -nodes -keyout "$dir/k" -out "$dir/c" -days 2 -subj /CN=x -addext subjectAltName=URI:aquifer:agent/beta 2>/dev/null
stranger() { # PATTERN OPTION…
	want=$1
	shift
	{ sleep 0.5; echo hello; sleep 0.5; } | timeout 10 openssl s_client -connect "$address" "$@" >"$dir/said" 2>&1 || true
	grep -q "$want" "$dir/said" || fail "s_client $*: $(tail -n 3 "$dir/said")"
}
stranger 'alert certificate required'
stranger 'alert unknown ca' -cert "$dir/c" -key "$dir/k"
stranger 'alert protocol version' -tls1_2
refused 1 '' timeout 10 "$segload" stat "tcp:$address" 1
on gamma server list | grep -q "isn't enrolled" || fail "the list doesn't say why: $(on gamma server list)"
# a certificate of the cluster, but for another role
cp "$dir/beta/etc/aquifer/tls/"{authority.crt,agent.pem} "$dir/"
mkdir -p "$dir/gamma/etc/aquifer/tls"
cp "$dir/authority.crt" "$dir/gamma/etc/aquifer/tls/" && cp "$dir/agent.pem" "$dir/gamma/etc/aquifer/tls/server.pem"
refused 1 "certificate for another role" "$S" --data "$dir/data.gamma" --listen :0 --root "$dir/gamma"
rm -r "$dir/gamma/etc/aquifer/tls"

kill -TERM "${server_pid[alpha]}" && wait "${server_pid[alpha]}" || fail "the server's end: $(cat "$dir/err.alpha")"
grep -q 'stopped cleanly' "$dir/out.alpha" || fail "no clean stop"
unset "server_pid[alpha]"
echo "enrolled: let in; strangers: nothing; tokens and renewal as they should be"
