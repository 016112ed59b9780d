#!/usr/bin/env bash
# A day with a GPU: GPU tests, tables of the bench, full-size rows, within SECONDS, into OUT.
#
#     WHEELS=wheels RMPLOSS_DATA=data benchmarks/on_gpu.sh SECONDS OUT [--parts ...] [--small]
#
# Needs Python 3.12 with torch 2.11 and triton 3.6, pytest, a compiler; no network.
# WHEELS        a folder with wheels of the dependencies that this Python lacks
# RMPLOSS_DATA  the folder with CIFAR-10
# PYTHON        the interpreter, python3 by default
# A second call with the same OUT goes on where the first ended.
set -euo pipefail
ON_GPU_BEGAN=$(date +%s)
export ON_GPU_BEGAN
python=${PYTHON:-python3}
root=$(cd "$(dirname "$0")/.." && pwd)

if [ -n "${WHEELS:-}" ]; then
    site=${TMPDIR:-/tmp}/rmploss-on-gpu-$(id -u)
    install=("$python" -m pip install -q --no-index --no-deps --no-compile --upgrade --target "$site")
    # All at once is fast; one by one, a wheel that does not fit this Python stops no other.
    "${install[@]}" "$WHEELS"/*.whl || for wheel in "$WHEELS"/*.whl; do
        "${install[@]}" "$wheel" || echo "not installed: $wheel" >&2
    done
    export PYTHONPATH="$site${PYTHONPATH:+:$PYTHONPATH}"
fi
# The package in place: its C++ kernels are for CPUs, and nothing here needs them.
export PYTHONPATH="$root/src:$root/benchmarks${PYTHONPATH:+:$PYTHONPATH}" PYTHONUNBUFFERED=1
exec "$python" -m rmploss_bench.on_gpu "$@"
