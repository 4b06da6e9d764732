#!/bin/bash
# A command that waits says so on a terminal, for what, and takes that line away; elsewhere it is silent.
. tests/interop/lib/agent
need jq script
aquifer attach 'ram(1M)' --name r --as nbd >/dev/null || fail "attach"
agent=$(aquifer agent status --json | jq .pid)
kill -STOP "$agent"
aquifer list >"$dir/plain" 2>"$dir/silent" &
plain=$!
script -qec "$B/aquifer list" /dev/null >"$dir/terminal" &
terminal=$!
until_true 10 grep -q 'waiting for the agent' "$dir/terminal" || fail "it doesn't say what it waits for: $(cat -v "$dir/terminal")"
kill -CONT "$agent"
wait $plain && wait $terminal || fail "list"
[ ! -s "$dir/silent" ] || fail "not silent: $(cat "$dir/silent")"
grep -q ' s so far, waiting for the agent' "$dir/terminal" || fail "for how long: $(cat -v "$dir/terminal")"
# what it prints begins on a clean line
tr -d '\r' <"$dir/terminal" | sed 's/.*\x1b\[K//' | diff - "$dir/plain" || fail "on a terminal: $(cat -v "$dir/terminal")"
aquifer detach r
# progress: a bar on a terminal, lines if they are asked for, also there
truncate -s 8M "$dir/a.img"
script -qec "$B/aquifer image check $dir/a.img" /dev/null | grep -q 'image check \[#*\] 100 % 8.0 MiB of 8.0 MiB' || fail "no bar"
script -qec "$B/aquifer image check $dir/a.img --progress" /dev/null | grep -q '^image check: 100 %, 8.0 MiB of 8.0 MiB' || fail "no lines"
[ -z "$(aquifer image check "$dir/a.img" 2>&1 >/dev/null)" ] || fail "progress where nobody looks"
echo "a command that waits says so on a terminal only"
