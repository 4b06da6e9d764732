#!/bin/bash
# tidy.sh [BUILD]: house rules that a script can check, in seconds. Prints FILE:LINE: RULE for each break and
# fails if there was one. With BUILD, the directory of built objects, mutable globals are looked for as well.
# CLANG_TIDY=1 runs clang-tidy too, which takes minutes.
set -u
cd "$(dirname "$0")/.." || exit 2
build=${1:-}

files() { git ls-files -co --exclude-standard -- "$@" | while read -r f; do [ -f "$f" ] && echo "$f"; done; }
folders='core formats parallax proto server agent'
# shellcheck disable=SC2046,SC2086
sources=$(set -f && files $(printf "%s/*.[ch] " $folders)) # git's stars, which go into folders below
code=$(files '*.[ch]')
text=$(files | grep -vE '^tests/(fuzz/corpus/|tidy\.sh$)|\.(png|svg|img|bin)$')

# Reads FILE:LINE:… lines and says which rule each breaks.
complain() {
	local rule=$1 file line rest
	while IFS=: read -r file line rest; do
		echo "$file:$line: $rule"
	done
}

# --- the world is an argument: what only env_linux may call, and who else may for a reason ---
leak() { # calls, files that may
	# shellcheck disable=SC2086
	awk -v calls="(^|[^A-Za-z0-9_>.])($1) *[(]" '{ gsub(/"([^"\\\\]|\\\\.)*"/, "\"\""); gsub(/\/\*.*\*\//, ""); sub(/\/\*.*|^[ \t]+\*.*/, "") }
		$0 ~ calls { print FILENAME ":" FNR ":" }' $sources | grep -vE "^($2)" |
		complain "calls ${1//|/ or }, which belongs to env (core/env.h)"
}
rule_env() {
	leak 'clock_gettime|gettimeofday|time' 'core/env_linux'
	leak 'rand|srand|random|srandom|getrandom' 'core/env_linux'
	leak 'io_submit|io_setup|io_getevents' 'core/env_linux'
	leak 'socket|accept4?|connect|epoll_create1' 'core/env_linux'
	leak 'usleep|nanosleep|sleep' 'core/env_linux|agent/exports/loop_device' # waits for the kernel on a thread of its own
	leak 'pthread_create' 'core/env_linux|agent/exports/aside'               # calls that may hang in the kernel
	leak 'getenv|secure_getenv|setenv' 'agent/[^/]*\.c|agent/cli/cli\.c|agent/daemon/args\.c|server/aquifer-server\.c'
}

# --- dependencies point down: a folder uses those on lower floors; beside it, and above, none ---
floors='core:1 formats:2 proto:2 parallax:3 parallax/catalog:4 parallax/map:4 parallax/access:5 parallax/segment:5 parallax/copies:6 parallax/volume:7 parallax/store:8
	server:9 agent:10 tests:11'
# shellcheck disable=SC2016
on_floors='
	BEGIN { n = split(floors, f, /[ \t\n]+/); for (i = 1; i <= n; i++) { split(f[i], p, ":"); floor[p[1]] = p[2] } }
	function folder(path) { while (sub(/\/[^\/]*$/, "", path)) if (path in floor) return path; return "" }
	function is_up(from, to) { return from != to && to != "" && floor[to] >= floor[from] }'
rule_layers() {
	# shellcheck disable=SC2086
	awk -v floors="$floors" "$on_floors"'
		/^#include "/ { split($0, p, "\""); from = folder(FILENAME); to = folder(p[2])
			if (is_up(from, to)) print FILENAME ":" FNR ": " from " must not depend on " to }' $sources
}
# What is called, whatever header declares it.
rule_calls() {
	[ -d "$build/obj" ] || return
	for c in $sources; do [[ $c == *.c && -f $build/obj/${c%.c}.o ]] && echo "$build/obj/${c%.c}.o"; done | xargs nm -A -g |
		awk -v floors="$floors" -v skip="${#build}" "$on_floors"'
			{ file = substr($1, skip + 6); sub(/\.o:.*/, ".c", file); type = $(NF - 1); sub(/.*:/, "", type)
			  if (type == "U") calls[file, $NF]; else made[$NF] = file }
			END { for (c in calls) { split(c, p, SUBSEP); to = made[p[2]]
				if (is_up(folder(p[1]), folder(to))) print p[1] ":1: calls " p[2] "() of " to ", which is not below it" } }'
}

