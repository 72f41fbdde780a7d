"""What an export answers as a service loads it: the answers of its model, for every task, without torch."""

import json
import os
import shutil
import subprocess
import sys
from concurrent.futures import ThreadPoolExecutor
from importlib.metadata import packages_distributions, requires
from pathlib import Path
from typing import Any

import numpy
import onnx
import pytest
import torch
import transformers
from packaging.requirements import Requirement
from packaging.utils import canonicalize_name

from llmft import tasks
from llmft.config.load import load as compose
from llmft.data.committed import commit
from llmft.data.pipeline import load as read
from llmft.exports import parity, programs
from llmft.exports.quantization import quantize
from llmft.exports.runtime import Program, load, split
from llmft.models.build import build
from llmft.runs.folder import as_recipe
from llmft.schema.inference import DIFFERENCE
from llmft.schema.problem import UserError
from llmft.schema.tasks import task_types
from llmft.training.evaluation import predict
from llmft.training.features import encode

ROOT = Path(tasks.__file__).parents[2]
TOLERANCE = 1e-4
WIDER = "model.config.initializer_range=0.2"  # so that outputs of untrained weights differ from row to row
SMALL = "model.config.num_hidden_layers=1"
CASES: dict[str, tuple[str, ...]] = {
    "text_classification": ("bert_textcls", WIDER, SMALL, "task.calibrate=true"),
    "token_classification": ("bert_ner", WIDER, SMALL, "task.max_length=8", "task.stride=2"),
    "question_answering": ("bert_qa", WIDER, SMALL, "task.unanswerable=true", "task.max_length=16", "task.stride=3"),
    "relation_extraction": ("bert_relation", WIDER, SMALL),
    "tabular": ("tabular_mlp",),
    "ctr": ("ctr_din",),
    "tabular regression": ("tabular_regression", "task.ignore=[colour]"),
    "image_classification": ("cifar_resnet", "augment=none", "task.margin=3"),
    "object_detection": ("detection", "model=centernet", "optimizer.backbone_lr=null", "task.threshold=0.1"),
    "semantic_segmentation": ("segmentation",),
    "embedding": ("embedding", WIDER, SMALL),
    "reranking": ("reranker", WIDER, SMALL),
    "recommendation": ("recsys_sasrec", WIDER, SMALL, "task.max_length=4"),
}

# Other tasks of texts differ by their heads alone.
QUANTIZED = ("text_classification", "tabular", "image_classification", "object_detection", "semantic_segmentation")


def make(folder: Path, recipe: str, *words: str) -> tuple[Any, Any, Any, Any]:
    """An export of an untrained model, and its task, model, test rows without labels, and validation features."""
    config = compose("finetune", [f"+recipe={recipe}", "smoke=true", *words])
    task = tasks.build(config.task)
    data = read(config.dataset, task)
    task = task.fit(data["train"], config.model)
    transformers.set_seed(0)
    model = build(config.model, task.head, task.model_kwargs()).eval()
    with torch.no_grad():  # a head of zeros gives every row the same answer
        for weights in model.parameters():
            if not weights.any():
                weights.normal_(std=0.1)
    (folder / "model").mkdir(parents=True)
    task.save(folder / "model")
    features = encode(task, data["validation"])
    batches = parity.samples(task, features)
    said = programs.write(
        programs.Named(model, task), batches, parity.longest(features), config.export, folder / "model"
    )
    facts = {"format": "onnx", "precision": config.export.precision, "parameters": 1, **said}
    (folder / "export.json").write_text(json.dumps(facts))
    (folder / "config.yaml").write_text(as_recipe(config))
    commit(folder / "model")
    rows = data["test"]
    targets = [role for role, column in task.columns.items() if not column.is_input and role in rows.column_names]
    return task.for_inference(), model, rows.remove_columns(targets), features


@pytest.fixture(scope="module")
def made(tmp_path_factory: pytest.TempPathFactory) -> dict[str, tuple[Path, Any, Any, Any, Any]]:
    folder = tmp_path_factory.mktemp("exports")
    return {name: (folder / name, *make(folder / name, *words)) for name, words in CASES.items()}


