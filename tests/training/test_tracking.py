"""Trackers are told what events.jsonl and metrics.json say, and nothing else; whatever they do, the run goes on."""

import json
import os
import signal
import sys
import threading
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import pytest
from tensorboard.backend.event_processing.event_accumulator import EventAccumulator

from llmft.config.load import load as compose
from llmft.runs.folder import Run as Folder
from llmft.training import trackers
from llmft.training.callbacks import Progress
from llmft.training.trackers import redact_secrets, tracked

Run = Callable[..., tuple[int, str, str]]
SMOKE = ("finetune", "+recipe=bert_textcls", "smoke=true")
SECRETS = {
    "WANDB_API_KEY": "wandb-geheim-77",
    "MLFLOW_TRACKING_PASSWORD": "mlflow-geheim-77",
    "HF_TOKEN": "hf-geheim-77",
}

# What each package is asked, as a line of JSON in the file that FAKE names.
SAY = """
import json, os

def say(*what):
    with open(os.environ["FAKE"], "a") as file:
        file.write(json.dumps(what, default=str) + "\\n")
"""
FAKES = {
    "wandb": SAY + """
class Settings(dict):
    def __init__(self, **keys):
        super().__init__(keys)

class Run:
    def log(self, numbers, step):
        say("wandb", numbers, step)
    def finish(self, exit_code):
        say("wandb", "ended", exit_code)

def init(**keys):
    assert keys["settings"]["console"] == "off" and keys["settings"]["x_disable_meta"]
    say("wandb", "begun", {key: keys[key] for key in ("id", "name", "project", "mode", "resume")}, keys["config"])
    return Run()
""",
    "mlflow": SAY + """
from types import SimpleNamespace as of

class entities:
    class Param(tuple):
        def __new__(cls, key, value):
            return super().__new__(cls, (key, value))
    class Metric(Param):
        def __new__(cls, key, value, timestamp, step):
            return tuple.__new__(cls, (key, value, step))

sys_modules = __import__("sys").modules
sys_modules["mlflow.entities"] = entities

def set_experiment(name):
    say("mlflow", "experiment", name)
    return of(experiment_id="7")

def run(name):
    return of(info=of(run_id=name))

class MlflowClient:
    def search_runs(self, experiments, wanted, max_results):
        number = wanted.split("'")[1]
        begun = [line for line in open(os.environ["FAKE"]) if line.startswith('["mlflow", "begun"') and number in line]
        return [run("run-" + number)] if begun else []
    def create_run(self, experiment, tags, run_name):
        say("mlflow", "begun", run_name, tags)
        return run("run-" + tags["llmft_run"])
    def update_run(self, id, status):
        say("mlflow", "again", id, status)
    def log_batch(self, id, metrics=(), params=()):
        assert len(params) <= 100
        if params:
            say("mlflow", "config", dict(params))
        else:
            say("mlflow", {key: value for key, value, _ in metrics}, metrics[0][2])
    def set_terminated(self, id, status):
        say("mlflow", "ended", status)
""",
    "trackio": SAY + """
class Run:
    def log(self, numbers, step):
        say("trackio", numbers, step)
    def finish(self):
        say("trackio", "ended")

def init(project, name, config, resume, embed, auto_log_cpu):
    say("trackio", "begun", {"project": project, "name": name, "resume": resume}, config)
    return Run()
""",
}  # fmt: skip


@pytest.fixture
def fake(tmp_path_factory: pytest.TempPathFactory, monkeypatch: pytest.MonkeyPatch) -> Iterator[Callable[..., Path]]:
    """Stand-ins for packages, and the file that tells what they were asked."""
    folder = tmp_path_factory.mktemp("fakes")
    monkeypatch.setenv("FAKE", str(folder / "asked.jsonl"))
    monkeypatch.syspath_prepend(str(folder))
    for name, value in SECRETS.items():
        monkeypatch.setenv(name, value)

    def packages(**sources: str) -> Path:
        for name, source in sources.items():
            (folder / f"{name}.py").write_text(source)
        return folder / "asked.jsonl"

    yield packages
    for name in [name for name in sys.modules if name.split(".")[0] in FAKES]:
        del sys.modules[name]


def lines(file: Path) -> list[Any]:
    return [json.loads(line) for line in file.read_text(encoding="utf-8").splitlines()]


def told(folder: Path) -> list[tuple[str, int, float]]:
    """Every number of a run by the name that trackers know it by, in order."""
    events = [
        (f"{event['split']}/{name}", event["step"], value)
        for event in lines(folder / "events.jsonl")
        for name, value in event.items()
        if name not in ("step", "split", "time")
    ]
    scores = [
        (f"final/{split}/{name}", events[-1][1], value)
        for split, found in json.loads((folder / "metrics.json").read_text()).items()
        for name, value in found.items()
        if isinstance(value, int | float)
    ]
    return events + scores


