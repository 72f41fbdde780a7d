"""A run that was stopped goes on as if it had never been. Names in brackets: the faults of the reliability table."""

import hashlib
import json
import os
import shlex
import signal
import time
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest
import torch

from llmft.runs import checkpoints

Run = Callable[..., tuple[int, str, str]]
SMOKE = ("finetune", "+recipe=bert_textcls", "smoke=true", "trainer.save_every=2", "trainer.eval_every=2")
TABLE = ("finetune", "+recipe=tabular_mlp", *SMOKE[2:])  # half the time, for what any model is good for


def send(*signals: signal.Signals) -> Callable[..., None]:
    def act(**_: Any) -> None:
        for number in signals:
            os.kill(os.getpid(), number)

    return act


def outcome(folder: Path) -> tuple[str, list[Any], dict[str, Any]]:
    """The digest of the weights, every logged number but the time, and the scores."""
    files = sorted(file for part in ("model", "adapter") for file in (folder / part).rglob("*.safetensors"))
    weights = hashlib.sha256(b"".join(file.read_bytes() for file in files)).hexdigest()
    events = [json.loads(line) for line in (folder / "events.jsonl").read_text().splitlines()]
    metrics = json.loads((folder / "metrics.json").read_text())
    train = {key: metrics["train"][key] for key in ("steps", "epochs", "loss")}
    return weights, [{k: v for k, v in event.items() if k != "time"} for event in events], metrics | {"train": train}


STREAMED = (
    "dataset=csv",
    "dataset.train=data/*.csv",
    "dataset.validation=validation.csv",
    "dataset.split.test=0",
    "dataset.streaming=true",
    "dataset.max_rows=null",
)
LOADERS = {
    "grouped by length": [],
    "random": ["trainer.group_by_length=false"],
    "accumulation": ["trainer.accumulation=2", "trainer.batch_size=4"],
    "two workers": ["trainer.workers=2"],
    "by epochs": ["trainer.save_every=epoch", "trainer.eval_every=epoch"],
    "a frozen encoder": ["model.freeze=encoder"],
    "streamed": [*STREAMED],
    "streamed at random": [*STREAMED, "trainer.group_by_length=false"],
    "streamed, accumulation": [*STREAMED, "trainer.accumulation=2", "trainer.batch_size=4"],
    "streamed by two workers": [*STREAMED, "trainer.workers=2"],
    "an adapter": ["adapter=lora", "adapter.dropout=0.2"],
    "a prefix": ["adapter=prefix"],
    "early stopping": ["trainer.patience=2", "optimizer.lr=1e-12"],
    "plateau and l1": [
        *("scheduler=plateau", "scheduler.patience=0", "trainer.metric_for_best=loss", "optimizer.lr=0.01"),
        "optimizer.l1=0.01",
    ],
    "restarts, lion, rates by layer, unfreezing": [
        *("scheduler=cosine_with_restarts", "optimizer=lion", "optimizer.layer_decay=0.5", "model.unfreeze=1"),
    ],
    "muon": ["optimizer=muon", "optimizer.l1=0.001"],
}


@pytest.fixture
def files(write: Callable[[str, str], Path], monkeypatch: pytest.MonkeyPatch) -> None:
    """32 rows for a stream, in chunks of 7, of which two batches are shuffled at a time."""
    for name, first, last in (("data/a.csv", 0, 20), ("data/b.csv", 20, 32), ("validation.csv", 32, 40)):
        write(name, "text,label\n" + "".join(f"row {'long ' * (i % 5)}{i},{i % 2}\n" for i in range(first, last)))
    monkeypatch.setattr("llmft.data.csv_files.CHUNK", 7)
    monkeypatch.setattr("llmft.training.batches.WINDOW", 16)


# Which rows are left depends on the place of the stop; of an optimizer's state, and of weights, all is there at each.
ONCE = ("a frozen encoder", "an adapter", "plateau and l1", "restarts, lion, rates by layer, unfreezing", "muon")
LONG = ("streamed at random", "streamed, accumulation", "by epochs", "a prefix")  # what the others hold one by one


@pytest.mark.parametrize("loader", [pytest.param(name, marks=[pytest.mark.slow] * (name in LONG)) for name in LOADERS])
def test_r10_a_resumed_run_is_the_same_bit_for_bit(
    loader: str, llmft: Run, here: Path, at_step: Any, files: None
) -> None:
    """Stopped in the first epoch, at its end, and in the second; four steps an epoch."""
    words = [*SMOKE, *LOADERS[loader], "model.config.hidden_dropout_prob=0.2"]
    assert llmft(*words, "run.dir=whole")[0] == 0
    for step in (5,) if loader in ONCE else (1, 4, 5):
        if loader == "early stopping" and step == 5:
            continue  # it has stopped by itself
        at_step(step, send(signal.SIGTERM))
        assert llmft(*words, f"run.dir=stopped-{step}")[0] == 75
        assert not (here / f"stopped-{step}/model").exists()
        code, _, err = llmft(*words, f"run.dir=stopped-{step}", "resume=true")
        assert code == 0, err
        assert outcome(here / f"stopped-{step}") == outcome(here / "whole")


