#!/bin/bash
# The manager of the map of servers, elected through etcd: of two servers one is it, over a compaction and a restart of etcd; when it is killed the other is
# as soon as its lease has run out.
cd "$(dirname "$0")/../.."
. tests/interop/lib/agent
. tests/interop/lib/etcd
need etcdctl
LEASE=10 # seconds, server/manager.c
store=$(mktemp -d -p "${TMPDIR:-/var/tmp}") # not in /tmp, which may be a tmpfs, without direct I/O
declare -A server id
end() {
	{ kill -9 "${server[@]}" && wait "${server[@]}"; } 2>/dev/null || true
	etcds_end
	cleanup
	rm -rf "$store"
}
trap end EXIT
etcd_serve
says "^ok" make
for n in 1 2; do
	"$B/aquifer-server" --catalog "$url" --data "$store/data$n" --listen "unix:$store/s$n" --domain "d$n" >"$store/out$n" 2>&1 &
	server[$n]=$!
done
for n in 1 2; do
	until_true 20 grep -q ready "$store/out$n" || fail "server $n: $(cat "$store/out$n")"
	id[$n]=$(sed -n 's/.*, server \([0-9a-f]*\),.*/\1/p' "$store/out$n")
done
manager() { etcd_ctl get --print-value-only aquifer/kv/manager 2>/dev/null | head -c 16 | od -An -tx1 | tr -d ' \n'; }
somebody() { [ -n "$(manager)" ]; }
until_true 10 somebody || fail "nobody is the manager"
first=$(manager)
for n in 1 2; do [ "$first" != "${id[$n]}" ] || is=$n; done
[ -n "${is:-}" ] || fail "the manager, $first, is neither ${id[1]} nor ${id[2]}"
other=$((3 - is))

# etcd forgets its history, and is started again: it is the same one still
etcd_compact
etcd_kill 1
etcd_serve
[ "$(manager)" = "$first" ] || fail "after a restart of etcd '$(manager)' is the manager, not $first"

sleep 1 # it, and who watches it, have found etcd again
kill -9 "${server[$is]}"
killed=$(date +%s%N)
wait "${server[$is]}" 2>/dev/null || true
unset "server[$is]"
other_is() { [ "$(manager)" = "${id[$other]}" ]; }
until_true $((LEASE + 10)) other_is || fail "$(manager) is the manager instead of ${id[$other]}"
took=$((($(date +%s%N) - killed) / 1000000))
[ "$(manager)" = "${id[$other]}" ] || fail "it is so no more"
echo "killed, it was succeeded after $took ms; the lease is $LEASE s"
