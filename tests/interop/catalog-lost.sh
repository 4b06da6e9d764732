#!/bin/bash
# The catalog of an embedded store is lost, with all that was done since its backup: volumes written, marked, made, rolled back and deleted since are what they
# were when the last process that had them was killed.
cd "$(dirname "$0")/../.."
. tests/interop/lib/agent
need jq nbdcopy python3
catalog=$AQUIFER_ROOT/var/lib/aquifer/catalog.db
for f in old new third; do head -c 3M /dev/urandom >"$dir/$f"; done
write() { # VOLUME FILE
	uri=$(aquifer attach "$1" --as nbd --name w) && nbdcopy --flush "$dir/$2" "$uri" && aquifer detach w || fail "writing $1"
}
content() { # VOLUME FILE
	uri=$(aquifer attach "$1" --as nbd --name c) || fail "attach $1"
	nbdcopy "$uri" - | cmp -n 3145728 - "$dir/$2" || fail "content of $1"
	aquifer detach c || fail "detach $1"
}
for v in web db gone back; do aquifer volume create $v 32M && write $v old || fail "create $v"; done
aquifer snapshot create web@old && aquifer snapshot create web@deleted && aquifer snapshot create back@before || fail "snapshots"
aquifer clone web@deleted clone-gone || fail "clone"
uri=$(aquifer attach db --as nbd) || fail "attach db"
echo mine >"$dir/backup.part"
aquifer cluster backup "$dir/backup" >/dev/null || fail "backup"
[ "$(cat "$dir/backup.part")" = mine ] && [ "$(ls -d "$dir"/backup* | wc -l)" = 2 ] || fail "there are" "$dir"/backup*
ln -s backup "$dir/latest" # to where cron keeps them
chmod 640 "$dir/backup"
aquifer cluster backup "$dir/latest" --force >/dev/null && [ "$(stat -c %a "$dir/backup")" = 640 ] && [ -L "$dir/latest" ] && [ ! -L "$dir/backup" ] || fail "a link became the backup: $(ls -l "$dir")"
rm "$dir/latest"

# what a backup left that was killed goes with the next one; not what another has that runs, nor what is somebody's
for left in 01234567 89abcdef; do head -c 300 "$dir/backup" >"$dir/backup.part-$left"; done
: >"$dir/backup.part-00000000"
for mine in backup.part-fffffff backup.part-fffffffff backup.part-FFFFFFFF backup2.part-ffffffff; do cp "$dir/backup" "$dir/$mine"; done
echo mine >"$dir/backup.part-ffffffff"
mkfifo "$dir/backup.part-eeeeeeee"
python3 -c 'import fcntl, sys, time; f = open(sys.argv[1], "r+"); fcntl.lockf(f, fcntl.LOCK_EX); print("locked", flush=True); time.sleep(60)' "$dir/backup.part-89abcdef" >"$dir/locked" &
locker=$!
until_true 10 grep -q locked "$dir/locked"
aquifer cluster backup "$dir/backup" --force >/dev/null || fail "backup again"
kill $locker
there=$(cd "$dir" && echo backup*)
[ "$there" = "backup backup.part backup.part-89abcdef backup.part-FFFFFFFF backup.part-eeeeeeee backup.part-fffffff backup.part-ffffffff backup.part-fffffffff backup2.part-ffffffff" ] ||
	fail "after a backup there are $there"
rm "$dir"/backup*.part-*

# since then
aquifer detach db && write db new || fail "db"
write web new
aquifer volume delete clone-gone && aquifer snapshot delete web@deleted && aquifer snapshot create web@since || fail "web"
write web third
aquifer volume delete gone || fail "delete"
write back new && aquifer snapshot rollback back@before && write back third || fail "roll back"
aquifer volume create made 32M && write made new || fail "made"
aquifer clone web@since made-clone && write made-clone third || fail "made-clone"
aquifer volume import "$dir/third" imported || fail "import"
# the last one is killed amid its work, with nothing but what was flushed
uri=$(aquifer attach db --as nbd) && nbdcopy --flush "$dir/third" "$uri" || fail "db again"
pid=$(aquifer show db --json | jq .pid) && kill -9 "$pid" || fail "kill"
aquifer agent stop >/dev/null 2>&1

# lost
rm -f "$catalog" "$catalog"-*
aquifer cluster restore "$dir/backup" >/dev/null || fail "restore"
refused 1 "would be deleted.*aquifer cluster recover" aquifer cluster restore --confirm
refused 2 "goes with --confirm" aquifer cluster restore "$dir/backup" --force
aquifer cluster status 2>/dev/null | grep -q "no volume can be attached.*aquifer cluster recover" || fail "status doesn't say what is to be done"
refused 1 "hasn't been looked for.*aquifer cluster recover" aquifer attach web --as nbd
aquifer cluster recover >"$dir/out" || fail "recover: $(cat "$dir/out")"
for line in '^web: has what .*with 1 snapshot made since, without 1 deleted since' '^db: has what was written since' '^made: was made since' '^made-clone: was made since' '^imported: was made since' \
	'^back: was made since' '^gone: was deleted since' '0 not recovered'; do
	grep -q "$line" "$dir/out" || fail "no line '$line': $(cat "$dir/out")"
done
content web third
content web@old old
content web@since new
content db third
content made new
content imported third
content made-clone third
content back third
content back@before old
aquifer volume list --json | jq -r '.[].name' | grep -q gone && fail "a deleted volume is there again"
aquifer cluster check >"$dir/out" || fail "check: $(cat "$dir/out")"
[ "$(aquifer cluster restore --confirm)" = "what the catalog doesn't know may be deleted from now on" ] || fail "confirm"
aquifer cluster restore --confirm | grep -q "^nothing is to be confirmed" || fail "confirmed again: $(aquifer cluster restore --confirm)"
for v in web db made made-clone back; do write $v old && content $v old; done
aquifer volume delete made-clone && aquifer volume delete web --with-snapshots && aquifer volume delete back --with-snapshots || fail "delete"
aquifer cluster check >"$dir/out" || fail "check at the end: $(cat "$dir/out")"

# what is deleted before that is given up waits for it, and no longer
lose() { aquifer cluster backup "$dir/backup" --force >/dev/null && aquifer agent stop >/dev/null 2>&1; rm -f "$catalog" "$catalog"-*; aquifer cluster restore "$dir/backup" >/dev/null || fail "lose"; }
noted() { aquifer cluster backup "$dir/now" --force >/dev/null && grep -c reap/ "$dir/now"; }
aquifer snapshot create db@waits && lose && aquifer snapshot delete db@waits || fail "deleted before it is recovered"
[ "$(noted)" = 1 ] || fail "it is noted $(noted) times"
aquifer cluster restore --confirm --force >/dev/null || fail "give up"
[ "$(noted)" = 0 ] || fail "what waited isn't freed: $(cat "$dir/now")"
echo "written, marked, cloned, rolled back, deleted and killed since the backup: all is as it was"