# --- a private header says in which file what it declares is: behind a line that begins with that file's name, until the next one ---
rule_sections() {
	local headers
	[ -d "$build/obj" ] || return
	headers=$(echo "$sources" | grep '\.h$')
	# shellcheck disable=SC2086
	for c in $sources; do [[ $c == *.c && -f $build/obj/${c%.c}.o ]] && echo "$build/obj/${c%.c}.o"; done | xargs nm -A -g --defined-only |
		awk 'NR == FNR { file = $1; sub(/\.o:.*/, ".c", file); sub(/.*\//, "", file); made[$NF] = file; next }
			FNR == 1 { said = "" }
			match($0, /^\/\* [a-z_0-9]+\.c( \*\/|[:.] )/) { said = $2; sub(/[:.]$/, "", said); sub(/\.c$/, "", said); said = said ".c" }
			/^\/\* ----/ { said = "" }
			said != "" && match($0, /^[a-z][^(]*[ *][a-z_0-9]+\(/) { name = substr($0, 1, RLENGTH - 1); sub(/.*[ *]/, "", name)
				if (name in made && made[name] != said) print FILENAME ":" FNR ": " name "() is in " made[name] ", not in " said " as the line above it says" }' \
			- $headers
}

rule_text() {
	# shellcheck disable=SC2086
	{
		grep -nE '\b(TODO|FIXME|XXX|HACK)\b' $text | complain 'left-over marker (do it, or write an issue)'
		grep -nE '/wor[k]/|/hom[e]/[a-z]' $text | grep -vE '^(tests/unit|docs)/' | complain 'path of one machine'
		grep -nE '^(<<<<<<<|>>>>>>>)( |$)' $text | complain 'merge conflict'
		files '*.orig' '*.rej' | sed 's/$/:1:/' | complain 'left over from a patch'
		grep -nE '[[:space:]]+$' $code | complain 'blanks at the end of the line'
		grep -nE '^( {4}|( {8})+)[A-Za-z].*[;{]$' $sources | complain 'indented with blanks (use tabs)'
	}
	# what the line before is for has been taken away, say
	# shellcheck disable=SC2086
	awk 'function depth(line) { match(line, /^\t*/); return RLENGTH }
		FNR > 1 && head && $0 != "" && depth($0) <= under { print FILENAME ":" FNR ": belongs to the line before, and is not indented" }
		{ head = 0; line = $0; under = depth($0) }
		/^\t+(} )?(else )?((for|if|while) |link_for[a-z_]*)\(.*\)$/ && !/^\t+} while / { head = gsub(/\(/, "", line) == gsub(/\)/, "", line) }' \
		$(echo "$sources" | grep '\.c$')
	for f in $text; do
		[ -s "$f" ] && [ -n "$(tail -c1 "$f" | tr -d '\0')" ] && echo "$f:1: no newline at the end of the file"
	done
	echo "$code" | xargs wc -l | while read -r lines f; do
		[ "$f" != total ] && [ "$lines" -gt 900 ] &&
			echo "$f:$lines: longer than 900 lines (split it where two parts change for different reasons)"
	done
	for f in $sources; do
		[[ $f != *.h ]] || grep -qE '^#ifndef AQ_[A-Z0-9_]+_H$' "$f" || echo "$f:1: header without an AQ_…_H guard"
	done
	for f in $(files '*.sh' '.ci/*' 'tests/fuzz/run' 'deploy/*'); do
		head -n1 "$f" | grep -q '^#!.*sh$' && ! bash -n "$f" 2>/dev/null && echo "$f:1: does not parse as a shell script"
	done
}

# --- the folder tree is the architecture: nothing stands beside it ---
rule_tree() {
	local known='^(\.ci|agent|core|deploy|docs|formats|make|parallax|proto|server|tests)/|^(\.clang-format|\.clang-tidy|\.gitignore|HACKING\.md|Makefile|README\.md)$'
	files | grep -vE "$known" | sed 's/$/:1:/' | complain "doesn't belong in the tree"
}

