#!/bin/bash
# A sparse volume of 16 TiB: created, attached, written at both ends and between, snapshot, diff, an export that stays sparse, a file system with
# files at its end, resized, deleted. What it costs depends on what is written, not on its size. On the embedded store and on a server.
# limit: 1200
cd "$(dirname "$0")/../.."
. tests/interop/lib/cluster
need jq qemu-io nbdinfo
size=$((16 << 40))
end=$((size - (1 << 20)))

# a place where files can have 16 TiB: ext4's can't
large=$data/large
mkdir "$large"
if [ "$(id -u)" = 0 ] && [ -c /dev/loop-control ] && command -v mkfs.xfs >/dev/null; then
	truncate -s 1G "$data/xfs" && mkfs.xfs -q "$data/xfs" && mount -o loop "$data/xfs" "$large" || fail "an xfs to export to"
	away() {
		umount "$large"
		end
	}
	trap away EXIT
fi

resident() { awk '/^VmHWM/ { print int($2 / 1024) }' "/proc/$(field "$1" pid)/status"; }
seconds() { # WHAT COMMAND…
	local what=$1 begin=${EPOCHREALTIME/./}
	shift
	"$@" >"$dir/said" 2>&1 || fail "$what: $(tail -n 3 "$dir/said")"
	awk -v w="$what" -v us=$((${EPOCHREALTIME/./} - begin)) 'BEGIN { printf "  %s: %.2f s\n", w, us / 1e6 }'
}
io() { # URI COMMAND…: qemu-io's, each must work
	local u=$1 args=() a
	shift
	for a; do args+=(-c "$a"); done
	qemu-io -f raw "${args[@]}" "$u" >"$dir/io" 2>&1 && ! grep -qE 'failed|Invalid|error' "$dir/io" || fail "$*: $(tail -n 3 "$dir/io")"
}
good() {
	seconds "cluster check" aquifer cluster check --json
	[ "$(jq -c '[.faults == [], .complete]' "$dir/said")" = "[true,true]" ] || fail "check: $(jq -c .faults "$dir/said" | cut -c 1-500)"
}
life() {
	local uri to device mib
	seconds "create" aquifer volume create big 16T
	uri=$(aquifer attach big --as nbd) || fail "attach"
	io "$uri" "write -P 1 0 1M" "write -P 2 $((5 << 40)) 1M" "write -P 3 $end 1M" flush
	# 64 places over all of it, each in a leaf of its own
	local i places=()
	for ((i = 0; i < 64; i++)); do places+=("write -P $((i + 10)) $((i * (size / 64) + (64 << 20))) 4k"); done
	io "$uri" "${places[@]}" flush
	seconds "snapshot" aquifer snapshot create big@one
	io "$uri" "write -P 4 $end 1M" "discard $((5 << 40)) 1M" flush
	seconds "diff" aquifer diff big@one big --json
	jq -e --argjson e $end --argjson d $((5 << 40)) '[.[] | [.offset, .length]] == [[$d, 1048576], [$e, 1048576]]' "$dir/said" >/dev/null ||
		fail "diff: $(cut -c 1-300 "$dir/said")"
	seconds "block status of all of it" nbdinfo --map --json "$uri"
	[ "$(jq '[.[] | select(.type == 0)] | length' "$dir/said")" = 66 ] || fail "map: $(jq -c '[.[] | select(.type == 0)] | length' "$dir/said")"
	seconds "discard all but the end" qemu-io -f raw -c "discard 0 1G" -c "discard 1G 1G" "$uri"
	seconds "clone" aquifer clone big@one twin
	to=$(aquifer attach twin --as nbd) || fail "attach the clone"
	io "$to" "read -P 3 $end 1M" "read -P 2 $((5 << 40)) 1M" "read -P 0 $((7 << 40)) 1M" "read -P 73 $((63 * (size / 64) + (64 << 20))) 4k" "write -P 9 $end 1M" flush
	aquifer detach twin || fail "detach"
	seconds "snapshot of the clone" aquifer snapshot create twin@s
	if truncate -s $size "$large/export" 2>/dev/null; then
		rm "$large/export"
		seconds "export, sparse" aquifer volume export big@one "$large/export"
		[ "$(stat -c %s "$large/export")" = $size ] || fail "the export has $(stat -c %s "$large/export") bytes"
		mib=$(($(du -k "$large/export" | cut -f 1) / 1024))
		[ "$mib" -le 16 ] || fail "the export takes $mib MiB"
		io "$large/export" "read -P 3 $end 1M" "read -P 1 0 1M" "read -P 73 $((63 * (size / 64) + (64 << 20))) 4k"
	else
		echo "  no file here can have 16 TiB: not exported"
	fi
	rm -f "$large/export"
	echo "  tapdisk: $(resident big) MiB at most"
	aquifer detach big || fail "detach"
	good
	file_system
	seconds "snapshot delete" aquifer snapshot delete big@one
	seconds "resize" aquifer volume resize big 20T
	uri=$(aquifer attach big --as nbd) || fail "attach"
	io "$uri" "read -P 4 $end 1M" "write -P 8 $(((20 << 40) - (1 << 20))) 1M" flush
	aquifer detach big || fail "detach"
	seconds "shrink" aquifer volume resize big 1T --force
	uri=$(aquifer attach big --as nbd) || fail "attach"
	io "$uri" "read -P 0 $((1 << 30)) 1M"
	aquifer detach big || fail "detach"
	seconds "delete the clone" aquifer volume delete twin --with-snapshots
	seconds "delete" aquifer volume delete big
	good
}
# A real one over a loop device, with a file at its very end.
file_system() {
	local device fs
	[ "$(id -u)" = 0 ] && [ -c /dev/fuse ] && [ -c /dev/loop-control ] || { echo "  no loop devices: without a file system"; return 0; }
	for fs in xfs ext4; do
		command -v mkfs.$fs >/dev/null || { echo "  no mkfs.$fs"; continue; }
		aquifer volume create fs 16T || fail "create"
		device=$(aquifer attach fs --as loop) || fail "attach as loop"
		case $fs in
		xfs) seconds "mkfs.xfs" mkfs.xfs -q -K "$device" ;;
		ext4) seconds "mkfs.ext4" mkfs.ext4 -q -E nodiscard,lazy_itable_init=1,lazy_journal_init=1 -O 64bit "$device" ;;
		esac
		mkdir -p "$dir/mnt"
		mount "$device" "$dir/mnt" || fail "mount"
		cp -a core parallax "$dir/mnt/" && sync -f "$dir/mnt" || fail "copy"
		seconds "snapshot of $fs" aquifer snapshot create fs@s
		rm -rf "$dir/mnt/core"
		umount "$dir/mnt"
		echo "  $fs: $(aquifer volume show fs --json | jq '[.used, .exclusive] | map(. / 1048576 | floor)' -c) MiB used, exclusive; tapdisk: $(resident fs) MiB at most"
		aquifer detach fs || fail "detach"
		aquifer clone fs@s fsclone && device=$(aquifer attach fsclone --as loop) || fail "attach a clone"
		mount $([ $fs != xfs ] || echo -o nouuid) "$device" "$dir/mnt" || fail "mount the clone"
		diff -r core "$dir/mnt/core" || fail "the snapshot differs"
		umount "$dir/mnt"
		aquifer detach fsclone && aquifer volume delete fsclone || fail "delete the clone"
		seconds "delete the $fs" aquifer volume delete fs --with-snapshots
	done
}

echo "embedded:"
life
rm -rf "$AQUIFER_ROOT/var/lib/aquifer"
share_catalog
serve 1
echo "one server:"
life
aquifer cluster gc >"$dir/said" 2>&1 || fail "gc: $(cat "$dir/said")"
[ "$(find "$data/1/segments" -name '*.seg' | wc -l)" = 0 ] || fail "copies are left"
