"""The HTTP application of `--tokenizer-worker-num N`: its workers are processes in which SGLang loads no plugins.

SGLang starts them with the application that SGLANG_HTTP_SERVER_APP_PATH names: `midstep_sglang.register` says this one.
"""

from sglang.srt.plugins import load_plugins

load_plugins()

from sglang.srt.entrypoints.http_server import app  # noqa: E402 - after the hooks, or it would be without them

__all__ = ["app"]
