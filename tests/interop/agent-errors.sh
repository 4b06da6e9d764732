#!/bin/bash
# Bad input: each gives exactly one line on stderr and its exit status, and leaves nothing behind.
. tests/interop/lib/agent
need jq
long=$(printf 'n%.0s' $(seq 64))
deep=$(printf 'ro(%.0s' $(seq 200))ram\(1M\)$(printf ')%.0s' $(seq 200))
big=$(head -c 70000 /dev/zero | tr '\0' a)
touch "$dir/empty" "$dir/half"
truncate -s 1M "$dir/good"
mkdir "$dir/folder.graph"
printf 'a = ram(1M)\nexport a as loop\nexport a as loop\n' >"$dir/twice.graph"
printf 'a = ro(b)\nb = ro(a)\nexport a as nbd\n' >"$dir/cycle.graph"
printf 'a = ram(1M)\nexport a as floppy\n' >"$dir/floppy.graph"
head -c 100000 /dev/zero | tr '\0' x >"$dir/big.graph"

# Wrong usage: 2.
refused 2 'none is given' aquifer
refused 2 "unknown command 'frobnicate'" aquifer frobnicate
for later in 'edit a b' 'pause a' 'resume a' top send receive; do
	refused 2 'unknown command' aquifer $later
done
refused 2 'unknown option --frob' aquifer list --frob
refused 2 'unknown option -x' aquifer list -x
refused 2 'needs a value' aquifer attach ./x --name
refused 2 'takes no value' aquifer list --json=1
refused 2 "unexpected argument 'a'" aquifer list a
refused 2 'missing' aquifer attach
refused 2 'missing' aquifer image create raw "$dir/x"
refused 2 'create, info, check, convert' aquifer image
refused 2 "'foo' is not a catalog URL" aquifer cluster init --catalog foo
refused 2 "'foo' is not a catalog URL" aquifer cluster join --catalog foo
refused 2 'not to standard output' aquifer cluster backup -
refused 2 "unknown command 'image frob'" aquifer image frob
refused 2 'there are.*loop.*nbd' aquifer attach ./x --as floppy
refused 2 'listen goes with' aquifer attach ./x --listen 1.2.3.4:5
refused 2 'name of a device' aquifer attach ./x --name 'a b'
refused 2 'name of a device' aquifer attach ./x --name "$long"
refused 2 'name of a device' aquifer attach ./x --name ../x
refused 2 'which device' aquifer detach
refused 2 'both' aquifer detach a --all
refused 2 'one of' aquifer show a --dot --json
refused 2 "not a size|is not" aquifer image create raw "$dir/x" 12Q
refused 2 "too large" aquifer image create raw "$dir/x" 99999999999T
refused 2 'no image format' aquifer image create floppy "$dir/x" 1M
for address in nonsense 127.0.0.1 127.0.0.1: 127.0.0.1:99999 :1 127.0.0.1:1x; do
	refused 2 'is no address' aquifer attach 'ram(1M)' --name x --as nbd --listen $address
done
# a bare word is a volume; if there is a file of that name, it says how to name that; nor does it name a node that nobody named
(cd "$dir" && refused 1 "^aquifer: attach good failed: there is no volume 'good' \\(if the file is meant: ./good\\)" aquifer attach good &&
	refused 1 'if the file is meant: ./good' aquifer image info good && refused 1 'if the file is meant: ./good' aquifer volume import good w) || fail "a bare word"
refused 1 '^aquifer: attach nobody failed: there is no store yet' aquifer attach nobody
refused 1 'cow-1: create /nowhere/a.cow: .*check the name' aquifer attach "cow(/nowhere/a.cow, ro(raw($dir/good)))"
refused 1 'nowhere.*check the name' aquifer cluster restore /nowhere
# two nodes on one image, which only one can write
truncate -s 1M "$dir/one"
printf 'a = raw(%s)\nb = raw(%s)\nexport a as nbd\nexport b as nbd\n' "$dir/one" "$dir/one" >"$dir/two.graph"
refused 1 'has it already \(use one node for both' aquifer attach "$dir/two.graph"
# a root that can't be one: what to do is said, too
for root in "$dir/good" "$dir/good/below" /proc/x; do
	for command in 'volume create v 1M' 'attach v' list 'detach --all'; do
		refused 1 '\(.*\)$' aquifer $command --root "$root"
	done
