"""The walls of docs/architecture.md: who may import whom."""

import ast
import re
from collections import Counter
from pathlib import Path

import pytest

from llmft.schema.tasks import task_types

ROOT = Path(__file__).resolve().parents[1]
FLOORS = (
    {"cli", "worker"},
    {"api"},
    {"front"},
    {"config"},
    {"sweeps"},
    {"serving"},
    {"commands", "exports", "predictions"},
    {"tasks", "training", "reporting"},
    {"data", "models", "metrics", "runs"},
    {"schema"},
)
FLOOR = {room: floor for floor, rooms in enumerate(FLOORS) for room in rooms}
MODULES = sorted((ROOT / "llmft").rglob("*.py"))


def imports(file: Path) -> set[str]:
    """Every module that a file imports, inside functions too. Relative imports are forbidden by ruff."""
    found = set()
    for node in ast.walk(ast.parse(file.read_text(encoding="utf-8"))):
        if isinstance(node, ast.Import):
            found |= {alias.name for alias in node.names}
        elif isinstance(node, ast.ImportFrom) and node.module:
            found |= {node.module, *(f"{node.module}.{alias.name}" for alias in node.names)}
    return found


def room_of(module: str) -> str | None:
    """The room of a module of llmft. The sections of a family of tasks, tasks/FAMILY/config.py, count as schema/."""
    parts = module.split(".")
    if parts[:2] == ["llmft", "tasks"] and parts[3:4] == ["config"]:
        return "schema"
    return parts[1] if parts[0] == "llmft" and len(parts) > 1 else None


@pytest.mark.parametrize("file", MODULES, ids=lambda file: str(file.relative_to(ROOT)))
def test_imports_run_down(file: Path) -> None:
    own = room_of(".".join(file.relative_to(ROOT).with_suffix("").parts))
    if own not in FLOOR:
        return
    for module in imports(file):
        other = room_of(module)
        if other in FLOOR and other != own:
            assert FLOOR[other] >= FLOOR[own], f"{own} imports {module}, which lies above it"
        if own == "schema" and other:
            assert other == "schema"


def test_every_room_is_on_a_floor_and_in_the_picture() -> None:
    rooms = {
        path.stem for path in (ROOT / "llmft").iterdir() if path.suffix == ".py" or (path / "__init__.py").is_file()
    }
    assert rooms - {"__init__", "__main__"} == set(FLOOR)
    picture = (ROOT / "docs/architecture.md").read_text(encoding="utf-8")
    assert [room for room in FLOOR if f"        {room}" not in picture] == []


def test_the_page_names_files_that_there_are() -> None:
    page = (ROOT / "docs/architecture.md").read_text(encoding="utf-8")
    named = set(re.findall(r"`((?:[a-z_]+/)+[a-z_]+\.py)`", page))
    assert len(named) > 40
    assert {name for name in named if not ((ROOT / "llmft" / name).is_file() or (ROOT / name).is_file())} == set()


KNOWN_TO = {
    "hydra": {"config"},
    "omegaconf": {"config"},
    "yaml": {"cli", "config", "data", "front", "runs"},
    "jinja2": {"reporting"},
}


@pytest.mark.parametrize("library", KNOWN_TO)
def test_a_library_is_known_to_its_room_alone(library: str) -> None:
    rooms = {room_of(".".join(f.relative_to(ROOT).with_suffix("").parts)) for f in MODULES if {m.split(".")[0] for m in imports(f)} & {library}}  # fmt: skip
    assert rooms == KNOWN_TO[library]


def test_only_one_file_knows_training_arguments() -> None:
    """Callbacks name the type, and never make one."""
    makers = {file.name for file in MODULES if "TrainingArguments(" in file.read_text(encoding="utf-8")}
    assert makers == {"loop.py"}


def test_the_front_rooms_import_no_torch() -> None:
    for file in MODULES:
        own = room_of(".".join(file.relative_to(ROOT).with_suffix("").parts))
        if own in ("cli", "front", "config", "schema"):
            heavy = {module.split(".")[0] for module in imports(file)} & {"torch", "transformers", "datasets", "numpy"}
            assert not heavy, file


def test_a_section_of_a_task_is_read_without_torch() -> None:
    """Its packages run first: they may import the vocabulary, and nothing else that is not in the standard library."""
    for file in (ROOT / "llmft/tasks").rglob("__init__.py"):
        ours = {module for module in imports(file) if not module.startswith("llmft.tasks.task")}  # for its type alone
        assert {room_of(module) for module in ours} <= {None, "schema"}, file
        assert not {module.split(".")[0] for module in imports(file)} & {"torch", "transformers", "datasets", "numpy"}


