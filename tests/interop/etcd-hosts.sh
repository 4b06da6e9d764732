#!/bin/bash
# Two hosts (two roots, two host names) share a catalog on etcd and a server: the second one sees who holds a volume, asks for a snapshot by way of his agent, takes it only
# with --force or when he is dead for as long as a lease lasts; and who lost it can't write any more.
cd "$(dirname "$0")/../.."
. tests/interop/lib/etcd-store
need jq nbdcopy qemu-io unshare
unshare --uts true 2>/dev/null || { echo "skipped: no UTS namespaces (needs root)"; exit 77; }
there() { AQUIFER_ROOT=$dir/there unshare --uts sh -c 'hostname elsewhere && exec "$@"' sh "$B/aquifer" "$@"; }
end() {
	there detach --all --force >/dev/null 2>&1
	there agent stop >/dev/null 2>&1
	store_end
}
trap end EXIT
etcd_serve
for root in "$dir/there"; do
	mkdir -p "$root/etc/aquifer"
	echo "catalog = $url" >"$root/etc/aquifer/aquifer.conf"
done
aquifer cluster init --catalog "$url" >/dev/null || fail "init"
serve
head -c 4M /dev/urandom >"$dir/data"
aquifer volume create v 64M || fail "create"
uri=$(there attach v --as nbd) || fail "attach there"
nbdcopy --flush "$dir/data" "$uri" || fail "write there"

# here, that is seen
aquifer volume list --json | jq -e '.[0].state == "attached"' >/dev/null || fail "the list here: $(aquifer volume list)"
refused 1 "attached as device v.* on host elsewhere" aquifer attach v --as nbd
refused 1 "attached" aquifer volume delete v
until_true 10 aquifer snapshot create v@s || fail "a snapshot by way of its agent: $(aquifer snapshot create v@s 2>&1)"
nbdcopy "$uri" - | cmp -n 4194304 - "$dir/data" || fail "it was disturbed"

# taken by force: who had it is fenced
mine=$(aquifer attach v --as nbd --force) || fail "attach --force"
nbdcopy "$mine" - | cmp -n 4194304 - "$dir/data" || fail "content after --force"
qemu-io -f raw -c 'write -P 1 0 4k' -c flush "$uri" 2>&1 | grep -qi failed || fail "who lost it still writes"
nbdcopy "$mine" - | cmp -n 4194304 - "$dir/data" || fail "what he wrote is there"
there detach v --force >/dev/null 2>&1 || true
aquifer detach v || fail "detach"

# he dies: for a lease's time he is believed to live, then not
uri=$(there attach v --as nbd) || fail "attach there again"
kill -9 "$(there list --json | jq '.[0].pid')"
refused 1 "on host elsewhere" aquifer attach v --as nbd
taken() { mine=$(aquifer attach v --as nbd 2>/dev/null); }
until_true 25 taken || fail "a dead holder keeps it"
nbdcopy "$mine" - | cmp -n 4194304 - "$dir/data" || fail "content after his death"
aquifer detach v || fail "detach"
echo "the other host is seen, asked, fenced by force, and inherited when it is dead"
