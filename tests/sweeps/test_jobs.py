"""`llmft finetune -m` from words to runs, a table and the best recipe."""

import json
import os
import subprocess
import sys
from collections.abc import Callable
from pathlib import Path
from statistics import mean
from typing import Any

import pytest
import torch

from llmft.commands import finetune, prepare
from llmft.runs.lock import held
from llmft.schema.problem import Failure
from llmft.training import train as training

Run = Callable[..., tuple[int, str, str]]
Write = Callable[[str, str], Path]
TABLE = ("finetune", "-m", "+recipe=tabular_mlp", "smoke=true", "trainer.metric_for_best=accuracy")
TEXTS = ("finetune", "-m", "+recipe=bert_textcls", "smoke=true")


def read(file: Path) -> Any:
    return json.loads(file.read_text(encoding="utf-8"))


def scores(run: Path) -> dict[str, Any]:
    metrics = read(run / "metrics.json")
    return {split: metrics[split] for split in ("validation", "test")}


def test_a_sweep_leaves_runs_a_summary_and_the_best_recipe(llmft: Run, here: Path) -> None:
    words = (*TABLE, "optimizer.lr=0.0001,0.05", "seed=0,1,2")
    code, out, err = llmft(*words)
    assert (code, err) == (0, "")
    (sweep,) = (here / "outputs/tabular_mlp").iterdir()
    names = [f"lr-{lr}_seed-{seed}" for lr in ("0.0001", "0.05") for seed in range(3)]
    assert sorted(path.name for path in sweep.iterdir()) == [
        ".lock",
        "best.yaml",
        "jobs.csv",
        *names,
        "report.html",
        "summary.json",
    ]
    page, table = (sweep / "report.html").read_text(), (sweep / "jobs.csv").read_text().splitlines()
    assert table[0] == "job,optimizer.lr,seed,status,reason,metric,validation,test,seconds,folder"
    assert table[5].startswith("5,0.05,1,done,,accuracy,0.")
    assert all(f'<a href="{name}/report.html">' in page for name in names)
    assert "accuracy by optimizer.lr" in page

    # A job is the run that its values alone would be.
    alone = [word for word in TABLE if word != "-m"]
    assert llmft(*alone, "optimizer.lr=0.05", "seed=1", "run.dir=alone")[0] == 0
    job = sweep / "lr-0.05_seed-1"
    assert (job / "config.yaml").read_text() == (here / "alone/config.yaml").read_text()
    assert scores(job) == scores(here / "alone")
    files = [{str(p.relative_to(run)) for p in run.rglob("*") if p.is_file()} for run in (job, here / "alone")]
    assert files[0] == files[1] | {"log.txt"}
    assert "8 steps of 8 rows" in (job / "log.txt").read_text()

    # The summary, by hand: sample standard deviation.
    facts = read(sweep / "summary.json")
    assert [fact["folder"] for fact in facts["jobs"]] == names
    assert {fact["status"] for fact in facts["jobs"]} == {"done"}
    for group in facts["ranking"]:
        found = [scores(sweep / folder)["validation"]["accuracy"] for folder in group["folders"]]
        sd = (sum((value - mean(found)) ** 2 for value in found) / 2) ** 0.5
        assert group["validation"] == pytest.approx({"mean": mean(found), "sd": sd, "count": 3})
    ranked = [group["validation"]["mean"] for group in facts["ranking"]]
    assert ranked == sorted(ranked, reverse=True)
    assert len(set(ranked)) == 2, "the order is not left to chance"
    best = sweep / facts["best"]
    assert facts["best"] in facts["ranking"][0]["folders"]
    assert llmft("finetune", f"{sweep.relative_to(here)}/best.yaml", "run.dir=again")[0] == 0
    assert scores(here / "again") == scores(best)

    # What was printed.
    assert "6 jobs, 1 at a time" in out
    lines = out.splitlines()
    assert "[5/6] lr=0.05 seed=1    starts" in lines
    value = scores(job)["validation"]["accuracy"]
    assert any(line.startswith(f"[5/6] lr=0.05 seed=1    accuracy {value:.4f} (validation)  ") for line in lines)
    table = [line.split() for line in lines if line.endswith(" s") and " 3 of 3 " in line]
    assert [row[:5] for row in table] == [
        [
            str(g["values"]["optimizer.lr"]),
            "accuracy",
            f"{g['validation']['mean']:.4f}",
            "±",
            f"{g['validation']['sd']:.4f}",
        ]
        for g in facts["ranking"]
    ]
    assert lines[-1] == f"  next       llmft finetune {sweep.relative_to(here)}/best.yaml"

    # The same words again find everything done.
    before = {path: path.stat().st_mtime_ns for path in sweep.glob("*/*")}
    code, out, _ = llmft(*words)
    assert code == 0
    assert "6 of them are finished already" in out
    assert "starts" not in out
    assert {path: path.stat().st_mtime_ns for path in sweep.glob("*/*")} == before


