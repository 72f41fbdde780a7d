"""Smoke runs of both tasks, trained once for all tests of this folder, which only read them."""

from pathlib import Path

import pytest

from llmft.cli import main

RECIPES = {"text_classification": "bert_textcls", "tabular": "tabular_mlp"}


@pytest.fixture(scope="session")
def runs(tmp_path_factory: pytest.TempPathFactory) -> dict[str, Path]:
    """A finished smoke run of each task."""
    folder = tmp_path_factory.mktemp("runs")
    with pytest.MonkeyPatch.context() as patch:
        patch.setenv("LLMFT_CACHE", str(folder / "cache"))
        for task, recipe in RECIPES.items():
            assert main(["finetune", f"+recipe={recipe}", "smoke=true", f"run.dir={folder / task}"]) == 0
    return {task: folder / task for task in RECIPES}
