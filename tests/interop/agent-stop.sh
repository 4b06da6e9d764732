#!/bin/bash
# An agent that is told to stop ends, also while something that it was asked to do takes long: here a tapdisk that doesn't get ready.
. tests/interop/lib/agent
need jq
mkdir "$dir/bin"
cp "$B/aquifer" "$B/aquifer-agent" "$dir/bin/"
printf '#!/bin/sh\necho $$ >%s/slow\nexec sleep 1000\n' "$dir" >"$dir/bin/aquifer-tapdisk"
chmod +x "$dir/bin/aquifer-tapdisk"
slow() { [ -s "$dir/slow" ]; }
"$dir/bin/aquifer" agent start >/dev/null
"$dir/bin/aquifer" attach 'ram(1M)' --name a --as nbd >/dev/null 2>"$dir/attach.err" &
attach=$!
until_true 20 slow || fail "no tapdisk is started"
clients=$(cat "$dir/slow")
"$dir/bin/aquifer" agent restart >/dev/null || fail "restart"
[ "$(aquifer list --json | jq length)" -eq 0 ] || fail "the agent that came after it: $(aquifer list)"
! wait $attach || fail "the attach that was cut short"
grep -q '^aquifer: attach .* failed: ' "$dir/attach.err" || fail "it says: $(cat "$dir/attach.err")"

# with nothing to do it doesn't take long enough to be cut short
aquifer agent stop >/dev/null || fail "stop"
[ "$(grep -c 'without waiting any longer' "$run/agent.log")" -eq 1 ] || fail "the log: $(cat "$run/agent.log")"
