#!/usr/bin/env bash
# What a GPU must show, in under eight minutes: benchmarks/gpu.sh [FOLDER] writes FOLDER/gpu.json and FOLDER/gpu.md.
#
# PYTHON (python3 by default) has a CUDA build of torch. What else is missing there is put in a folder of its own, from
# the registry or, with WHEELS=FOLDER, from the wheels in that folder, where nothing can be fetched:
#     pip wheel --no-deps -w wheels . && pip download -d wheels vegas gvar pydantic madnis pythia8mc ...
# DEVICE=cpu SIZE=tiny tries the script where there is no GPU.
set -euo pipefail
root=$(cd "$(dirname "${BASH_SOURCE[0]}")/.." && pwd)
results=${1:-$root/benchmarks/results}
python=${PYTHON:-python3}
extra=$(mktemp -d)
trap 'rm -rf "$extra"' EXIT

has() { "$python" -c "import importlib.metadata as m; m.version('$1')" 2>/dev/null; }

wanted=()
for package in numpy scipy matplotlib h5py safetensors typer click shellingham rich markdown-it-py mdurl pygments \
    annotated-doc vegas gvar pydantic pydantic-core annotated-types typing-inspection numba llvmlite threadpoolctl \
    madnis pylhe pythia8mc; do
    has "$package" || wanted+=("$package")
done
if ! has nisampler; then
    local_wheel=$(ls "${WHEELS:-/nowhere}"/nisampler-*.whl 2>/dev/null | head -1 || true)
    wanted+=("${local_wheel:-$root}")
fi
for package in "${wanted[@]}"; do
    "$python" -m pip install --quiet --no-deps --target "$extra" ${WHEELS:+--no-index --find-links "$WHEELS"} "$package" ||
        echo "$package is not there: the parts that need it will say so" >&2
done
export PYTHONPATH="$extra${PYTHONPATH:+:$PYTHONPATH}" PYTHONUNBUFFERED=1

mkdir -p "$results"
failed=0
"$python" "$root/benchmarks/gpu.py" --device "${DEVICE:-cuda}" --size "${SIZE:-full}" \
    --seconds "${SECONDS_IN_ALL:-440}" --output "$results/gpu.json" || failed=$?
[ "$failed" -gt 1 ] && exit "$failed"
"$python" "$root/benchmarks/gpu_table.py" "$results/gpu.json"
