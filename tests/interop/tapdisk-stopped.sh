#!/bin/bash
# A tapdisk that is stopped is said to be hung, by an agent that started it and by one that found it, and nothing waits for it.
. tests/interop/lib/agent
need jq
aquifer attach 'ram(1M)' --name a --as nbd >/dev/null
aquifer attach 'ram(1M)' --name b --as nbd >/dev/null
tap=$(field a pid)
clients=$tap
kill -STOP "$tap"
for i in started found; do
	until_true 20 eval '[ "$(field a state)" = hung ]' || fail "stopped ($i): $(aquifer list)"
	field a reason | grep -q "^has not answered for .* s: its process is stopped (kill -CONT $tap has it go on)$" || fail "reason: $(aquifer list)"
	aquifer list | grep -q "^a .* hung " || fail "list: $(aquifer list)"
	refused 1 "show a failed: its tapdisk has not answered for .*kill -CONT $tap" timeout 5 "$B/aquifer" show a
	refused 1 "show a failed: its tapdisk has not answered for .*kill -CONT $tap" timeout 5 "$B/aquifer" show a --json
	refused 1 "the name a is taken by a device that is hung .*detach --force" aquifer attach 'ram(1M)' --name a --as nbd
	[ "$(field b state)" = running ] || fail "the other one: $(aquifer list)"
	[ $i = found ] || aquifer agent restart >/dev/null
done
aquifer volume create v 64M
aquifer attach v --as nbd >/dev/null
holder=$(field v pid)
clients="$tap $holder"
kill -STOP "$holder"
[ "$(aquifer volume show v --json | jq -r .health)" = "not known: its holder doesn't answer (aquifer list on its host says more)" ] || fail "volume show: $(aquifer volume show v)"
kill -CONT "$holder"
until_true 10 eval '[ "$(aquifer volume show v --json | jq -r .health)" = good ]' || fail "volume show, of one that goes on: $(aquifer volume show v)"
aquifer detach v
kill -CONT "$tap"
until_true 10 eval '[ "$(field a state)" = running ]' || fail "goes on: $(aquifer list)"
aquifer show a >/dev/null
kill -STOP "$tap"
aquifer detach a --force || fail "by force"
aquifer detach b
nothing_left