# --- tables: one sorted line each, and a manual page for what is in them ---
table() { # file, prefix of the symbols, prefix of the manual pages
	local names name page
	[ -f "$1" ] || return
	names=$(sed -nE "s/^[[:space:]]*&$2([a-z0-9_]+),.*/\1/p" "$1")
	[ -n "$names" ] || echo "$1:1: no line of its table begins with &$2"
	[ "$names" = "$(echo "$names" | LC_ALL=C sort -u)" ] || echo "$1:1: the table is not sorted"
	for name in $names; do
		page=docs/man/$3${name//_/-}.7.md
		[ -f "$page" ] || echo "$1:1: there is no $page"
	done
}
rule_tables() {
	table agent/graph/drivers.c driver_ aquifer-driver-
	table agent/exports/table.c export_ aquifer-export-
	local f name
	for f in $(files 'docs/man/*.md'); do
		name=$(basename "$f" .md)
		[ "$(head -n1 "$f")" = "% ${name%.*}(${name##*.}) | Aquifer" ] ||
			echo "$f:1: the first line must be: % ${name%.*}(${name##*.}) | Aquifer"
	done
}

# --- what can be asked over the wire is in its description: each number and name of a Method ---
rule_wire() {
	local f number name
	for f in proto/*.proto; do
		awk '/^enum [A-Za-z]*Method/ { on = 1 } /^}/ { on = 0 } on && /= [1-9]/ { sub(/^(AGENT|PEER|TAPDISK)_/, "", $1); print $3 + 0, $1 }' "$f" |
			while read -r number name; do
				grep -q "^| $number $name |" docs/formats/rpc.md || echo "$f:1: method $number $name isn't in docs/formats/rpc.md"
			done
	done
}

# --- `make help` names every target ---
rule_help() {
	local told target
	told=$(make -s help)
	for target in $(sed -n '/^\.PHONY:/{s/^\.PHONY://; s/\$(.*//; p}' Makefile make/*.mk); do
		grep -qE "(make $target\b|(^|[ (])$target:)" <<<"$told" || echo "Makefile:1: make help doesn't name $target"
	done
}

# --- no mutable file-scope state in what a simulated cluster has many of ---
rule_state() {
	local d o c
	[ -d "$build/obj" ] || return
	for d in formats parallax 'parallax/*' proto server agent/graph agent/components; do
		for o in "$build/obj/"$d/*.o; do
			c=${o#"$build/obj/"}
			c=${c%.o}.c
			[ -f "$c" ] && [[ $c != server/aquifer-server.c ]] || continue # a main is alone in its process
			objdump -t "$o" | awk -v c="$c" '/ O \.(data|bss)/ && !/\.data\.rel\.ro/ {
				print c ":1: mutable variable " $NF " at file scope (two instances must be able to live in one process)" }'
		done
	done
}

rule_cppcheck() {
	command -v cppcheck >/dev/null || { echo "tidy: cppcheck is not installed, skipped" >&2; return; }
	# autoVariables: fibers hand out addresses of locals and wait until they are let go. uninitvar, memleak: it
	# doesn't see that a pointer inside a struct was filled or kept; the sanitizers do. preprocessorErrorDirective:
	# it trips over commas in macro arguments.
	# shellcheck disable=SC2086
	cppcheck --quiet -j2 --std=c11 --inline-suppr --enable=warning,portability --suppress=autoVariables --suppress=uninitvar \
		--suppress=memleak --suppress=preprocessorErrorDirective '-Djson_object_foreach(o,k,v)=for(;;)' --template='{file}:{line}: cppcheck {id}: {message}' -I. $folders 2>&1
}

rule_clang_tidy() {
	[ -n "${CLANG_TIDY:-}" ] || return
	local flags
	flags="-std=gnu17 -D_GNU_SOURCE -DFUSE_USE_VERSION=312 -I. -I${build:-build}/gen $(pkg-config --cflags fuse3 libprotobuf-c jansson)"
	# shellcheck disable=SC2016
	echo "$sources" | grep '\.c$' | xargs -P2 -n4 sh -c 'clang-tidy --quiet "$@" -- '"$flags"' 2>/dev/null' sh
}

breaks=$(for rule in env layers calls sections tree text tables wire help state cppcheck clang_tidy; do "rule_$rule"; done)
[ -z "$breaks" ] || { echo "$breaks"; exit 1; }
echo "tidy: all rules kept"
