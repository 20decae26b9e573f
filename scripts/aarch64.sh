#!/bin/sh
# jsc compiled for aarch64 (64-bit ARM), and its tests, on an x86-64 Debian (12 or later). QEMU runs a Python
# and a torch for aarch64; the compiler that this Python calls by name, aarch64-linux-gnu-g++, is a program of
# the machine itself, so compiling is not emulated. What is tested is what the kernels compute. Times mean
# nothing here, and threads see memory in the order of x86-64, which is stricter than that of ARM.
#   sh scripts/aarch64.sh [pytest arguments]
# Everything is in build/aarch64; Python and torch are fetched once: remove that folder to have them afresh.
set -eu
place=$(pwd)/build/aarch64
root=$place/root
python=$place/env/bin/python
# Armv8.2 without SVE: the least that torch's own library runs on. Our kernels are compiled for Armv8.0.
processor=cortex-a76
[ $# -gt 0 ] || set -- tests/kernels tests/formats tests/methods tests/network

missing=""
command -v qemu-aarch64-static >/dev/null 2>&1 || missing="$missing qemu-user-static"
command -v aarch64-linux-gnu-g++ >/dev/null 2>&1 || missing="$missing g++-aarch64-linux-gnu"
if [ -n "$missing" ]; then
    [ "$(id -u)" = 0 ] && command -v apt-get >/dev/null 2>&1 || {
        echo "jsc: missing$missing; on Debian: sudo apt-get install$missing" >&2
        exit 1
    }
    echo "jsc: installing$missing ..."
    apt-get update -qq && apt-get install -y -qq --no-install-recommends $missing >/dev/null
fi

# Python for aarch64 from the machine's own sources of packages, unpacked into a folder. apt is told that
# nothing is installed and that the architecture is another one, so it fetches all that Python needs.
if [ ! -e "$root/.ready" ]; then
    echo "jsc: fetching Python for aarch64 ..."
    rm -rf "$place"
    mkdir -p "$place/apt/lists/partial" "$place/apt/archives/partial" "$root"
    cat >"$place/apt/apt.conf" <<EOF
APT { Architecture "arm64"; Architectures { "arm64"; }; Install-Recommends "false"; Sandbox::User "root"; };
Dir { State::lists "$place/apt/lists"; State::status "/dev/null"; Cache "$place/apt"; };
Debug::NoLocking "true";
EOF
    APT_CONFIG=$place/apt/apt.conf apt-get update -qq
    APT_CONFIG=$place/apt/apt.conf apt-get install -y -qq --download-only \
        python3 python3-venv libpython3-dev libstdc++6 >/dev/null
    for package in "$place"/apt/archives/*.deb; do
        dpkg-deb --fsys-tarfile "$package" | tar -xf - -C "$root" --keep-directory-symlink
    done
    # The headers of this Python include those of its architecture by a path below /usr/include.
    ln -s ../aarch64-linux-gnu "$(echo "$root"/usr/include/python3.*)/"
    rm -rf "$place/apt"
    touch "$root/.ready"
fi

# An environment whose `python` is a script that starts QEMU under the script's own name. Processes that
# Python starts by `sys.executable` are then emulated too, without a word to the machine's kernel.
if [ ! -e "$place/env/.ready" ]; then
    echo "jsc: installing torch and what the tests need, for aarch64 (some minutes) ..."
    rm -rf "$place/env"
    mkdir -p "$place/env/bin"
    cat >"$python" <<EOF
#!/bin/sh
exec qemu-aarch64-static -cpu $processor -L "$root" -0 "\$0" "$(realpath "$root/usr/bin/python3")" "\$@"
EOF
    chmod +x "$python"
    printf 'home = %s\ninclude-system-site-packages = false\n' "$root/usr/bin" >"$place/env/pyvenv.cfg"
    # The oldest torch of the metadata: it is the CPU build. Newer ones for aarch64 bring gigabytes of CUDA.
    grep -v '^torch==' constraints.txt >"$place/constraints.txt"
    needs=$("$python" - <<'EOF'
import re
import tomllib

with open("pyproject.toml", "rb") as file:
    project = tomllib.load(file)["project"]
extras = project["optional-dependencies"]
needs = [*project["dependencies"], "setuptools", "Cython"]
for extra in ("test", "demo", "progress", "plots", "jpeg", "doctor"):
    needs += [need for need in extras[extra] if not need.startswith(project["name"])]
print(*(re.sub(r"torch>=([\d.]+),.*", r"torch==\1.*", need) for need in needs))
EOF
    )
    # Without compiling modules: those that are imported are compiled then.
    pip=$(echo "$root"/usr/share/python-wheels/pip-*.whl)
    PYTHONWARNINGS=ignore "$python" "$pip/pip" --disable-pip-version-check -q install --no-compile \
        -c "$place/constraints.txt" $needs
    touch "$place/env/.ready"
fi

echo "jsc: compiling the kernels for aarch64 (some minutes) ..."
# Python believes that its headers are in /usr/include, where this machine may have its own.
CPPFLAGS=-I$(echo "$root"/usr/include/python3.*) sh scripts/variant.sh "$python" "$place/jsc"
cd "$place/jsc"
export PYTHONPATH="$PWD/src" OMP_WAIT_POLICY=passive
"$python" -m jsc doctor
"$python" -m pytest -q -n auto --maxprocesses 8 -p no:cacheprovider "$@"