done
# what a graph file lacks is not said of the file itself
printf 'a = raw(/nowhere/a.img)\nexport a as nbd\n' >"$dir/lacks.graph"
(cd "$dir" && refused 1 '^aquifer: attach lacks.graph failed: a: open /nowhere/a.img' aquifer attach lacks.graph) || fail "a graph file"
# What can't be a size or a name is wrong usage whatever is in the store; what could be one and isn't there is a failure.
for size in 0 1 4095 1000; do
	refused 2 'not a positive multiple of 4096' aquifer volume create w $size
	refused 2 'not a positive multiple of 4096' aquifer volume resize w $size --force
	refused 2 'not a positive multiple of 512' aquifer image create raw "$dir/x" $size
done
for size in 1.5M 12Q 1MX 0x1000 1e6 K +4096 ' ' ' 1M' 1M,; do
	refused 2 'not a size' aquifer volume create w "$size"
	refused 2 'not a size' aquifer volume resize w "$size"
	refused 2 'not a size' aquifer image create raw "$dir/x" "$size"
done
for size in 65T 15E 17E 99999999999999999999; do
	refused 2 'too large' aquifer volume create w $size
	refused 2 'too large' aquifer volume resize w $size
done
refused 2 'too large' aquifer image create raw "$dir/x" 8E
for size in -1 -4096; do
	refused 2 'no negative sizes' aquifer volume create w $size
	refused 2 'no negative sizes' aquifer volume resize w $size
	refused 2 'no negative sizes' aquifer image create raw "$dir/x" $size
done
for n in 0 -1 4 17 x 1.5; do
	refused 2 'not a number from 1 to' aquifer volume create w 1M --replicas=$n
	refused 2 'not a number from 1 to' aquifer volume create w 1M --min-replicas=$n
done
for name in "$long" 'a b' ../x .x -x a/b ä; do
	refused 2 'name of a volume' aquifer volume create -- "$name" 1M
	refused 2 'name of a volume' aquifer volume show -- "$name"
	refused 2 'name of a volume' aquifer volume set -- "$name" a=b
	refused 2 'name of a volume' aquifer volume resize -- "$name" 1M
	refused 2 'name of a volume' aquifer volume rename -- "$name" w
	refused 2 'name of a volume' aquifer volume rename -- w "$name"
	refused 2 'name of a volume' aquifer volume delete -- "$name"
	refused 2 'name of a volume' aquifer volume import -- "$dir/good" "$name"
	refused 2 'name of a volume' aquifer volume export -- "$name" "$dir/x"
	refused 2 'name of a volume' aquifer snapshot list -- "$name"
	refused 2 'name of a volume' aquifer clone -- w@s "$name"
	refused 2 'name of a volume' aquifer diff -- w@s "$name"
	refused 2 'name of a device' aquifer attach 'ram(1M)' --name="$name"
	refused 2 'name of a snapshot' aquifer volume export "w@$name" "$dir/x"
	for command in 'snapshot create' 'snapshot delete' 'snapshot rollback'; do
		refused 2 'not VOLUME@SNAP' aquifer $command -- "$name"
		refused 2 'name of a snapshot' aquifer $command "w@$name"
	done
	refused 2 'not VOLUME@SNAP' aquifer clone -- "$name" w
	refused 2 'name of a snapshot' aquifer clone "w@$name" w
	refused 2 'name of a snapshot' aquifer diff "w@$name" w
	refused 2 'name of a snapshot' aquifer diff w@s "w@$name"
done
refused 2 'names a snapshot, of the volume w ' aquifer volume show w@s
refused 2 'volume w is given twice' aquifer snapshot create w@a v@a w@b
refused 2 'not KEY=VALUE' aquifer volume set w key
for command in 'volume create' 'volume show' 'volume set' 'volume resize' 'volume rename' 'volume delete' 'volume import' 'volume export' \
	'snapshot create' 'snapshot delete' 'snapshot rollback' clone diff show 'image create' 'image info' 'image check' \
	'image convert' 'graph check'; do
	refused 2 'missing' aquifer $command
	refused 2 'unknown option --frob' aquifer $command a b --frob
	refused 2 'missing|empty' aquifer $command ''
done
refused 2 'empty' aquifer volume create '' 1M
refused 2 'empty' aquifer image create raw '' 1M
refused 2 'empty' aquifer image convert "$dir/good" ''
refused 2 '^aquifer: attach failed: an argument is empty' aquifer attach ''
refused 2 'empty' aquifer detach ''
refused 2 'empty' aquifer attach ./x --name ''
refused 2 'empty' aquifer attach --graph=
[ ! -e "$AQUIFER_ROOT/var" ] || fail "wrong usage made a store"

