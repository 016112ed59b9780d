#!/usr/bin/env bash
# Make the environment of nir 1.0.4, which sinabs and Rockpool need, and run the tests that need it. It excludes
# the newer nir of the other readers, so it is a folder in front of the environment that is active.
#
#   tools/nir_1_0_4.sh [FOLDER]          from a clone, with the environment of the tests active
set -euo pipefail
cd "$(dirname "$0")/.."
python=${PYTHON:-python}
folder=${1:-build/nir-1.0.4}
rm -rf "$folder"
"$python" -m pip install --quiet --no-deps --target "$folder" \
    nir==1.0.4 nirtorch==2.0.2 sinabs==3.1.3 pbr rockpool==3.1.0
RMPLOSS_NIR_1_0_4="$folder" "$python" -m pytest -q tests/export/test_nir_1_0_4.py
