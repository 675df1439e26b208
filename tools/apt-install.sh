#!/bin/sh
# Install Debian packages without a question, quietly unless it fails: apt-install.sh PACKAGE...
set -eu
umask 022

log=$(mktemp)
trap 'rm -f "$log"' EXIT

install() {
    DEBIAN_FRONTEND=noninteractive apt-get install -y --no-install-recommends \
        -o DPkg::Lock::Timeout=120 "$@" </dev/null >"$log" 2>&1
}

# The lists of packages are fetched when apt does not know a package, or its file has gone.
install "$@" && exit 0
if apt-get update </dev/null >"$log" 2>&1 && install "$@"; then
    exit 0
fi
cat "$log" >&2
exit 1
