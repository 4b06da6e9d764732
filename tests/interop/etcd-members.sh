#!/bin/bash
# A catalog on three etcds: it goes on when one dies or stands still, whichever; with two away it says so; with them back all is there.
cd "$(dirname "$0")/../.."
. tests/interop/lib/server
. tests/interop/lib/etcd
trap 'etcds_end; cleanup' EXIT
etcd_members=3
for m in 1 2 3; do etcd_start $m; done
url=$(etcd_url)
etcd_up
says "^ok" make
says "^ok 10$" count n 10
taken=10
for m in 1 2 3; do
	"$check" "$url" count n 100 >"$dir/count" & # while it happens
	counter=$!
	sleep 0.1
	etcd_kill $m
	wait $counter || fail "with member $m killed: $(cat "$dir/count")"
	taken=$((taken + 100))
	says "^ok" get n
	etcd_start $m
	etcd_up
done
# an unknown outcome may have cost a number, never given one twice: that is what conform looks at
says "^ok" conform
last=$("$check" "$url" count n 1 | sed -n 's/^ok //p')
[ "${last:-0}" -gt $taken ] || fail "$last after $taken"
kill -STOP "${etcd_pid[2]}"
says "^ok" put stopped x
says "^ok" get stopped
etcd_kill 3
says "ETIMEDOUT|ENOTCONN" put two x
etcd_start 3
kill -CONT "${etcd_pid[2]}"
etcd_up
says "^ok x" get stopped
says "^ok" put two y
says "^ok y" get two
echo "one of three killed or stopped at a time, and two: what could be had was had, what couldn't was said"
