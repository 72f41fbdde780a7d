"""Which run a name means: the newest finished training run, and never an evaluation or one that failed."""

import json
from collections.abc import Callable
from functools import cache
from pathlib import Path

import pytest

from llmft.config.load import load, members
from llmft.runs.folder import Run, as_recipe
from llmft.runs.index import entries, find_run, model_path, title
from llmft.schema.config import Config
from llmft.schema.problem import UserError

Make = Callable[..., Path]
TEXT = {"name": "text_classification"}


@cache
def configured() -> Config:
    return load("finetune", ["+recipe=bert_textcls"])


@pytest.fixture
def make(here: Path) -> Make:
    """A run folder as a command leaves it, with an empty model."""

    def run(folder: str, command: str = "finetune", status: str = "done", model: bool = True) -> Path:
        path = here / folder
        path.mkdir(parents=True)
        config = configured().model_copy(update={"command": command})
        (path / "config.yaml").write_text(as_recipe(config))
        (path / "manifest.json").write_text(json.dumps({"status": status, "command": command}))
        if model:
            (path / "model").mkdir()
            (path / "model/config.json").write_text('{"model_type": "bert"}')
        return path

    return run


@pytest.fixture
def tickets(make: Make) -> None:
    make("outputs/tickets/20260101-000000-aaaa")
    make("outputs/tickets/20260102-000000-0000", "pretrain")
    make("outputs/tickets/20260103-000000-ffff", status="failed", model=False)
    make("outputs/tickets/20260104-000000-0000", "eval", model=False)
    make("outputs/tickets/20260105-000000-0000", "export")
    make("outputs/评论/20260101-000000-0000", status="running")


NEWEST = "outputs/tickets/20260102-000000-0000"
MEANT = {
    "tickets": NEWEST,
    "outputs/tickets": NEWEST,
    "outputs/tickets/": NEWEST,
    "./outputs/tickets": NEWEST,
    "tickets/20260101-000000-aaaa": "outputs/tickets/20260101-000000-aaaa",
    "outputs/tickets/20260105-000000-0000": "outputs/tickets/20260105-000000-0000",
}


@pytest.mark.parametrize("word", MEANT)
def test_a_name_means_the_newest_finished_training_run(word: str, tickets: None) -> None:
    assert find_run(word) == Path(MEANT[word])
    for command in ("eval", "predict", "export"):
        assert load(command, [word]).run.source == MEANT[word]


def test_a_model_is_named_the_same_way(tickets: None, capsys: pytest.CaptureFixture[str]) -> None:
    for path in ("tickets", "outputs/tickets", NEWEST, f"{NEWEST}/model"):
        model = load("finetune", ["+recipe=bert_textcls", f"model.path={path}"]).model
        assert model.path == (path if path == f"{NEWEST}/model" else NEWEST)
        assert (model.name, model.architecture) == ("tickets/20260102-000000-0000", "bert")
    config = load("finetune", ["+recipe=bert_textcls", "model.tokenizer.path=tickets"])
    assert config.model.tokenizer.path == NEWEST
    assert [model_path(path) for path in ("bert-base-uncased", "google/t5", "package:x/y")] == [
        "bert-base-uncased",
        "google/t5",
        "package:x/y",
    ]
    capsys.readouterr()
    load("predict", ["tickets"])
    assert capsys.readouterr().err == f"tickets is {NEWEST}\n"
    load("predict", [NEWEST])
    assert capsys.readouterr().err == ""


def test_a_path_that_exists_wins_over_a_name(tickets: None, make: Make) -> None:
    make("tickets")
    assert find_run("tickets") == Path("tickets")
    (Path("tickets/config.yaml")).unlink()
    with pytest.raises(UserError, match="is not a run: it has no config"):
        find_run("tickets")


def test_a_folder_with_no_finished_run_says_what_it_has(tickets: None, make: Make) -> None:
    with pytest.raises(UserError, match=r"no finished training run; it has 20260101-000000-0000 \(finetune, killed\)"):
        find_run("评论")
    with pytest.raises(UserError, match="no finished training run"):
        load("finetune", ["+recipe=bert_textcls", "model.path=评论"])
    with pytest.raises(UserError, match=r"no such folder.*Did you mean tickets\?"):
        find_run("tickts")
    with pytest.raises(UserError, match="outputs has tickets, 评论"):
        find_run("xyz")


def test_of_a_sweep_the_best_run_is_meant_and_eval_takes_all(make: Make) -> None:
    jobs = [{"folder": name, "status": "done"} for name in ("lr-1", "lr-2")]
    for job in jobs:
        make(f"outputs/tickets/sweep-1/{job['folder']}")
    summary = Path("outputs/tickets/sweep-1/summary.json")
    summary.write_text(json.dumps({"best": "lr-2", "jobs": jobs}))
    best = Path("outputs/tickets/sweep-1/lr-2")
    assert find_run("tickets/sweep-1") == best
    assert find_run("outputs/tickets/sweep-1") == best
    assert load("predict", ["tickets/sweep-1"]).run.source == model_path("tickets/sweep-1") == str(best)
    assert title(best) == "sweep-1/lr-2"
    assert members(["outputs/tickets/sweep-1"], sweeps=True) == [summary.parent / name for name in ("lr-1", "lr-2")]
    assert members(["tickets/sweep-1"], sweeps=True) == members(["outputs/tickets/sweep-1"], sweeps=True)
    with pytest.raises(UserError, match="tickets/sweep-1 means the best run of the sweep"):
        find_run("tickets")
    summary.write_text(json.dumps({"best": None, "jobs": jobs}))
    with pytest.raises(UserError, match=r"a sweep without a best run; it has lr-1, lr-2.*Name one"):
        find_run("outputs/tickets/sweep-1")


def test_several_names_answer_together_and_each_once(tickets: None, make: Make) -> None:
    make("outputs/other/20260101-000000-0000")
    assert members(["tickets", "other"], sweeps=True) == [Path(NEWEST), Path("outputs/other/20260101-000000-0000")]
    with pytest.raises(UserError, match="is named twice"):
        members(["tickets", NEWEST], sweeps=True)


def test_a_run_is_resumed_by_its_name_and_younger_keys_are_no_difference(tickets: None, make: Make) -> None:
    make("outputs/bert_textcls/20260101-000000-0000", status="stopped")
    newest = make("outputs/bert_textcls/20260102-000000-0000", status="stopped")
    config = load("finetune", ["+recipe=bert_textcls", "resume=true"])
    file = newest / "config.yaml"
    file.write_text(file.read_text().replace("  keep_finished: false\n", "").replace("  drop_empty: false\n", ""))
    run = Run.to_resume(config)
    assert run and run.folder.absolute() == newest
    assert [entry.status for entry in entries(Path("outputs/bert_textcls"))] == ["stopped", "stopped"]
