#!/bin/bash
# coverage.sh BUILD SEEDS [SCENARIO [FILE.c]]: runs BUILD/sim, made with --coverage, and prints which share of the lines of each file of parallax/ and server/
# ran, and of all together; with FILE.c only its lines that didn't. SEEDS 0: from what ran before.
#
# Not counted are, and the list below names them all: main; TLS and who may take part (issue 3 excepts both; they have unit and interop tests); and in a
# second sum, catalogs of real files and sockets, in whose place the simulator has its own. Nor are lines that didn't run and
# name ENOMEM: the simulator never lets an allocation fail.
set -eu
cd "$(dirname "$0")/.."
B=$1 seeds=$2 scenario=${3:-} show=${4:-}

excepted='server/aquifer-server.c parallax/access/access_authority.c parallax/access/access_files.c parallax/access/access_hosts.c parallax/access/access_join.c
parallax/access/access_keeper.c parallax/access/access_revoked.c parallax/access/access_wire.c parallax/catalog/catalog_access.c'
# sqlite and libcurl do their own I/O: no simulated disk or network is below them
unsimulated='parallax/catalog/catalog_sqlite.c parallax/catalog/catalog_etcd.c parallax/catalog/catalog_etcd_call.c parallax/catalog/catalog_etcd_live.c parallax/catalog/catalog_etcd_wire.c
parallax/store/store_status_catalog.c'

if [ "$seeds" -gt 0 ]; then
	find "$B" -name '*.gcda' -delete
	"$B/sim" ${scenario:+--scenario "$scenario"} --first 1 --seeds "$seeds"
fi

lines() { # of FILE.c: count, number, text, where there is code
	gcov -t -o "$B/obj/${1%.c}.o" "$1" 2>/dev/null |
		awk -F: '$1 !~ /^ *-$/ && $2 + 0 > 0 { n = $1; gsub(/[ *]/, "", n); ran = n !~ /[#=]/
			if (!ran && /ENOMEM/) next
			text = $0; sub(/^[^:]*:[^:]*:/, "", text); print ran, $2 + 0, text }'
}

if [ -n "$show" ]; then
	lines "$show" | awk '$1 == 0 { sub(/^0 /, ""); print }'
	exit
fi

for f in parallax/*.c parallax/*/*.c server/*.c; do
	case " $(echo $excepted) " in *" $f "*) continue ;; esac
	kind=counted
	case " $(echo $unsimulated) " in *" $f "*) kind=unsimulated ;; esac
	lines "$f" | awk -v f="$f" -v kind=$kind '{ all++; ran += $1 } END { if (all) print kind, ran, all, f }'
done | awk '
	{ printf "%5d of %5d  %5.1f %%  %s%s\n", $2, $3, 100 * $2 / $3, $4, $1 == "counted" ? "" : "  (not in the simulator)" | "sort -k4n"
	  ran[$1] += $2; all[$1] += $3; everything += $3; everything_ran += $2 }
	END { close("sort -k4n")
	  printf "%.1f %% of %d lines of parallax/ and server/, of which simulation can run all but the catalogs of real files and sockets;\n", 100 * ran["counted"] / all["counted"], all["counted"]
	  printf "%.1f %% of %d lines with those\n", 100 * everything_ran / everything, everything }'
