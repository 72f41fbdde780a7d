"""From a configuration to data that are ready to train on; no weights are loaded. Kept in the cache for later runs."""

import inspect
import json
import sys
from dataclasses import dataclass, replace
from functools import cache
from hashlib import sha256
from importlib.metadata import version
from pathlib import Path
from tempfile import TemporaryDirectory
from typing import Any

from llmft import tasks
from llmft.data.arrow import read_dataset, write_table
from llmft.data.cache import SIZE, Entry, NotKept, limit_in_bytes
from llmft.data.clean import libraries
from llmft.data.corpus import load_corpus
from llmft.data.files import digest
from llmft.data.pipeline import Data, load, source_digests
from llmft.models.model_files import processor_files
from llmft.models.tokenizers import tokenizer_files
from llmft.runs.folder import flat
from llmft.schema.config import Config
from llmft.schema.problem import UserError
from llmft.tasks.optional import LearnsFromAll, Notes, ReadsBlocks
from llmft.tasks.task import Task
from llmft.training.evaluation import Split
from llmft.training.features import Blocks, FeatureSet, encode, join_documents, load_blocks

SHARE = 0.5  # of the cache that one entry may take: a larger one would push out nearly all others
FILE = "file "  # before the path of a data file, in the facts of an entry

# Of the section `model`, what `task.fit` may look at, besides whether weights are pretrained and how many positions
# they have. Other keys, such as sizes, can vary and share an entry.
OF_THE_TOKENIZER = {"path", "hub", "tokenizer", "revision", "trust_remote_code"}


@dataclass(frozen=True)
class Prepared:
    """The rows of a run, the task that has learned from them, and their features."""

    task: Task[Any]
    data: Data
    splits: dict[str, Split]
    origin: str = ""
    """Where they come from, in a few words to print."""
    entry: Entry | None = None
    """Their entry in the cache."""
    first: bool = True
    """Whether the run is the first of a sweep with these rows, which fits the baseline for all."""
    known_batch_size: int | None = None
    """The batch size that an earlier job of the sweep found to fit into memory; see `Experiment`."""


def prepare(config: Config) -> Prepared:
    """Read, check, split and encode the rows of a run, or take them from the cache.

    Raises:
        UserError: with what is wrong with the data.
    """
    task = tasks.build(config.task)
    entry = _entry(config, task)
    if entry is None:
        return _in_passing(config, task)
    if entry.found() and (kept := _kept(task, entry, "from the cache")):
        return kept
    why = entry.why_missing()
    if isinstance(task, ReadsBlocks):  # which may be too much to write twice
        if entry.publish(lambda folder: _save(_corpus(config, task, folder), folder)):
            return _kept(task, entry, f"now, and kept for later runs ({why})") or _in_passing(config, task)
        return _in_passing(config, task)
    held: list[Prepared] = []

    def write(folder: Path) -> None:
        # Into the entry at once, so that pixels are written once.
        prepared = _fresh(config, task, folder)
        try:
            if _digests_of(entry) != prepared.data.digests:
                raise NotKept("a file changed in between")
            if (size := sum(file.stat().st_size for file in folder.iterdir())) > SHARE * limit_in_bytes():
                what = f"{size / 1e9:.1f} GB are more than {SHARE:.0%} of the cache, see {SIZE}"
                prepared = replace(prepared, origin=f"now, and not kept: {what}")
                raise NotKept(what)
            _save(prepared, folder)
        except (OSError, NotKept):
            for split in prepared.splits.values():
                split.features.hold()
            held.append(prepared)
            raise

    if entry.publish(write) and (kept := _kept(task, entry, f"now, and kept for later runs ({why})")):
        return kept
    return held[0] if held else _in_passing(config, task)


def _in_passing(config: Config, task: Task[Any]) -> Prepared:
    """Data that are not kept. Files of a corpus go once they are mapped into memory, which holds what it needs."""
    if not isinstance(task, ReadsBlocks):
        return _fresh(config, task)
    with TemporaryDirectory(prefix="llmft-", ignore_cleanup_errors=True) as folder:
        return _corpus(config, task, Path(folder))


def _corpus(config: Config, task: Task[Any], folder: Path) -> Prepared:
    """Raw text: the tokens of `train` in a file of `folder`, those of other splits as features."""
    data = load_corpus(config.dataset, task, folder)
    task = task.fit(data["train"], config.model)
    check_labels(task, data)
    assert isinstance(task, ReadsBlocks)
    joined = join_documents(task, data["train"], folder)
    data.notes.append(f"train: {joined.describe()}")
    splits = {
        name: Split(rows, joined if name == "train" else encode(task, rows)) for name, rows in data.splits.items()
    }
    if isinstance(task, Notes):
        data.notes += [
            note for name, rows in data.splits.items() if name != "train" for note in task.notes_on(rows, name)
        ]
    return Prepared(task, data, splits)


def _fresh(config: Config, task: Task[Any], folder: Path | None = None) -> Prepared:
    """Data that are read and encoded now; pixels go to files in `folder`."""
    data = load(config.dataset, task)
    task = task.fit(data["train"], config.model)
    if data.stream is not None and isinstance(task, LearnsFromAll):
        task = task.learn_all(data.stream)
    check_labels(task, data)
    splits = {
        name: Split(rows, encode(task, rows, folder and _features_file(folder, name)))
        for name, rows in data.splits.items()
    }
    if isinstance(task, Notes):
        for name, split in splits.items():
            # The rows of a stream are a sample here.
            rows = None if name == "train" and data.stream is not None else split.rows
            data.notes += task.notes_on(rows, name, split.features.table if name == "train" else None)
    if data.stream is not None:
        splits["train"] = replace(splits["train"], stream=data.stream)
    return Prepared(task, data, splits)


