#!/bin/sh
# Installs the database servers that the tests start, oathtool, which codes are held against, and the shells whose completion they try; with FAIRLEAD_TEST_WINE set,
# also what the tests under Wine want, and with FAIRLEAD_TEST_BROWSER a browser. Root on Debian or Ubuntu installs what is missing; anybody else is told what is missing.
# Exit status 0: all servers are there; 1: one is missing. Without a shell or Wine its tests are skipped and counted.
set -eu

have() { command -v "$1" >/dev/null 2>&1 || ls $2 >/dev/null 2>&1; }

missing=
have postgres '/usr/lib/postgresql/*/bin/postgres' || missing="$missing postgresql"
have psql '/usr/lib/postgresql/*/bin/psql' || missing="$missing postgresql-client"
have mariadbd /usr/sbin/mariadbd || missing="$missing mariadb-server"
have mariadb /usr/bin/mariadb || missing="$missing mariadb-client"
have oathtool /usr/bin/oathtool || missing="$missing oathtool"
extra=
have zsh /usr/bin/zsh || extra="$extra zsh"
have fish /usr/bin/fish || extra="$extra fish"
if [ -n "${FAIRLEAD_TEST_WINE:-}" ]; then
	have wine /usr/bin/wine || extra="$extra wine"
	have x86_64-w64-mingw32-gcc /usr/bin/x86_64-w64-mingw32-gcc || extra="$extra gcc-mingw-w64-x86-64"
fi
if [ -n "${FAIRLEAD_TEST_BROWSER:-}" ]; then
	have chromium /usr/bin/chromium || extra="$extra chromium"
fi
[ -n "$missing$extra" ] || exit 0

if [ "$(id -u)" != 0 ] || ! command -v apt-get >/dev/null 2>&1; then
	echo "not installed:$missing$extra; tests that need them are skipped" >&2
	[ -z "$missing" ]
	exit
fi

# The packages would start their own servers; the tests start theirs.
policy=/usr/sbin/policy-rc.d
if [ ! -e "$policy" ]; then
	printf '#!/bin/sh\nexit 101\n' >"$policy"
	chmod 755 "$policy"
	trap 'rm -f "$policy"' EXIT
fi
export DEBIAN_FRONTEND=noninteractive
# The names are meant to be split. What is extra must not take the servers with it when it cannot be had.
# shellcheck disable=SC2086
if [ -n "$missing" ]; then
	apt-get update -q
	apt-get install -q -y --no-install-recommends $missing
	[ -z "$extra" ] || apt-get install -q -y --no-install-recommends $extra || echo "not installed:$extra" >&2
else
	{ apt-get update -q && apt-get install -q -y --no-install-recommends $extra; } || echo "not installed:$extra" >&2
fi
