#!/bin/sh
# Build the sample image, extract it and show what came out: demo.sh [DIRECTORY-OF-PROGRAMS]
# shellcheck disable=SC2016 # commands are shown as one would type them
set -eu
cd "$(dirname "$0")/.."
umask 022
bin=$(cd "${1:-.venv/bin}" && pwd)
PATH=$bin:$PATH
export PATH LC_ALL=C.UTF-8 # names that are not ASCII are shown, not escaped

demo=$(mktemp -d "${TMPDIR:-/tmp}/ociroot-demo.XXXXXX")
trap 'rm -rf "$demo"' EXIT
trap 'exit 130' INT
trap 'exit 143' TERM
trap 'exit 129' HUP
trap 'exit 141' PIPE

# Show a command as one would type it, then do it.
run() {
    printf '\n$ %s\n' "$1"
    eval "$1"
}

printf '$ %s\n' "PATH=$bin:\$PATH" "demo=$demo"
run 'python examples/sample_image.py "$demo/sample.tar"'
run 'ociroot extract -v --json "$demo/sample.tar" "$demo/rootfs" > "$demo/report.json"'

printf '\nThe tree: mode, links, owner, size, time, name, target\n'
run 'cd "$demo/rootfs" && find . -printf "%M %n %4U:%-4G %4s  %TF %.12TT  %p  %l\n" | sort -k 7'
if ! grep -q xattrs- "$demo/report.json"; then # as a destination without any would have it
    run 'python -c "import os; print(os.getxattr(\"srv/app/grüße.txt\", \"user.language\"))"'
fi

printf '\nHow the image is to be started\n'
run 'python -c "import json; print(json.dumps(json.load(open(0))[\"config\"], indent=2, ensure_ascii=False))" < "$demo/report.json"'
