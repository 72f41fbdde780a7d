"""`llmft export RUN`: every format, loaded back and scored, and what is refused."""

import json
import os
import re
import shutil
import signal
import sys
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest
import torch
from safetensors.torch import load_file

from llmft.cli import main
from llmft.commands import session
from llmft.data.files import digest
from llmft.exports import export, programs, quantization
from llmft.schema.inference import DIFFERENCE, PRECISIONS

Run = Callable[..., tuple[int, str, str]]
Runs = dict[str, Path]
TRUST = "model.trust_remote_code=true"

CASES = [
    ("text_classification", "onnx", "fp32"),
    ("text_classification", "onnx", "int8"),
    ("text_classification", "safetensors", "fp16"),
    ("tabular", "onnx", "fp32"),
    ("tabular", "onnx", "fp16"),
    ("tabular", "onnx", "int8"),
    ("tabular", "pt2", "fp32"),
    ("tabular", "pt2", "fp16"),
    ("tabular", "openvino", "fp32"),
    ("tabular", "openvino", "fp16"),
    ("tabular", "safetensors", "fp32"),
]
# Tracing a transformer takes seconds, and the other formats differ from ONNX by a call.
SLOW = [
    ("text_classification", "onnx", "fp16"),
    ("text_classification", "pt2", "fp32"),
    ("text_classification", "openvino", "fp32"),
]


def test_every_pair_is_tried() -> None:
    assert {case[1:] for case in CASES} == {(name, p) for name, found in PRECISIONS.items() for p in found}


def read(folder: Path) -> dict[str, Any]:
    return json.loads((folder / "export.json").read_text())


@pytest.mark.parametrize(
    ("task", "format", "precision"), [*CASES, *(pytest.param(*case, marks=pytest.mark.slow) for case in SLOW)]
)
def test_an_export_answers_as_its_run_does(
    task: str, format: str, precision: str, runs: Runs, llmft: Run, here: Path
) -> None:
    # What a tiny model answers is a guess, and may turn over with the smallest change.
    words = [f"export.format={format}", f"export.precision={precision}", "export.max_loss=1", "run.dir=out"]
    code, out, err = llmft("export", str(runs[task]), *words)
    assert code == 0, err
    assert "check     llmft eval out" in out
    assert "next      llmft serve out" in out
    assert [path.name for path in here.iterdir()] == ["out"], "the hidden folder is gone"

    facts = read(here / "out")
    assert (facts["format"], facts["precision"], facts["source"]) == (format, precision, str(runs[task]))
    assert facts["sha256"] == {
        f.name: digest(f) for f in sorted((here / "out/model").iterdir()) if f.name != "committed.json"
    }
    assert facts["bytes"]["original"] > (runs[task] / "model/model.safetensors").stat().st_size - 1
    shapes = facts["parity"]["shapes"]
    assert len({json.dumps(shape["inputs"]) for shape in shapes}) == 5
    assert all(shape["difference"] <= DIFFERENCE[precision] for shape in shapes)
    assert (facts["parity"]["padding"] is None) == (task == "tabular")
    assert [batch["ratio"] > 0 for batch in facts["latency_ms"]["batches"]] == [True, True]
    axes = {"text_classification": ["batch", "length"], "tabular": ["batch", 2]}[task]
    assert next(iter(facts["inputs"].values()))["shape"] == axes
    assert ("opset" in facts) == (format == "onnx")

    trust = [TRUST] if format == "pt2" else []
    code, out, err = llmft("eval", "out", "run.dir=again", *trust)
    assert code == 0, err
    scores, originals = (json.loads((f / "metrics.json").read_text())["test"] for f in (here / "again", runs[task]))
    assert scores["accuracy"] == facts["parity"]["metric"]["exported"]
    assert scores["loss"] == pytest.approx(originals["loss"], abs=DIFFERENCE[precision])
    if precision == "fp32":
        assert scores["accuracy"] == originals["accuracy"]
    if format != "safetensors":
        assert f"exported to {format}, {precision}" in out

    card = (here / "out/README.md").read_text()
    assert card.endswith(".\n")
    (code_block,) = re.findall(r"^```python\n(.*?)^```", card, re.M | re.S)
    found: dict[str, Any] = {}
    with pytest.MonkeyPatch.context() as patch:
        patch.chdir(here / "out")
        exec(code_block, found)
    if format == "safetensors":
        assert found["model"].config.num_labels == 2
        return
    row = {"text": "Some text."} if task == "text_classification" else found["row"]
    words = f"predict.{'text=Some text.' if task == 'text_classification' else f'row={json.dumps(row)}'}"
    code, out, err = llmft("predict", "out", words, *trust)
    assert code == 0, err
    expected = pytest.approx(list(json.loads(out)["scores"].values()), abs=1e-5 if precision == "fp32" else 0.02)
    assert found["outputs"]["scores"][0].tolist() == expected