IMAGES = {
    "classes": ["+recipe=cifar_resnet", "task.size=16", "augment=mixup", "augment.cutmix=1.0"],
    "masks": ["+recipe=segmentation", "task.size=32", "augment.crop=24", "augment.rotate=20"],
    "boxes": ["+recipe=detection", "augment=light", "trainer.max_steps=6"],
}


@pytest.mark.parametrize("kind", IMAGES)
def test_a_resumed_run_sees_the_same_pixels(kind: str, llmft: Run, here: Path, at_step: Any) -> None:
    """Moved, mixed, and prepared by two workers or by none; stopped within the second epoch, as four steps are one."""
    if kind == "boxes":
        pytest.importorskip("faster_coco_eval")
    words = ["finetune", *IMAGES[kind], *SMOKE[2:], "augment.shear=10", "augment.zoom=0.2"]
    assert llmft(*words, "run.dir=whole")[0] == 0
    at_step(5, send(signal.SIGTERM))
    assert llmft(*words, "run.dir=stopped", "trainer.workers=2")[0] == 75
    code, _, err = llmft(*words, "run.dir=stopped", "trainer.workers=2", "resume=true")
    assert code == 0, err
    assert outcome(here / "stopped") == outcome(here / "whole")


@pytest.mark.parametrize(
    "recipe", ["image_cls", *(pytest.param(name, marks=pytest.mark.slow) for name in ("detection", "segmentation"))]
)
def test_the_command_that_a_stopped_run_on_images_prints_goes_on_with_it(
    recipe: str, llmft: Run, here: Path, at_step: Any
) -> None:
    words = ["finetune", f"+recipe={recipe}", *SMOKE[2:], "trainer.max_steps=4"]
    if recipe == "detection":
        words += ["model=centernet", "optimizer.backbone_lr=null"]
    assert llmft(*words, "run.dir=whole")[0] == 0
    at_step(3, send(signal.SIGTERM))
    code, _, err = llmft(*words, "run.dir=stopped")
    assert code == 75
    command = shlex.split(err.partition("Go on with: ")[2])
    assert command[:2] == ["llmft", "finetune"]
    code, _, err = llmft(*command[1:])
    assert code == 0, err
    assert outcome(here / "stopped") == outcome(here / "whole")


@pytest.mark.parametrize("number", [signal.SIGTERM, signal.SIGUSR1, signal.SIGINT])
def test_r12_a_signal_saves_and_stops(number: signal.Signals, llmft: Run, here: Path, at_step: Any) -> None:
    handlers = [signal.getsignal(n) for n in (signal.SIGTERM, signal.SIGUSR1, signal.SIGINT)]
    at_step(3, send(number))
    code, _, err = llmft(*TABLE, "run.dir=run")
    assert code == 75
    assert f"{number.name} after step 3" in err
    assert json.loads((here / "run/manifest.json").read_text())["status"] == "stopped"
    assert checkpoints.latest(here / "run/checkpoints") == (here / "run/checkpoints/checkpoint-3", [])
    assert [signal.getsignal(n) for n in (signal.SIGTERM, signal.SIGUSR1, signal.SIGINT)] == handlers
    # What it says to type goes on.
    words = err.strip().partition("Go on with: llmft ")[2].split()
    assert llmft(*words)[0] == 0
    assert json.loads((here / "run/metrics.json").read_text())["train"]["steps"] == 8


def test_r13_the_second_ctrl_c_leaves_at_once(llmft: Run, here: Path, at_step: Any) -> None:
    sent = 0.0

    def twice(**_: Any) -> None:
        nonlocal sent
        sent = time.monotonic()
        send(signal.SIGINT, signal.SIGINT)()

    at_step(3, twice)
    assert llmft(*TABLE, "run.dir=run")[0] == 130
    assert time.monotonic() - sent < 5
    found, passed_over = checkpoints.latest(here / "run/checkpoints")
    assert found is not None
    assert (found.name, passed_over) == ("checkpoint-2", [])
    assert json.loads((here / "run/manifest.json").read_text())["status"] == "interrupted"


def test_r4_to_r6_a_damaged_checkpoint_is_passed_over_and_named(llmft: Run, here: Path, at_step: Any) -> None:
    words = (*TABLE, "trainer.keep=3")
    assert llmft(*words, "run.dir=whole")[0] == 0
    at_step(5, send(signal.SIGTERM))
    assert llmft(*words, "run.dir=run")[0] == 75
    (here / "run/checkpoints/checkpoint-5/optimizer.pt").unlink()
    code, out, _ = llmft(*words, "run.dir=run", "resume=true")
    assert code == 0
    assert "resumes   after step 4" in out
    assert "checkpoint-5 lacks optimizer.pt; it is not used" in out
    assert outcome(here / "run") == outcome(here / "whole")


