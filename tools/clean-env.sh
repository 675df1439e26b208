#!/bin/sh
# Run a command with the environment variables of an ordinary shell only: clean-env.sh COMMAND...
# A test that passes with some PYTHON* variable of one machine may fail on the next; PIP_*, MAKE* and
# SSL_* are for the set-up, not for the tests.
set -eu

for name in $(env | sed -n 's/^\([A-Za-z_][A-Za-z0-9_]*\)=.*/\1/p'); do
    case $name in
        HOME | PATH | USER | LOGNAME | SHELL | TERM | LANG | LANGUAGE | LC_* | TZ | TMPDIR | CI) ;;
        http_proxy | https_proxy | no_proxy | HTTP_PROXY | HTTPS_PROXY | NO_PROXY) ;;
        OCIROOT_* | HYPOTHESIS_*) ;;
        *) continue ;;
    esac
    # A line of another variable's value may look like a variable that there is not.
    eval "[ -z \"\${$name+set}\" ] || set -- \"$name=\$$name\" \"\$@\""
done
exec env -i "$@"
