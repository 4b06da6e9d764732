#!/bin/bash
# The agent is killed and restarted while I/O runs: no device notices. A tapdisk is killed: it is shown, its name is
# free. Everything is killed, and /run is stale: attaching again works at once.
. tests/interop/lib/agent
need jq nbdinfo pgrep
[ -x "$B/tools/hammer" ] || { echo "skipped: $B/tools/hammer is not built"; exit 77; }

aquifer image create raw "$dir/a.img" 64M
uri=$(aquifer attach "$dir/a.img" --as nbd)
tap=$(field a pid)

# Verified I/O, over several deaths of the agent, until it is told to end.
"$B/tools/hammer" --threads 16 --max 4K --seconds 100 "$uri" >"$dir/hammer.log" 2>&1 &
hammer=$!
clients=$hammer
for i in 1 2 3; do
	sleep 0.4
	kill -9 "$(agent_pid)"
	[ "$(field a pid)" = "$tap" ] || fail "the tapdisk is not adopted: $(aquifer list)"
	[ "$(field a state)" = running ] || fail "state: $(aquifer list)"
done
sleep 0.2
aquifer agent restart >/dev/null
kill $hammer || fail "it ended early: $(cat "$dir/hammer.log")"
wait $hammer || fail "I/O failed: $(cat "$dir/hammer.log")"
clients=
[ "$(field a pid)" = "$tap" ] || fail "another tapdisk"

# An adopted tapdisk that dies is noticed, and so is one that this agent started.
for i in adopted started; do
	tap=$(field a pid)
	kill -9 "$tap"
	until_true 5 eval '[ "$(field a state)" = died ]' || fail "the death ($i) is not shown: $(aquifer list)"
	refused 1 'tapdisk died' aquifer show a
	uri=$(aquifer attach "$dir/a.img" --as nbd) || fail "the name is not free"
	[ "$(field a state)" = running ] || fail "$(aquifer list)"
	nbdinfo --size "$uri" >/dev/null || fail "attached again, but not there"
done
[ "$(aquifer list --json | jq length)" -eq 1 ] || fail "the dead one is still listed: $(aquifer list)"

# A dead one goes with detach.
kill -9 "$(field a pid)"
until_true 5 eval '[ "$(field a state)" = died ]' || fail "death"
aquifer list | grep -q 'died (killed by signal 9' || fail "the reason is not shown: $(aquifer list)"
aquifer detach a
nothing_left

# kill -9 of everything.
aquifer attach "$dir/a.img" --as nbd >/dev/null
aquifer attach 'ram(8M)' --name b --as nbd >/dev/null
aquifer volume create c 8M
aquifer attach c --as nbd >/dev/null
dead=$(field c pid)
kill -9 "$(agent_pid)" "$(field b pid)" "$(field a pid)" "$dead"
until_true 5 eval 'aquifer volume list | grep -q "^c .* free .*holder died"' || fail "a dead holder: $(aquifer volume list)"
aquifer volume resize c 16M || fail "a dead holder is in the way"
for name in a b; do
	until_true 5 eval '[ "$(field $name state)" = died ]' || fail "after kill -9 of everything: $(aquifer list)"
done
aquifer attach "$dir/a.img" --as nbd >/dev/null || fail "attach after kill -9 of everything"
aquifer detach --all
nothing_left

# A stale /run: of another boot; of a pid that is somebody else's by now; with rubbish; with a socket nobody serves.
aquifer attach "$dir/a.img" --as nbd >/dev/null
for what in boot pid rubbish; do
	tap=$(field a pid)
	kill -9 "$(agent_pid)"
	kill -9 "$tap"
	status=$run/tapdisks/a/status
	case $what in
	boot) sed -i 's/"boot": "[^"]*"/"boot": "00000000-0000-0000-0000-000000000000"/' "$status" ;;
	pid) sed -i "s/\"pid\": [0-9]*/\"pid\": $$/" "$status" ;;
	rubbish) head -c 1000 /dev/urandom >"$status" ;;
	esac
	aquifer list >/dev/null || fail "list with a stale /run ($what)"
	[ "$what" != boot ] || [ "$(aquifer list --json | jq length)" -eq 0 ] || fail "a device of another boot: $(aquifer list)"
	aquifer attach "$dir/a.img" --as nbd >/dev/null || fail "attach with a stale /run ($what)"
	kill -0 $$ || fail "it killed a stranger"
done
aquifer detach --all
nothing_left

# Only its lock is known of a tapdisk that is just ending. It is waited for; what comes of the attach then is told, not that there was something to wait for.
aquifer attach "$dir/a.img" --as nbd >/dev/null
tap=$(field a pid)
kill -9 "$(agent_pid)"
sed -i "s/\"pid\": [0-9]*/\"pid\": $$/" "$run/tapdisks/a/status"
aquifer list >/dev/null
{ sleep 0.3; kill -9 "$tap"; } &
head -c 1000 /dev/urandom >"$dir/rubbish.cow"
refused 1 'is not a cow layer' aquifer attach "cow($dir/rubbish.cow, raw($dir/a.img))" --name a --as nbd
wait $!
nothing_left
