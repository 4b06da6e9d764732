#!/bin/bash
# Two hosts (roots with names of their own) that share a catalog in a file, which is one machine's: agents that are told to listen find one another there too, and an embedded
# volume moves between them under load. An incoming device that nothing comes to goes by itself; what can't be moved is refused.
cd "$(dirname "$0")/../.."
. tests/interop/lib/agent
B=$(cd "$B" && pwd)
top=
need jq
roam=$B/tools/roam
[ -x "$roam" ] || { echo "skipped: $roam is not built"; exit 77; }
on() {
	local h=$1
	shift
	AQUIFER_ROOT=$dir/$h "$B/aquifer" "$@"
}
state() { on "$1" list --json | jq -r '.[] | select(.name == "v").state'; }
end() {
	for c in $clients; do kill -9 "$c" 2>/dev/null || true; done
	for h in a b; do
		on $h detach --all --force >/dev/null 2>&1 || true
		on $h agent stop >/dev/null 2>&1 || true
	done
	rm -rf "$dir"
}
trap end EXIT
mkdir "$dir/shared"
for h in a b; do
	mkdir -p "$dir/$h/etc/aquifer"
	printf 'catalog = sqlite:%s\nhost = %s\nagent.listen = 127.0.0.1:0\n' "$dir/shared/catalog.db" $h >"$dir/$h/etc/aquifer/aquifer.conf"
done
on a volume create v 16M || fail "create"
for h in a b; do on $h agent start >/dev/null || fail "agent"; done
both() { [ "$(on a agent list --json | jq length)" = 2 ]; }
until_true 20 both || fail "agents: $(on a agent list)"
on a attach v --as nbd >/dev/null || fail "attach"
"$roam" 1 2048 "nbd+unix:///v?socket=$dir/a/run/aquifer/exports/v.nbd" "nbd+unix:///v?socket=$dir/b/run/aquifer/exports/v.nbd" >/dev/null 2>"$dir/roam.err" &
clients=$!
for i in 1 2 3; do
	on b migrate v --to b >/dev/null || fail "to b"
	[ "$(state a) $(state b)" = "moved running" ] || fail "after a move: $(on a list; on b list)"
	on a snapshot create v@s$i || fail "a snapshot of what is attached on the other host"
	on b migrate v --to a >/dev/null || fail "to a"
	[ "$(state a) $(state b)" = "running moved" ] || fail "after a move: $(on a list; on b list)"
done
kill $clients
wait $clients || fail "the guest: $(cat "$dir/roam.err")"
clients=
on b detach v || fail "detach"

# nothing comes: it goes by itself
status=0
timeout 20 "$B/aquifer-tapdisk" --root "$dir/b" --export "nbd:$dir/x.sock" --incoming=300 v >"$dir/out" 2>&1 || status=$?
[ $status -eq 0 ] || fail "an incoming tapdisk for 0.3 s ended with $status: $(cat "$dir/out")"
grep -q 'incoming waiting for host a' "$dir/out" || fail "it says: $(cat "$dir/out")"
# a part of a graph stays
on a detach v || fail "detach"
on a attach 'error(volume(v))' --name v --as nbd >/dev/null || fail "attach a graph"
refused 1 'files of this host|part of the device v' on a migrate v --to b
refused 1 'only a volume by itself' on b attach 'error(volume(v))' --name w --as nbd --incoming
refused 1 'only a volume by itself' on b attach 'ram(1M)' --name w --as nbd --incoming
on a detach --all || fail "detach"

# an agent whose etcd isn't there serves its own host as ever, and ends at once when it is told to
printf 'catalog = etcd:http://127.0.0.1:9\nhost = b\n' >"$dir/b/etc/aquifer/aquifer.conf"
on b agent restart >/dev/null || fail "an agent without its catalog"
[ -n "$(on b attach 'ram(1M)' --name r --as nbd)" ] || fail "attach without the catalog"
refused 1 'etcd' on b migrate v --to a
on b detach r && timeout 8 "$B/aquifer" --root "$dir/b" agent stop >/dev/null || fail "an agent without its catalog doesn't end"
echo "an embedded volume moves between two roots that share a file"
