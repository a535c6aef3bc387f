#!/bin/sh
# The checks that need a GPU, in less than 8 minutes on one such as an H200: tests/gpu/run.sh
# Prints a table, and as its last line one JSON object. Ends with 1 where a check has failed.
#
# It needs Python, torch, torchvision, timm, numpy and Pillow, and no installation of Vitrine. What else is missing
# there (pydantic and pillow-heif, with what they need) can lie as wheels in the folder `.whl`:
#   python3 -m pip download --only-binary=:all: --python-version 3.12 --platform manylinux_2_17_x86_64 \
#       --platform manylinux_2_28_x86_64 --no-deps --dest .whl \
#       pydantic pydantic-core annotated-types typing-extensions typing-inspection pillow-heif
# Without a GPU: tests/gpu/run.sh --device cpu runs the same steps with a small model, in seconds.
set -eu
cd "$(dirname "$0")/../.."
site=$(mktemp --directory)
trap 'rm -rf "$site"' EXIT
# Empty, so that the times to compile are those of a first start.
export TORCHINDUCTOR_CACHE_DIR="$site/inductor" TRITON_CACHE_DIR="$site/triton"
if ls .whl/*.whl > /dev/null 2>&1; then
    python3 -m pip install --quiet --no-index --no-deps --no-compile --target "$site" .whl/*.whl
fi
# Errors name the release, which they read from the installation.
if ! python3 -c 'from importlib.metadata import version; version("vitrine")' 2> /dev/null; then
    mkdir "$site/vitrine-0.dist-info"
    printf 'Metadata-Version: 2.1\nName: vitrine\nVersion: 0\n' > "$site/vitrine-0.dist-info/METADATA"
fi
PYTHONPATH="$PWD:$site${PYTHONPATH:+:$PYTHONPATH}" python3 -m tests.gpu.checks "$@"
