#!/bin/bash
# image create, info, check, convert: what comes out is what went in, sparse; failures and interruptions leave nothing.
. tests/interop/lib/agent
need jq cmp
aquifer image create raw "$dir/a.img" 64M
[ "$(stat -c %s "$dir/a.img")" = 67108864 ] || fail "size"
[ "$(stat -c %b "$dir/a.img")" -lt 64 ] || fail "not sparse"
head -c 1000000 /dev/urandom >"$dir/random"
for at in 0 3333333 30000000 66000000; do
	dd if="$dir/random" of="$dir/a.img" bs=64k seek=$at oflag=seek_bytes conv=notrunc status=none
done
aquifer image convert "$dir/a.img" "$dir/b.img"
cmp "$dir/a.img" "$dir/b.img" || fail "convert"
[ "$(stat -c %b "$dir/b.img")" -lt 10000 ] || fail "convert isn't sparse: $(stat -c %b "$dir/b.img") blocks"
[ "$(aquifer image info "$dir/b.img" --json | jq -r '.format, .size' | tr '\n' ' ')" = 'raw 67108864 ' ] || fail "info"
allocated=$(aquifer image info "$dir/b.img" --json | jq .allocated)
[ "$allocated" -ge 4000000 ] && [ "$allocated" -lt 8000000 ] || fail "allocated: $allocated"
aquifer image check "$dir/b.img" | grep -q 'no errors' || fail "check"
# Odd sizes are padded with zeroes to whole sectors; graphs are sources.
head -c 1000001 "$dir/random" >"$dir/odd"
aquifer image convert "$dir/odd" "$dir/odd.out"
cmp -n 1000000 "$dir/random" "$dir/odd.out" || fail "odd size"
[ "$(stat -c %s "$dir/odd.out")" = 1000448 ] || fail "odd size: $(stat -c %s "$dir/odd.out")"
aquifer image convert "ro(raw($dir/a.img))" "$dir/c.img" --progress 2>"$dir/err"
cmp "$dir/a.img" "$dir/c.img" || fail "convert a graph"
grep -q '100 %' "$dir/err" || fail "--progress: $(cat "$dir/err")"
aquifer image convert "$dir/odd" "$dir/c.img" --force 2>"$dir/err"
[ ! -s "$dir/err" ] || fail "not silent: $(cat "$dir/err")"
[ "$(stat -c %s "$dir/c.img")" = 1000448 ] || fail "--force"
refused 1 'exists' aquifer image convert "$dir/a.img" "$dir/c.img"
aquifer attach "$dir/c.img" --name busy --as nbd >/dev/null # a device's image isn't taken from under it
refused 1 'in use by device busy' aquifer image convert "$dir/a.img" "$dir/c.img" --force
aquifer detach busy
# What replaces a file is no more open to others than that was, and its owner's still.
chmod 640 "$dir/c.img"
[ "$(id -u)" -ne 0 ] || chown 12:34 "$dir/c.img"
before=$(stat -c '%a %u:%g' "$dir/c.img")
aquifer image convert "$dir/a.img" "$dir/c.img" --force
[ "$(stat -c '%a %u:%g' "$dir/c.img")" = "$before" ] || fail "replaced: $(stat -c '%a %u:%g' "$dir/c.img") instead of $before"
chmod 440 "$dir/c.img"
aquifer image convert "$dir/odd" "$dir/c.img" --force || fail "one that its owner may only read"
[ "$(stat -c %a "$dir/c.img")" = 440 ] || fail "replaced: $(stat -c %a "$dir/c.img")"
# A symbolic link stays one: the file that it leads to is replaced, and where it leads to nothing nobody guesses what was meant.
ln -s c.img "$dir/link.img"
ln -s nowhere/c.img "$dir/dangling.img"
refused 1 'link.img exists' aquifer image convert "$dir/a.img" "$dir/link.img"
aquifer image convert "$dir/a.img" "$dir/link.img" --force
[ -L "$dir/link.img" ] && [ ! -L "$dir/c.img" ] && cmp "$dir/a.img" "$dir/c.img" || fail "a link: $(ls -l "$dir")"
refused 1 'dangling.img is a symbolic link to what isn.t there' aquifer image convert "$dir/a.img" "$dir/dangling.img" --force
[ -L "$dir/dangling.img" ] || fail "a link to nothing became $(ls -l "$dir/dangling.img")"
exec 9< <(:) # as /dev/stdout may be: a link to what has no name is no link to nothing, that one would be told to remove
refused 1 '/dev/fd/9 is there and isn.t an ordinary file' aquifer image convert "$dir/a.img" /dev/fd/9 --force
exec 9<&-
refused 2 'no image format' aquifer image convert "$dir/a.img" "$dir/d.img" --to floppy

