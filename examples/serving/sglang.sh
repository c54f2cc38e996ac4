#!/bin/sh
# One replica of SGLang. Arguments: the model and the port.
set -eu
export MIDSTEP_CONFIG="${MIDSTEP_CONFIG:-$(dirname "$0")/midstep.toml}"
exec sglang serve --model-path "$1" --served-model-name served --port "$2" --enable-metrics
