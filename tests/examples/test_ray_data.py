"""The example for Ray Data: what its actors do with a batch, at a server."""

from __future__ import annotations

import importlib.util
from pathlib import Path
from typing import Any

from scripted_server import Double, running

ROOT = Path(__file__).parents[2]


def example() -> Any:
    """Load the example."""
    spec = importlib.util.spec_from_file_location("ray_data_search", ROOT / "examples/ray_data/search.py")
    assert spec is not None
    assert spec.loader is not None
    module = importlib.util.module_from_spec(spec)
    spec.loader.exec_module(module)
    return module


def test_a_batch_is_searched_and_a_prompt_that_fails_is_told(tmp_path: Path) -> None:
    """The batch's other columns stay; a prompt's result does not depend on its batch."""
    with running(tmp_path) as folder:
        server = Double(folder)
        server.fails("<2>")
        searcher = example().Searcher(server.url)
        found = searcher({"prompt": ["<1>", "<2>", "<3>"], "id": [1, 2, 3]})
        alone = searcher({"prompt": ["<3>"]})
    assert found["id"] == [1, 2, 3]
    assert [bool(text) for text in found["text"]] == [True, False, True]
    assert [bool(error) for error in found["error"]] == [False, True, False]
    assert "told to fail <2>" in found["error"][1]
    assert found["text"][2] == alone["text"][0]
    assert found["score"][1] is None