def apart(one: Any, other: Any) -> float:
    """The largest difference between numbers of two answers; infinite if anything else differs."""
    if isinstance(one, dict) and isinstance(other, dict) and one.keys() == other.keys():
        return max((apart(one[key], other[key]) for key in one), default=0.0)
    if isinstance(one, list) and isinstance(other, list) and len(one) == len(other):
        return max(map(apart, one, other), default=0.0)
    if isinstance(one, float) and isinstance(other, float):
        return abs(one - other)
    return 0.0 if one == other else float("inf")


def test_every_task_that_exports_has_a_case() -> None:
    assert {name.partition(" ")[0] for name in CASES} == {n for n, config in task_types().items() if config.exports}


SERVICE = """
import json, os, sys
from importlib.machinery import PathFinder
from pathlib import Path

absent = set(os.environ["ABSENT"].split())

class Packages(PathFinder):
    @classmethod
    def find_spec(cls, name, path=None, target=None):
        return None if name.partition(".")[0] in absent else super().find_spec(name, path, target)

sys.meta_path[sys.meta_path.index(PathFinder)] = Packages

import llmft.cli, llmft.serving.app
from llmft.exports.runtime import load

for folder in map(Path, sys.argv[1:]):
    rows = json.loads((folder / "rows.json").read_text())
    for row in rows.get("image", []):
        row["bytes"] = row["bytes"] and bytes.fromhex(row["bytes"])
    (folder / "answers.json").write_text(json.dumps(load(folder).answer(rows)))
"""


def modules_beyond(requirements: Path) -> set[str]:
    """What is installed here, and is not where only the packages of a file are, with those that they need."""
    waiting = [Requirement(line) for line in requirements.read_text().splitlines() if line and line[0] != "#"]
    installed: set[str] = set()
    while waiting:
        wanted = waiting.pop()
        name = canonicalize_name(wanted.name)
        if name not in installed and (wanted.marker is None or wanted.marker.evaluate({"extra": ""})):
            installed.add(name)
            waiting += map(Requirement, requires(name) or [])
    installed.add("llmft")
    known = packages_distributions()
    return {name for name, owners in known.items() if not installed & {canonicalize_name(each) for each in owners}}


def test_a_service_with_the_packages_of_the_image_answers_as_the_model_does(made: dict[str, Any]) -> None:
    absent = modules_beyond(ROOT / "deploy/requirements.txt")
    assert {"torch", "transformers", "datasets"} <= absent
    for folder, _, _, rows, _ in made.values():
        told = json.dumps(rows[:], default=lambda value: value.hex())
        (folder / "rows.json").write_text(told)
    env = os.environ | {"PYTHONPATH": str(ROOT), "ABSENT": " ".join(absent)}
    command = [sys.executable, "-c", SERVICE, *(str(folder) for folder, *_ in made.values())]
    done = subprocess.run(command, env=env, capture_output=True, text=True, check=False)
    assert done.returncode == 0, done.stderr
    for name, (folder, task, model, rows, _) in made.items():
        wanted = json.loads(json.dumps(predict(task, model, encode(task, rows), 8).answers))
        found = json.loads((folder / "answers.json").read_text())
        assert len({json.dumps(answer) for answer in wanted}) > 1, f"{name}: no two rows differ"
        assert apart(wanted, found) <= TOLERANCE, name


@pytest.mark.parametrize("name", CASES)
def test_an_output_is_the_same_alone_and_in_any_company(name: str, made: dict[str, Any]) -> None:
    folder, task, model, rows, _ = made[name]
    program = load(folder)
    alone = check_company(program, rows)
    originals = parity.bare(predict(task, model, encode(task, rows), 8).outputs, encode(task, rows))
    assert task.output_difference(originals, alone) <= TOLERANCE


@pytest.mark.parametrize("name", QUANTIZED)
def test_so_is_that_of_int8(name: str, made: dict[str, Any], tmp_path: Path) -> None:
    """All of them can be calibrated: texts, tables, and networks of convolutions."""
    source, task, model, rows, features = made[name]
    folder = shutil.copytree(source, tmp_path / "int8")
    file, facts = folder / "model/model.onnx", json.loads((folder / "export.json").read_text())
    before = onnx_weights(file)
    facts |= quantize(file, parity.samples(task, features), parity.singles(task, features, 0))
    assert facts["quantization"] == "static"
    assert facts["float32_layers"] == []
    assert onnx_weights(file) < 0.8 * before
    (folder / "export.json").write_text(json.dumps(facts | {"precision": "int8"}))
    commit(folder / "model")
    program = load(folder)
    assert not program.alone
    alone = check_company(program, rows)
    originals = parity.bare(predict(task, model, encode(task, rows), 8).outputs, encode(task, rows))
    assert 0 < task.output_difference(originals, alone) <= DIFFERENCE["int8"]


