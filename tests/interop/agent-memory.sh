#!/bin/bash
# More attaches than memory, or open files, allow: the one too many is refused in one line, the others go on, and nothing is left over.
. tests/interop/lib/agent
need jq
! ldd "$B/aquifer" | grep -q 'lib[aut]*san' || { echo "skipped: what sanitizers take is not what a tapdisk takes"; exit 77; }
group=
for memory in /sys/fs/cgroup/memory /sys/fs/cgroup; do
	[ -z "$group" ] && mkdir "$memory/aquifer-test.$$" 2>/dev/null || continue
	group=$memory/aquifer-test.$$
	[ -f "$group/memory.max" ] || [ -f "$group/memory.limit_in_bytes" ] || { rmdir "$group"; group=; }
done
end() {
	cleanup
	[ -z "$group" ] || until_true 5 rmdir "$group" || true
}
trap end EXIT

# grows PATTERN: attaches until one is refused with a line that matches; all before it stay.
grows() {
	local count=0
	while [ $count -lt 40 ] && "$B/aquifer" attach 'ram(1M)' --name "d$count" --as nbd >"$dir/out" 2>"$dir/err"; do count=$((count + 1)); done
	refused 1 "$1" aquifer attach 'ram(1M)' --name one-too-many --as nbd
	[ "$(aquifer list --json | jq 'map(select(.state == "running")) | length')" -eq $count ] || fail "of $count others some are gone: $(aquifer list)"
	aquifer detach --all || fail "detach --all"
	nothing_left
	aquifer agent stop >/dev/null
	echo "$count attaches, and no more: $(cut -c 1-200 "$dir/err")"
}

(ulimit -n 12 && exec "$B/aquifer" agent start) >/dev/null || fail "an agent with few open files"
grows 'raise the limit of open files'
(ulimit -v 30000 && exec "$B/aquifer" agent start) >/dev/null || fail "an agent with little address space"
grows 'no memory for one more tapdisk: it may need 32.0 MiB, and 29.* are left'
[ -n "$group" ] || { echo "skipped in part: there is no memory cgroup to be made here"; exit 0; }
echo 40M >"$group/$([ -f "$group/memory.max" ] && echo memory.max || echo memory.limit_in_bytes)"
(echo $BASHPID >"$group/cgroup.procs" && exec "$B/aquifer" agent start) >/dev/null || fail "an agent with little memory"
grows 'no memory for one more tapdisk'
