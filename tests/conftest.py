"""Every test is offline, in a folder of its own, and on one thread: two workers share two cores."""

import gc
import os
import sys
from collections.abc import Callable, Iterator
from pathlib import Path

os.environ["HF_HUB_OFFLINE"] = "1"
os.environ["TOKENIZERS_PARALLELISM"] = "false"
os.environ["OMP_NUM_THREADS"] = "1"

import pytest

# Without bytecode each worker compiles all tests, 5 s, and each process that a test starts all that it imports of llmft.
os.environ.pop("PYTHONDONTWRITEBYTECODE", None)
sys.dont_write_bytecode = False


SHARED = Path(__file__).resolve().parents[2] / "shared" / "data"
ROOT = Path(__file__).resolve().parents[1]


def pytest_collection_finish() -> None:
    """Prepare a worker for hundreds of runs: torch computes its first gradient, and what stays is not looked through.

    A gradient after an export, if it is the first, starts threads for other devices, and the jobs of a sweep that are
    forked later fail. torch and transformers are a million objects that stay: going through them took 8% of all time.
    """
    if torch := sys.modules.get("torch"):
        torch.ones(1, requires_grad=True).sum().backward()
    gc.collect()
    gc.freeze()


@pytest.fixture(autouse=True)
def here(tmp_path: Path, tmp_path_factory: pytest.TempPathFactory, monkeypatch: pytest.MonkeyPatch) -> Path:
    """The working directory, empty, with a cache of its own elsewhere."""
    monkeypatch.chdir(tmp_path)
    monkeypatch.setenv("LLMFT_CACHE", str(tmp_path_factory.mktemp("cache")))
    return tmp_path


@pytest.fixture
def shared() -> Callable[[str], Path]:
    """A folder of real data beside the checkout; the test is skipped where it is absent."""

    def folder(name: str) -> Path:
        if not (SHARED / name).is_dir():
            pytest.skip(f"no {name} in shared/data")
        return SHARED / name

    return folder


@pytest.fixture
def write(here: Path) -> Callable[[str, str], Path]:
    """Write a file below the working directory."""

    def file(name: str, text: str | bytes) -> Path:
        path = here / name
        path.parent.mkdir(parents=True, exist_ok=True)
        path.write_bytes(text if isinstance(text, bytes) else text.encode())
        return path

    return file


@pytest.fixture
def install(
    here: Path, write: Callable[[str, str], Path], monkeypatch: pytest.MonkeyPatch
) -> Iterator[Callable[..., None]]:
    """Install a package with an entry point in `llmft.tasks`, as far as Python can tell.

    The function takes the name and the source of its module, and the name and the target of the entry point.
    """
    from llmft.schema.metric import METRICS
    from llmft.schema.tasks import plugins

    modules, known = [], dict(METRICS)

    def package(module: str, source: str, name: str, target: str) -> None:
        modules.append(module)
        distribution = f"site/{module}-1.0.dist-info"
        write(f"site/{module}.py", source)
        write(f"{distribution}/METADATA", f"Metadata-Version: 2.1\nName: {module.replace('_', '-')}\nVersion: 1.0\n")
        write(f"{distribution}/entry_points.txt", f"[llmft.tasks]\n{name} = {target}\n")
        plugins.cache_clear()

    monkeypatch.syspath_prepend(str(here / "site"))
    yield package
    plugins.cache_clear()
    for module in modules:
        sys.modules.pop(module, None)
    METRICS.clear()
    METRICS.update(known)


@pytest.fixture
def llmft(capsys: pytest.CaptureFixture[str]) -> Callable[..., tuple[int, str, str]]:
    """Run a command in this process: (exit code, what it printed, what it said in error)."""
    from llmft.cli import main

    def run(*words: str) -> tuple[int, str, str]:
        capsys.readouterr()
        code = main(list(words))
        out, err = capsys.readouterr()
        return code, out, err

    return run
