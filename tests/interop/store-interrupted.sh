#!/bin/bash
# Commands that change the store, killed with -9 at any moment: each has happened or not, the next command copes, and in the
# end nothing is left: no key, no directory.
. tests/interop/lib/agent
need jq qemu-io cmp
store=$AQUIFER_ROOT/var/lib/aquifer
io() { qemu-io -f raw "$@" >"$dir/io" 2>&1 && ! grep -q 'Pattern verification failed' "$dir/io"; }

# interrupt COMMAND…: kills it after a random time, up to a little more than it takes.
interrupt() {
	"$B/aquifer" "$@" >"$dir/interrupted" 2>&1 &
	local pid=$!
	sleep "0.0$((RANDOM % 9))$((RANDOM % 10))"
	kill -9 $pid 2>/dev/null || true
	wait $pid 2>/dev/null || true
}
has() { aquifer volume list --json | jq -e --arg n "$1" 'any(.[]; .name == $n)' >/dev/null; }
has_snapshot() { aquifer snapshot list --json | jq -e --arg v "${1%@*}" --arg n "${1#*@}" 'any(.[]; .volume == $v and .name == $n)' >/dev/null; }

aquifer volume create v 64M
uri=$(aquifer attach v --as nbd)
io -c 'write -P 1 0 8M' -c flush "$uri" || fail "write: $(cat "$dir/io")"
aquifer detach v
aquifer snapshot create v@base
kinds=0
for round in $(seq 1 12); do
	interrupt snapshot create "v@s$round"
	has_snapshot "v@s$round" || aquifer snapshot create "v@s$round"
	interrupt clone "v@s$round" "c$round"
	has "c$round" || aquifer clone "v@s$round" "c$round"
	interrupt snapshot rollback v@base
	aquifer volume export v "$dir/v.raw"
	head -c 8M "$dir/v.raw" | cmp -s - <(head -c 8M /dev/zero | tr '\0' '\1') || fail "round $round: v isn't what it was"
	rm "$dir/v.raw"
	interrupt snapshot delete "v@s$round"
	if has_snapshot "v@s$round"; then aquifer snapshot delete "v@s$round"; else kinds=$((kinds + 1)); fi
	aquifer volume export "c$round" "$dir/c.raw"
	head -c 8M "$dir/c.raw" | cmp -s - <(head -c 8M /dev/zero | tr '\0' '\1') || fail "round $round: the clone isn't what its snapshot was"
	rm "$dir/c.raw"
	interrupt volume delete "c$round"
	if has "c$round"; then aquifer volume delete "c$round"; else kinds=$((kinds + 1)); fi
done
aquifer volume delete v --with-snapshots
# What the last one left is the next one's.
aquifer volume create last 1M
aquifer volume delete last
[ -z "$(ls "$store/volumes")" ] || fail "directories are left: $(ls "$store/volumes"): $(find "$store/volumes" -type f | wc -l) files"
if command -v sqlite3 >/dev/null; then
	left=$(sqlite3 "$store/catalog.db" "SELECT key FROM kv WHERE key <> '' AND key NOT LIKE 'counter/%'")
	[ -z "$left" ] || fail "keys are left: $left"
fi
echo "60 commands killed; of 24 deletions $kinds had taken effect"
nothing_left