def shown(folder: Path) -> list[tuple[str, int, float]]:
    """What TensorBoard shows of a run."""
    board = EventAccumulator(str(folder / "tensorboard"))
    board.Reload()
    return [(tag, point.step, point.value) for tag in board.Tags()["scalars"] for point in board.Scalars(tag)]


def assert_same(found: list[tuple[str, int, float]], wanted: list[tuple[str, int, float]]) -> None:
    """TensorBoard keeps float32."""
    found, wanted = sorted(found), sorted(wanted)
    assert [point[:2] for point in found] == [point[:2] for point in wanted]
    assert [point[2] for point in found] == pytest.approx([point[2] for point in wanted], rel=1e-6)


def assert_no_secret_below(folder: Path) -> None:
    for file in folder.rglob("*"):
        assert not file.is_file() or b"geheim" not in file.read_bytes(), file


def test_tensorboard_shows_every_number(llmft: Run, here: Path, fake: Any) -> None:
    code, out, err = llmft(*SMOKE, "run.dir=run", "tracking=tensorboard", "tracking.project=reviews")
    assert (code, err) == (0, "")
    assert "  tracking  tensorboard\n" in out
    assert_same(shown(here / "run"), told(here / "run"))
    board = EventAccumulator(str(here / "run/tensorboard"))
    board.Reload()
    (text,) = (event.tensor_proto.string_val[0].decode() for event in board.Tensors("config/text_summary"))
    assert "    optimizer.lr: 0.0001\n" in text
    assert_no_secret_below(here)


