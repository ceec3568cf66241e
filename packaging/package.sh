#!/usr/bin/env bash
# Packs the programs of every platform with licences (ours and those of what is built in), README, configurations and documents
# into dist/, and writes SHA256SUMS.
# `make package` builds bin/OS-ARCH/ first. Needs Go and nothing else.
#
# The same commit gives the same archives: VERSION (default: the tag, or the commit) and SOURCE_DATE_EPOCH (default: the commit's
# time) may be set from outside.
set -euo pipefail
cd "$(dirname "$0")/.."
GO=${GO:-go}
version=${VERSION:-$(git describe --tags --always --dirty 2>/dev/null || echo dev)}
version=${version#v}
epoch=${SOURCE_DATE_EPOCH:-$(git log -1 --format=%ct 2>/dev/null || echo 0)}
case $epoch in '' | *[!0-9]*) echo "SOURCE_DATE_EPOCH is not a number of seconds: $epoch" >&2; exit 64 ;; esac

platforms='linux-amd64 linux-arm64 windows-amd64 darwin-arm64'
programs='fairlead fairlead-agent fairlead-relay'
for t in $platforms; do
  case $t in windows-*) exe=.exe ;; *) exe= ;; esac
  for p in $programs; do
    [ -f "bin/$t/$p$exe" ] || { echo "bin/$t/$p$exe is missing: run make package, or make cross first" >&2; exit 66; }
  done
done

rm -rf dist
mkdir -p dist
stage=$(mktemp -d)
trap 'rm -rf "$stage"' EXIT

# Built for the machine that packs, whatever GOOS and GOARCH say.
GOOS='' GOARCH='' "$GO" build -o "$stage/archive" ./packaging/archive

for t in $platforms; do
  case $t in windows-*) exe=.exe form=zip ;; *) exe= form=tar.gz ;; esac
  dir=$stage/fairlead-$version-$t
  mkdir -p "$dir/protocol"
  for p in $programs; do cp "bin/$t/$p$exe" "$dir/"; done
  modules=$(GOOS=${t%-*} GOARCH=${t#*-} CGO_ENABLED=0 "$GO" list -deps -f '{{with .Module}}{{if not .Main}}{{.Path}} {{.Dir}}{{end}}{{end}}' \
    ./agent/cmd/fairlead-agent ./relay/cmd/fairlead-relay ./relay/cmd/fairlead | sort -u)
  while read -r module from; do
    found=
    for f in "$from"/LICEN[SC]E* "$from"/COPYING* "$from"/NOTICE*; do
      [ -f "$f" ] || continue
      mkdir -p "$dir/licenses/$module"
      cp "$f" "$dir/licenses/$module/"
      found=yes
    done
    [ -n "$found" ] || { echo "$module has no licence file" >&2; exit 1; }
  done <<<"$modules"
  mkdir -p "$dir/licenses/zxcvbn" # its list of common passwords
  cp relay/password/common.LICENSE.txt "$dir/licenses/zxcvbn/LICENSE.txt"
  cp LICENSE README.md CHANGELOG.md SECURITY.md "$dir/"
  cp -R configs docs "$dir/"
  cp protocol/SPEC.md "$dir/protocol/"
  "$stage/archive" -time "$epoch" -out "dist/fairlead-$version-$t.$form" "$dir"
  rm -rf "$dir"
done

cd dist
if command -v sha256sum >/dev/null; then sha256sum fairlead-* >SHA256SUMS; else shasum -a 256 fairlead-* >SHA256SUMS; fi
cat SHA256SUMS
