#!/bin/sh
# Is there what a build of jsc needs: Python >= 3.10 with venv and headers, and a C++ compiler?
# On Debian and Ubuntu, as root, what is missing is installed; elsewhere it is named.
set -eu
python=${1:-python3}

"$python" -c 'import sys; sys.exit(sys.version_info < (3, 10))' 2>/dev/null || {
    echo "jsc: needs Python >= 3.10, and '$python' is not; run: make PYTHON=python3.11 ..." >&2
    exit 1
}
missing=""
command -v "${CXX:-c++}" >/dev/null 2>&1 || missing="$missing g++"
"$python" -c 'import ensurepip' 2>/dev/null || missing="$missing python3-venv"
has_headers='import os, sysconfig, sys
sys.exit(not os.path.exists(sysconfig.get_path("include") + "/Python.h"))'
"$python" -c "$has_headers" ||
    missing="$missing python3-dev"
[ -z "$missing" ] && exit 0

if [ "$(id -u)" = 0 ] && command -v apt-get >/dev/null 2>&1; then
    echo "jsc: installing$missing ..."
    apt-get update -qq && apt-get install -y -qq $missing >/dev/null
else
    echo "jsc: missing$missing; on Debian or Ubuntu: sudo apt-get install$missing" >&2
    exit 1
fi
