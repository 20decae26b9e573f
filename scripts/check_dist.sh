#!/bin/sh
# Builds the sdist, the wheel from that sdist, and imports the wheel in an environment of its own.
set -eu
python=$1
"$python" -m pip --disable-pip-version-check -q install -c constraints.txt build
rm -rf dist && "$python" -m build --outdir dist . >/dev/null
work=$(mktemp -d)
trap 'rm -rf "$work"' EXIT
"$python" -m venv "$work/env"
"$work/env/bin/python" -m pip --disable-pip-version-check -q install -c constraints.txt torch
"$work/env/bin/python" -m pip --disable-pip-version-check -q install -c constraints.txt dist/jsc-*.whl
cd "$work" && env/bin/python -m jsc doctor
echo "jsc: sdist and wheel are in dist/ and the wheel works"
