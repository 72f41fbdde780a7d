"""`llmft finetune search=...` from words to trials, a table, pictures and the best recipe; stopped, killed and gone on with."""

import csv
import json
import os
import shlex
import signal
import sys
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest

from llmft.training import train as training
from tests.faults.test_kill import forked
from tests.faults.test_sweep_stops import after_third_step, to_parent

Run = Callable[..., tuple[int, str, str]]
ACCURACY = "trainer.metric_for_best=accuracy"
TABLE = ("finetune", "+recipe=tabular_mlp", "smoke=true", ACCURACY, "search=random", "search.trials=4", "run.dir=s")
SEARCH = (*TABLE, "optimizer.lr=log(1e-5,1e-1)", "trainer.batch_size=4,8")


def read(file: Path) -> Any:
    return json.loads(file.read_text(encoding="utf-8"))


def tried(search: Path) -> list[tuple[Any, ...]]:
    """What a search leaves that does not depend on the clock."""
    facts = read(search / "summary.json")
    jobs = [(job["folder"], job["values"], job["status"], job["validation"], job["test"]) for job in facts["jobs"]]
    return [*jobs, (facts["best"], facts["search"])]


def test_a_search_leaves_trials_pictures_and_the_best_recipe(llmft: Run, here: Path) -> None:
    code, out, err = llmft(*SEARCH)
    assert (code, err) == (0, "")
    assert "llmft finetune, search=random: 4 trials, 1 at a time, given up early by median" in out
    names = [f"trial-{number:03}" for number in range(1, 5)]
    assert sorted(path.name for path in (here / "s").iterdir()) == [
        ".lock", ".study.jsonl.lock", "best.yaml", "report.html", "study.jsonl", "summary.json", *names, "trials.csv",
    ]  # fmt: skip
    facts = read(here / "s/summary.json")
    assert [job["folder"] for job in facts["jobs"]] == names
    scores = [job["validation"]["accuracy"] for job in facts["jobs"]]
    assert facts["jobs"][names.index(facts["best"])]["validation"]["accuracy"] == max(scores)
    assert sum(facts["search"]["importance"].values()) == pytest.approx(1)
    for job in facts["jobs"]:  # a trial is the run that its values alone would be
        config = (here / "s" / job["folder"] / "config.yaml").read_text()
        assert f"  lr: {job['values']['optimizer.lr']}\n" in config
        assert f"batch_size: {job['values']['trainer.batch_size']}\n" in config
        assert "search: null" in config
    with (here / "s/trials.csv").open() as file:
        rows = list(csv.DictReader(file))
    best = [max(scores[: number + 1]) for number in range(4)]
    assert [(int(row["trial"]), float(row["accuracy"]), float(row["best"])) for row in rows] == list(
        zip(range(1, 5), scores, best, strict=True)
    )
    page = (here / "s/report.html").read_text()
    for part in (
        "Importance of keys",
        "Metric by trial",
        "Metric during training",
        "Metric by value",
        "log10 of optimizer.lr",
    ):
        assert part in page
    assert llmft("finetune", "s/best.yaml", "run.dir=again")[0] == 0
    again, won = read(here / "again/metrics.json"), read(here / "s" / facts["best"] / "metrics.json")
    assert again["validation"] == won["validation"]

    # The same command finds everything done; one with more trials goes on; another search is another.
    assert "4 of them are over already" in llmft(*SEARCH)[1]
    code, out, _ = llmft(*SEARCH, "search.trials=5")
    assert code == 0
    assert [line.partition(" ")[0] for line in out.splitlines() if line.endswith("starts")] == ["[5/5]"]
    assert [job["values"] for job in read(here / "s/summary.json")["jobs"]][:4] == [j["values"] for j in facts["jobs"]]
    code, _, err = llmft(*SEARCH, "trainer.batch_size=4,16", "seed=3")
    assert code == 2
    assert "seed                was 0 in this search and is 3 now" in err
    assert "trainer.batch_size  was '4, 8' in this search and is '4, 16' now" in err