def test_r7_without_a_good_checkpoint_it_does_not_start_over(llmft: Run, here: Path, at_step: Any) -> None:
    at_step(3, send(signal.SIGTERM))
    assert llmft(*TABLE, "run.dir=run")[0] == 75
    folders = list((here / "run/checkpoints").iterdir())
    for folder in folders:
        (folder / "trainer_state.json").write_text("")
    code, _, err = llmft(*TABLE, "run.dir=run", "resume=true")
    assert code == 1
    assert all(f"{folder.name} has 0 bytes in trainer_state.json" in err for folder in folders)
    assert all(folder.is_dir() for folder in folders)


def test_r14_another_configuration_is_refused_with_what_differs(llmft: Run, here: Path, at_step: Any) -> None:
    at_step(3, send(signal.SIGTERM))
    assert llmft(*TABLE, "run.dir=run")[0] == 75
    code, _, err = llmft(*TABLE, "run.dir=run", "resume=true", "optimizer.lr=0.5", "seed=3")
    assert code == 2
    assert "optimizer.lr  was 0.002 in run and is 0.5 now" in err
    assert "seed          was 0 in run and is 3 now" in err


def test_r14_other_data_are_refused(llmft: Run, here: Path, write: Callable[[str, str], Path], at_step: Any) -> None:
    rows = "text,label\n" + "".join(f"t {i},{i % 2}\n" for i in range(40))
    write("a.csv", rows)
    words = (*SMOKE, "dataset=csv", "dataset.train=a.csv", "run.dir=run")
    at_step(3, send(signal.SIGTERM))
    assert llmft(*words)[0] == 75
    write("a.csv", rows + "one more,1\n")
    code, _, err = llmft(*words, "resume=true")
    assert code == 2
    assert "a.csv  is not what the run was started with" in err


def test_resume_before_the_start_after_the_end_and_by_name(llmft: Run, here: Path, at_step: Any) -> None:
    assert llmft(*TABLE, "resume=true", "name=mine")[0] == 0
    code, out, _ = llmft(*TABLE, "resume=true", "name=mine")
    assert code == 0
    assert "is finished" in out
    (folder,) = (here / "outputs/mine").iterdir()
    at_step(3, send(signal.SIGTERM))
    assert llmft(*TABLE, "name=mine")[0] == 75
    assert llmft(*TABLE, "name=mine", "resume=true")[0] == 0
    assert len([path for path in (here / "outputs/mine").iterdir() if path != folder]) == 1


def test_r15_weights_that_are_no_numbers_are_never_saved(llmft: Run, here: Path, at_step: Any) -> None:
    def poison(model: torch.nn.Module, **_: Any) -> None:
        with torch.no_grad():
            model.classifier.weight[0, 0] = float("nan")

    at_step(4, poison)
    code, _, err = llmft(*SMOKE, "run.dir=run", "trainer.log_every=100", "trainer.eval_every=8", "trainer.save_every=8")
    assert code == 1
    assert "loss must be a finite number, got nan at step 5. These weights are not saved" in err
    assert not list((here / "run").glob("checkpoints/*/committed.json"))


def test_r3_a_full_disk_is_said_and_earlier_checkpoints_stay(
    llmft: Run, here: Path, at_step: Any, monkeypatch: pytest.MonkeyPatch
) -> None:
    def full(**_: Any) -> None:
        def commit(path: Path) -> None:
            raise OSError(28, "No space left on device", str(path))

        monkeypatch.setattr(checkpoints, "commit", commit)

    at_step(3, full)
    code, _, err = llmft(*TABLE, "run.dir=run")
    assert code == 1
    assert "the checkpoint of step 4 cannot be written" in err
    assert "No space left on device" in err
    assert [path.name for path in (here / "run/checkpoints").iterdir()] == ["checkpoint-2"]


def test_seconds_are_those_of_all_sessions(llmft: Run, here: Path, at_step: Any) -> None:
    at_step(5, send(signal.SIGTERM))
    assert llmft(*TABLE, "run.dir=run")[0] == 75
    clock = json.loads((here / "run/checkpoints/checkpoint-5/clock_0.json").read_text())
    assert llmft(*TABLE, "run.dir=run", "resume=true")[0] == 0
    train = json.loads((here / "run/metrics.json").read_text())["train"]
    assert train["total_seconds"] > clock["total"] > 0
    assert train["evaluation_seconds"] > clock["evaluating"] > 0
    assert train["saving_seconds"] > clock["saving"]


