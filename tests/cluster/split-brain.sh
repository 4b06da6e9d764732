#!/bin/bash
# limit: 300
# Split brain: the host that writes a volume is cut off from etcd and the servers, in both ways or in one; another host takes the volume by force and writes; the first is let
# back. Every write of it is refused from then on, for ever, and what the volume holds is the new owner's. Nothing that was acknowledged before is lost.
cd "$(dirname "$0")/../.."
. tests/cluster/lib
command -v qemu-io >/dev/null || skip "qemu-io is not installed"
ways=${WAYS:-both in}
[ "${LONG:-0}" = 0 ] || ways=${WAYS:-both in out both in out}

# io HOST SECONDS COMMAND: true if it was done without an error. A request that is still waiting then is left alone.
io() { timeout "$2" qemu-io -f raw -c "$3" -c flush "$(uri "$1")" >"$dir/io" 2>&1 && ! grep -qiE 'failed|error' "$dir/io"; }
must() { io "$1" 60 "$2" || fail "$way: on $1: $2: $(cat "$dir/io")"; }

cluster_up
volume_up
old=a
version=1
for way in $ways; do
	new=$(other $old)
	on $new detach v --force >/dev/null 2>&1 || true
	must $old "write -P $version 0 2M"
	cut_off $old "$way" e 1 2 3
	# what it is asked meanwhile waits, and is never acknowledged (servers may have it all the same, and the new owner then, until he overwrites it)
	timeout 120 qemu-io -f raw -c "write -P 200 1M 1M" -c flush "$(uri $old)" >"$dir/during" 2>&1 &
	during=$!
	on $new attach v --as nbd --force >/dev/null 2>"$dir/why" || fail "$way: attach --force: $(cat "$dir/why")"
	must $new "read -P $version 0 1M"
	version=$((version + 1))
	must $new "write -P $version 0 2M"
	let_back $old
	until_true 40 fenced $old || fail "$way: it doesn't hear of it: $(on $old list)"
	wait $during || true
	grep -qiE 'failed|error' "$dir/during" || fail "$way: a write of a host that was cut off was acknowledged: $(cat "$dir/during")"
	for n in 1 2 3; do
		! io $old 20 "write -P 201 0 4k" || fail "$way: the old holder's write is taken"
		! io $old 20 "write -P 201 1M 4k" || fail "$way: the old holder's write is taken"
		must $new "read -P $version 0 2M"
	done
	# and whoever comes next reads the same
	on $new detach v || fail "detach"
	! on $old detach v --force 2>"$dir/why" || fail "$way: a fenced device is detached as if nothing were lost"
	grep -q "what was written since is not in it" "$dir/why" || fail "$way: detach of a fenced device: $(cat "$dir/why")"
	on $old attach v --as nbd >/dev/null 2>"$dir/why" || fail "$way: attach: $(cat "$dir/why")"
	must $old "read -P $version 0 2M"
	checked $old || fail "$way: cluster check: $(cat "$dir/check")"
done
on $old detach v || fail "detach"
until_true 60 healthy || fail "not healthy at the end: $(cat "$dir/status")"
echo "cut off ($ways), taken over, let back in $SECONDS s: the old holder writes nothing"
