#!/bin/bash
# 100 volumes of the embedded store attached on one host. VOLUMES=, LOOPS=
# limit: 900
cd "$(dirname "$0")/../.."
. tests/interop/lib/agent
others() { :; }
. tests/scale/lib/attached
[ -z "$(find "$AQUIFER_ROOT/var/lib/aquifer" -name '*.seg' | head -n 1)" ] || fail "segments are left"
