#!/bin/bash
# Two machines that were given one name, which a boot id tells apart (a mount namespace here has another): the second one's agent isn't registered, a volume that the first
# has attached isn't taken without --force, and its commands go to the first one's agent. When the first is dead, the second may be that machine after a restart.
cd "$(dirname "$0")/../.."
. tests/interop/lib/hosts
need jq unshare nbdinfo
hosts_up a c
unshare -m true 2>/dev/null || { echo "skipped: no mount namespaces"; exit 77; }
mkdir -p "$dir/e/etc/aquifer"
cp "$dir/c/etc/aquifer/aquifer.conf" "$dir/e/etc/aquifer/"
echo 00000000-1111-2222-3333-444444444444 >"$dir/boot"
another() { unshare -m sh -c 'mount --bind "$1/boot" /proc/sys/kernel/random/boot_id && shift && exec "$@"' sh "$dir" "$B/aquifer" --root "$dir/e" "$@"; }

on a volume create v 4M --replicas 1 || fail create
on c attach v --as nbd >/dev/null || fail attach
another agent start >/dev/null
until_true 10 grep -q 'on another machine is called c too' "$dir/e/run/aquifer/agent.log" || fail "two agents of one name: $(cat "$dir/e/run/aquifer/agent.log")"
refused 1 'device v (.*) on another machine that is called c too' another attach v --as nbd
another snapshot create v@one || fail "a snapshot where it isn't attached"
another volume list | grep -q '^v .*c' || fail "the list: $(another volume list)"
[ "$(on c list --json | jq -r '.[].state')" = running ] || fail "the first one's device: $(on c list)"
# nor by a container on this kernel, whose processes have other numbers: whoever has the device's doesn't tell
contained() { unshare -m -p -f --mount-proc "$B/aquifer" --root "$dir/e" "$@"; }
another agent stop >/dev/null || fail "agent stop"
if unshare -m -p -f --mount-proc true 2>/dev/null; then
	refused 1 'device v (.*) on another machine that is called c too' contained attach v --as nbd
	contained volume list | grep -q '^v .*attached' || fail "the list in a container: $(contained volume list)"
	[ "$(on c list --json | jq -r '.[].state')" = running ] || fail "the first one's device, with a container: $(on c list)"
fi
another agent start >/dev/null
# with force it is fenced, as on any other host
another attach v --as nbd --force >/dev/null || fail "by force"
another detach v || fail detach
on c detach v --force >/dev/null 2>&1 || true
# dead: what is there next is that machine after a restart, or takes its place
on c attach v --as nbd >/dev/null || fail "attached again"
kill -9 "$(agent_of c)" $(jq -r .pid "$dir"/c/run/aquifer/tapdisks/*/status)
another attach v --as nbd >/dev/null || fail "when the lease has run out"
until_true 20 grep -q 'registered as the agent of host c' "$dir/e/run/aquifer/agent.log" || fail "the agent: $(cat "$dir/e/run/aquifer/agent.log")"
another detach v || fail "detached at last"

# the catalog isn't moved away below a device of the other machine; servers, which are asked themselves, are stopped before
on c agent start >/dev/null || fail "the first one's agent"
on c attach v --as nbd >/dev/null || fail "attached once more"
another agent stop >/dev/null || fail "the second one's agent"
{ kill $server_pids && wait $server_pids; } 2>/dev/null || true
refused 1 'on another machine that is called c too' another cluster move-catalog "sqlite:$dir/e/var/lib/aquifer/catalog.db"
[ "$(on c list --json | jq -r '.[].state')" = running ] || fail "the first one's device: $(on c list)"
