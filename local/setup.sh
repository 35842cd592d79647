#!/bin/sh
# Makes .venv in the repository: everything in requirements/dev.txt, checked against its hashes, then Huginn itself in
# place. Uses uv if there is one on PATH, else python -m venv and pip. Does nothing where the stamp says it is done.
# Then compiles the kernel for small models, where there is a compiler and it is not there yet; without it all works.
#
#   PYTHON=python3.12 sh local/setup.sh
set -eu
cd "$(dirname "$0")/.."

stamp=.venv/.huginn-stamp           # what a finished environment was made of
unfinished=.venv/.huginn-unfinished # stands in one that is new until it is finished

fail() {
    printf 'huginn: %s\n' "$@" >&2
    exit 1
}

version_of() {
    "$1" -c 'import sys; print("%d.%d.%d" % sys.version_info[:3])' 2>/dev/null
}

is_new_enough() {
    "$1" -c 'import sys; sys.exit(sys.version_info < (3, 11))' 2>/dev/null
}

# The Python named by PYTHON, or the first that will do.
choose_python() {
    for candidate in ${PYTHON:-python3 python3.13 python3.12 python3.11}; do
        if is_new_enough "$candidate"; then
            command -v "$candidate"
            return
        fi
        found="${found:+$found, }$candidate is $(version_of "$candidate" || echo 'not there')"
    done
    fail "Huginn needs Python 3.11 or newer; $found" "name another: make setup PYTHON=/path/to/python3.12"
}

# What the environment is made of; the place counts because the scripts in .venv/bin name the folder they stand in.
contents() {
    printf 'place %s\npython %s\n' "$PWD" "$(version_of "$python")"
    cksum requirements/dev.txt pyproject.toml local/setup.sh
}

# Whether what stands in .venv can be brought up to date. One made by hand, or for other requirements, can; one whose
# making was interrupted, that has another Python or that was moved here cannot.
is_usable() {
    [ ! -e "$unfinished" ] && [ "$(version_of .venv/bin/python)" = "$(version_of "$python")" ] &&
        { [ ! -e "$stamp" ] || [ "$(head -n 1 "$stamp")" = "place $PWD" ]; }
}

begin_anew() {
    rm -rf .venv
    mkdir .venv
    : >"$unfinished"
}

# The library carries the digest of what it was made of: what is up to date is left alone. It stands in the tree, not in the
# environment, and a tree that cannot be written has none.
build_kernel() {
    if [ -f functions/llm/native/build.py ]; then
        .venv/bin/python -m functions.llm.native.build --setup || true
    fi
}

# A link leads to an environment that somebody shares between trees: it is theirs to keep up to date.
if [ -L .venv ] && [ -x .venv/bin/huginn ]; then
    build_kernel
    exit 0
fi

python=$(choose_python)
wanted=$(contents)
if [ ! -e "$unfinished" ] && [ -x .venv/bin/huginn ] && [ "$(cat "$stamp" 2>/dev/null)" = "$wanted" ]; then
    build_kernel
    exit 0
fi

is_usable || begin_anew
packages=$(grep -c '^[a-z].*==' requirements/dev.txt)
if command -v uv >/dev/null; then
    echo "huginn: installing $packages pinned packages into .venv with uv" >&2
    [ -x .venv/bin/python ] || uv venv --quiet --allow-existing --python "$python" .venv
    uv pip install --quiet --python .venv/bin/python --require-hashes --requirements requirements/dev.txt
    uv pip install --quiet --python .venv/bin/python --no-build-isolation --no-deps --editable .
else
    echo "huginn: installing $packages pinned packages into .venv with pip: a minute or two" >&2
    # One that uv made has no pip.
    .venv/bin/python -m pip --version >/dev/null 2>&1 || "$python" -m venv .venv ||
        fail "$python cannot make an environment with pip; on Debian: apt-get install python3-venv"
    # Errors only: pip's warnings are about the machine's own configuration and its own age.
    .venv/bin/python -m pip install -qq --require-hashes --requirement requirements/dev.txt
    .venv/bin/python -m pip install -qq --no-build-isolation --no-deps --editable .
fi
printf '%s\n' "$wanted" >"$stamp"
rm -f "$unfinished"
build_kernel
echo "huginn: .venv is ready" >&2
