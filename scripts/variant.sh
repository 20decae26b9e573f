#!/bin/sh
# Another build of the kernels beside the ordinary one: copies what is needed to DIRECTORY and compiles
# there, with whatever JSC_DEBUG, JSC_EMULATE, JSC_SANITIZE, CC and CXX say.
# Its tests: PYTHONPATH=DIRECTORY/src.
#   JSC_EMULATE=1 sh scripts/variant.sh .venv/bin/python build/emulate
set -eu
python=$(realpath -s "$1")
directory=$2
mkdir -p "$directory"
for name in setup.py pyproject.toml constraints.txt MANIFEST.in Makefile *.md CITATION.cff LICENSE \
    docs examples scripts src tests benchmarks; do
    [ -e "$name" ] || continue
    [ "$name" = src ] || rm -rf "${directory:?}/$name" # so that what has been moved is not tested twice
    tar -cf - --exclude='*.so' --exclude='__pycache__' --exclude='*.egg-info' "$name" |
        tar -xf - -C "$directory"
done
# What src no longer has would be imported there still: a source, or a module of a .pyx that is gone.
find "$directory/src/jsc" -type f ! -path '*/__pycache__/*' | while read -r file; do
    source=src/${file#"$directory/src/"}
    case $source in *.so) source=${source%%.*}.pyx ;; esac
    [ -e "$source" ] || rm "$file"
done
cd "$directory"
"$python" setup.py -q build_ext --inplace