def test_a_bad_trial_is_given_up_and_one_that_fails_is_told(
    llmft: Run, here: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    plain = training.train

    def train(experiment: Any, *rest: Any) -> Any:
        if experiment.config.seed == 6:
            raise MemoryError("no room")
        return plain(experiment, *rest)

    monkeypatch.setattr(training, "train", train)
    words = [word for word in TABLE if not word.startswith("search") and word != ACCURACY]  # by its loss
    steps = ("trainer.eval_every=2", "trainer.save_every=2", "dataset.max_rows=64")
    # Five that learn, then one that fails and one that cannot learn.
    code, out, err = llmft(
        *words, *steps, "search=grid", "optimizer.lr=0.05,1e-9", "seed=1,2,3,4,5,6", "search.trials=7"
    )
    assert (code, err) == (0, "")
    facts = read(here / "s/summary.json")
    assert [job["status"] for job in facts["jobs"]] == ["done"] * 5 + ["failed", "pruned"]
    assert "[6/7] lr=0.05 seed=6  failed after" in out
    assert "MemoryError: no room (s/trial-006/log.txt)" in out
    assert "[7/7] lr=1e-09 seed=1  pruned after" in out
    assert facts["jobs"][6]["reason"].endswith("of its steps")
    assert read(here / "s/trial-007/manifest.json")["status"] == "pruned"
    assert not (here / "s/trial-007/checkpoints").exists()
    assert "1 pruned, 1 failed" in out
    # Neither is tried again.
    _, out, _ = llmft(*words, *steps, "search=grid", "optimizer.lr=0.05,1e-9", "seed=1,2,3,4,5,6", "search.trials=7")
    assert "starts" not in out
    assert [job["reason"] for job in read(here / "s/summary.json")["jobs"]] == [job["reason"] for job in facts["jobs"]]


def test_a_search_goes_on_as_if_it_had_not_been_stopped(llmft: Run, here: Path) -> None:
    words = (*SEARCH, "search.trials=3")
    assert llmft(*words)[0] == 0
    whole = tried(here / "s")
    (here / "s").rename(here / "whole")

    with after_third_step("trial-002", to_parent(signal.SIGINT)):
        code, _, err = llmft(*words)
    assert code == 75
    assert [job["status"] for job in read(here / "s/summary.json")["jobs"]] == ["done", "stopped"]
    again = shlex.split(err.strip().partition("Go on with: ")[2])
    assert again[1:] == [*words]
    assert llmft(*again[1:])[0] == 0
    assert "resumes   after step 3" in (here / "s/trial-002/log.txt").read_text()
    assert tried(here / "s") == whole
    (here / "s").rename(here / "stopped")

    def kill() -> None:
        os.kill(os.getppid(), signal.SIGKILL)
        os.kill(os.getpid(), signal.SIGKILL)

    from llmft.cli import main

    with after_third_step("trial-003", kill):
        os.waitpid(forked(lambda: main([*words])), 0)
    assert llmft(*words)[0] == 0
    assert tried(here / "s") == whole


def test_without_optuna_it_says_how_to_get_it(llmft: Run, here: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setitem(sys.modules, "optuna", None)
    monkeypatch.delitem(sys.modules, "llmft.sweeps.study", raising=False)
    code, _, err = llmft(*SEARCH)
    assert code == 2
    assert "needs the package optuna, which is not installed. Write: pip install 'llmft[search]'." in err
    assert list(here.iterdir()) == []


def test_no_trial_with_a_score_is_a_failure(llmft: Run, here: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(training, "train", lambda *_: 1 / 0)
    code, out, err = llmft(*SEARCH, "search.trials=2", "sweep.jobs=2")
    assert (code, err) == (1, "failed: none of 2 trials has a score\n")
    assert "2 at a time" in out
    assert "ZeroDivisionError" in out


def test_no_trial_starts_after_the_time(llmft: Run, here: Path) -> None:
    code, out, _ = llmft(*SEARCH, "search.timeout=0.001")
    assert code == 0
    assert out.count("starts") == 1