def test_a_model_that_one_file_cannot_hold_has_two(
    runs: Runs, llmft: Run, here: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(quantization, "SINGLE", 0)
    assert llmft("export", str(runs["tabular"]), "run.dir=out")[0] == 0
    assert "model.onnx.data" in read(here / "out")["sha256"]
    assert llmft("eval", "out", "run.dir=again")[0] == 0


REFUSED = {
    "export.format=pt2 export.precision=int8": [
        "pt2 does not support int8 (command line)",
        "onnx in fp32, fp16, int8",
    ],
    "export.precision=int4": ["must be one of 'fp32', 'fp16' or 'int8', got 'int4'"],
    "export.format=gguf": ["does not write them", "python convert_hf_to_gguf.py RUN/model --outfile model.gguf"],
    "export.max_loss=-1": ["must be at least 0, got -1"],
    "optimizer.lr=1": ["is fixed by training; export accepts export, dataset"],
    "dataset=csv": ["dataset.test", "is compared with the original"],
    "run.dir=RUN": ["is not empty"],
}


@pytest.mark.parametrize("words", REFUSED)
def test_a_wish_that_cannot_be_met_is_explained(words: str, runs: Runs, llmft: Run, here: Path) -> None:
    run = str(runs["tabular"])
    code, _, err = llmft("export", run, *words.replace("RUN", run).split())
    assert code == 2
    for part in REFUSED[words]:
        assert part.replace("RUN", run) in err
    assert list(here.iterdir()) == []


@pytest.mark.parametrize(
    ("format", "package", "extra"), [("onnx", "onnxscript", "export"), ("openvino", "openvino", "openvino")]
)
def test_a_missing_package_is_named_with_its_extra(format: str, package: str, extra: str, runs: Runs, llmft: Run, here: Path, monkeypatch: pytest.MonkeyPatch) -> None:  # fmt: skip
    monkeypatch.setitem(sys.modules, package, None)
    code, _, err = llmft("export", str(runs["tabular"]), f"export.format={format}")
    assert code == 2
    assert f"{format} needs the package {package}" in err
    assert f"pip install 'llmft[{extra}]'" in err
    assert list(here.iterdir()) == []


def other_weights(program: Any, *rest: Any) -> Any:
    """What a wrong conversion does: the last layer is not that of the original."""
    model = program.model
    before = model.classifier.bias.detach().clone()
    with torch.no_grad():
        model.classifier.bias += 1.0
    written = programs.write(program, *rest)
    with torch.no_grad():
        model.classifier.bias.copy_(before)
    return written


def unknown_operation(*_: Any) -> Any:
    raise RuntimeError("no such operation\nand a long story")


@pytest.mark.parametrize("where", [["run.dir=out"], []])
def test_an_export_that_is_not_the_original_fails_and_leaves_nothing(where: list[str], runs: Runs, llmft: Run, here: Path, monkeypatch: pytest.MonkeyPatch) -> None:  # fmt: skip
    monkeypatch.setattr(export, "write", other_weights)
    code, _, err = llmft("export", str(runs["tabular"]), "export.format=safetensors", *where)
    assert code == 1
    assert "the export differs from the original (limit 0.0001) and was removed: outputs differ by" in err
    assert [path for path in here.rglob("*") if path.is_file() or path.name.startswith(".")] == []


def test_a_model_that_cannot_be_converted_fails_and_leaves_nothing(runs: Runs, llmft: Run, here: Path, monkeypatch: pytest.MonkeyPatch) -> None:  # fmt: skip
    monkeypatch.setitem(programs.WRITERS, "onnx", unknown_operation)
    code, _, err = llmft("export", str(runs["tabular"]), "run.dir=out")
    assert (code, err) == (1, "failed: MLPForClassification cannot be written as onnx: no such operation\n")
    assert list(here.iterdir()) == []


def test_a_signal_leaves_nothing(runs: Runs, llmft: Run, here: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(export, "write", lambda *_: os.kill(os.getpid(), signal.SIGTERM))
    before = signal.signal(signal.SIGTERM, signal.SIG_IGN)  # else a mistake ends the tests
    try:
        code, _, err = llmft("export", str(runs["tabular"]), "run.dir=out")
        assert signal.getsignal(signal.SIGTERM) == signal.SIG_IGN
    finally:
        signal.signal(signal.SIGTERM, before)
    assert (code, err) == (130, "\ninterrupted\n")
    assert list(here.iterdir()) == []


@pytest.mark.parametrize("format", ["onnx", pytest.param("pt2", marks=pytest.mark.slow)])
def test_a_transformer_of_tables_takes_any_number_of_rows(format: str, llmft: Run, here: Path) -> None:
    """With bins, which stand inside the program: it takes as many numbers as without."""
    words = ("+recipe=tabular_mlp", "model=ft_transformer", "smoke=true", "task.bins=4", "optimizer.lr=0.05")
    assert llmft("finetune", *words, "run.dir=run")[0] == 0
    assert load_file(here / "run/model/model.safetensors")["bin_vectors"].abs().max() > 0.01
    code, _, err = llmft("export", "run", f"export.format={format}", "run.dir=out")
    assert code == 0, err
    facts = read(here / "out")
    assert len({shape["inputs"]["numbers"][0] for shape in facts["parity"]["shapes"]}) == 5
    assert max(shape["difference"] for shape in facts["parity"]["shapes"]) <= DIFFERENCE["fp32"]
    assert facts["inputs"]["numbers"]["shape"] == ["batch", 2]


def test_a_program_answers_with_the_number_itself(llmft: Run, write: Callable[[str, str], Path], here: Path) -> None:
    """Not on the scale that it was trained on; and the example of the card answers as `llmft predict` does."""
    rows = [f"{i % 9 * 7},{i % 28 + 1:02}.03.2024,{'ab'[i % 2]},{90_000 + 1_000 * (i % 9)}" for i in range(80)]
    write("a.csv", "\n".join(["area,built,town,price", *rows, ",,,91000", ",,,92000"]))
    words = ("smoke=true", "dataset=csv", "dataset.train=a.csv", "dataset.columns.label=price", "dataset.max_overlap=1")
    for scaling in ("standard", "quantile"):
        run, out = f"run_{scaling}", f"out_{scaling}"
        kind = [f"task.scaling={scaling}", "task.loss=mae", "trainer.max_steps=30", f"run.dir={run}"]
        code, _, err = llmft("finetune", "+recipe=tabular_regression", *words, *kind)
        assert code == 0, err
        target = json.loads((here / run / "model/task.json").read_text())["target"]
        card = (here / run / "README.md").read_text()
        assert f"`logits * {target['deviation']:.9g} + {target['mean']:.9g}`" in card
        code, _, err = llmft("export", run, f"run.dir={out}")
        assert code == 0, err
        (code_block,) = re.findall(r"^```python\n(.*?)^```", (here / out / "README.md").read_text(), re.M | re.S)
        for change in ("", "row |= {'area': 56.0, 'built': '2024-03-09', 'town': None}", "row = dict.fromkeys(row)"):
            found: dict[str, Any] = {}
            with pytest.MonkeyPatch.context() as patch:
                patch.chdir(here / out)
                exec(code_block.replace("\nfacts = ", f"\n{change}\nfacts = ", 1), found)
            answer = json.loads(llmft("predict", run, f"predict.row={json.dumps(found['row'])}")[1])["answer"]
            assert found["outputs"]["answer"].shape == (1, 1)
            assert float(found["outputs"]["answer"][0, 0]) == pytest.approx(answer, rel=1e-6)
            assert 80_000 < answer < 110_000


def test_a_card_makes_numbers_of_a_text(llmft: Run, write: Callable[[str, str], Path], here: Path) -> None:
    """So many terms that an SVD is needed, and so few that each is a number of its own."""
    lines = [f"w{row % 7} w{row % 11} 很好 w{row % 5},a{row % 3} b,{('no', 'yes')[row % 7 > 3]}" for row in range(90)]
    write("t.csv", "review,other,label\n" + "\n".join(lines) + "\n")
    words = ("dataset=csv", "dataset.train=t.csv", "task.texts=[review,other]", "task.text_size=8", "smoke=true")
    assert llmft("finetune", "+recipe=tabular_boosting", *words, "run.dir=run")[0] == 0
    code, _, err = llmft("export", "run", "run.dir=out")
    assert code == 0, err
    block = re.search(r"```python\n(.*?)```", (here / "out/README.md").read_text(), re.DOTALL)
    assert block
    found: dict[str, Any] = {}
    exec(block[1].replace('"model/', f'"{here}/out/model/'), found)  # the card's own lines
    for folder in ("run", "out"):
        answer = json.loads(llmft("predict", folder, f"predict.row={json.dumps(found['row'])}")[1])
        assert answer["scores"]["yes"] == pytest.approx(float(found["outputs"]["scores"][0, 1]), rel=1e-5)


def test_of_numbers_none_are_equal(llmft: Run, here: Path) -> None:
    words = ("+recipe=tabular_mlp", "smoke=true", "task.problem=regression", "run.dir=run")
    assert llmft("finetune", *words)[0] == 0
    code, out, err = llmft("export", "run", "export.precision=int8", "export.max_loss=1", "run.dir=out")
    assert code == 0, err
    assert "answers   outputs differ by" in out
    assert read(here / "out")["parity"]["equal_answers"] is None


CALIBRATED = {
    "train.csv": ("train", 60, "dataset.train=train.csv"),
    "nothing but test.csv": ("test", 20, "dataset.train=null"),
}


@pytest.mark.parametrize("name", CALIBRATED)
def test_without_validation_rows_int8_is_calibrated_with_others_and_says_so(
    name: str, runs: Runs, llmft: Run, write: Callable[[str, str], Path], here: Path
) -> None:
    split, rows, word = CALIBRATED[name]
    for file, count in (("train.csv", 80), ("test.csv", 20)):
        lines = [
            f"{row % 17 / 5 - 1.6},{5 + row % 8 / 4},{('red', 'blue')[row % 2]},{('heavy', 'light')[row % 3 % 2]}"
            for row in range(count)
        ]
        write(file, "\n".join(["weight,size,colour,label", *lines]))
    words = ["dataset=csv", word, "dataset.test=test.csv", "dataset.split.validation=0", "dataset.max_overlap=1"]
    code, out, err = llmft(
        "export", str(runs["tabular"]), *words, "export.precision=int8", "export.max_loss=1", "run.dir=out"
    )
    assert code == 0, err
    assert f"  ranges    of {rows} rows of {split}\n" in out
    facts = read(here / "out")
    assert (facts["quantization"], facts["calibrated"]) == ("static", {"split": split, "rows": rows})


def test_a_prefix_is_not_exported(runs: Runs, llmft: Run, here: Path) -> None:
    shutil.copytree(runs["text_classification"], here / "run")
    (here / "run/model/base").mkdir()
    code, _, err = llmft("export", "run", "run.dir=out")
    assert code == 2
    assert "run  has a prefix beside its model, which no other runtime knows" in err
    assert not (here / "out").exists()


def test_a_program_is_made_with_other_rows_than_it_is_compared_on(runs: Runs, llmft: Run, monkeypatch: pytest.MonkeyPatch) -> None:  # fmt: skip
    ids: dict[int, str] = {}
    encode, samples = session.encode, export.parity.samples
    seen: list[str] = []

    def noted(task: Any, rows: Any) -> Any:
        features = encode(task, rows)
        ids[id(features)] = rows[0]["id"]
        return features

    def watched(task: Any, features: Any) -> Any:
        seen.append(ids[id(features)])
        return samples(task, features)

    monkeypatch.setattr(session, "encode", noted)
    monkeypatch.setattr(export.parity, "samples", watched)
    assert llmft("export", str(runs["tabular"]), "run.dir=out")[0] == 0
    assert seen == ["synthetic-validation:1"]
    assert read(Path("out"))["parity"]["split"] == "test"


@pytest.fixture(scope="module")
def finished(runs: Runs, tmp_path_factory: pytest.TempPathFactory) -> Path:
    folder = tmp_path_factory.mktemp("exported") / "out"
    assert main(["export", str(runs["tabular"]), f"run.dir={folder}"]) == 0
    return folder


@pytest.fixture
def exported(finished: Path, here: Path) -> Path:
    """A copy of an export, to be broken."""
    return shutil.copytree(finished, here / "out")


def flip(data: bytes) -> bytes:
    return data[:100] + bytes([data[100] ^ 1]) + data[101:]


BREAKS: dict[str, tuple[str, Callable[[bytes], bytes] | None, str]] = {
    "a flipped bit": ("model/model.onnx", flip, "has a changed model.onnx"),
    "a file cut short": ("model/model.onnx", lambda data: data[:-1], "bytes in model.onnx instead of"),
    "no state": ("model/task.json", None, "lacks task.json"),
    "no digests": ("model/committed.json", None, "was not finished"),
    "facts that are none": ("export.json", lambda _: b"{", "cannot be read"),
    "facts of nothing": ("export.json", lambda _: b"{}", "cannot be read: 'format'"),
}


@pytest.mark.parametrize("name", BREAKS)
def test_a_broken_export_is_not_used(name: str, exported: Path, llmft: Run, here: Path) -> None:
    file, change, what = BREAKS[name]
    if change is None:
        (exported / file).unlink()
    else:
        (exported / file).write_bytes(change((exported / file).read_bytes()))
    code, _, err = llmft("eval", "out", "run.dir=again")
    assert code == 2
    assert what in err
    assert not (here / "again").exists()


def test_an_export_is_not_exported_and_needs_its_runtime_alone(
    exported: Path, llmft: Run, monkeypatch: pytest.MonkeyPatch
) -> None:
    code, _, err = llmft("export", "out")
    assert code == 2
    assert "is an export itself" in err
    monkeypatch.setitem(sys.modules, "onnxscript", None)
    assert llmft("eval", "out", "run.dir=again")[0] == 0
    monkeypatch.setitem(sys.modules, "onnxruntime", None)
    code, _, err = llmft("eval", "out", "run.dir=once_more")
    assert code == 2
    assert "pip install 'llmft[export]'" in err


def test_a_pt2_file_wants_a_word_of_trust(runs: Runs, llmft: Run, here: Path) -> None:
    assert llmft("export", str(runs["tabular"]), "export.format=pt2", "run.dir=out")[0] == 0
    code, _, err = llmft("eval", "out", "run.dir=again")
    assert code == 2
    assert f"write {TRUST}" in err


@pytest.mark.slow
def test_int8_of_the_review_classifier(llmft: Run, here: Path) -> None:
    """Measured: 23.5 MB, 3.86 times smaller; 98.7% equal answers, accuracy 0.8367 and originally 0.8367."""
    assert llmft("finetune", "+recipe=bert_textcls", "run.dir=run")[0] == 0
    for precision in ("fp32", "int8"):
        code, _, err = llmft("export", "run", f"export.precision={precision}", f"run.dir={precision}")
        assert code == 0, err
    assert read(here / "fp32")["parity"]["difference"] <= 1e-4
    facts = read(here / "int8")
    assert facts["bytes"]["ratio"] >= 3.5
    assert facts["parity"]["metric"]["loss"] <= 0.01
    assert len(facts["smoothed_layers"]) == 3
    assert facts["float32_layers"] == []
