"""What a system without fork and POSIX modules can do, such as Windows, on a Linux that hides them from llmft."""

import json
import os
import subprocess
import sys
from pathlib import Path
from typing import Any

import pytest

from llmft.config.load import load
from llmft.schema.execution import SearchConfig
from llmft.sweeps.child import ChildJob, Reports

ROOT = Path(__file__).resolve().parents[1]
# Python runs a sitecustomize.py that it finds before all else, in the processes of a sweep's jobs too. Other packages
# keep what is hidden from llmft: on Windows they have other ways, which they choose by `sys.platform`.
HIDE = """
import builtins, os, signal, types

MODULES = {"fcntl", "resource", "termios", "tty", "pty", "pwd", "grp", "posix"}
NAMES = {
    "os": {"fork", "forkpty", "killpg", "setpgrp", "setpgid", "getpgid", "setsid", "sync", "getuid", "geteuid"},
    "signal": {"SIGUSR1", "SIGUSR2", "SIGKILL", "SIGHUP", "SIGALRM", "pthread_sigmask", "sigwait"},
}

class Lacking(types.ModuleType):
    def __init__(self, module):
        super().__init__(module.__name__)
        self.__dict__.update({k: v for k, v in vars(module).items() if k not in NAMES[module.__name__]})

lacking = {"os": Lacking(os), "signal": Lacking(signal)}
import_module = builtins.__import__

def hide(name, globals=None, *rest, **more):
    if not (globals or {}).get("__name__", "").startswith("llmft"):
        return import_module(name, globals, *rest, **more)
    if name in MODULES:
        raise ImportError(f"llmft imports {name}")
    return lacking.get(name) or import_module(name, globals, *rest, **more)

builtins.__import__ = hide
"""
WORK = """
import sys
from llmft.cli import main

SMALL = ["+recipe=bert_textcls", "smoke=true", "task.baseline=false"]
codes = [
    main(["finetune", *SMALL, "seed=1", "run.dir=run"]),
    main(["finetune", "-m", *SMALL, "seed=1,2", "sweep.jobs=2", "run.dir=sweep"]),
    main(["predict", "run", "predict.input=评论.csv", "predict.output=answers.jsonl"]),
]
from llmft.sweeps import children
assert not children.FORKS
assert not hasattr(children.signal, "SIGUSR1")
sys.exit(codes != [0, 0, 0])
"""


def read(file: Path) -> Any:
    return json.loads(file.read_text(encoding="utf-8"))


def test_a_run_a_sweep_and_predict_need_nothing_of_posix(here: Path) -> None:
    """Three processes import torch: 17 s of processor time on a calm machine, 30 s beside eight other jobs."""
    (here / "hidden").mkdir()
    (here / "hidden/sitecustomize.py").write_text(HIDE)
    (here / "评论.csv").write_text("text\nIt broke 在第一天.\nFine.\n", encoding="utf-8")
    environment = os.environ | {"PYTHONPATH": os.pathsep.join([str(here / "hidden"), str(ROOT)])}
    done = subprocess.run([sys.executable, "-c", WORK], env=environment, capture_output=True, text=True, timeout=300)
    assert done.returncode == 0, done.stdout + done.stderr
    assert [job["status"] for job in read(here / "sweep/summary.json")["jobs"]] == ["done", "done"]
    job, run = read(here / "sweep/seed-1/metrics.json"), read(here / "run/metrics.json")
    assert (job["validation"], job["test"]) == (run["validation"], run["test"]), (
        "a spawned job is the run of its values"
    )
    assert "8 steps of 8 rows" in (here / "sweep/seed-1/log.txt").read_text(encoding="utf-8")
    answers = [json.loads(line) for line in (here / "answers.jsonl").read_text(encoding="utf-8").splitlines()]
    assert len(answers) == 2


@pytest.mark.parametrize("reports", [None, Reports(Path("s/study.jsonl"), 3, SearchConfig(name="grid", trials=4))])
def test_a_spawned_job_is_told_all_but_its_data(reports: Reports | None) -> None:
    config = load("finetune", ["+recipe=bert_textcls", "run.dir=评论 1", "model.dropout=0.3", "resume=true"])
    job = ChildJob(config, first=False, known_batch_size=8, gpu=2, share=3, reports=reports)
    assert "\n" not in job.to_json()
    assert ChildJob.from_json(job.to_json()) == job
