"""`llmft predict` of a run on images: files, folders, patterns, tables and pipes of paths or base64, and bad files."""

import base64
import json
from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy
import pytest
from PIL import Image

import llmft as package
from llmft.cli import main
from llmft.tasks.images.shapes import classified

Run = Callable[..., tuple[int, str, str]]
Piped = Callable[[bytes], None]


@pytest.fixture(scope="module")
def run(tmp_path_factory: pytest.TempPathFactory) -> str:
    folder = tmp_path_factory.mktemp("runs")
    words = ["finetune", "+recipe=image_cls", "smoke=true", "trainer.max_steps=2", f"run.dir={folder}/run"]
    assert main(words) == 0
    return str(folder / "run")


@pytest.fixture
def photos(here: Path) -> Path:
    """a.png, b.jpg, below/c.png, and in between an empty file and a text."""
    rows = [cell["bytes"] for cell in classified(3, seed=5)["image"]]
    for name, data in {
        "a.png": rows[0],
        "b.png": rows[1],
        "below/c.PNG": rows[2],
        "empty.jpg": b"",
        "notes.txt": b"no",
    }.items():
        (here / "photos" / name).parent.mkdir(parents=True, exist_ok=True)
        (here / "photos" / name).write_bytes(data)
    return here / "photos"


def read(text: str) -> list[dict[str, Any]]:
    return [json.loads(line) for line in text.splitlines()]


def test_files_folders_patterns_tables_and_pipes_give_the_same_answers(
    run: str, photos: Path, here: Path, llmft: Run, monkeypatch: pytest.MonkeyPatch
) -> None:
    code, out, err = llmft("predict", run, "predict.input=photos")
    assert code == 0, err
    found = {answer.pop("id"): answer for answer in read(out)}
    assert list(found) == ["a.png", "b.png", "below/c.PNG", "empty.jpg"]
    assert found["empty.jpg"] == {"error": "is empty"}
    assert "3 rows were answered, 1 could not be, such as empty.jpg is empty" in err
    a, b = found["a.png"], found["b.png"]
    assert set(a) == {"answer", "scores"}

    def answers(*words: str) -> list[dict[str, Any]]:
        code, out, err = llmft("predict", run, *words)
        assert code == 0, err
        return [{key: row[key] for key in row if key != "id"} for row in read(out)]

    def alike(rows: list[dict[str, Any]], others: list[dict[str, Any]]) -> None:
        assert [row["answer"] for row in rows] == [row["answer"] for row in others]
        for row, other in zip(rows, others, strict=True):  # batches of other sizes round the seventh digit
            assert row["scores"] == pytest.approx(other["scores"], abs=1e-5)

    alike(answers("predict.input=photos/a.png"), [a])
    alike(answers("predict.image=photos/b.png"), [b])
    alike(answers("predict.input=photos/?.png"), [a, b])
    alike(answers("predict.row={image: photos/a.png}"), [a])
    # Paths in a file are relative to it, of standard input to the folder of the command.
    (here / "photos/list.csv").write_text("image\na.png\nb.png\n")
    alike(answers("predict.input=photos/list.csv"), [a, b])
    (here / "photos/list.txt").write_text("a.png\nb.png\n")
    alike(answers("predict.input=photos/list.txt"), [a, b])
    text = base64.b64encode((photos / "b.png").read_bytes()).decode()
    (here / "rows.jsonl").write_text(
        json.dumps({"image": "photos/a.png"}) + "\n" + json.dumps({"image": f"data:image/png;base64,{text}"}) + "\n"
    )
    alike(answers("predict.input=rows.jsonl"), [a, b])
    for data in (f"photos/a.png\n{text}\n", (here / "rows.jsonl").read_text()):
        (here / "stdin").write_text(data)
        monkeypatch.setattr("sys.stdin", (here / "stdin").open())
        alike(answers(), [a, b])
    # From Python: a path, a row, an image of Pillow, an array.
    image = Image.open(photos / "a.png")
    model = package.load(run)
    rows = model.predict(
        [str(photos / "a.png"), {"image": image}, {"image": numpy.asarray(image)}, {"image": "no.png"}]
    )
    alike(rows[:3], [a, a, a])
    assert rows[3]["error"] == "no.png cannot be read: No such file or directory"


def test_bad_rows_do_not_stop_the_others(run: str, photos: Path, here: Path, llmft: Run) -> None:
    lines = ["a.png", "", "missing.png", "notes.txt", "b.png"]
    (photos / "list.csv").write_text("image,n\n" + "".join(f"{line},{n}\n" for n, line in enumerate(lines)))
    code, out, err = llmft("predict", run, "predict.input=photos/list.csv", "predict.keep=[n]")
    assert code == 0, err
    rows = read(out)
    assert [row["n"] for row in rows] == list("01234")
    assert [row.get("error") for row in rows] == [
        None,
        "has no image",
        "photos/missing.png cannot be read: No such file or directory",
        "photos/notes.txt is not an image that can be read: it starts with b'no'",
        None,
    ]


@pytest.mark.parametrize(
    ("words", "why"),
    [
        (["predict.text=photos/a.png"], "image_classification reads images, not a text. Write predict.image=FILE."),
        (["predict.input=nothing"], "must be a file, got nothing, which does not exist"),
        (["predict.input=nothing/*.png"], "must be a file, got nothing/*.png, which does not exist"),
        (["predict.input=bare"], "no .jpg, .jpeg, .png, ... file in bare"),
        (["predict.image=photos/empty.jpg"], "is empty"),
    ],
)
def test_what_is_no_input_is_named(words: list[str], why: str, run: str, photos: Path, here: Path, llmft: Run) -> None:
    (here / "bare").mkdir()
    code, _, err = llmft("predict", run, *words)
    assert code == (1 if "empty" in why else 2)
    assert why in err
