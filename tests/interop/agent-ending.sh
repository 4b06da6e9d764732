#!/bin/bash
# An agent that was told to end takes its time, for what it had been asked: commands wait for it and start the next one. Nothing of
# the user's is to be seen of that, however many commands come.
. tests/interop/lib/agent
need jq
mkdir "$dir/bin"
cp "$B/aquifer" "$B/aquifer-agent" "$dir/bin"
aquifer() { "$dir/bin/aquifer" "$@"; }
printf '#!/bin/sh\necho $$ >"%s"\nexec sleep 1000\n' "$dir/tapdisk" >"$dir/bin/aquifer-tapdisk"
chmod +x "$dir/bin/aquifer-tapdisk"

aquifer agent start >/dev/null
before=$(agent_pid)
aquifer attach 'ram(1M)' --name x --as nbd >/dev/null 2>&1 &
attach=$!
until_true 5 eval '[ "$(field x state)" = starting ]' || fail "not starting: $(aquifer list)"
kill "$before"
until_true 5 eval '! aquifer agent status' || fail "it doesn't end"
[ -e "/proc/$before" ] || fail "it ended without waiting for its attach: nothing is tested here"
pids=
for i in 1 2 3 4; do
	aquifer list --json >"$dir/list.$i" 2>"$dir/err.$i" &
	pids="$pids $!"
done
for p in $pids; do wait "$p" || fail "list while an agent ends: $(cat "$dir"/err.*)"; done
wait $attach && fail "attach whose agent ended"
[ "$(agent_pid)" != "$before" ] || fail "the same agent"
kill "$(cat "$dir/tapdisk")" 2>/dev/null || true