ENDS = {
    "at the end of an epoch": [],
    "within an epoch": ["trainer.max_steps=6"],
    "early": ["trainer.patience=2", "optimizer.lr=1e-12"],
    "without validation": ["dataset=csv", "dataset.train=a.csv", "dataset.split.validation=0"],
}


@pytest.mark.parametrize("end", ENDS)
def test_a_run_that_died_after_its_last_step_only_scores_again(
    end: str, llmft: Run, here: Path, write: Callable[[str, str], Path], monkeypatch: pytest.MonkeyPatch
) -> None:
    write("a.csv", "text,label\n" + "".join(f"t {i},{i % 2}\n" for i in range(40)))
    words = (*SMOKE, *ENDS[end])
    assert llmft(*words, "run.dir=whole")[0] == 0
    with monkeypatch.context() as patch, pytest.raises(ZeroDivisionError):

        def die(*_: Any) -> None:
            raise ZeroDivisionError

        patch.setattr("llmft.commands.session.score", die)
        llmft(*words, "run.dir=run")
    assert json.loads((here / "run/manifest.json").read_text())["status"] == "failed"
    code, _, err = llmft(*words, "run.dir=run", "resume=true")
    assert code == 0, err
    assert outcome(here / "run") == outcome(here / "whole")


def test_what_was_killed_before_its_first_checkpoint_starts_over(llmft: Run, here: Path, at_step: Any) -> None:
    """kill -9 inside the first save: files, and no manifest."""
    assert llmft(*TABLE, "run.dir=whole")[0] == 0
    at_step(3, send(signal.SIGTERM))
    assert llmft(*TABLE, "run.dir=run", "trainer.keep=9")[0] == 75
    for manifest in (here / "run").glob("checkpoints/*/committed.json"):
        manifest.unlink()
    code, out, _ = llmft(*TABLE, "run.dir=run", "resume=true", "trainer.keep=9")
    assert code == 0
    assert "checkpoint-3 was not finished; it is not used" in out
    assert outcome(here / "run") == outcome(here / "whole")


def test_a_signal_while_rows_are_scored_stops_at_once(llmft: Run, here: Path, monkeypatch: Any) -> None:
    assert llmft(*TABLE, "run.dir=whole")[0] == 0
    with monkeypatch.context() as patch:
        patch.setattr("llmft.commands.session.score", lambda *_: send(signal.SIGTERM)())
        code, _, err = llmft(*TABLE, "run.dir=run")
    assert code == 75
    assert "SIGTERM after training, which is saved. Go on with: llmft finetune run/config.yaml" in err
    assert json.loads((here / "run/manifest.json").read_text())["status"] == "stopped"
    assert llmft(*err.strip().partition("Go on with: llmft ")[2].split())[0] == 0
    assert outcome(here / "run") == outcome(here / "whole")


def test_a_run_that_was_moved_still_finds_its_best_weights(llmft: Run, here: Path, at_step: Any) -> None:
    """The best of them come early: a learning rate that wrecks the model."""
    words = (*TABLE, "optimizer.lr=0.5", "scheduler=constant", "trainer.metric_for_best=loss")
    assert llmft(*words, "run.dir=whole")[0] == 0
    at_step(7, send(signal.SIGTERM))
    assert llmft(*words, "run.dir=run")[0] == 75
    (here / "run").rename(here / "moved")
    assert llmft(*words, "run.dir=moved", "resume=true")[0] == 0
    assert outcome(here / "moved") == outcome(here / "whole")


def test_best_weights_that_were_damaged_are_not_taken(llmft: Run, here: Path, at_step: Any) -> None:
    words = (*TABLE, "optimizer.lr=0.5", "scheduler=constant", "trainer.metric_for_best=loss")
    at_step(7, send(signal.SIGTERM))
    assert llmft(*words, "run.dir=run")[0] == 75
    best = json.loads((here / "run/checkpoints/checkpoint-7/trainer_state.json").read_text())["best_global_step"]
    file = here / f"run/checkpoints/checkpoint-{best}/model.safetensors"
    data = bytearray(file.read_bytes())
    data[-1] ^= 1
    file.write_bytes(bytes(data))
    code, out, _ = llmft(*words, "run.dir=run", "resume=true")
    assert code == 0
    assert f"checkpoint-{best}, the best, has a changed model.safetensors: the last weights are used instead" in out


@pytest.mark.parametrize("word", ["trainer.step_timeout=9", "trainer.keep=4", "trainer.eval_batch_size=5"])
def test_what_changes_no_result_may_differ(word: str, llmft: Run, here: Path, at_step: Any) -> None:
    at_step(3, send(signal.SIGTERM))
    assert llmft(*TABLE, "run.dir=run")[0] == 75
    assert llmft(*TABLE, "run.dir=run", "resume=true", word)[0] == 0
