#!/usr/bin/env bash
# Runs the test command given and then counts the tests that were skipped, so that none is skipped unseen. With CI=true a
# skip for want of a server is a failure of the test itself.
set -uo pipefail
log=$(mktemp)
trap 'rm -f "$log"' EXIT
"$@" -json | tee "$log" | grep -v '"Action":"\(run\|pause\|cont\|start\)"' |
  sed -n -E 's/.*"Action":"output".*"Output":"((ok|FAIL|---|panic|\?)[^"]*)\\n".*/\1/p; s/.*"Action":"build-output".*"Output":"([^"]*)\\n".*/\1/p' |
  grep -vE '^--- (PASS|SKIP)' | sed 's/\\t/\t/g'
status=${PIPESTATUS[0]}
count() { grep -c "\"Action\":\"$1\".*\"Test\":" "$log"; }
if [ "$status" -ne 0 ]; then
  echo; echo "output of the tests that failed:"
  grep '"Action":"fail"' "$log" | sed -n -E 's/.*"Test":"([^"]*)".*/\1/p' | sort -u | while read -r name; do
    grep -F "\"Test\":\"$name\"" "$log" | sed -n -E 's/.*"Output":"(.*)"\}$/  \1/p' | sed 's/\\n$//; s/\\t/\t/g; s/\\"/"/g' | head -60
  done
fi
skipped=$(count skip)
if [ "$skipped" -gt 0 ]; then
  echo; echo "skipped:"
  grep '"Action":"skip".*"Test":' "$log" | sed -n -E 's/.*"Package":"([^"]*)","Test":"([^"]*)".*/  \1 \2/p'
fi
echo
echo "$(count pass) passed, $(count fail) failed, $skipped skipped"
exit "$status"
