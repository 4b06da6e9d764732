#!/bin/bash
# An `attach` that is interrupted leaves a device that is just starting: detach waits for it, and takes it away.
. tests/interop/lib/agent
need jq

# A tapdisk that takes its time: the agent starts what lies beside it.
mkdir "$dir/bin"
mkfifo "$dir/fifo"
cp "$B/aquifer" "$B/aquifer-agent" "$dir/bin"
cat >"$dir/bin/aquifer-tapdisk" <<END
#!/bin/bash
read -rt "\$(<'$dir/delay')" <>'$dir/fifo'
exec '$top/$B/aquifer-tapdisk' "\$@"
END
chmod +x "$dir/bin/aquifer-tapdisk"
aquifer() { "$dir/bin/aquifer" "$@"; }
aquifer image create raw "$dir/a.img" 64M
aquifer agent start >/dev/null

# interrupted DELAY: an attach whose client is gone when it returns, while the device is starting.
interrupted() {
	echo "$1" >"$dir/delay"
	"$dir/bin/aquifer" attach "$dir/a.img" --as nbd >/dev/null 2>&1 &
	until_true 5 eval '[ "$(field a state)" = starting ]' || fail "the device is not starting: $(aquifer list)"
	kill -9 $!
	wait $! 2>/dev/null || true
}

interrupted 0.7
aquifer detach a || fail "detach of a device that is starting"
nothing_left
interrupted 0.7
aquifer detach --all --force || fail "detach --all --force"
nothing_left

# With --force one that never gets ready is killed.
interrupted 1000
aquifer detach a --force || fail "detach --force of a device that will not start"
until_true 5 eval '[ "$(aquifer list --json | jq length)" -eq 0 ]' || fail "it is still listed: $(aquifer list)"
nothing_left

# A copy that waits for something that doesn't answer: told to end twice it ends.
"$dir/bin/aquifer" image convert 'delay(ram(1M), read=60s)' "$dir/slow.img" >/dev/null 2>&1 &
clients=$!
until_true 5 test -e "$dir/slow.img.part" || fail "the copy doesn't begin"
sleep 0.2
kill $clients
sleep 0.2
kill $clients || fail "told to end once, it leaves what it reads"
until_true 5 eval '! kill -0 $clients' || fail "told to end twice, it goes on"
