"""`llmft runs reproduce`: the same digits again, or what differs; never on other data."""

import json
from collections.abc import Callable
from pathlib import Path

Run = Callable[..., tuple[int, str, str]]
Write = Callable[[str, str], Path]


def test_a_run_is_done_again_and_compared(llmft: Run, write: Write, here: Path) -> None:
    write("a.csv", "n,c,label\n" + "".join(f"{i % 9},{'xy'[i % 2]},{'ab'[i % 3 == 0]}\n" for i in range(120)))
    words = ("+recipe=tabular_mlp", "smoke=true", "dataset.train=a.csv", "dataset=csv", "name=t")
    assert llmft("finetune", *words, "dataset.max_overlap=1")[0] == 0
    (first,) = (here / "outputs/t").iterdir()
    manifest = json.loads((first / "manifest.json").read_text())
    assert manifest["rows_sha256"].keys() == {"train", "validation", "test"}
    code, out, err = llmft("runs", "reproduce", "t", "run.dir=again")
    assert (code, err) == (0, "")
    assert f"the same as outputs/t/{first.name}: " in out
    assert (here / "again/model").is_dir()
    assert json.loads((here / "again/manifest.json").read_text())["rows_sha256"] == manifest["rows_sha256"]
    assert llmft("eval", "t", "run.dir=scored")[0] == 0
    scored = json.loads((here / "scored/manifest.json").read_text())["rows_sha256"]
    assert scored == {split: manifest["rows_sha256"][split] for split in ("validation", "test")}

    metrics = json.loads((first / "metrics.json").read_text())
    metrics["test"]["accuracy"] += 1e-15 if metrics["test"]["accuracy"] < 1 else -1e-15
    (first / "metrics.json").write_text(json.dumps(metrics))
    code, out, err = llmft("runs", "reproduce", "t", "run.dir=third")
    facts = json.loads((here / "third/reproduced.json").read_text())
    assert (code, facts["same"], facts["weights"]) == (1, False, [])
    assert [name for name, (old, new) in facts["scores"].items() if old != new] == ["test.accuracy"]
    assert "third differs from outputs/t" in err

    (here / "a.csv").write_text((here / "a.csv").read_text() + "1,x,a\n")
    code, _, err = llmft("runs", "reproduce", f"outputs/t/{first.name}")
    assert code == 2
    assert f"a.csv  has changed since outputs/t/{first.name}" in err
    code, _, err = llmft("runs", "reproduce", "scored")
    assert (code, "is not a finished training run: eval, done" in err) == (2, True)
