"""`llmft eval RUN`: other data, and everything that is wrong about a run or a wish."""

import json
from collections.abc import Callable
from pathlib import Path

import pytest
import yaml

from llmft.config.load import load
from llmft.runs.folder import Run as Opened

Run = Callable[..., tuple[int, str, str]]
Write = Callable[[str, str], Path]


@pytest.fixture
def run(llmft: Run, write: Write, here: Path) -> Path:
    """A finished run whose columns have names of their own."""
    rows = "".join(f"tavo {'lumo' if i % 2 else 'mirk'} {i},{'good' if i % 2 else 'bad'}\n" for i in range(40))
    write("train.csv", "Body,Class\n" + rows)
    columns = "dataset.columns={text: Body, label: Class}"
    words = ("+recipe=bert_textcls", "smoke=true", "run.dir=run", "dataset=csv", "dataset.train=train.csv", columns)
    assert llmft("finetune", *words)[0] == 0
    return here / "run"


def test_other_data_keep_the_columns_and_their_own_order(run: Path, llmft: Run, write: Write, here: Path) -> None:
    write("new.csv", "Class,Body,more\n" + "".join(f"{'good' if i % 2 else 'bad'},osk {i},x\n" for i in range(10)))
    code, out, err = llmft("eval", "run", "dataset=csv", "dataset.test=new.csv")
    assert code == 0, err
    (folder,) = (here / "outputs/bert_textcls").iterdir()
    metrics = json.loads((folder / "metrics.json").read_text())
    answers = [json.loads(line) for line in (folder / "predictions/test.jsonl").read_text().splitlines()]
    assert [answer["id"] for answer in answers] == [f"new.csv:{i}" for i in range(2, 12)], "the lines"
    assert sum(answer["answer"] == answer["label"] for answer in answers) / 10 == metrics["test"]["accuracy"]
    assert set(metrics) == {"test"}
    assert "report" in out
    manifest = json.loads((folder / "manifest.json").read_text())
    assert (manifest["command"], manifest["source"], manifest["status"]) == ("eval", "run", "done")


def test_columns_of_other_data_can_be_named(run: Path, llmft: Run, write: Write) -> None:
    write("new.csv", "Class,words\ngood,osk\nbad,renn\n")
    words = ("eval", "run", "dataset=csv", "dataset.test=new.csv", "run.dir=again")
    assert llmft(*words, "dataset.columns.text=words")[0] == 0


def test_an_evaluation_has_no_model_of_its_own(run: Path, llmft: Run, write: Write) -> None:
    write("new.csv", "Class,Body\ngood,osk\nbad,renn\n")
    assert llmft("eval", "run", "dataset=csv", "dataset.test=new.csv", "run.dir=scored")[0] == 0
    code, _, err = llmft("eval", "scored", "dataset=csv", "dataset.test=new.csv")
    assert code == 2
    assert "scored  is an evaluation and has no model: name its run" in err


def test_a_run_from_when_keys_had_other_names_is_evaluated(run: Path, llmft: Run, write: Write) -> None:
    """The size of its tokenizer stood beside it, and the tokenizer was a path."""
    write("new.csv", "Class,Body\ngood,osk\nbad,renn\n")
    tree = yaml.safe_load((run / "config.yaml").read_text())
    tree["model"] |= {"vocab_size": 512, "tokenizer": None}
    (run / "config.yaml").write_text(yaml.safe_dump(tree))
    code, _, err = llmft("eval", "run", "dataset=csv", "dataset.test=new.csv", "run.dir=again")
    assert code == 0, err
    assert load("predict", ["run"]).model.tokenizer.size == Opened(run).config().model.tokenizer.size == 512
    code, _, err = llmft("predict", "run", "predict.text=osk")
    assert code == 0, err
    tree["model"]["tokenizer"] = "somewhere"
    (run / "config.yaml").write_text(yaml.safe_dump(tree))
    assert load("predict", ["run"]).model.tokenizer.path == "somewhere"


REFUSED = {
    "optimizer.lr=0.1": "is fixed by training",
    "model=roberta": "is fixed by training",
    "hardware.processes=2": "eval works in one process",
    "dataset.test=new.csv dataset=csv": "must have a label of training (bad, good), got 'ugly' in test",
    "dataset.test=none.csv dataset=csv": "none.csv",
    "dataset=csv": "dataset.test",
    "run.dir=run": "is not empty",
}


@pytest.mark.parametrize("words", REFUSED)
def test_a_wish_that_cannot_be_met_is_explained(words: str, run: Path, llmft: Run, write: Write, here: Path) -> None:
    write("new.csv", "Class,Body\ngood,osk\nugly,renn\n")
    code, _, err = llmft("eval", "run", *words.split())
    assert code == 2
    assert REFUSED[words] in err
    assert not (here / "outputs").exists()


def test_a_folder_that_is_no_run(llmft: Run, here: Path) -> None:
    (here / "empty").mkdir()
    for words, what in {
        (): "RUN  must come first",
        ("dataset=csv",): "RUN  must come first",
        ("none",): "no such folder",
        ("empty",): "is not a run: it has no config.yaml",
    }.items():
        code, _, err = llmft("eval", *words)
        assert code == 2
        assert what in err


BREAKS = {
    "weights cut short": ("model/model.safetensors", lambda data: data[: len(data) // 2], "cannot be loaded"),
    "no state": ("model/task.json", None, "task.json"),
    "a state of another format": ("model/task.json", lambda data: data.replace(b'"format": 2', b'"format": 9'), "format 9"),
    "no model": ("model/config.json", None, "the run did not finish"),
    "a configuration that is none": ("config.yaml", lambda _: b"- 1\n", "is not a configuration"),
    "a configuration with a wrong key": ("config.yaml", lambda data: data.replace(b"optimizer:", b"optimiser:"), "optimiser"),
    "weights as a pickle": ("model/model.safetensors", None, "cannot be loaded"),
}  # fmt: skip


@pytest.mark.parametrize("name", BREAKS)
def test_a_run_that_is_broken_is_named(name: str, run: Path, llmft: Run) -> None:
    file, change, what = BREAKS[name]
    if change is None:
        (run / file).unlink()
    else:
        (run / file).write_bytes(change((run / file).read_bytes()))
    if name == "weights as a pickle":
        import torch

        torch.save({}, run / "model/pytorch_model.bin")
    code, _, err = llmft("eval", "run", "run.dir=again")
    assert code == 2, err
    assert what in err
