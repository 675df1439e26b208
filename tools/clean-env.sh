#!/bin/sh
# Run a command in the environment that the shell of any user has, and no more: clean-env.sh COMMAND...
# What passes with some PYTHON* variable of one machine may fail on the next, and PIP_*, MAKE* or
# SSL_* are for who prepares the tests, not for them.
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
