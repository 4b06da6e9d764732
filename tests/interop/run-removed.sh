#!/bin/bash
# The run directory of a tapdisk is removed under it: what can't be done says why, and what can; and that is enough to get rid of it without losing anything.
. tests/interop/lib/agent
need jq nbdcopy
truncate -s 1M "$dir/a.img"
head -c 1M /dev/urandom >"$dir/data"
uri=$(aquifer attach "cow($dir/a.cow, raw($dir/a.img))" --name a --as nbd)
aquifer attach 'ram(1M)' --name b --as nbd >/dev/null
tap=$(field a pid)
clients=$tap
nbdcopy "$dir/data" "$uri"
rm -rf "$run/tapdisks/a" "$run/tapdisks/b"
refused 1 "its run directory $run/tapdisks/a was removed.*kill $tap has it end in order" aquifer detach a
refused 1 "its run directory $run/tapdisks/a was removed.*kill $tap has it end in order" aquifer show a
[ "$(field a state)" = running ] || fail "list: $(aquifer list)"
kill "$tap"
until_true 10 eval '[ -z "$(field a state)" ]' || fail "it is listed still: $(aquifer list)"
uri=$(aquifer attach "cow($dir/a.cow, raw($dir/a.img))" --name a --as nbd) || fail "attach again"
nbdcopy "$uri" - | cmp - "$dir/data" || fail "what was written isn't there"
aquifer detach b --force || fail "by force"
aquifer detach a
nothing_left