def check_labels(task: Task[Any], data: Data) -> None:
    """Raise UserError for rows that the fitted task cannot express, over all splits."""
    problems = [problem for name, rows in data.splits.items() for problem in task.check(rows, name)]
    for rows in data.stream or ():
        if problems:
            break  # these are enough; the rest of a stream may take minutes
        problems += task.check(rows, "train")
    if problems:
        raise UserError(problems, "the data")


def _save(prepared: Prepared, folder: Path) -> None:
    for name, split in prepared.splits.items():
        if not prepared.task.corpus:  # whose rows lie there already, and the tokens of its `train`
            write_table(split.rows.data.table, folder / f"{name}.rows.arrow")
        if isinstance(split.features, FeatureSet):
            split.features.save(_features_file(folder, name))
    (folder / "state").mkdir()
    prepared.task.save(folder / "state")
    data = prepared.data
    facts = {"splits": list(prepared.splits), "notes": data.notes, "digests": data.digests}
    facts["rows_sha256"] = data.rows_sha256
    (folder / "data.json").write_text(json.dumps(facts, ensure_ascii=False), encoding="utf-8")


def _kept(task: Task[Any], entry: Entry, origin: str) -> Prepared | None:
    """What lies in the cache; None if another process has just made room there."""
    try:
        facts = json.loads((entry.folder / "data.json").read_text(encoding="utf-8"))
        rows = {name: read_dataset(entry.folder / f"{name}.rows.arrow") for name in facts["splits"]}
        task = task.load(entry.folder / "state")
        features = {name: _features(task, entry.folder, name) for name in facts["splits"]}
        for found in features.values():
            if isinstance(found, FeatureSet):
                found.hold()  # another process may make room there while this one trains
    except OSError:
        return None
    splits = {name: Split(rows[name], features[name]) for name in rows}
    data = Data(rows, facts["notes"], facts["digests"], rows_sha256=facts["rows_sha256"])
    return Prepared(task, data, splits, origin, entry)


def _features(task: Task[Any], folder: Path, name: str) -> FeatureSet | Blocks:
    if name == "train" and isinstance(task, ReadsBlocks):
        return load_blocks(task, folder)
    return FeatureSet.load(_features_file(folder, name))


def _features_file(folder: Path, name: str) -> Path:
    return folder / f"{name}.features.arrow"


def _entry(config: Config, task: Task[Any]) -> Entry | None:
    """The entry of these data in the cache, or None for data that are not kept: those of no file, and streams."""
    kept = config.dataset.cache and not config.dataset.streaming
    if not kept or not (files := source_digests(config.dataset, task.columns)):
        return None
    beside = processor_files(config.model) if config.task.images else tokenizer_files(config.model)
    if beside is None:
        return None
    facts = {key: json.dumps(value, ensure_ascii=False) for key, value in flat(decided_by(config)).items()}
    facts |= {f"{FILE}{file}": found for file, found in files.items()}
    facts |= {f"{'model' if config.task.images else 'tokenizer'} {file}": digest(file) for file in beside}
    packages = ("transformers", "tokenizers", "pyarrow", "pillow", "scikit-learn", *libraries(config.dataset))
    facts |= {package: version(package) for package in packages}
    return Entry("prepared", facts | {"the code of llmft": _code(type(task))})


def decided_by(config: Config) -> dict[str, Any]:
    """What of a configuration decides the prepared data: runs that share it can share them."""
    model = config.model.model_dump(include=OF_THE_TOKENIZER) | {"init": "random"}
    if config.model.first_weights == "pretrained":  # which read no more tokens than they have positions
        positions = {key: value for key, value in config.model.config.items() if "position" in key}
        model |= {"init": "pretrained", "config": positions}
    return {
        "dataset": config.dataset.model_dump(exclude={"name", "cache"}),
        "task": config.task.model_dump(exclude={"baseline", "importance"}),
        "model": model,
    }


def _digests_of(entry: Entry) -> dict[str, str]:
    """The sha256 of each data file, as they were when the entry was named."""
    return {name.removeprefix(FILE): found for name, found in entry.facts.items() if name.startswith(FILE)}


@cache
def _code(task: type) -> str:
    """The digest of the code that makes, writes and reads rows and features, and of the task's whole package."""
    ours = Path(tasks.__file__).parent.parent
    files = [*(ours / "data").rglob("*.py"), *(ours / "tasks").rglob("*.py")]
    files += [ours / "training" / "features.py", ours / "models" / "tokenizers.py", ours / "models" / "build.py"]
    files += [Path(__file__)]
    own = Path(inspect.getfile(task))
    top = sys.modules[task.__module__.partition(".")[0]]
    if ours not in own.parents:
        files += [file for folder in getattr(top, "__path__", ()) for file in Path(folder).rglob("*.py")] or [own]
    return sha256("".join(sorted(map(digest, set(files)))).encode()).hexdigest()