CODECS = ("text.text_classification", "text.token_classification", "text.question_answering")
CODECS += ("text.relation_extraction", "tables.tabular", "text_to_text.translation", "text_to_text.summarization")
CODECS += ("language_models.causal_lm", "language_models.masked_lm", "language_models.span_corruption")
CODECS += ("chat.instruction", "chat.preference", "images.image_classification", "images.object_detection")
CODECS += ("images.semantic_segmentation", "retrieval.embedding", "retrieval.reranking", "tables.ctr")


def at_import(node: ast.AST) -> set[str]:
    """The modules that are imported when a file is, not in functions, and not for annotations alone."""
    if isinstance(node, ast.FunctionDef) or (isinstance(node, ast.If) and ast.unparse(node.test) == "TYPE_CHECKING"):
        return set()
    if isinstance(node, ast.Import):
        return {alias.name for alias in node.names}
    if isinstance(node, ast.ImportFrom) and node.module:
        return {node.module, *(f"{node.module}.{alias.name}" for alias in node.names)}
    return set().union(*map(at_import, ast.iter_child_nodes(node)))


@pytest.mark.parametrize("name", CODECS)
def test_a_codec_is_imported_without_torch(name: str) -> None:
    """With all that it imports, packages included: a service encodes rows and decodes outputs with it alone."""
    files = {
        str(file.relative_to(ROOT).with_suffix("")).replace("/", ".").removesuffix(".__init__"): file
        for file in MODULES
    }
    todo, seen = {f"llmft.tasks.{name}"}, set[str]()
    while todo:
        module = todo.pop()
        seen.add(module)
        parts = module.split(".")
        needed = at_import(ast.parse(files[module].read_text(encoding="utf-8"))) | {
            ".".join(parts[:n]) for n in range(1, len(parts))
        }
        heavy = {other.split(".")[0] for other in needed} & {"torch", "transformers", "datasets", "accelerate", "peft"}
        assert not heavy, module
        todo |= (needed & files.keys()) - seen
    assert {"llmft.tasks.task", "llmft.data.dates" if name.startswith("tables") else "llmft.tasks.tokenizer"} <= seen


def test_a_task_is_a_file_of_its_name_beside_its_section() -> None:
    for name, section in task_types().items():
        path = ROOT / section.__module__.replace(".", "/")
        assert f"class {section.__name__}(" in (path.parent / f"{name}.py").read_text(encoding="utf-8")
        assert path.name == "config"


def test_files_are_one_idea() -> None:
    """Of 40 to 500 lines, with a name that no other room has: less joins its only caller, more is two ideas."""
    sizes = {str(f.relative_to(ROOT)): len(f.read_text(encoding="utf-8").splitlines()) for f in MODULES}
    assert {file: n for file, n in sizes.items() if n > 500} == {}
    whole = {file: n for file, n in sizes.items() if not file.endswith(("__init__.py", "__main__.py"))}
    assert {file: n for file, n in whole.items() if n < 40} == {}
    names = Counter(Path(file).name for file in whole if not file.endswith("/config.py"))
    assert [name for name, count in names.items() if count > 1] == []


def test_the_house_grows_with_tasks_and_features_alone() -> None:
    """A task adds one file, its own. Whoever adds another raises the number, and says in the commit what it is for."""
    images = 9  # their cells, files, checks, and illustrations, the package, and what its tasks share
    masks = 5  # the reader, the U-Net, its objective, its metrics; what an image is explained by
    boxes = 9  # three readers, CenterNet, backbones, the objective, the metrics, and drawings
    augmentation = 2  # its section and its code
    small_models = 1  # for images: a perceptron, a CNN, a ResNet
    serving = 17  # `serve`: the shared half of predict, its section, the package, and the service itself
    chats = 3  # continuing a text token by token, the terminal of a chat, a chat with a server
    watching = 4  # drift, what is measured of rows, the reference that training leaves, `monitor`
    exports = 4  # their folders and their programs without torch, padding by numpy, and int8
    explaining = 3  # what is explained, the words of a text, gradients and attention of torch models
    recommending = 10  # lists and their metrics, interactions and their files, models and their epochs, the package
    retrieving = (
        8  # the package, losses, two objectives, groups of texts, nearest vectors, sentence-transformers' files
    )
    answering = 3  # passages of a corpus, and their search by words and by vectors
    few_shot = 1  # an encoder that is tuned on pairs of rows
    clicks = 5  # of `ctr`: ids, its columns, its models, the table of vectors, its metrics
    features = (
        recommending
        + retrieving
        + answering
        + few_shot
        + clicks
        + images
        + masks
        + boxes
        + augmentation
        + small_models
        + serving
        + chats
        + watching
        + exports
        + explaining
    )
    assert len(MODULES) - len(task_types()) <= 194 + features
