#!/bin/bash
# bash completion against the real --help, with listings of known devices, volumes and snapshots.
set -u
B=${B:-build}
[ -x "$B/aquifer" ] || { echo "skipped: $B/aquifer is not built"; exit 77; }
dir=$(mktemp -d)
trap 'rm -rf "$dir"' EXIT
real=$(realpath "$B/aquifer")

# A program that lists what we say and leaves --help to the real one.
cat >"$dir/aquifer" <<END
#!/bin/bash
case "\$*" in
*--help) "$real" "\$@" ;;
"list --json") echo '[{"name":"disk1","device":"/dev/loop1"},{"name": "disk2"},{"name":"web1"}]' ;;
"list --root /other --json") echo '[{"name":"elsewhere"}]' ;;
"volume list --json") echo '[{"name":"web1","id":1},{"name":"web2","id":2}]' ;;
"snapshot list --json") echo '[{"volume":"web1","name":"mon","size":1},{"volume":"web1","name":"tue"},{"volume":"web2","name":"x"}]' ;;
"agent list --json") echo '[{"host":"host1","address":"tls:10.0.0.1:7701"},{"host":"host2"}]' ;;
"server list --json") echo '[{"id":"39a2ad04fc0a4881b02ceb2c6250a021","address":"tls:10.0.0.1:7700"}]' ;;
*) echo "aquifer \$*: unexpected" >>"$dir/unexpected"; exit 1 ;;
esac
END
chmod +x "$dir/aquifer"
PATH=$dir:$PATH
# shellcheck source=/dev/null
. deploy/completion/aquifer.bash
complete -p aquifer | grep -q '_aquifer aquifer' || { echo "FAILED: not registered"; exit 1; }

cd "$dir" || exit 1
mkdir images && touch images/a.img images/b.img file.graph
failed=0
# check LINE WANT…: what is offered at the end of LINE, in any order; a trailing … allows more.
check() {
	local line=$1 got want
	shift
	COMP_LINE=$line COMP_POINT=${#line}
	_aquifer aquifer
	got=$(printf '%s\n' "${COMPREPLY[@]}" | sort -u | tr '\n' ' ')
	if [ "${*: -1}" = … ]; then
		for want in "${@:1:$#-1}"; do
			[[ " $got" == *" $want "* ]] || { echo "FAILED: '$line' offers $got, not $want"; failed=1; }
		done
	else
		want=$(printf '%s\n' "$@" | sort -u | tr '\n' ' ')
		[ "$got" = "$want" ] || { echo "FAILED: '$line' offers '$got', not '$want'"; failed=1; }
	fi
}

check 'aquifer ' attach detach list show agent image graph …
check 'aquifer at' attach
check 'aquifer nonsense ' ''
check 'aquifer agent ' start stop status restart list
check 'aquifer agent st' start stop status
check 'aquifer image con' convert
check 'aquifer volume ' create show …
check 'aquifer volume create --io-timeout f' forever
check 'aquifer detach ' disk1 disk2 web1
check 'aquifer detach d' disk1 disk2
check 'aquifer detach --force d' disk1 disk2
check 'aquifer show web1 ' ''
check 'aquifer --root /other show ' elsewhere
check 'aquifer show --root=/other ' elsewhere
check 'aquifer attach --' --as= --name= --read-only --force --graph= --listen= --json --root= …
check 'aquifer attach --na' --name=
check 'aquifer detach --al' --all
check 'aquifer attach --as ' loop nbd
check 'aquifer attach --as l' loop
check 'aquifer attach --as=n' nbd
check 'aquifer attach --name x web1@' mon tue
check 'aquifer attach web1@m' mon
check 'aquifer attach web2' web2 web2@x
check 'aquifer attach ./im' ./images
check 'aquifer attach images/' images/a.img images/b.img
check 'aquifer attach --graph fi' file.graph
check 'aquifer volume show ' web1 web2
check 'aquifer volume create ' ''
check 'aquifer snapshot create web1@a web' web1 web2 web1@mon web1@tue web2@x
check 'aquifer snapshot list ' web1 web2
check 'aquifer image create ' raw
check 'aquifer server drain ' 39a2ad04fc0a4881b02ceb2c6250a021
check 'aquifer cluster revoke ' host1 host2
check 'aquifer cluster token --host host2' host2
check 'aquifer cluster move-catalog s' sqlite:
check 'aquifer migrate w' web1 web2
check 'aquifer migrate web1 ' --to
check 'aquifer migrate web1 --to ' host1 host2
check 'aquifer help vol' volume
check 'aquifer help volume cr' create
check 'aquifer help attach ' ''
check 'aquifer image create raw images/' images/a.img images/b.img

COMP_LINE="$B/aquifer-tapdisk --ex" COMP_POINT=$((${#B} + 21))
if [ -x "$real-tapdisk" ]; then
	_aquifer_daemon "$real-tapdisk"
	[ "${COMPREPLY[*]}" = --export= ] || { echo "FAILED: aquifer-tapdisk --ex offers ${COMPREPLY[*]}"; failed=1; }
fi
[ ! -s unexpected ] || { cat unexpected; failed=1; }
exit $failed
