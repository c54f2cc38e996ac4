#!/usr/bin/env bash
# Run the tests that need a GPU, with the Python, torch and Triton of the machine that has one; nothing is installed.
# It wants pytest, hypothesis, pydantic and pluggy beside them (PACKAGES: a folder that holds what is missing).
set -euo pipefail
cd "$(dirname "$0")/.."
path=${PACKAGES:-}
for folder in plugins/core plugins/eager samplers/*/ logits_processors/*/ reward_hooks/*/*/; do
    path=$path:$PWD/${folder%/}
done
# The files that have such tests: reading all the others takes longer than these do, and may want what is not there.
mapfile -t files < <(grep -rlE --include='test_*.py' --exclude-dir={engines,ground} 'on_devices|mark\.gpu' tests)
# Other versions than the pinned ones may warn of other things.
PYTHONPATH=${path#:} exec "${PYTHON:-python3}" -m pytest -o filterwarnings=default -m gpu "${files[@]}" "$@"
