#!/usr/bin/env bash
# The main job on one machine with embedded defaults: a relay, an agent with a sample SQLite database and a sample folder,
# a query, a file written and read, a refusal, the masked audit trail and the proof of its chain.
#
#   demo.sh once   runs it and cleans up      demo.sh up   leaves it running      demo.sh down   ends that
set -Eeuo pipefail
cd "$(dirname "$0")/../.."
bin=$PWD/bin
mode=${1:-once}
home=$PWD/.demo

say() { printf '\n\033[1m%s\033[0m\n' "$*"; }
show() { # a command as one would type it
  local line='$' a
  for a in "$@"; do case $a in *[[:space:]\*]* | "") line+=" \"$a\"" ;; *) line+=" $a" ;; esac; done
  printf '%s\n' "$line" | sed "s|$bin/||g; s|$home|.demo|g"
}
run() { show "$@"; "$@"; }

down() {
  for p in agent relay; do
    [ -f "$home/$p.pid" ] || continue
    pid=$(cat "$home/$p.pid")
    kill "$pid" 2>/dev/null || true
    for _ in $(seq 100); do kill -0 "$pid" 2>/dev/null || break; sleep 0.1; done
    rm -f "$home/$p.pid"
  done
}
if [ "$mode" = down ]; then
  down
  rm -rf "$home"
  echo "the demo is stopped and its files are gone"
  exit 0
fi
if [ -f "$home/relay.pid" ] && kill -0 "$(cat "$home/relay.pid")" 2>/dev/null; then
  echo "a demo is running already; end it with: make demo-down" >&2
  exit 1
fi
fail() {
  echo "the demo failed; the last lines of the logs:" >&2
  tail -n 15 "$home"/*.log >&2 || true
  down
}
trap fail ERR
rm -rf "$home"
mkdir -p -m 700 "$home/folder"

# A port of its own, below the ephemeral range, that nobody answers on.
port=$((20000 + RANDOM % 10000))
while (: <>"/dev/tcp/127.0.0.1/$port") 2>/dev/null; do port=$((port + 1)); done
wait_for() { # FILE PATTERN WHAT
  for _ in $(seq 300); do
    grep -q "$2" "$1" 2>/dev/null && return 0
    sleep 0.1
  done
  echo "$3 did not come up" >&2
  return 1
}

say "1. A relay: its own CA, key file, workspace, first admin token"
run "$bin/fairlead-relay" init --data "$home/relay" --listen "127.0.0.1:$port" --public-address "localhost:$port" --health "" --token-file "$home/admin.token"
"$bin/fairlead-relay" serve --data "$home/relay" >"$home/relay.log" 2>&1 &
echo $! >"$home/relay.pid"
wait_for "$home/relay.log" "relay is ready" "the relay"
export FAIRLEAD_RELAY=localhost:$port FAIRLEAD_TOKEN_FILE=$home/admin.token FAIRLEAD_CA=$home/relay/ca.pem

say "2. A site: a sample database, a sample folder, and the YAML that has the last word"
"$bin/fairlead-agent" sample --dir "$home"
sed 's/^/    /' "$home/agent.yaml"
run "$bin/fairlead-agent" check --config "$home/agent.yaml"

say "3. The agent enrols with a single-use token and dials out"
"$bin/fairlead" join-token create --group default >"$home/join.token"
run "$bin/fairlead-agent" enroll --data "$home/agent" --token-file "$home/join.token"
"$bin/fairlead-agent" run --config "$home/agent.yaml" --data "$home/agent" >"$home/agent.log" 2>&1 &
echo $! >"$home/agent.pid"
wait_for "$home/agent.log" "connected to relay" "the agent"
run "$bin/fairlead" agents list

say "4. Two connections; a query, a file written and read"
run "$bin/fairlead" connections create shop --group default --profile shop
run "$bin/fairlead" connections create papers --group default --profile papers
run "$bin/fairlead" query shop "select id, name, email, total from customers where total > ? order by total desc limit 3" --arg int:100
echo "written through the relay" >"$home/note.txt"
run "$bin/fairlead" files put "$home/note.txt" papers:note.txt
run "$bin/fairlead" files ls papers:
run "$bin/fairlead" files get papers:note.txt -

say "5. What the site's YAML does not allow is refused, with the rule that refused it"
refused() {
  show "$@"
  if "$@"; then echo "this should have been refused" >&2; return 1; fi
}
refused "$bin/fairlead" query shop "delete from customers"
refused "$bin/fairlead" files rm papers:report.csv
printf '(the agent explains it offline, too)\n'
refused "$bin/fairlead-agent" explain --config "$home/agent.yaml" query shop "delete from customers"

say "6. Both ends kept the record: no literal, no parameter, no masked value is in it"
run "$bin/fairlead" audit list --limit 12
run "$bin/fairlead" audit verify

if [ "$mode" = up ]; then
  trap - ERR
  say "It runs. Try, in this folder:"
  cat <<TXT
    export FAIRLEAD_RELAY=localhost:$port FAIRLEAD_TOKEN_FILE=$home/admin.token FAIRLEAD_CA=$home/relay/ca.pem
    bin/fairlead query shop "select count(*) from orders"
    bin/fairlead schema shop
    bin/fairlead files ls papers: --recursive
    bin/fairlead audit tail
    edit .demo/agent.yaml while it runs, and ask again
    make demo-down
TXT
  exit 0
fi
down
rm -rf "$home"
say "done: everything above ran on embedded defaults, and nothing is left running"
