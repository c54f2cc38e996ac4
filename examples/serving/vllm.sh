#!/bin/sh
# One replica of vLLM. Arguments: the model and the port.
set -eu
export MIDSTEP_CONFIG="${MIDSTEP_CONFIG:-$(dirname "$0")/midstep.toml}"
exec vllm serve "$1" --served-model-name served --port "$2"
