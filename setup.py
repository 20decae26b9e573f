"""The extension modules: one per kernel family, everything else is in pyproject.toml.

Environment: JSC_DEBUG=1 turns bounds checks on; JSC_NO_OPENMP=1 builds without threads;
JSC_SANITIZE=address,undefined instruments the kernels.
"""

import os
from glob import glob
from pathlib import Path

from Cython.Build import cythonize
from setuptools import Extension, setup

DEBUG = os.environ.get("JSC_DEBUG") == "1"
OPENMP = [] if os.environ.get("JSC_NO_OPENMP") == "1" else ["-fopenmp"]
SANITIZE = os.environ.get("JSC_SANITIZE")
# -fno-wrapv: Python's own flags contain -fwrapv, which hides signed overflow from the sanitizer.
SANITIZE_FLAGS = [f"-fsanitize={SANITIZE}", "-fno-wrapv", "-g"] if SANITIZE else ["-g0"]

# Compiled at the ABI floor; wider instructions come from target attributes (native/isa.h).
# Never -ffast-math: it would delete the NaN handling. The two narrow flags are torch's own.
COMPILE = ["-std=c++17", "-O3", "-fno-math-errno", "-fno-trapping-math", "-fvisibility=hidden"]
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

KERNELS = "src/jsc/_kernels"
extensions = [
    Extension(
        f"jsc._kernels.{Path(source).stem}",
        [source],
        include_dirs=[f"{KERNELS}/native"],
        depends=sorted(glob(f"{KERNELS}/native/*.h") + glob(f"{KERNELS}/*.pxd")),
        language="c++",
        extra_compile_args=[*COMPILE, *OPENMP, *SANITIZE_FLAGS],
        extra_link_args=[*OPENMP, *SANITIZE_FLAGS],
    )
    for source in sorted(glob(f"{KERNELS}/*.pyx"))
]

setup(
    ext_modules=cythonize(extensions, build_dir="build/cython", compiler_directives=DIRECTIVES),
    options={"build_ext": {"parallel": os.cpu_count()}},
)
