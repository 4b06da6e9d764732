#!/bin/bash
# The root that is given is that of all processes, whatever the environment says; none at all isn't one.
. tests/interop/lib/agent
for program in "aquifer list" aquifer-agent "aquifer-tapdisk ram(1M)" "aquifer-server --data $dir/data --listen :0"; do
	set -- $program
	name=$1
	shift
	status=0
	"$B/$name" "$@" --root '' >"$dir/out" 2>"$dir/err" || status=$?
	[ $status -eq 2 ] && [ "$(wc -l <"$dir/err")" -eq 1 ] || fail "$name with an empty root: $status, $(cat "$dir/err")"
done

# "/" is this host: in a mount namespace, where nothing of its own is below /run
[ "$(id -u)" -eq 0 ] && unshare -m mount -t tmpfs none /run 2>/dev/null || { echo "skipped: mount namespaces need root"; exit 77; }
unshare -m sh -ec '
	mount -t tmpfs none /run
	"$0" --root / agent start >"$1"
	[ -S /run/aquifer/agent.sock ]
	"$0" --root / agent stop >/dev/null' "$top/$B/aquifer" "$dir/out" || fail "--root / with AQUIFER_ROOT: $(cat "$dir/out")"
[ ! -e "$run/agent.sock" ] || fail "an agent of AQUIFER_ROOT was started for --root /"
