#!/bin/sh
# The kernels' tests with the address and undefined-behaviour sanitizers compiled in, AVX-512 and AMX
# emulated (simd/emulate.h) beside what the processor has. Silent, or it fails. JSC_EMULATE=0 takes the
# processor's own instructions, JSC_EMULATE="0 1" both.
#   sh scripts/sanitize.sh .venv/bin/python [pytest arguments]
set -eu
python=$(realpath -s "$1")
shift
tests="tests/kernels tests/network tests/formats tests/methods tests/reliability/test_differential.py"
root=$(pwd)
compiler=${CC:-gcc}
for emulate in ${JSC_EMULATE:-1}; do
    directory=$root/build/sanitize$emulate
    echo "jsc: building with sanitizers, JSC_EMULATE=$emulate (some minutes) ..."
    JSC_EMULATE=$emulate JSC_SANITIZE=address,undefined sh scripts/variant.sh "$python" "$directory"
    cd "$directory"
    rm -f report.*
    # Leaks are not looked for: CPython's own are too many. Reports go to files, so that one run finds all.
    # torch's compiler is left out: what it compiles and loads knows nothing of the sanitizers.
    LD_PRELOAD="$("$compiler" -print-file-name=libasan.so) $("$compiler" -print-file-name=libubsan.so)" \
        PYTHONMALLOC=malloc PYTHONPATH="$directory/src" OMP_WAIT_POLICY=passive \
        ASAN_OPTIONS="detect_leaks=0:allocator_may_return_null=1:log_path=$directory/report" \
        UBSAN_OPTIONS="print_stacktrace=1:log_path=$directory/report" \
        "$python" -m pytest -q -n auto --maxprocesses 8 -p no:cacheprovider -k "not func_compile" $tests "$@"
    cd "$root"
    # Tests ask for more memory than there is: that it was refused is no fault.
    if cat "$directory"/report.* 2>/dev/null | grep -v "WARNING: AddressSanitizer failed to allocate"; then
        echo "jsc: the sanitizers found something" >&2
        exit 1
    fi
done
echo "jsc: the sanitizers found nothing"
