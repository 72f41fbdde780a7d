"""Checkpoints that count: committed by a manifest that is published last, verified before they are used.

transformers writes a checkpoint file by file and takes the newest folder for the last one, whole or not; a bit that
flipped in its weights is loaded in silence.
"""

import re
import shutil
from pathlib import Path

from llmft.data.committed import MANIFEST, commit, fault

__all__ = ["MANIFEST", "commit", "fault", "found", "latest", "rotate"]

FOLDER = re.compile(r"checkpoint-(\d+)")


def found(folder: Path) -> dict[Path, int]:
    """The checkpoints below `folder` and their steps, usable or not, the newest first."""
    steps = {path: int(m[1]) for path in folder.glob("checkpoint-*") if (m := FOLDER.fullmatch(path.name))}
    return dict(sorted(steps.items(), key=lambda item: -item[1]))


def latest(folder: Path) -> tuple[Path | None, list[str]]:
    """The newest checkpoint that verifies, and a line on each newer one that does not."""
    passed_over: list[str] = []
    for checkpoint in found(folder):
        why = fault(checkpoint)
        if not why:
            return checkpoint, passed_over
        passed_over.append(f"{checkpoint.name} {why}")
    return None, passed_over


def rotate(folder: Path, keep: int, step: int, best: int | None) -> None:
    """Delete committed checkpoints but the newest `keep` up to `step`, the last one, and that of step `best`.

    What was not committed stays. So does what is of later steps: it was damaged, and the run went on from before.
    """
    committed = [path for path, own in found(folder).items() if own <= step and (path / MANIFEST).is_file()]
    for checkpoint in committed[keep:]:
        if checkpoint.name != f"checkpoint-{best}":
            # First the manifest: a checkpoint that is half gone does not count.
            (checkpoint / MANIFEST).unlink()
            shutil.rmtree(checkpoint)


def remove(run: Path) -> None:
    """Delete the checkpoints of a run that is done: RUN/model holds its best weights.

    One that cannot be deleted costs room and nothing else, so that it is a note.
    """
    folder = run / "checkpoints"
    if folder.is_dir():
        try:
            shutil.rmtree(folder)
        except OSError as error:
            print(f"  note      the checkpoints of a finished run could not be removed: {error}", flush=True)
