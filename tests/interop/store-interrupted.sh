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
# An import: there under its name, and complete, or not at all; and the next one of that name works.
head -c 24M /dev/urandom >"$dir/image"
complete=0
for round in $(seq 1 8); do
	interrupt volume import "$dir/image" i
	if has i; then complete=$((complete + 1)); else aquifer volume import "$dir/image" i || fail "round $round: an import after one that was killed"; fi
	aquifer volume export i "$dir/i.raw" || fail "round $round: export"
	cmp -s "$dir/image" "$dir/i.raw" || fail "round $round: an import isn't complete"
	rm "$dir/i.raw"
	aquifer volume delete i
done
# Told to end, at whatever moment, it leaves nothing.
for ms in $(seq 2 3 60); do
	"$B/aquifer" volume import "$dir/image" told >/dev/null 2>&1 &
	importer=$!
	sleep "0.$(printf %03d "$ms")"
	kill "$importer" 2>/dev/null || true
	wait $importer || true
	! aquifer volume list | grep -q 'told.import-' || fail "an import that was told to end after $ms ms left: $(aquifer volume list)"
	! has told || aquifer volume delete told
done

# One that was killed half-way is shown as what it is, and gone with the next import, whatever its name.
"$B/aquifer" volume import "delay($dir/image, read=20s)" slow >/dev/null 2>&1 &
importer=$!
until_true 10 eval 'aquifer volume list | grep -q "slow.import-.*it is being imported"' || fail "an import isn't shown: $(aquifer volume list)"
! has slow || fail "an unfinished import has its name"
kill -9 $importer
wait $importer 2>/dev/null || true
aquifer volume list | grep -q "slow.import-.*an import that didn't end" || fail "what is left isn't said: $(aquifer volume list)"
aquifer volume import "$dir/image" other || fail "import"
[ "$(aquifer volume list --json | jq -r '[.[].name] | join(" ")')" = other ] || fail "what was left stays: $(aquifer volume list)"
aquifer volume delete other
# What the last one left is the next one's.
aquifer volume create last 1M
aquifer volume delete last
[ -z "$(ls "$store/volumes")" ] || fail "directories are left: $(ls "$store/volumes"): $(find "$store/volumes" -type f | wc -l) files"
if command -v sqlite3 >/dev/null; then
	left=$(sqlite3 "$store/catalog.db" "SELECT key FROM kv WHERE key <> '' AND key NOT LIKE 'counter/%'")
	[ -z "$left" ] || fail "keys are left: $left"
fi
echo "68 commands killed; of 24 deletions $kinds had taken effect, of 8 imports $complete"
nothing_left
