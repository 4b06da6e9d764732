#!/bin/bash
# Clients that are killed in the middle of everything leave nothing behind; a server that is killed leaves a
# socket that the next one takes over; one that is in use says by whom. One that waits on the network for what a client
# will say next asks the client's host whether it is still there.
. tests/interop/lib/nbd
need fio qemu-io truncate ss
fio --enghelp 2>/dev/null | grep -qw nbd || { echo "skipped: fio has no nbd engine"; exit 77; }

# A client that stays.
client_up() {
	: >"$dir/client"
	stdbuf -oL qemu-io -f raw -c 'read 0 512' -c 'sleep 30000' "$uri" >"$dir/client" 2>&1 &
	client=$!
	while ! grep -q '512/512' "$dir/client"; do
		kill -0 $client || fail "qemu-io does not connect"
		sleep 0.05
	done
}

truncate -s 64M "$dir/a.img"
serve "raw($dir/a.img)"
descriptors() { ls "/proc/$server/fd" | wc -l; }
before=$(descriptors)
for rw in randwrite randread write read; do
	(cd "$dir" && exec fio --name=job --thread --ioengine=nbd --uri="$uri" --size=64M --rw=$rw --bsrange=4k-1M --iodepth=32 \
		--time_based --runtime=30 >/dev/null 2>&1) &
	client=$!
	sleep 0.5
	kill -9 $client
	wait $client 2>/dev/null || true
done
i=0
while [ "$(descriptors)" -ne "$before" ]; do
	i=$((i + 1))
	[ $i -lt 100 ] || fail "$(descriptors) descriptors are open, $before were"
	sleep 0.05
done

client_up
kill -TERM "$server"
i=0
while ! grep -q "is in use by 1 NBD client (pid $client)" "$dir/errors"; do
	i=$((i + 1))
	[ $i -lt 100 ] || fail "it doesn't name its client: $(cat "$dir/errors")"
	sleep 0.05
done
kill -9 "$server" || fail "it gave way to SIGTERM while in use"
{ wait "$server"; } 2>/dev/null || true
kill -9 $client
{ wait $client; } 2>/dev/null || true
[ -S "$dir/s.sock" ] || fail "the stale socket, gone"
serve "raw($dir/a.img)"
qemu-io -f raw -c 'read 0 4k' "$uri" >/dev/null || fail "after a stale socket"
unserve

address=tcp:127.0.0.1:0
serve "raw($dir/a.img)"
port=${uri#nbd://127.0.0.1:}
client_up
ss -Htno state established "( sport = :${port%%/*} )" >"$dir/sockets"
grep -q 'timer:(keepalive,' "$dir/sockets" || fail "a client whose host is gone would stay for ever: $(cat "$dir/sockets")"
kill -9 $client
{ wait $client; } 2>/dev/null || true
unserve