# A source that can't be read ends it, and names the place.
if aquifer graph check "error(raw($dir/a.img), op=read)" >/dev/null 2>&1; then
	refused 1 'reading the source at offset' aquifer image convert "error(raw($dir/a.img), op=read)" "$dir/d.img"
	refused 1 "can't be read" aquifer image check "error(raw($dir/a.img), op=read)"
	[ ! -e "$dir/d.img" ] && [ ! -e "$dir/d.img.part" ] || fail "a failed copy left a file"
fi

# Interrupted, while a slow source is read: by a signal, or because its terminal was closed.
head -c 300M /dev/zero | tr '\0' x >"$dir/big.img"
for signal in TERM HUP; do
	"$B/aquifer" image convert "delay(raw($dir/big.img), read=20ms)" "$dir/big.out" 2>"$dir/err" &
	pid=$!
	until_true 5 test -e "$dir/big.out.part" || fail "no copy: $(cat "$dir/err")"
	kill -$signal $pid
	status=0
	wait $pid || status=$?
	[ $status -eq 1 ] && grep -q interrupted "$dir/err" || fail "interrupted by SIG$signal: $status, $(cat "$dir/err")"
	[ ! -e "$dir/big.out" ] && [ ! -e "$dir/big.out.part" ] || fail "an interrupted copy left a file"
done
# On a terminal it is one row, however narrow that is, and isn't drawn again where nothing has changed.
if command -v script >/dev/null; then
	for columns in 20 40 72 200; do
		script -qec "stty cols $columns; $B/aquifer image convert 'delay(raw($dir/a.img), read=1ms)' $dir/bar.out --force" /dev/null >"$dir/rows" </dev/null
		tr '\r' '\n' <"$dir/rows" | sed 's/\x1b\[K//; /^$/d' >"$dir/row"
		grep -q 100 "$dir/row" || [ $columns = 20 ] || fail "no progress in $columns columns: $(cat "$dir/row")"
		[ -s "$dir/row" ] && [ "$(LC_ALL=C.UTF-8 wc -L <"$dir/row")" -lt $columns ] || fail "too wide for $columns columns: $(cat "$dir/row")"
		[ -z "$(uniq -d "$dir/row")" ] || fail "drawn twice: $(cat "$dir/row")"
	done
fi
# Nobody reads all of its progress.
aquifer image convert --progress "delay(raw($dir/big.img), read=5ms)" "$dir/pipe.out" 2>&1 | true
[ -e "$dir/pipe.out" ] && [ ! -e "$dir/pipe.out.part" ] || fail "a copy whose progress nobody reads"
rm "$dir/pipe.out"

# A full disk.
if [ "$(id -u)" -eq 0 ]; then
	mkdir "$dir/mnt"
	mount -t tmpfs -o size=8M tmpfs "$dir/mnt"
	refused 1 'No space left on device .free some space' aquifer image convert "$dir/big.img" "$dir/mnt/x"
	[ -z "$(ls -A "$dir/mnt")" ] || fail "a full disk left: $(ls -A "$dir/mnt")"
	umount "$dir/mnt"
fi