# What can't be written is a failure, of help too.
for program in aquifer aquifer-agent aquifer-tapdisk aquifer-server; do
	for option in --help --version; do
		"$top/$B/$program" $option >/dev/full 2>"$dir/err" && fail "$program $option into a full disk"
		grep -q "^$program: .*the output could not be written: No space left" "$dir/err" && [ "$(wc -l <"$dir/err")" = 1 ] || fail "$program $option: $(cat "$dir/err")"
	done
done

# Failures: 1.
refused 1 'line 1, column' aquifer graph check 'ram('
refused 1 '' aquifer graph check 'ram(1M) garbage'
refused 1 '' aquifer graph check 'nosuch(1M)'
refused 1 'unknown driver qcow2 .drivers:' aquifer graph check 'qcow2(/x)'
refused 1 "^aquifer: attach $dir/floppy.graph failed: line 2" aquifer attach --graph "$dir/floppy.graph"
refused 1 '' aquifer graph check 'ram(1M, frob=1)'
refused 1 '' aquifer graph check 'ram(12Q)'
refused 1 '' aquifer graph check "$deep"
refused 1 '' aquifer graph check "$big"
refused 1 'cycl|itself' aquifer graph check "$dir/cycle.graph"
refused 1 '' aquifer graph check "$dir/twice.graph"
refused 1 '' aquifer graph check "$dir/floppy.graph"
refused 1 'larger than' aquifer graph check "$dir/big.graph"
refused 1 'directory' aquifer graph check "$dir/folder.graph"
refused 1 'No such file' aquifer graph check "$dir/none.graph"
for attach in ./none.img "$dir" "$dir/empty" /dev/null "ram(0)" "raw($dir/none)" "ro(raw($dir/none))"; do
	refused 1 '' aquifer attach "$attach" --name x --as nbd
done
refused 1 '' aquifer attach "$dir/twice.graph"
refused 1 'no-such-volume|volume' aquifer attach no-such-volume --as nbd
refused 1 '' aquifer attach 'ram(1M)' --name x --as nbd --listen 192.0.2.1:10809
printf 'a = ram(1M)\nexport a as nbd\n' >"$dir/one.graph"
refused 1 'own exports' aquifer attach --graph "$dir/one.graph" --name y
refused 1 'exports of its own' aquifer attach "$dir/one.graph" --as nbd
# What looks like the name of a file, and isn't
refused 1 '^aquifer: attach ./no such.img failed: there is no file of that name, and as a graph: line 1' aquifer attach './no such.img'
refused 1 'there is no file of that name' aquifer volume import "$dir/*.nothing" w
refused 1 'failed: line 1, column' aquifer graph check './x | ro('
# A file's name may have characters of the language.
for odd in 'we ird,(x)"q.img' 'a:b.img'; do
	truncate -s 1M "$dir/$odd"
	aquifer attach "$dir/$odd" --name odd --as nbd >/dev/null || fail "attach '$odd'"
	[ "$(aquifer graph check "$(field odd graph)")" = "$(field odd graph)" ] || fail "'$odd' doesn't go round: $(field odd graph)"
	aquifer detach odd
done
# An image of a format that this version doesn't read isn't taken for a disk by itself, whoever would read or write it.
printf 'QFI\xfb\0\0\0\3' >"$dir/other.img" && truncate -s 1M "$dir/other.img"
printf 'AQFCOW\r\n' >"$dir/layer.img" && truncate -s 1M "$dir/layer.img"
for use in "attach $dir/other.img" "image info $dir/other.img" "image convert $dir/other.img $dir/new" "volume import $dir/other.img w"; do
	refused 1 'seems to be a qcow2 image .make a raw one.*raw.FILE. takes its bytes' aquifer $use
