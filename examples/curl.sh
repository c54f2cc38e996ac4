#!/bin/sh
# curl at a server of either engine. Arguments: the server's URL, its engine (vllm or sglang), and its key, if any.
# Methods in flat keys; vLLM takes them under vllm_xargs, SGLang under custom_params.
set -eu
url=$1
case ${2:-vllm} in vllm) entry=vllm_xargs ;; *) entry=custom_params ;; esac
curl --silent --show-error --fail-with-body "$url/v1/completions" \
    --header "Content-Type: application/json" --header "Authorization: Bearer ${3:-none}" \
    --data '{
        "model": "'"${MODEL:-m}"'", "prompt": "Once upon a time", "max_tokens": 20, "temperature": 1.2, "seed": 7,
        "'"$entry"'": {"midstep.min_p.p": 0.1, "midstep.deepconf.threshold": 4.0, "midstep.deepconf.window": 8}
    }'
