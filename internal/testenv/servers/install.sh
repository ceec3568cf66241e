#!/bin/sh
# Installs the database servers that the tests start. Root on Debian or Ubuntu installs what is missing; anybody else is told
# what is missing. Exit status 0: all there; 1: something is missing.
set -eu

have() { command -v "$1" >/dev/null 2>&1 || ls $2 >/dev/null 2>&1; }

missing=
have postgres '/usr/lib/postgresql/*/bin/postgres' || missing="$missing postgresql"
have psql '/usr/lib/postgresql/*/bin/psql' || missing="$missing postgresql-client"
have mariadbd /usr/sbin/mariadbd || missing="$missing mariadb-server"
have mariadb /usr/bin/mariadb || missing="$missing mariadb-client"
[ -n "$missing" ] || exit 0

if [ "$(id -u)" != 0 ] || ! command -v apt-get >/dev/null 2>&1; then
	echo "not installed:$missing; tests that need them are skipped" >&2
	exit 1
fi

# The packages would start their own servers; the tests start theirs.
policy=/usr/sbin/policy-rc.d
if [ ! -e "$policy" ]; then
	printf '#!/bin/sh\nexit 101\n' >"$policy"
	chmod 755 "$policy"
	trap 'rm -f "$policy"' EXIT
fi
export DEBIAN_FRONTEND=noninteractive
apt-get update -q
# The names are meant to be split.
# shellcheck disable=SC2086
apt-get install -q -y --no-install-recommends $missing
