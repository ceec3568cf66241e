#!/usr/bin/env bash
# Runs every fuzz target in the tree, one after the other, for the time given each.
set -euo pipefail
time=${1:-30s}
grep -rlE '^func Fuzz' --include='*_test.go' . | sort -u | while read -r file; do
  pkg=$(dirname "$file")
  sed -n -E 's/^func (Fuzz[A-Za-z0-9_]+)\(.*/\1/p' "$file" | while read -r target; do
    echo "== $pkg $target"
    go test -run '^$' -fuzz "^$target\$" -fuzztime "$time" "$pkg" </dev/null
  done
done
