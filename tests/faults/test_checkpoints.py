"""Checkpoints count when they are whole, and only then. Names in brackets: the faults of the reliability table."""

import errno
import os
import shutil
import signal
from pathlib import Path

import pytest

from llmft.data import committed
from llmft.runs.checkpoints import MANIFEST, commit, fault, found, latest, rotate
from tests.faults.disks import failing, killing

FILES = ("config.json", "model.safetensors", "optimizer.pt", "scheduler.pt", "rng_state.pth", "trainer_state.json")


def checkpoint(folder: Path, step: int, committed: bool = True) -> Path:
    path = folder / f"checkpoint-{step}"
    path.mkdir(parents=True)
    for number, name in enumerate(FILES):
        (path / name).write_bytes(bytes([number, step]) * 50)
    if committed:
        commit(path)
    return path


def test_the_newest_committed_one_is_used(here: Path) -> None:
    checkpoint(here, 9)
    last = checkpoint(here, 10)
    checkpoint(here, 11, committed=False)
    assert latest(here) == (last, ["checkpoint-11 was not finished"])


@pytest.mark.parametrize("name", [*FILES, MANIFEST])
def test_r4_a_missing_file_is_named(name: str, here: Path) -> None:
    older, newer = checkpoint(here, 1), checkpoint(here, 2)
    (newer / name).unlink()
    used, (why,) = latest(here)
    assert used == older
    assert name in why or (name == MANIFEST and why == "checkpoint-2 was not finished")


@pytest.mark.parametrize("name", [*FILES, MANIFEST])
def test_r5_a_flipped_bit_is_named(name: str, here: Path) -> None:
    older, newer = checkpoint(here, 1), checkpoint(here, 2)
    data = bytearray((newer / name).read_bytes())
    data[len(data) // 2] ^= 4
    (newer / name).write_bytes(bytes(data))
    used, (why,) = latest(here)
    assert used == older
    assert why.startswith("checkpoint-2 ")


@pytest.mark.parametrize("share", [0, 0.5])
@pytest.mark.parametrize("name", [*FILES, MANIFEST])
def test_r6_a_file_cut_short_is_named(name: str, share: float, here: Path) -> None:
    older, newer = checkpoint(here, 1), checkpoint(here, 2)
    data = (newer / name).read_bytes()
    (newer / name).write_bytes(data[: int(len(data) * share)])
    used, (why,) = latest(here)
    assert used == older
    assert name in why


def test_what_the_disk_does_not_give_back_is_named(here: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    first, second, third = (checkpoint(here, step) for step in (1, 2, 3))
    (third / MANIFEST).unlink()
    (third / MANIFEST).mkdir()
    plain = committed.digest

    def broken(file: Path) -> str:
        if file == second / "optimizer.pt":
            raise OSError(errno.EIO, "Input/output error", str(file))
        return plain(file)

    monkeypatch.setattr(committed, "digest", broken)
    assert latest(here) == (
        first,
        [
            f"checkpoint-3 has an unreadable {MANIFEST}: Is a directory",
            "checkpoint-2 has an unreadable optimizer.pt: Input/output error",
        ],
    )


def test_r7_where_none_is_good_each_is_named_and_none_deleted(here: Path) -> None:
    for step in (1, 2):
        (checkpoint(here, step) / "optimizer.pt").unlink()
    assert latest(here) == (None, ["checkpoint-2 lacks optimizer.pt", "checkpoint-1 lacks optimizer.pt"])
    assert len(list(here.iterdir())) == 2


def test_r3_a_write_that_fails_never_makes_half_a_checkpoint(here: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """Fail the N-th sync, for every N: the checkpoint counts only if all of them went well."""
    for number in range(1, 100):
        path = checkpoint(here / str(number), 1, committed=False)
        monkeypatch.setattr(os, "fsync", failing(os.fsync, number))
        try:
            commit(path)
        except OSError:
            # Syncing the folders comes after the publication: what is published is whole.
            assert fault(path) in ("was not finished", "")
            assert fault(path) == "" or not (path / MANIFEST).exists()
        else:
            assert fault(path) == ""
            break
        finally:
            monkeypatch.undo()
    assert number == len(FILES) + 4, "a sync for each file, the manifest and two folders; one more went through"


def test_rotation_keeps_the_newest_the_best_and_what_is_not_ours(here: Path) -> None:
    for step in range(1, 7):
        checkpoint(here, step, committed=step != 3)
    (here / "checkpoint-mine").mkdir()
    rotate(here, keep=2, step=6, best=2)
    assert sorted(path.name for path in here.iterdir()) == [
        "checkpoint-2",
        "checkpoint-3",
        "checkpoint-5",
        "checkpoint-6",
        "checkpoint-mine",
    ]


def test_a_damaged_later_one_does_not_count_among_those_to_keep(here: Path) -> None:
    """The run went on from 4, the best, and has saved 6."""
    for step in (4, 6, 7):
        checkpoint(here, step)
    (here / "checkpoint-7/optimizer.pt").write_bytes(b"damaged")
    rotate(here, keep=1, step=6, best=4)
    assert latest(here)[0] == here / "checkpoint-6"
    assert len(list(here.iterdir())) == 3


def test_r9_killed_in_rotation(here: Path) -> None:
    """A process is killed as it deletes its N-th file, for every N: what stays is whole, or does not count."""
    for number in range(1, 100):
        folder = here / str(number)
        for step in (1, 2, 3):
            checkpoint(folder, step)
        if (child := os.fork()) == 0:
            shutil.rmtree, os.unlink = removed, killing(os.unlink, number)
            rotate(folder, keep=1, step=3, best=None)
            os._exit(0)
        killed = os.waitstatus_to_exitcode(os.waitpid(child, 0)[1]) == -signal.SIGKILL
        assert latest(folder) == (folder / "checkpoint-3", [])
        assert {fault(path) for path in found(folder)} <= {"", "was not finished"}
        if not killed:
            break
    assert number == 2 * (len(FILES) + 1) + 1


def removed(folder: Path) -> None:
    """As `shutil.rmtree` does where the file system lists the manifest last."""
    for file in sorted(folder.iterdir(), key=lambda file: file.name == MANIFEST):
        file.unlink()
    folder.rmdir()


def test_r1_killed_after_each_file(here: Path) -> None:
    """A process is killed as it syncs its N-th file, for every N; the checkpoint before is there all the same."""
    for number in range(1, 100):
        folder = here / str(number)
        before = checkpoint(folder, 1)
        if (child := os.fork()) == 0:
            os.fsync = killing(os.fsync, number)
            checkpoint(folder, 2)
            os._exit(0)
        killed = os.waitstatus_to_exitcode(os.waitpid(child, 0)[1]) == -signal.SIGKILL
        # Once the manifest has its name, all that it names is on the disk.
        assert latest(folder) in [(before, ["checkpoint-2 was not finished"]), (folder / "checkpoint-2", [])]
        if not killed:
            break
    assert number == len(FILES) + 4
