#!/bin/bash
# Attach, list, show and detach over NBD; names; a graph file with shared parts; what `agent stop` says.
. tests/interop/lib/agent
need jq nbdinfo qemu-io

# The agent starts by itself, and only one.
refused 1 "isn't running" aquifer agent status
uri=$(aquifer attach 'ram(64M)' --name r1 --as nbd)
[ "$(nbdinfo --size "$uri")" = 67108864 ] || fail "size"
pid=$(agent_pid)
aquifer agent start >/dev/null
[ "$(agent_pid)" = "$pid" ] || fail "a second agent"

# A log that is full begins anew, of the agent and of a tapdisk: the next line is in another one.
for log in "$run/agent.log" "$run/tapdisks/r1/log"; do
	truncate -s 1M "$log"
done
aquifer detach r1 && [ ! -e "$run/tapdisks/r1" ] || fail "its directory is left: $(ls "$run/tapdisks/r1")"
[ "$(aquifer attach 'ram(64M)' --name r1 --as nbd)" = "$uri" ] || fail "another socket for the same name"
[ "$(stat -c %s "$run/agent.log.1")" -ge 1048576 ] && grep -q 'serves ram' "$run/agent.log" || fail "the agent's log goes on"

# list, as the contract says.
[ "$(aquifer list --json | jq -r '.[0] | [.name, .device, .export, .graph, .state] | join(" ")')" = "r1 $uri nbd ram(64M) running" ] ||
	fail "list --json: $(aquifer list --json)"
tap=$(field r1 pid)
readlink "/proc/$tap/exe" | grep -q 'aquifer-tapdisk$' || fail "the pid is no tapdisk's"
[ "$(ps -o sid= -p "$tap" | tr -d ' ')" = "$tap" ] || fail "the tapdisk has no session of its own"
aquifer list | head -n 1 | grep -Eq '^NAME +DEVICE +EXPORT +GRAPH +STATE +PID$' || fail "list's headings"

# Counters are live.
qemu-io -f raw -c 'write -P 7 0 1M' -c 'read -P 7 0 1M' "$uri" >/dev/null
[ "$(aquifer show r1 --json | jq '.nodes[0].counters.write.bytes')" = 1048576 ] || fail "counters: $(aquifer show r1)"
aquifer show r1 | grep -q 'write .* requests' || fail "show"
bad=$(aquifer attach 'error(ram(1M), count=1)' --name bad --as nbd)
qemu-io -f raw -c 'read 0 4k' "$bad" | grep -q 'failed' || fail "the first read should fail"
sleep 1.5 # its nodes are looked at every second
[ "$(field bad reason)" = null ] || fail "a node that failed one request on purpose is said to be: $(field bad reason)"
aquifer detach bad
aquifer show r1 --dot | grep -q '^digraph' || fail "show --dot"
aquifer show "$uri" --json | jq -e '.pid' >/dev/null || fail "show by device"
if command -v dot >/dev/null; then
	aquifer show r1 --svg | grep -q '<svg' || fail "show --svg"
else
	refused 1 'dot .*install graphviz' aquifer show r1 --svg
fi
# a dot that ends before it has read what is more than a pipe holds
mkdir "$dir/bin"
printf '#!/bin/sh\nexec 0<&-\nexit 3\n' >"$dir/bin/dot"
chmod +x "$dir/bin/dot"
for i in $(seq 0 599); do
	below=n$((i - 1))
	[ $((i % 30)) -gt 0 ] || below='ram(1M)'
	echo "n$i = delay($below, read=1ms, write=1ms, flush=1ms)"
	[ $((i % 30)) -lt 29 ] || echo "export n$i as nbd"
done >"$dir/large.graph"
aquifer attach "$dir/large.graph" >/dev/null
PATH=$dir/bin:$PATH refused 1 'the program dot failed' aquifer show n29 --svg
for i in $(seq 29 30 599); do aquifer detach n$i; done

# Names: unique, the same socket for the same name, free after detach.
refused 1 'name r1 is taken' aquifer attach 'ram(1M)' --name r1 --as nbd
aquifer detach r1
nothing_left
[ "$(aquifer attach 'ram(64M)' --name r1 --as nbd)" = "$uri" ] || fail "another socket for the same name"
aquifer detach "$uri"
nothing_left

