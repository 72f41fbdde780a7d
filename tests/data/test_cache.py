"""The cache: whole entries or none, whoever else is writing, dying or making room."""

import os
from collections.abc import Callable
from pathlib import Path

import pytest

from llmft.data import cache
from llmft.data.cache import Entry
from tests.faults.disks import failing


def write(text: str = "tokens", size: int = 0) -> Callable[[Path], None]:
    def fill(folder: Path) -> None:
        (folder / "a.txt").write_text(text)
        (folder / "b.bin").write_bytes(b"\0" * size)

    return fill


def entry(**facts: str) -> Entry:
    return Entry("prepared", facts)


def test_what_was_published_is_found_again() -> None:
    one = entry(a="1")
    assert not one.found()
    assert one.publish(write())
    assert one.found()
    assert (one.folder / "a.txt").read_text() == "tokens"
    assert not entry(a="2").found()


def test_of_two_writers_one_wins_and_both_are_content() -> None:
    one = entry(a="1")

    def slow(folder: Path) -> None:
        assert one.publish(write("the other"))
        write("mine")(folder)

    assert one.publish(slow)
    assert (one.folder / "a.txt").read_text() == "the other"
    assert [folder.name for folder in one.folder.parent.iterdir()] == [one.key]


def test_a_changed_byte_is_never_used() -> None:
    one = entry(a="1")
    assert one.publish(write())
    (one.folder / "a.txt").write_text("tokenz")
    assert not one.found()
    assert not one.folder.exists()
    assert one.publish(write())
    assert one.found()


def test_a_disk_that_is_full_costs_nothing_but_the_entry(monkeypatch: pytest.MonkeyPatch) -> None:
    """Fail the N-th sync, for every N: there is a whole entry or none, and nothing half made."""
    for number in range(1, 20):
        one = entry(a=str(number))
        with monkeypatch.context() as patch:
            patch.setattr(os, "fsync", failing(os.fsync, number))
            published = one.publish(write())
        assert one.found() == published
        assert not list(one.folder.parent.glob(".*"))
        if published:
            break
    assert number == 7, "three files, the manifest and two folders; the next went through"


def test_a_writer_that_is_stopped_leaves_nothing() -> None:
    one = entry(a="1")

    def stop(folder: Path) -> None:
        write()(folder)
        raise KeyboardInterrupt

    with pytest.raises(KeyboardInterrupt):
        one.publish(stop)
    assert list(one.folder.parent.iterdir()) == []


def test_a_writer_that_dies_leaves_nothing_that_counts() -> None:
    one = entry(a="1")

    def die(folder: Path) -> None:
        write()(folder)
        os._exit(0)

    if not (child := os.fork()):
        one.publish(die)
    os.waitpid(child, 0)
    assert not one.found()
    (left,) = one.folder.parent.iterdir()
    assert left.name.startswith(".")
    os.utime(left, (0, 0))
    assert entry(a="2").publish(write())
    assert not left.exists(), "a day later it is cleared away"


def test_the_entries_used_longest_ago_make_room(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv(cache.SIZE, "0.000005")
    entries = [entry(a=str(number)) for number in range(4)]
    for place, one in enumerate(entries[:3]):
        assert one.publish(write(size=1000))
        os.utime(one.folder / cache.MANIFEST, (place, place))
    assert entries[0].found(), "and so used last"
    assert entries[3].publish(write(size=1000))
    assert [one.found() for one in entries] == [True, False, True, True], "three fit"


def test_one_that_is_larger_than_the_cache_is_used_once(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv(cache.SIZE, "0.000001")
    assert entry(a="1").publish(write(size=5000))
    assert entry(a="1").found()
    assert entry(a="2").publish(write(size=5000))
    assert [entry(a=name).found() for name in "12"] == [False, True]


@pytest.mark.parametrize(
    ("facts", "why"),
    [
        ({"file new.csv": "1", "dataset.max_rows": "5"}, "seen for the first time"),
        ({"file a.csv": "2", "dataset.max_rows": "5"}, "changed: a.csv"),
        (
            {"file a.csv": "1", "dataset.max_rows": "7", "task.max_length": "9"},
            "changed: dataset.max_rows, task.max_length",
        ),
        ({"file a.csv": "1"}, "changed: dataset.max_rows"),
        (
            {"file a.csv": "0", "file /data/b.csv": "1", "tokenizer /x/a.json": "1", "tokenizer /x/b.json": "1"},
            "changed: dataset.max_rows, b.csv, tokenizer",
        ),
        ({"file a.csv": "0", **dict.fromkeys("ghijk", "1")}, "changed: dataset.max_rows, g, h, i, j and 1 more"),
    ],
)
def test_a_miss_says_why(facts: dict[str, str], why: str) -> None:
    assert entry(**{"file a.csv": "0", "dataset.max_rows": "0"}).publish(write())
    assert entry(**{"file a.csv": "1", "dataset.max_rows": "5"}).publish(write())
    assert Entry("prepared", facts).why_missing() == why


def test_what_is_not_an_entry_is_left_alone(here: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """Somebody's data folder is taken for the cache."""
    monkeypatch.setenv(cache.HOME, str(here))
    monkeypatch.setenv(cache.SIZE, "0.000001")
    for name in ("project/.git/HEAD", "project/.venv/bin", "frozen/notes.txt", f"frozen/{'a' * 32}/thesis.tex"):
        file = here / name
        file.parent.mkdir(parents=True, exist_ok=True)
        file.write_text("mine" * 1000)
        os.utime(file.parent, (0, 0))
    before = sorted(here.rglob("*"))
    assert entry(a="1").publish(write(size=5000))
    assert [path for path in before if not path.exists()] == []


def test_an_entry_is_named_by_the_code_of_every_family_of_tasks(monkeypatch: pytest.MonkeyPatch) -> None:
    """Folders are looked through to the bottom: an entry that another encoding wrote must not be found."""
    from llmft.commands import prepare
    from llmft.tasks.tables.tabular import Tabular

    seen: set[Path] = set()
    monkeypatch.setattr(prepare, "digest", lambda file: seen.add(file) or "")
    prepare._code.__wrapped__(Tabular)
    ours = Path(prepare.__file__).parents[1]
    files = {*(ours / "tasks").rglob("*.py"), *(ours / "data").rglob("*.py")}
    assert ours / "tasks/text/contexts.py" in files
    assert files <= seen
