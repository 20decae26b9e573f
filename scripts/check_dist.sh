#!/bin/sh
# Tries what scripts/wheel.sh built: is the sdist complete, and does the wheel work in an environment that
# holds nothing but it and what it requires?
#   sh scripts/check_dist.sh .venv/bin/python
set -eu
python=$(realpath -s "$1")
work=$(mktemp -d)
trap 'rm -rf "$work"' EXIT
mkdir "$work/sdist"
tar -xzf dist/*.tar.gz --strip-components=1 -C "$work/sdist"
if [ -e .git ]; then
    missing=$(git ls-files | grep -v '^\.ci/' | while read -r name; do
        [ -e "$work/sdist/$name" ] || echo "$name"
    done)
    [ -z "$missing" ] || { echo "jsc: the sdist lacks: $missing; see MANIFEST.in" >&2; exit 1; }
fi
"$python" -m venv "$work/env"
"$work/env/bin/python" -m pip --disable-pip-version-check -q install -c constraints.txt torch
"$work/env/bin/python" -m pip --disable-pip-version-check -q install -c constraints.txt dist/*.whl
cd "$work" && env/bin/python -m jsc doctor
echo "jsc: sdist and wheel are in dist/, the sdist is complete and the wheel works"
