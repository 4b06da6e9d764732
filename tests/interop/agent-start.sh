#!/bin/bash
# Tapdisks that don't start: each gives the user one line and leaves nothing. The agent is run with programs that only
# pretend to be tapdisks.
. tests/interop/lib/agent
need jq pgrep
mkdir "$dir/bin"
cp "$B/aquifer" "$B/aquifer-agent" "$dir/bin"
aquifer() { "$dir/bin/aquifer" "$@"; }
pretend() {
	printf '#!/bin/sh\n%s\n' "$1" >"$dir/bin/aquifer-tapdisk"
	chmod +x "$dir/bin/aquifer-tapdisk"
}
attach() { aquifer attach 'ram(1M)' --name x --as nbd; }
none_left() {
	nothing_left
	! pgrep -f "$dir/bin/aquifer-tapdisk" >/dev/null || fail "a process is left: $(pgrep -af "$dir/bin/aquifer-tapdisk")"
}

refused 1 'aquifer-tapdisk is neither' attach
none_left
printf 'not a program' >"$dir/bin/aquifer-tapdisk"
chmod +x "$dir/bin/aquifer-tapdisk"
refused 1 '' attach
none_left
pretend 'exit 3'
refused 1 'ended with status 3' attach
none_left
pretend 'echo the reason is this >&2; exit 1'
refused 1 'status 1: the reason is this' attach
none_left
pretend 'kill -9 $$'
refused 1 'killed by signal 9' attach
none_left
pretend 'echo "bad -28 the disk is full (buy another)" >&3'
refused 1 'the disk is full \(buy another\)$' attach
none_left
pretend 'echo "bad -28 the disk is full" >&3; exec 3>&-; exec sleep 1000'
refused 1 'the disk is full' attach
none_left
for rubbish in 'good' 'good {' 'good []' 'good {"pid":1}' 'bad' 'bad 5 x' 'nonsense'; do
	pretend "printf '%s' '$rubbish' >&3; exec 3>&-; exec sleep 1000"
	refused 1 '' attach
	none_left
done
pretend 'head -c 1000000 /dev/zero >&3; exec sleep 1000'
refused 1 '' attach
none_left

# One that hangs while it starts: others are served meanwhile, `agent stop` doesn't wait for it, and it finds nobody to
# report to.
pretend 'sleep 1; printf "good {}" >&3 || exit 0'
attach >"$dir/attach.out" 2>"$dir/attach.err" &
pid=$!
until_true 5 eval '[ "$(field x state)" = starting ]' || fail "not starting: $(aquifer list)"
refused 1 'name x is taken' attach
aquifer agent stop >/dev/null
status=0
wait $pid || status=$?
[ $status -eq 1 ] && [ "$(wc -l <"$dir/attach.err")" -eq 1 ] || fail "attach whose agent stops: $status, $(cat "$dir/attach.err")"
until_true 5 eval '! pgrep -f "$dir/bin/aquifer-tapdisk" >/dev/null' || fail "it stays"
none_left

# The agent dies meanwhile.
pretend 'sleep 1; printf "good {}" >&3 || exit 0'
attach >"$dir/attach.out" 2>"$dir/attach.err" &
pid=$!
until_true 5 eval '[ "$(field x state)" = starting ]' || fail "not starting: $(aquifer list)"
kill -9 "$(agent_pid)"
status=0
wait $pid || status=$?
[ $status -eq 1 ] && [ "$(wc -l <"$dir/attach.err")" -eq 1 ] || fail "attach whose agent is killed: $status, $(cat "$dir/attach.err")"
until_true 5 eval '! pgrep -f "$dir/bin/aquifer-tapdisk" >/dev/null' || fail "it stays"
none_left

# And a real one, at last.
cp "$B/aquifer-tapdisk" "$dir/bin/aquifer-tapdisk.real"
rm "$dir/bin/aquifer-tapdisk"
mv "$dir/bin/aquifer-tapdisk.real" "$dir/bin/aquifer-tapdisk"
attach >/dev/null || fail "attach"
aquifer detach x
none_left
