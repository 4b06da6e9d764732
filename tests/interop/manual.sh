#!/bin/bash
# The manual pages and the programs agree: each option of a driver and each of a program has its paragraph, each counter that
# `aquifer show` prints and each key of JSON is explained, and no page speaks of what isn't there.
. tests/interop/lib/agent
need jq
man=$top/docs/man
missing=0
miss() {
	echo "$*" >&2
	missing=1
}
# terms PAGE: the words that have a paragraph of their own, one a line, as in "**read**", "**direct=**on|off", "**\--data** *DIR*"
terms() {
	awk '/^: / && term != "" { print term } { term = /^\*\*/ ? $0 : "" }' "$1" | grep -oE '\*\*[^*]+\*\*' | tr -d '*=\\' | sort -u
}

# ---- drivers: what their tables have ----
drivers=$(aquifer graph check 'nosuch(/x)' 2>&1 | sed -n 's/.*(drivers: \(.*\))$/\1/p')
[ "$(echo "$drivers" | wc -w)" -ge 9 ] || fail "drivers: $drivers"
for d in $drivers; do
	has=$(aquifer graph check "$d(nosuch=1)" 2>&1 | sed -n 's/.*(it has \(.*\))$/\1/p' | tr -d ' ' | tr ',' '\n' | grep -v '^none$' | sort -u || true)
	told=$(terms "$man/aquifer-driver-$d.7.md")
	[ "$d" != verify ] || told= # its one term is what it prints
	[ "$has" = "$told" ] || miss "driver $d has the options [$(echo $has)], its page explains [$(echo $told)]"
done

# ---- as it is read: no mark of the source is left ----
for page in "$top/$B"/man/*; do
	! grep -nE '\*|`|(^|[^A-Za-z0-9])_[A-Z]+_' "$page" >&2 || miss "$(basename "$page") shows its source's marks"
done

# ---- programs: what --help says ----
options_of() { grep -oE '^ +(-[a-z], )?--[a-z-]+' | grep -oE -- '--[a-z-]+' | sort -u; }
for p in aquifer-agent aquifer-tapdisk aquifer-server; do
	has=$("$top/$B/$p" --help | options_of)
	told=$(terms "$man/$p.8.md" | grep -- '^--')
	[ "$has" = "$told" ] || miss "$p has [$(echo $has)], its page explains [$(echo $told)]"
done
commands=$(aquifer --help | sed -n 's/^  \([a-z][a-z-]*\( [a-z][a-z-]*\)\{0,1\}\).*/\1/p')
[ "$(echo "$commands" | wc -l)" -ge 25 ] || fail "commands: $commands"
has=$(while read -r c; do aquifer $c --help | options_of; done <<<"$commands" | sort -u)
told=$(grep -oE -- '\*\*\\?--[a-z-]+' "$man/aquifer.1.md" | tr -d '*\\' | sort -u | grep -v -- '^--version$')
[ "$has" = "$told" ] || miss "aquifer: only in --help or only on the page: $(diff <(echo "$has") <(echo "$told") | grep '^[<>]' | tr '\n' ' ')"
while read -r c; do # attach, image create
	grep -qE "^\*\*(.*\*\*, \*\*)?($c|${c% *} .*\|?\*\*${c#* }\*\*)|\*\*$c\*\*|^\*\*${c% *} [a-z]+\*\*.*\*\*${c#* }\*\*" "$man/aquifer.1.md" || miss "the command $c isn't on its page"
done <<<"$commands"

# ---- counters ----
aquifer image create raw "$dir/a.img" 1M
aquifer volume create v 1M
aquifer attach "verify(delay(error(cow($dir/c.cow, ro(raw($dir/a.img))))), ram(1M))" --name x --as nbd >/dev/null
aquifer attach v --as nbd >/dev/null
for n in x v; do
	aquifer show $n --json | jq -r '.nodes[] | .driver as $d | .items // {} | keys[] | "\($d) \(.)"'
done | while read -r d item; do
	grep -q "\*\*$item\*\*" "$man/aquifer-driver-$d.7.md" || { [ "$d" = cow ] && grep -q "\*\*$item\*\*" "$man/aquifer-driver-raw.7.md"; } ||
		echo "the page of $d doesn't explain the counter $item"
done >"$dir/counters"
[ ! -s "$dir/counters" ] || miss "$(cat "$dir/counters")"

# ---- keys of JSON: each stands in the paragraph of its command ----
json=$man/aquifer-json.7.md
told_of() { awk -v term="**$1**" '/^\*\*/ { on = index($0, term) } /^#/ { on = 0 } on' "$json"; }
keys() { # COMMAND WORD…: runs it with --json
	local command=$1 out told key
	shift
	out=$(aquifer $command "$@" --json) || true
	told=$(told_of "$command")
	[ -n "$out" ] && [ -n "$told" ] || miss "$command --json prints ${out:-nothing}, its paragraph on the page is ${told:-missing}"
	for key in $(jq -r 'def k: if type == "object" then (to_entries[] | .key, (select(.key != "items") | .value | k)) elif type == "array" then (.[] | k) else empty end; k' <<<"$out" | sort -u); do
		[[ $told == *"*$key*"* ]] || miss "$command --json has $key, which the page doesn't explain"
	done
}
"$top/$B/aquifer-server" --data "$dir/data" --listen 127.0.0.1:0 >"$dir/server.out" &
server=$!
clients=$server
until_true 10 grep -q . "$dir/server.out" || fail "the server doesn't start"
aquifer snapshot create v@s
keys list
keys show x
keys show v
keys "agent start"
keys "agent status"
keys "agent restart"
keys "image info" v@s
keys "image check" v@s
keys "graph check" v@s
keys "volume list"
keys "volume show" v
keys "snapshot list" v
keys diff v@s v
keys "server list"
keys "cluster status"
keys "cluster check"
keys "cluster scrub"
keys "cluster gc"
keys "cluster backup" "$dir/backup"
keys "cluster init" --authority-only
keys "cluster token"
keys detach x
keys attach v@s --name s --as nbd
aquifer detach --all
keys "agent stop"
kill $server
wait $server || true
clients=
[ $missing = 0 ] || fail "manual pages and programs differ"
echo "$(echo "$drivers" | wc -w) drivers, $(echo "$commands" | wc -l) commands and 3 daemons are as their pages say"
