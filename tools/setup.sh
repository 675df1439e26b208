#!/bin/sh
# Make .venv with ociroot, unless it is up to date: setup.sh [EXTRAS]
# EXTRAS are extras of pyproject.toml, as in test,lint. PYTHON names the interpreter; the default is
# python3, or the newest one if that is too old.
set -eu
extras=${1:-}
cd "$(dirname "$0")/.."
umask 022 # the tests also run ociroot as another user

stamp=.venv/.made-for
stamp_of_extras=$stamp${extras:+-$extras}
log=.venv/setup.log

fail() {
    echo "$*" >&2
    exit 1
}

recent() {
    "$1" -c 'import sys; sys.exit(sys.version_info < (3, 11))' >/dev/null 2>&1
}

choose() {
    if [ -n "${PYTHON:-}" ]; then
        recent "$PYTHON" || fail "PYTHON=$PYTHON does not run, or is older than Python 3.11."
        echo "$PYTHON"
        return
    fi
    for candidate in python3 python3.14 python3.13 python3.12 python3.11; do
        if recent "$candidate"; then
            echo "$candidate"
            return
        fi
    done
    fail "Python 3.11 or later is needed, and there is none; if yours has another name:" \
        "make PYTHON=/path/to/python"
}

# Identify the interpreter of a name or of a virtual environment.
behind() {
    "$1" -c 'import sys; print(sys.base_prefix, sys.version)' 2>/dev/null || echo none
}

# Print everything that .venv depends on. It contains absolute paths, so a moved checkout needs another.
wanted() {
    pwd -P
    cksum pyproject.toml tools/setup.sh
}

works() {
    recent .venv/bin/python && .venv/bin/python -c 'import pip' 2>/dev/null &&
        { [ -z "${PYTHON:-}" ] || [ "$(behind .venv/bin/python)" = "$(behind "$PYTHON")" ]; }
}

# Debian has what `python3 -m venv` needs in a separate package.
has_venv() {
    "$python" -c 'import ensurepip, venv' >/dev/null 2>&1
}

create() {
    if ! has_venv && command -v apt-get >/dev/null && [ "$(id -u)" -eq 0 ]; then
        package=$("$python" -c 'import sys; print("python%d.%d-venv" % sys.version_info[:2])')
        echo "Installing the Debian package $package" >&2
        sh tools/apt-install.sh "$package" || echo "Could not install $package." >&2
    fi
    if has_venv; then
        "$python" -m venv .venv
    elif command -v uv >/dev/null; then
        uv venv --quiet --no-cache --seed --python "$(command -v "$python")" .venv
    elif command -v virtualenv >/dev/null; then
        virtualenv --quiet --python "$(command -v "$python")" .venv
    elif "$python" -m pip --version >/dev/null 2>&1; then
        "$python" -m venv --without-pip .venv
        "$python" -m pip --quiet --python .venv/bin/python install pip
    else
        fail "Python's venv module is not complete: ask root for the package python3-venv" \
            "(apt-get install python3-venv), or install uv or virtualenv."
    fi
}

made_for() {
    [ -f "$1" ] && [ "$(cat "$1")" = "$(wanted)" ]
}

keep=no
if works; then
    # Incomplete, or made by the user: complete it.
    if [ ! -f "$stamp" ] || made_for "$stamp"; then keep=yes; fi
    if made_for "$stamp" && made_for "$stamp_of_extras"; then exit 0; fi
fi
python=$(choose)
echo "Preparing .venv with $("$python" --version)${extras:+ ($extras)}, for a minute or so" >&2
if [ "$keep" = no ]; then
    rm -rf .venv
    create
fi
export PIP_DISABLE_PIP_VERSION_CHECK=1 PIP_NO_INPUT=1
package=.${extras:+[$extras]}
if ! .venv/bin/python -m pip install --editable "$package" </dev/null >"$log" 2>&1; then
    cat "$log" >&2
    fail "The packages that ociroot needs could not be installed; see above."
fi
wanted >"$stamp"
wanted >"$stamp_of_extras"
