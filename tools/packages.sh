#!/bin/sh
# Install the Debian packages that the tests and the bench compare with, if possible; otherwise print
# the missing ones. Tests whose programs are missing are skipped, so this never fails.
set -eu

packages='umoci skopeo buildah podman mmdebstrap crun runc lxc libarchive-tools zstd pigz
squashfs-tools squashfs-tools-ng cpio erofs-utils e2fsprogs btrfs-progs xfsprogs dosfstools fusefat attr acl libcap2-bin uidmap fuse-overlayfs git util-linux xz-utils tar
gcc libc6-dev libisal-dev libzstd-dev libssl-dev'

command -v apt-get >/dev/null && command -v dpkg-query >/dev/null || exit 0

missing=
for package in $packages; do
    status=$(dpkg-query --show --showformat='${db:Status-Status}' "$package" 2>/dev/null) || status=
    [ "$status" = installed ] || missing="$missing $package"
done
[ -n "$missing" ] || exit 0

if [ "$(id -u)" -ne 0 ]; then
    echo "Not installed, as only root may:$missing. Tests that need them are skipped." >&2
    exit 0
fi
echo "Installing Debian packages:$missing" >&2
# shellcheck disable=SC2086 # it is a list
sh tools/apt-install.sh $missing ||
    echo "Could not install:$missing. Tests that need them are skipped." >&2