# A graph that is too long for the table is cut between characters; columns are aligned by characters.
for n in 1 2; do # one of them would be cut within one
	long=$dir/$(printf 'x%.0s' $(seq $n))$(printf 'é%.0s' $(seq 60))
	truncate -s 1M "$long"
	aquifer attach "$long" --name long$n --as nbd >/dev/null
done
aquifer list | iconv -f UTF-8 -t UTF-8 >/dev/null || fail "not UTF-8: $(aquifer list)"
[ "$(aquifer list | (export LC_ALL=C.UTF-8; while IFS= read -r line; do line=${line%%STATE*}; line=${line%%running*}; echo ${#line}; done) | sort -u | wc -l)" -eq 1 ] ||
	fail "columns: $(aquifer list)"
# On a terminal that is too narrow it is the graph that gives way, and only as far as it must.
if command -v script >/dev/null; then
	on_terminal() { TERM=dumb script -qec "stty cols $1; $top/$B/aquifer list" /dev/null </dev/null | tr -d '\r'; }
	widest() { (export LC_ALL=C.UTF-8; while IFS= read -r line; do echo ${#line}; done) | sort -n | tail -n 1; }
	full=$(aquifer list | widest)
	[ "$(on_terminal "$full" | widest)" = "$full" ] && [ "$(on_terminal $((full - 30)) | widest)" = $((full - 30)) ] || fail "on a terminal: $(on_terminal $((full - 30)))"
	on_terminal 40 | grep -q '  …\|[^ ]…  running' || fail "on a narrow one: $(on_terminal 40)"
fi
(cd "$dir" && echo 'export d as nbd long3' >g.graph && echo 'd = raw(disk3)' >>g.graph && truncate -s 1M disk3 && aquifer attach ./g.graph) >/dev/null
[ "$(field long3 graph | head -n 1)" = "d = raw($dir/disk3)" ] || fail "a path: $(field long3 graph)"
aquifer detach --all
nothing_left

# Default names: a file's base name without its suffix.
aquifer image create raw "$dir/disk.raw" 16M
(cd "$dir" && aquifer attach ./disk.raw --as nbd) >/dev/null
[ "$(field disk graph)" = "$dir/disk.raw" ] || fail "path not absolute: $(aquifer list)"
refused 1 'name disk is taken' aquifer attach "$dir/disk.raw" --as nbd
aquifer detach disk

# --read-only, --listen.
uri=$(aquifer attach "$dir/disk.raw" --as nbd --read-only --listen 127.0.0.1:0)
nbdinfo "$uri" | grep -q 'is_read_only: true' || fail "read only: $(nbdinfo "$uri")"
aquifer detach disk

# A graph file: one tapdisk, shared parts, a device for each export; relative paths start at the file.
cat >"$dir/two.graph" <<'G'
gold = ro(raw(disk.raw))
export gold as nbd name=g1
export gold as nbd name=g2
G
if ! aquifer graph check "$dir/two.graph" >/dev/null 2>&1; then
	printf 'gold = ro(raw(disk.raw))\nalso = ro(gold)\nexport gold as nbd\nexport also as nbd\n' >"$dir/two.graph"
	names="gold also"
else
	names="g1 g2"
fi
set -- $names
aquifer attach "$dir/two.graph" >"$dir/devices"
[ "$(wc -l <"$dir/devices")" -eq 2 ] || fail "two devices: $(cat "$dir/devices")"
[ "$(field "$1" pid)" = "$(field "$2" pid)" ] || fail "not one tapdisk"
while read -r u; do [ "$(nbdinfo --size "$u")" = 16777216 ] || fail "size of $u"; done <"$dir/devices"
aquifer detach "$1"
[ "$(aquifer list --json | jq length)" -eq 1 ] || fail "one left: $(aquifer list)"
nbdinfo --size "$(tail -n 1 "$dir/devices")" >/dev/null || fail "the other one is gone too"
# The freed name can be used while the tapdisk that began with it lives.
aquifer attach 'ram(1M)' --name "$1" --as nbd >/dev/null
aquifer agent stop | grep -q "^  $2 " || fail "agent stop doesn't say what stays"
refused 1 "isn't running" aquifer agent status
aquifer agent stop | grep -q "isn't running" || fail "agent stop twice"
[ "$(aquifer list --json | jq -c '[.[].state] | unique')" = '["running"]' ] || fail "after agent stop: $(aquifer list)"
aquifer agent restart >/dev/null
aquifer detach --all
nothing_left
