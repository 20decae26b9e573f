"""The extension modules: one per kernel family, everything else is in pyproject.toml.

Environment: JSC_DEBUG=1 turns bounds checks on; JSC_NO_OPENMP=1 builds without threads;
JSC_SANITIZE=address,undefined instruments the kernels; JSC_EMULATE=1 makes AVX-512 and AMX out of
plain C++, for tests on machines without them (simd/emulate.h). A build does not notice that one
of these has changed: scripts/variant.sh makes each in a directory of its own.
"""

import os
import re
import shutil
import sys
from pathlib import Path

from Cython.Build import cythonize
from setuptools import Extension, setup
from setuptools.command.build_ext import build_ext

DEBUG = os.environ.get("JSC_DEBUG") == "1"
OPENMP = [] if os.environ.get("JSC_NO_OPENMP") == "1" else ["-fopenmp"]
EMULATE = [("JSC_EMULATE", "1")] if os.environ.get("JSC_EMULATE") == "1" else []
SANITIZE = os.environ.get("JSC_SANITIZE")
# -fno-wrapv: Python's own flags contain -fwrapv, which hides signed overflow from the sanitizer.
SANITIZE_FLAGS = ["-g0"]
if SANITIZE:
    # -g1: reports name lines; to track variables too takes longer than the rest of the compilation.
    SANITIZE_FLAGS = [f"-fsanitize={SANITIZE}", "-fno-wrapv", "-g1", "-fno-omit-frame-pointer"]

# Compiled at the ABI floor; wider instructions come from target attributes (simd/isa.h).
# Never -ffast-math: it would delete the NaN handling. The two narrow flags are torch's own.
# Builds for tests are quicker made; without the second flag GCC makes no multiply-adds.
OPTIMIZE = ["-O1", "-fexpensive-optimizations"] if SANITIZE or EMULATE else ["-O3"]
COMPILE = [
    "-std=c++17",
    *OPTIMIZE,
    "-ffp-contract=fast",
    "-fno-math-errno",
    "-fno-trapping-math",
    "-fvisibility=hidden",
]
COMPILE += ["-Wno-psabi"]  # wide vectors are passed between always-inline functions only

DIRECTIVES = {
    "language_level": 3,
    "boundscheck": DEBUG,
    "initializedcheck": DEBUG,
    "wraparound": False,
    "cdivision": True,
    "embedsignature": True,
    "freethreading_compatible": True,
}

KERNELS = Path("src/jsc/_kernels")


def depends(source: Path) -> list[str]:
    """The headers and declarations that `source` takes in, directly or through others."""
    found, left = set(), [source, source.with_suffix(".pxd")]
    while left:
        path = left.pop()
        if path in found or not path.exists():
            continue
        found.add(path)
        text = path.read_text()
        left += [KERNELS / name for name in re.findall(r'"(\w+(?:/\w+)*\.(?:h|pxi))"', text)]
        modules = re.findall(r"from jsc\._kernels\.([\w.]+) cimport", text)
        left += [KERNELS / f"{name.replace('.', '/')}.pxd" for name in modules]
    return sorted(str(path) for path in found - {source})


extensions = [
    Extension(
        ".".join(source.relative_to("src").with_suffix("").parts),
        [str(source)],
        include_dirs=[str(KERNELS)],
        define_macros=EMULATE,
        depends=depends(source),
        language="c++",
        extra_compile_args=[*COMPILE, *OPENMP, *SANITIZE_FLAGS],
        extra_link_args=[*OPENMP, *SANITIZE_FLAGS],
    )
    for source in sorted(KERNELS.rglob("*.pyx"))
]
# They are compiled side by side: first the one that takes longest, by how much it takes in.
extensions.sort(key=lambda extension: -sum(map(os.path.getsize, extension.depends)))


class Build(build_ext):
    """Says in a sentence what is missing, before a compiler is called."""

    def build_extensions(self) -> None:
        kinds = ("compiler_so", "compiler_so_cxx")
        commands = [getattr(self.compiler, kind, None) for kind in kinds]
        for command in {c[0] for c in commands if c}:
            if not shutil.which(command):
                sys.exit(
                    f"jsc: building the kernels needs a C++ compiler, and there is no {command!r}; "
                    "install g++ or clang (Debian, Ubuntu: apt-get install g++ python3-dev), or "
                    "name yours in CC and CXX"
                )
        super().build_extensions()


setup(
    cmdclass={"build_ext": Build},
    ext_modules=cythonize(
        extensions,
        build_dir="build/cython",
        compiler_directives=DIRECTIVES,
        include_path=[str(KERNELS)],
    ),
    options={"build_ext": {"parallel": os.cpu_count()}},
)
