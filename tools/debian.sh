#!/bin/sh
# Run `make test` in a fresh Debian tree, as root and as an ordinary user, with an empty environment:
# debian.sh SUITE. Needs root and mmdebstrap; what is committed is tested. In the environment: USERS,
# who runs them ("root tester", or one of the two), and ARGS, options for pytest.
#
# The tree is the root of a mount and process namespace of its own, so that buildah and podman can
# change theirs. Its kernel, its capabilities and its network are this machine's.
set -eu
cd "$(dirname "$0")/.."

suite=$1
# What the README's requirement line names.
needs=python3,python3-venv,git,make
place=$(mktemp -d "${TMPDIR:-/var/tmp}/ociroot-debian.XXXXXX")
trap 'rm -rf --one-file-system "$place"' EXIT
trap 'exit 130' INT
trap 'exit 143' TERM
tree=$place/tree

echo "Making a tree of Debian $suite in $tree" >&2
mmdebstrap --quiet --variant=minbase --include="$needs,ca-certificates" "$suite" "$tree"
mkdir "$tree/old-root" "$tree/checkout"
git archive HEAD | tar -x -C "$tree/checkout"
# `make mutants` and a test ask git for the files.
chroot "$tree" sh -c 'cd /checkout && git init -q && git add -A'
# How this machine reaches the network.
for file in /etc/resolv.conf /etc/hosts /etc/pip.conf /etc/ssl/certs/ca-certificates.crt; do
    [ ! -f "$file" ] || cp -L "$file" "$tree$file"
done
apt-config dump --no-empty --format '%f "%v";%n' Acquire >"$tree/etc/apt/apt.conf.d/99as-here"
chroot "$tree" useradd --create-home tester

status=0
for who in ${USERS:-root tester}; do
    cp -a "$tree/checkout" "$tree/of-$who"
    chroot "$tree" chown -R "$who:" "/of-$who"
    echo "Running the tests as $who" >&2
    unshare --mount --pid --fork --propagation private sh -euc '
        tree=$1 who=$2 args=$3
        mount --bind "$tree" "$tree"
        cd "$tree"
        mount -t proc proc proc
        mount --rbind /dev dev
        mount --rbind /sys sys
        mount -t tmpfs -o mode=1777 tmpfs tmp
        pivot_root . old-root
        cd /
        umount -l /old-root
        home=$(getent passwd "$who" | cut -d: -f6)
        exec env -i HOME="$home" PATH=/usr/sbin:/usr/bin:/sbin:/bin \
            setpriv --reuid "$who" --regid "$who" --init-groups \
            make -C "/of-$who" test ARGS="$args"
    ' sh "$tree" "$who" "${ARGS:-}" || status=$?
done
exit "$status"