def test_a_run_that_goes_on_is_shown_once(llmft: Run, here: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """Stopped at step 6, its last checkpoint is spoilt: steps 5 and 6 are done again."""
    plain = Progress.on_step_end

    def on_step_end(self: Progress, args: Any, state: Any, control: Any, **kwargs: Any) -> None:
        plain(self, args, state, control, **kwargs)
        if state.global_step == 6:
            os.kill(os.getpid(), signal.SIGTERM)

    words = [*SMOKE, "run.dir=run", "tracking=tensorboard"]
    with monkeypatch.context() as patch:
        patch.setattr(Progress, "on_step_end", on_step_end)
        assert llmft(*words)[0] == 75
    (here / "run/checkpoints/checkpoint-6/committed.json").unlink()
    assert llmft(*words, "resume=true")[0] == 0
    assert_same(shown(here / "run"), told(here / "run"))
    assert len(list((here / "run/tensorboard").iterdir())) == 2


def test_the_others_are_told_the_same(llmft: Run, here: Path, fake: Any) -> None:
    asked = fake(**FAKES)
    words = [*SMOKE, "run.dir=run", "name=评论", "tracking.to=[wandb,mlflow,trackio]", "tracking.project=reviews"]
    assert llmft(*words)[0] == 0
    number = json.loads((here / "run/tracking.json").read_text())["id"]
    for name in FAKES:
        said = [what[1:] for what in lines(asked) if what[0] == name]
        points = [
            (key, step, v)
            for numbers, *more in said
            if isinstance(numbers, dict)
            for step in more
            for key, v in numbers.items()
        ]
        assert_same(points, told(here / "run"))
        config = next(table for what in said for table in what if isinstance(table, dict) and "optimizer.lr" in table)
        assert (float(config["optimizer.lr"]), config["model.name"]) == (1e-4, "tiny-bert")
        begun = next(json.dumps(what, ensure_ascii=False) for what in said if what[0] == "begun")
        assert "评论-run" in begun
        assert number in begun
        assert said[-1] == {"wandb": ["ended", 0], "mlflow": ["ended", "FINISHED"], "trackio": ["ended"]}[name]
    assert '"mode": null' in asked.read_text(), "WANDB_API_KEY is there: online"
    assert_no_secret_below(here)
    assert_no_secret_below(asked.parent)


def test_a_session_finds_the_run_of_the_one_before(here: Path, fake: Any, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.delenv("WANDB_API_KEY")
    asked = fake(**FAKES)
    config = compose("finetune", [*SMOKE[1:], "run.dir=run", "tracking.to=[wandb,mlflow,trackio]"])
    run = Folder.create(config)
    with pytest.raises(RuntimeError), tracked(config, run):
        run.event({"step": 1, "split": "train", "loss": 2.0})
        raise RuntimeError
    with tracked(config, run):
        run.event({"step": 2, "split": "train", "loss": 1.0})
    begun = [what for what in lines(asked) if what[1] == "begun"]
    for name in ("wandb", "trackio"):
        first, second = (what for what in begun if what[0] == name)
        assert first == second
        assert first[2].get("mode", "offline") == "offline"
    mlflow = [what[1:] for what in lines(asked) if what[0] == "mlflow"]
    assert [what[0] for what in mlflow if isinstance(what[0], str)] == [
        *("experiment", "begun", "config", "config", "ended"),  # the configuration, a hundred keys at a time
        *("experiment", "again", "ended"),
    ]
    assert [what[1] for what in mlflow if what[0] == "ended"] == ["KILLED", "FINISHED"]


NEVER = threading.Event()
BROKEN = {
    "at once": ("raise ConnectionError('no way to https://u:' + os.environ['WANDB_API_KEY'] + '@x\\nmore')", "ConnectionError: no way to https://u:$WANDB_API_KEY@x. It receives nothing more"),
    "at an end of its own": ("raise SystemExit(3)", "SystemExit: 3. It receives nothing more"),
    "never": ("from tests.training.test_tracking import NEVER; NEVER.wait(30)", "does not answer"),
}  # fmt: skip


@pytest.mark.parametrize("how", BROKEN)
def test_a_tracker_that_fails_stops_nobody(
    how: str, llmft: Run, here: Path, fake: Any, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(trackers, "CLOSE_TIMEOUT", 0.2)
    statement, note = BROKEN[how]
    fake(wandb=SAY + f"class Settings(dict): pass\ndef init(**keys):\n    {statement}\n")
    code, out, err = llmft(*SMOKE, "run.dir=run", "tracking.to=[wandb,tensorboard]")
    NEVER.set()
    assert (code, err) == (0, "")
    assert [line for line in out.splitlines() if "tracking by" in line] == [
        line for line in out.splitlines() if line.startswith(f"  note      tracking by wandb: {note}")
    ]
    assert out.count("tracking by wandb") == 1
    assert_same(shown(here / "run"), told(here / "run"))
    assert_no_secret_below(here)


def test_nobody_is_told_unless_asked(llmft: Run, here: Path, fake: Any) -> None:
    """transformers looks by itself for trackers that are installed."""
    asked = fake(**FAKES)
    assert llmft(*SMOKE, "run.dir=run")[0] == 0
    assert not asked.exists()
    assert not (here / "run/tracking.json").exists()
    assert not (here / "run/tensorboard").exists()


def test_only_the_first_process_tells(here: Path, fake: Any) -> None:
    asked = fake(**FAKES)
    config = compose("finetune", [*SMOKE[1:], "run.dir=run", "tracking.to=[wandb,mlflow,trackio]"])
    run = Folder.create(config)
    run.writes = False
    with tracked(config, run) as trackers:
        run.event({"step": 1, "split": "train", "loss": 2.0})
        trackers.scores({"test": {"loss": 2.0}})
    assert not asked.exists()
    assert not (here / "run/tracking.json").exists()


MISSING = "tracking.to  wandb needs the package wandb, which is not installed. Install it: pip install 'llmft[wandb]'"


@pytest.mark.parametrize("more", [[], ["-m", "seed=0,1"]])
def test_a_missing_package_is_named_before_anything_is_done(llmft: Run, here: Path, more: list[str]) -> None:
    code, _, err = llmft(*SMOKE, "tracking=wandb", *more)
    assert code == 2
    assert MISSING in err
    assert list(here.iterdir()) == []


def test_each_job_of_a_sweep_has_its_own(llmft: Run, here: Path, fake: Any) -> None:
    assert llmft(*SMOKE, "-m", "seed=0,1", "run.dir=all", "tracking=tensorboard", "trainer.max_steps=1")[0] == 0
    for seed in (0, 1):
        assert_same(shown(here / f"all/seed-{seed}"), told(here / f"all/seed-{seed}"))
    numbers = {json.loads(file.read_text())["id"] for file in here.glob("all/*/tracking.json")}
    assert len(numbers) == 2


WORDS = [
    ("tracking.to=wandb", "must be a list, got 'wandb'"),
    ("tracking.to=[wandbb]", "must be one of 'tensorboard', 'wandb', 'mlflow' or 'trackio', got 'wandbb'"),
    ("tracking=tensorbord", "Did you mean tensorboard?"),
    ("++tracking.api_key=abc", "tracking.api_key"),
    ("tracking.project=https://me:password@host/x", "tracking.project"),
]


@pytest.mark.parametrize(("word", "text"), WORDS)
def test_mistakes(llmft: Run, word: str, text: str) -> None:
    code, _, err = llmft("finetune", "+recipe=bert_textcls", word)
    assert code == 2
    assert text in err
    assert "password" not in err


def test_secrets_of_the_environment_are_not_repeated(monkeypatch: pytest.MonkeyPatch) -> None:
    for name in list(os.environ):
        monkeypatch.delenv(name)
    for name, value in {
        "A_TOKEN": "secret",
        "B_KEY": "secret-longer",
        "MY_URI": "http://u:p@h",
        "C_KEY": "1",
        "HOME": "/home/me",
    }.items():
        monkeypatch.setenv(name, value)
    assert (
        redact_secrets("/home/me: secret-longer secret http://u:p@h/api 1") == "/home/me: $B_KEY $A_TOKEN $MY_URI/api 1"
    )