def test_a_failed_job_is_reported_when_it_fails_and_the_others_go_on(
    llmft: Run, here: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    plain = training.train

    def train(experiment: Any, *rest: Any) -> Any:
        if experiment.config.seed == 2:
            raise MemoryError("no room for 评论")
        return plain(experiment, *rest)

    monkeypatch.setattr(training, "train", train)
    diverging = ("optimizer=sgd", "optimizer.weight_decay=10", "scheduler=constant", "trainer.max_grad_norm=0")
    words = (*TABLE, *diverging, "trainer.max_steps=60", "optimizer.lr=0.001,100", "seed=1,2", "run.dir=s")
    code, out, err = llmft(*words)
    assert code == 1
    assert err == "failed: 3 of 4 jobs: lr=0.001 seed=2, lr=100 seed=1, lr=100 seed=2\n"
    ended = [line for line in out.splitlines() if line.startswith("[") and not line.endswith("starts")]
    assert [line[:5] for line in ended] == ["[1/4]", "[2/4]", "[3/4]", "[4/4]"]
    assert "MemoryError: no room for 评论 (s/lr-0.001_seed-2/log.txt)" in ended[1]
    assert "Try a smaller optimizer.lr or more scheduler.warmup_steps." in ended[2]
    assert "Traceback" in (here / "s/lr-0.001_seed-2/log.txt").read_text()
    assert "Traceback" not in (here / "s/lr-100_seed-1/log.txt").read_text()
    facts = read(here / "s/summary.json")
    assert [job["status"] for job in facts["jobs"]] == ["done", "failed", "failed", "failed"]
    assert facts["best"] == "lr-0.001_seed-1"
    assert facts["ranking"][0]["validation"]["count"] == 1
    assert facts["ranking"][1]["validation"] is None

    # Started again, what failed is tried again.
    monkeypatch.undo()
    monkeypatch.chdir(here)
    code, out, _ = llmft(*words)
    assert code == 1
    assert "1 of them is finished already" in out
    assert [job["status"] for job in read(here / "s/summary.json")["jobs"]] == ["done", "done", "failed", "failed"]


def test_recipes_of_different_tasks_two_at_a_time(llmft: Run, here: Path) -> None:
    code, out, err = llmft(
        "finetune", "-m", "+recipe=bert_textcls,tabular_mlp", "smoke=true", "sweep.jobs=2", "run.dir=s"
    )
    assert code == 0, err
    assert "2 jobs, 2 at a time" in out
    order = [line.partition(" ")[0] for line in out.splitlines() if line.endswith("starts")]
    assert order == ["[1/2]", "[2/2]"]
    assert out.index("[2/2] recipe=tabular_mlp   starts") < out.index("(validation)")
    facts = read(here / "s/summary.json")
    assert [(job["task"], job["status"]) for job in facts["jobs"]] == [
        ("text_classification", "done"),
        ("tabular", "done"),
    ]
    assert facts["best"] is None
    assert not (here / "s/best.yaml").exists()
    assert "each among its own: accuracy of text_classification, loss of tabular" in out


def test_data_are_prepared_once_and_jobs_are_added(
    llmft: Run, here: Path, write: Write, monkeypatch: pytest.MonkeyPatch
) -> None:
    for name in ("a", "评论 b"):
        write(f"{name}.csv", "text,label\n" + "".join(f"{name} {i},{i % 2}\n" for i in range(40)))
    prepared = []
    plain = prepare.prepare
    monkeypatch.setattr(prepare, "prepare", lambda config: prepared.append(config.dataset.train) or plain(config))
    words = (*TEXTS, "dataset=csv", "dataset.train=a.csv,评论 b.csv", "trainer.max_steps=1", "run.dir=s")
    assert llmft(*words, "seed=0,1")[0] == 0
    assert prepared == ["a.csv", "评论 b.csv"]
    names = ["train-a.csv_seed-0", "train-a.csv_seed-1", "train-评论_b.csv_seed-0", "train-评论_b.csv_seed-1"]
    assert [job["folder"] for job in read(here / "s/summary.json")["jobs"]] == names
    code, out, _ = llmft(*words, "seed=0,1,2")
    assert code == 0
    assert "4 of them are finished already" in out
    assert [job["status"] for job in read(here / "s/summary.json")["jobs"]] == ["done"] * 6

    # Other settings, and then other data, are not taken for those of the jobs that are there.
    code, _, err = llmft(*words, "seed=0,1", "trainer.batch_size=4")
    assert code == 2
    assert "trainer.batch_size  was 8 in s/train-a.csv_seed-0 and is 4 now" in err
    assert "s holds other jobs of these names. Name another folder." in err
    write("a.csv", "text,label\n" + "".join(f"new {i},{i % 2}\n" for i in range(40)))
    code, _, err = llmft(*words, "seed=0,1")
    assert code == 2
    assert err.count("a.csv    is not what the run was started with") == 1


def test_a_batch_is_tried_once_for_jobs_that_need_the_same_memory(
    llmft: Run, here: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Seed and optimizer do not change what fits. The size that fitted is taken, and said, by the later jobs too."""
    monkeypatch.setattr(training, "find_batch_size", lambda *_: print("tried") or 2)
    words = (*TABLE, "trainer.max_steps=1", "trainer.batch_size=4", "run.dir=s", "task.loss=cross_entropy,focal")
    assert llmft(*words, "seed=0,1", "optimizer=adamw,sgd")[0] == 0
    logs = {folder.name: (folder / "log.txt").read_text() for folder in (here / "s").iterdir() if folder.is_dir()}
    assert len(logs) == 8
    assert sum(log.startswith("tried") or "\ntried" in log for log in logs.values()) == 2
    assert all("batches of 2, 2 of them a step" in log for log in logs.values())


def test_the_problems_of_all_data_come_before_the_first_job(llmft: Run, here: Path, write: Write) -> None:
    write("a.csv", "text,label\n" + "".join(f"a {i},1\n" for i in range(40)))
    write("b.csv", "texts,label\n" + "".join(f"b {i},{i % 2}\n" for i in range(40)))
    code, out, err = llmft(*TEXTS, "dataset=csv", "dataset.train=a.csv,b.csv", "seed=0,1", "run.dir=s")
    assert code == 2
    assert "starts" not in out
    assert "2 problems in the data" in err
    assert "train has one label only, '1'; a classifier needs two (in train=a.csv seed=0)" in err
    assert "Did you mean dataset.columns.text=texts?" in err
    assert not (here / "s").exists()


def test_a_folder_of_something_else_is_left_alone(llmft: Run, here: Path, write: Write) -> None:
    write("s/notes.txt", "mine")
    code, _, err = llmft(*TABLE, "seed=0,1", "run.dir=s")
    assert code == 2
    assert "s is not empty" in err
    assert [file.name for file in (here / "s").iterdir()] == ["notes.txt"]


def test_two_sweeps_do_not_share_a_folder(llmft: Run, here: Path) -> None:
    (here / "s").mkdir()
    with held(here / "s", "another sweep"):
        code, _, err = llmft(*TABLE, "seed=0,1", "run.dir=s")
    assert code == 2
    assert "another sweep is at work in s" in err
    assert [path.name for path in (here / "s").iterdir()] == [".lock"]


HARDWARE = {
    "hardware.precision=fp32,fp16": (
        0,
        "hardware.precision  must be bf16, fp32, or auto on cpu, got fp16: it needs an NVIDIA or AMD GPU (in precision=fp16).",
    ),
    "hardware.device=cpu,cuda": (
        0,
        "hardware.device  must be a device of this machine, got cuda: torch finds no CUDA or ROCm GPU here (in device=cuda).",
    ),
    "hardware.processes=1,3": (2, "hardware.processes  must be at most 2, one for each GPU, got 3 (in processes=3)."),
    "hardware.processes=1,2 sweep.gpus=[0]": (2, "which gives each job one GPU, got 2 (in processes=2). Leave out one"),
}


@pytest.mark.parametrize("words", HARDWARE)
def test_what_the_machine_lacks_is_said_before_the_first_job(
    words: str, llmft: Run, here: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    gpus, text = HARDWARE[words]
    monkeypatch.setattr(torch.cuda, "device_count", lambda: gpus)
    monkeypatch.setattr(torch.cuda, "is_available", lambda: gpus > 0)
    code, out, err = llmft(*TABLE, *words.split(), "run.dir=s")
    assert code == 2
    assert text in err
    assert "starts" not in out
    assert not (here / "s").exists()


def told(config: Any, *_: Any) -> None:
    """In the place of a run: what a job sees of the machine; it leaves no scores, so it fails."""
    square = torch.ones(500, 500)
    print("threads", torch.get_num_threads(), "product", int((square @ square).sum()))
    print("gpu", os.environ.get("CUDA_VISIBLE_DEVICES"))
    raise Failure("told")


def test_a_gpu_for_each_job(llmft: Run, here: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    code, _, err = llmft(*TABLE, "seed=0,1", "run.dir=s", "sweep.gpus=[0,1]")
    assert code == 2
    assert "sweep.gpus  must name GPUs of this machine, which has 0, got 0" in err
    monkeypatch.setattr(torch.cuda, "device_count", lambda: 4)
    monkeypatch.setattr(finetune, "run", told)
    llmft(*TABLE, "seed=range(3)", "run.dir=s", "sweep.gpus=[1,3]")
    seen = [(here / f"s/seed-{seed}/log.txt").read_text().splitlines()[1] for seed in range(2)]
    assert seen == ["gpu 1", "gpu 3"]
    assert (here / "s/seed-2/log.txt").read_text().splitlines()[1] in seen


THREADS = """
from llmft.cli import main
from llmft.commands import finetune
from tests.sweeps.test_jobs import told
finetune.run = told
for jobs in 1, 2:
    main(["finetune", "-m", "+recipe=bert_textcls", "smoke=true", "seed=0,1", f"sweep.jobs={jobs}", f"run.dir=s{jobs}"])
"""


def test_jobs_compute_on_their_share_of_the_cores_and_do_not_hang(here: Path) -> None:
    """libgomp would hang in a child of a process that had computed on two threads."""
    environment = os.environ | {"OMP_NUM_THREADS": "2", "PYTHONPATH": str(Path(__file__).resolve().parents[2])}
    command = [sys.executable, "-c", THREADS]
    subprocess.run(command, env=environment, timeout=120, check=True, capture_output=True)
    for jobs, threads in ((1, 2), (2, 1)):
        for seed in range(2):
            assert f"threads {threads} product 125000000" in (here / f"s{jobs}/seed-{seed}/log.txt").read_text()
