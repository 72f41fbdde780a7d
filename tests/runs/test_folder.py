"""What a run writes is whole, and says how it ended."""

import errno
import json
import os
from pathlib import Path

import pytest

from llmft.runs.folder import Run
from llmft.schema.problem import Failure, UserError


def test_a_file_is_there_whole_or_not_at_all(here: Path) -> None:
    run = Run(here)
    run.write_json("a/facts.json", {"标签": 1.5})
    assert (here / "a/facts.json").read_text(encoding="utf-8") == '{\n  "标签": 1.5\n}\n'
    with pytest.raises(ValueError, match="Out of range"):
        run.write_json("a/facts.json", {"x": float("nan")})
    with pytest.raises(UnicodeEncodeError):
        run.write_text("a/facts.json", "half a surrogate \ud800")
    assert json.loads((here / "a/facts.json").read_text(encoding="utf-8")) == {"标签": 1.5}


def test_the_manifest_says_how_a_run_ended(here: Path) -> None:
    for error, status in ((None, "done"), (ValueError, "failed"), (KeyboardInterrupt, "interrupted")):
        run = Run(here)
        try:
            with run.recorded({"command": "finetune"}):
                assert json.loads((here / "manifest.json").read_text())["status"] == "running"
                run.note(rows=3)
                if error:
                    raise error
        except (ValueError, KeyboardInterrupt):
            pass
        assert json.loads((here / "manifest.json").read_text()) == {
            "format": 1,
            "status": status,
            "command": "finetune",
            "rows": 3,
        }


@pytest.mark.parametrize("error", [Failure("the gradient is nan"), None])
def test_a_full_disk_hides_nothing(error: Failure | None, here: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """That the manifest cannot be written is said only where nothing else is wrong."""

    def full(_: int) -> None:
        raise OSError(errno.ENOSPC, "No space left on device")

    run = Run(here)
    kind, text = (Failure, "nan") if error else (OSError, "No space left .*manifest.json")
    with pytest.raises(kind, match=text), run.recorded({}):
        monkeypatch.setattr(os, "fsync", full)
        if error:
            raise error
    assert json.loads((here / "manifest.json").read_text())["status"] == "running"
    assert [file.name for file in here.iterdir()] == ["manifest.json"]


def test_a_run_that_others_write_is_only_read(here: Path) -> None:
    with pytest.raises(UserError, match="has no manifest"):
        Run.open(here)
    Run(here).write_json("manifest.json", {"status": "running"})
    run = Run.open(here, writes=False)
    run.write_json("metrics.json", {})
    run.write_predictions("test", iter([{}]))
    run.event({"step": 1})
    with run.recorded({}):
        pass
    assert [file.name for file in here.iterdir()] == ["manifest.json"]
    assert json.loads((here / "manifest.json").read_text()) == {"status": "running"}


def test_the_first_writer_and_the_launcher_add_to_one_manifest(here: Path) -> None:
    launcher = Run(here)
    with launcher.recorded({}):
        Run.open(here).note(rows=3)
    assert json.loads((here / "manifest.json").read_text()) == {"format": 1, "status": "done", "rows": 3}


def test_events_are_appended(here: Path) -> None:
    run = Run(here)
    assert run.events() == []
    for step in (1, 2):
        run.event({"step": step, "note": "好"})
    with (here / "events.jsonl").open("ab") as stream:
        stream.write('{"step": 3, "note": "好'.encode()[:-1])
    assert [event["step"] for event in run.events()] == [1, 2]
    assert all(event["time"] > 1.7e9 for event in run.events())


def test_half_a_line_is_dropped_when_the_run_goes_on(here: Path) -> None:
    (here / "events.jsonl").write_text('{"step": 1, "lo')
    Run(here).forget_events_after(0)
    Run(here).event({"step": 1})
    assert [event["step"] for event in Run(here).events()] == [1]