done
refused 1 'seems to be a copy-on-write layer .name what it stands on' aquifer attach "$dir/layer.img"
refused 1 'seems to be a qcow2 image' aquifer attach "cow($dir/top.cow, $dir/other.img)" --name x
aquifer image info "raw($dir/other.img)" >/dev/null || fail "raw(FILE) is refused"
refused 1 "isn't a backup of a catalog \(give a file that aquifer cluster backup made\)" aquifer cluster restore "$dir/good"
refused 2 'at least 4 digits' aquifer server remove 2e9
refused 2 'at least 4 digits' aquifer server drain 2e9
refused 1 'no device' aquifer detach nobody
refused 1 'no device' aquifer detach /dev/loop9999
refused 1 'no device' aquifer show nobody
refused 1 'exists' aquifer image create raw "$dir/good" 1M
refused 1 'No such file or directory .check the name' aquifer image create raw "$dir/none/x" 1M
mkfifo "$dir/pipe"
refused 1 "isn't an ordinary file" aquifer image convert "$dir/good" "$dir/pipe" --force # what it replaces is a file, never /dev/null
refused 1 "isn't an ordinary file" aquifer volume export v "$dir" --force
[ -p "$dir/pipe" ] || fail "a pipe was replaced"
refused 1 'neither a file nor a block device' aquifer attach "$dir/pipe" --name pipe
refused 1 'Is a directory .give a file' aquifer attach "$dir" --name directory
refused 1 'it ends in no name that a device could have .give --name' aquifer attach "$dir/"
refused 1 '' aquifer image create raw "$dir/x" 1M --backing "$dir/good"
refused 1 'No such file' aquifer image info "$dir/none"
refused 1 'exists' aquifer image convert "$dir/good" "$dir/half"
refused 1 'No such file' aquifer image convert "$dir/none" "$dir/new"
[ ! -e "$dir/x" ] && [ ! -e "$dir/new" ] || fail "a failure left a file"
[ ! -e "$dir/new.part" ] || fail "a failure left a partial file"
nothing_left

# A root that can't be used.
refused 1 'longer than' aquifer --root "/$big" list
touch "$dir/file"
refused 1 'directory|Directory' aquifer --root "$dir/file" list
if [ "$(id -u)" -ne 0 ]; then
	mkdir -m 500 "$dir/locked"
	refused 1 'denied' aquifer --root "$dir/locked" list
fi

# The other programs.
other() { # STATUS PROGRAM ARGUMENT…
	local want=$1 status=0
	shift
	timeout 20 "$B/$1" "${@:2}" >"$dir/out" 2>"$dir/err" || status=$?
	[ $status -eq "$want" ] && [ "$(wc -l <"$dir/err")" -eq 1 ] || fail "$*: $status, $(cat "$dir/err")"
}
for program in aquifer-agent aquifer-tapdisk; do
	other 2 $program --frob
	other 2 $program a b
done
other 2 aquifer-tapdisk
other 2 aquifer-tapdisk 'ram(1M)' --name 'a b'
other 2 aquifer-tapdisk 'ram(1M)' --name x --export floppy
other 2 aquifer-tapdisk 'ram(1M)' --name x --export nbd:tcp:nonsense
other 2 aquifer-tapdisk 'ram(1M)' --name x --export nbd:relative.sock
for ms in -5 x 5s '' 99999999999999999999 86400001; do
	other 2 aquifer-tapdisk 'ram(1M)' --name x --export nbd --incoming=$ms
done
other 1 aquifer-tapdisk 'ram('
other 1 aquifer-tapdisk --graph "$dir/none.graph"
other 1 aquifer-tapdisk --graph "$dir/cycle.graph"
status=0
"$B/aquifer-agent" >"$dir/out" 2>"$dir/err" || status=$?
[ $status -eq 1 ] && grep -q 'another agent runs' "$dir/err" || fail "a second agent: $status, $(cat "$dir/err")"

# Nobody else's socket.
[ "$(stat -c %a "$run/agent.sock")" = 600 ] || fail "agent.sock: $(stat -c %a "$run/agent.sock")"

# --help of everything: status 0, nothing on stderr, names the command.
commands=$(aquifer --help | sed -n 's/^  \([a-z]\)/\1/p' | sed 's/ [A-Z[].*//; s/  .*//')
[ "$(echo "$commands" | wc -l)" -gt 10 ] || fail "--help lists little: $commands"
while read -r command; do
	aquifer $command --help >"$dir/out" 2>"$dir/err" || fail "$command --help"
	[ ! -s "$dir/err" ] && grep -q "aquifer $command" "$dir/out" || fail "$command --help: $(cat "$dir/out" "$dir/err")"
done <<<"$commands"
for program in aquifer aquifer-agent aquifer-tapdisk; do
	"$B/$program" --version | grep -q "^$program [0-9]" || fail "$program --version"
	"$B/$program" --help | grep -q Usage || fail "$program --help"
done
[ ! -w /dev/full ] || { status=0; aquifer --help >/dev/full 2>"$dir/err" || status=$?; [ $status -eq 1 ] || fail "a full output"; }