def onnx_weights(file: Path) -> int:
    """Bytes of the weights in an ONNX file."""
    graph = onnx.load(str(file)).graph
    return sum(len(onnx.numpy_helper.to_array(weights).tobytes()) for weights in graph.initializer)


def check_company(program: Program, rows: Any) -> list[Any]:
    """The outputs of rows, each computed by itself, after the same bits have come of batches in any order."""
    features = split(program.task.encode(rows[:]))
    alone = [program.run([feature])[0] for feature in features]
    order = list(numpy.random.default_rng(0).permutation(len(features)))
    for size in (2, 7, len(features)):
        for start in range(0, len(order), size):
            numbers = order[start : start + size]
            for number, output in zip(numbers, program.run([features[n] for n in numbers]), strict=True):
                assert same(output, alone[number]), size
    return [output[0] if isinstance(output, tuple) else output for output in alone]


def same(one: Any, other: Any) -> bool:
    """Whether two outputs are equal bit for bit, and so are their asides."""
    if isinstance(one, tuple):
        return same(one[0], other[0]) and bool(one[1] == other[1])
    return bool(numpy.array_equal(one, other))


@pytest.mark.parametrize("name", CASES)
def test_a_batch_of_numpy_is_that_of_training(name: str, made: dict[str, Any]) -> None:
    _, task, _, rows, _ = made[name]
    features = encode(task, rows)
    some = features.__getitems__(list(range(len(features))))
    ours, theirs = task.collate(some), task.objective.collate(some)
    assert ours.keys() == theirs.keys()
    for key, values in theirs.items():
        assert torch.equal(torch.from_numpy(ours[key]), values), key
        assert torch.from_numpy(ours[key]).dtype == values.dtype, key


def test_threads_share_a_program(made: dict[str, Any]) -> None:
    folder, task, _, rows, _ = made["text_classification"]
    program: Program = load(folder)
    features = split(task.encode(rows[:]))
    wanted = [program.run([feature])[0].tolist() for feature in features]
    with ThreadPoolExecutor(4) as threads:
        found = list(threads.map(lambda feature: program.run([feature])[0].tolist(), features * 20))
    assert found == wanted * 20


def test_int8_of_an_earlier_version_is_run_a_row_at_a_time(
    made: dict[str, Any], tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    folder = shutil.copytree(made["tabular"][0], tmp_path / "copy")
    program, rows = load(folder), made["tabular"][3]
    assert not program.alone
    facts = {name: value for name, value in program.facts.items() if name != "quantization"} | {"precision": "int8"}
    (folder / "export.json").write_text(json.dumps(facts))
    program = load(folder)
    assert program.alone
    sizes: list[int] = []
    collate = program.task.collate

    def watched(features: list[dict[str, Any]]) -> Any:
        sizes.append(len(features))
        return collate(features)

    monkeypatch.setattr(program.task, "collate", watched)
    program.answer(rows[:5])
    assert sizes == [1] * 5


def test_what_cannot_be_served_is_explained(made: dict[str, Any], tmp_path: Path) -> None:
    with pytest.raises(UserError, match="must be the folder of an export"):
        load(tmp_path)
    folder = shutil.copytree(made["object_detection"][0], tmp_path / "copy")
    facts = json.loads((folder / "export.json").read_text())
    (folder / "export.json").write_text(json.dumps(facts | {"format": "openvino"}))
    with pytest.raises(UserError, match="must be an export in onnx, got openvino"):
        load(folder)
    (folder / "export.json").write_text(json.dumps(facts))
    (folder / "model/model.onnx").write_bytes(b"no program")
    with pytest.raises(UserError, match=r"bytes in model\.onnx instead of"):
        load(folder)
    commit(folder / "model")
    with pytest.raises(UserError, match="cannot be loaded"):
        load(folder)
    # Detectors of earlier versions have logits alone.
    shutil.copy(made["tabular"][0] / "model/model.onnx", folder / "model")
    commit(folder / "model")
    with pytest.raises(UserError, match="has no output `boxes`"):
        load(folder)
