"""llmft from Python and for programs: the same results as on the command line, and errors that can be read."""

import json
import os
import subprocess
import sys
import time
from collections.abc import Callable
from contextlib import redirect_stdout
from pathlib import Path

import pytest

import llmft as package
from llmft.api import _look
from llmft.cli import _main
from llmft.config.load import load
from llmft.reporting.lines import counting
from llmft.schema.problem import UserError
from llmft.sweeps.children import FORKS, Children

Run = Callable[..., tuple[int, str, str]]
Write = Callable[[str, str | bytes], Path]
SMALL = (
    "+recipe=bert_textcls",
    "smoke=true",
    "trainer.max_steps=2",
    "dataset=csv",
    "dataset.train=a.csv",
    "dataset.max_overlap=1",
)


def test_import_llmft_is_light() -> None:
    code = "import sys, llmft; sys.exit(len(sys.modules.keys() & {'torch', 'pydantic', 'hydra', 'llmft.api'}))"
    subprocess.run([sys.executable, "-c", code], check=True)


@pytest.mark.skipif(not sys.platform.startswith("linux"), reason="only Linux forks")
def test_threads_of_a_gradient_after_an_export_are_seen() -> None:
    """A process for each order, of which the second is a fork: torch takes seconds to export for the first time."""
    code = (
        "import os, torch; torch.set_num_threads(1)\n"
        "import torch.export, torch._dynamo\n"
        "from llmft import api\n"
        "gradient = lambda: torch.ones(1, requires_grad=True).sum().backward()\n"
        "export = lambda: torch.export.export(torch.nn.Linear(3, 2), (torch.ones(1, 3),))\n"
        "child = os.fork()\n"
        "steps = (export, gradient) if child else (gradient, export)\n"
        "if child: os.waitpid(child, 0)\n"
        "[step() for step in steps]\n"
        "print(api._has_computed(), flush=True)"
    )
    done = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=True)
    assert done.stdout.split() == ["False", "True"]


@pytest.mark.parametrize(("threads", "forks"), [(1, True), (2, False)])
@pytest.mark.parametrize("words", [("-m", "seed=1,2"), ("search=tpe", "optimizer.lr=log(1e-5,1e-3)")])
def test_a_sweep_does_not_fork_a_process_that_may_have_computed(
    words: tuple[str, ...], threads: int, forks: bool, here: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """On two threads, a notebook that had trained once hung in the first job of a sweep."""
    children: list[Children] = []

    def start(started: Children, *job: object) -> None:
        children.append(started)
        raise InterruptedError

    monkeypatch.setattr("torch.get_num_threads", lambda: threads)
    monkeypatch.setattr(Children, "start", start)
    with pytest.raises(InterruptedError):
        package.finetune("+recipe=bert_textcls", "smoke=true", *words, "run.dir=sweep")
    assert children[0].forks == (FORKS and forks)


def test_the_whole_way_from_python(llmft: Run, write: Write, here: Path) -> None:
    write("a.csv", "text,label\n" + "".join(f"word {i} {'good' if i % 2 else 'bad'},{i % 2}\n" for i in range(40)))
    start = time.perf_counter()
    run = package.finetune(*SMALL, "run.dir=run")
    assert run.folder == Path("run")
    assert run.metrics["train"]["total_seconds"] < time.perf_counter() - start, "the notebook may be hours old"
    assert run.metrics == json.loads((here / "run/metrics.json").read_text())
    scored = package.eval(run, "run.dir=scored")
    assert scored.metrics["test"] == run.metrics["test"]
    texts = ["word 1 good", "I paid ${price}", ""]
    answers = package.load(run).predict(texts)
    assert answers[2] == {"error": "has an empty text"}
    code, out, _ = llmft("predict", "run", f"predict.row={json.dumps({'text': texts[1]})}")
    assert json.loads(out) == {"id": "row"} | answers[1] | {"scores": pytest.approx(answers[1]["scores"], abs=2e-6)}
    assert package.load("run").predict([{"text": texts[0]}]) == [
        answers[0] | {"scores": pytest.approx(answers[0]["scores"], abs=2e-6)}
    ]
    with pytest.raises(TypeError, match="a list of texts"):
        package.load("run").predict("word")

    code, out, err = llmft("eval", "run", "run.dir=again", "--json")
    assert code == 0
    assert json.loads(out) == {"command": "eval", "exit_code": 0, "folder": "again", "metrics": scored.metrics}
    assert "report" in err
    code, out, _ = llmft("predict", "run", f"predict.text={texts[1]}", "--json")
    assert json.loads(out)["answers"][0]["answer"] == answers[1]["answer"]
    assert json.loads(out)["rows"] == 1


def test_mistakes_are_exceptions_with_their_problems() -> None:
    with pytest.raises(package.UserError, match="no such key") as caught:
        package.finetune("+recipe=bert_textcls", "optimizer.learning_rate=1", "trainer.epochs=three")
    assert [problem.key for problem in caught.value.problems] == ["optimizer.learning_rate", "trainer.epochs"]
    with pytest.raises(package.UserError, match="no such"):
        package.load("nothing")
    with pytest.raises(package.UserError, match="is a flag for the command line only"):
        package.finetune("+recipe=bert_textcls", "--cfg", "job")


def test_mistakes_are_one_json_object(llmft: Run) -> None:
    code, out, err = llmft("finetune", "--json", "+recipe=bert_textcls", "optimizer.learning_rate=1")
    assert (code, json.loads(out)) == (2, {
        "command": "finetune",
        "exit_code": 2,
        "error": "1 problem in this configuration\n  optimizer.learning_rate  no such key (command line). Did you mean optimizer.lr?",
        "problems": [{"key": "optimizer.learning_rate", "what": "no such key", "where": "command line", "hint": "Did you mean optimizer.lr?"}],
    })  # fmt: skip
    assert err.startswith("error: 1 problem")
    code, out, _ = llmft("train", "--json")
    assert json.loads(out) == {
        "command": "train",
        "exit_code": 2,
        "error": "no command called train. Did you mean finetune?",
    }


def test_a_section_of_the_configuration_and_what_is_no_default(llmft: Run, write: Write) -> None:
    code, out, _ = llmft("finetune", "+recipe=bert_textcls", "--cfg", "job=scheduler")
    assert (code, out.splitlines()[0]) == (0, "name: linear")
    assert llmft("finetune", "--cfg", "job=optimizer.lr", "+recipe=bert_textcls") == (0, "optimizer.lr: 0.0001\n", "")
    assert "Did you mean clean?" in llmft("finetune", "+recipe=bert_textcls", "--cfg", "job=dataset.clen")[2]
    write("recipes/mine.yaml", "# @package _global_\ndefaults: [bert_textcls, _self_]\nname: mine\nseed: 7\n")
    code, out, _ = llmft("finetune", "+recipe=mine", "optimizer.lr=3e-5", "--cfg", "diff")
    assert code == 0
    lines = {line.partition(":")[0]: line.partition("# ")[2] for line in out.splitlines()}
    assert lines["seed"] == "recipes/mine.yaml:4, instead of 0"
    assert lines["optimizer.lr"] == "command line, instead of 5e-05"
    assert lines["trainer.epochs"].endswith("instead of 3.0")
    assert "model.path" not in lines
    assert load("finetune", ["+recipe=mine"]).seed == 7
    assert (
        llmft("finetune", "smoke=false", "--cfg", "diff")[1]
        == "nothing differs from llmft finetune task=text_classification\n"
    )


def test_work_goes_on_where_nobody_reads(monkeypatch: pytest.MonkeyPatch) -> None:
    """`llmft finetune ... | head -3` trains to its end."""
    reader, writer = os.pipe()
    os.close(reader)
    monkeypatch.setattr(
        "llmft.api.work", lambda *_: [print("x" * 99_999, flush=True) for _ in range(3)] and {"done": True}
    )
    with os.fdopen(writer, "w") as stream, redirect_stdout(stream):
        facts: dict[str, object] = {}
        assert _main(["finetune", "+recipe=bert_textcls"], facts) == 0
        assert not stream.isatty()
        assert facts == {"done": True}


def test_phases_are_said_and_missing_files_are_found_before_torch_is_imported(llmft: Run, write: Write) -> None:
    code = """
import sys
from llmft.cli import main
code = main(["finetune", "+recipe=bert_textcls", "dataset=csv", "dataset.train=no.csv", "dataset.test=none.csv"])
sys.exit(code + 100 * len(sys.modules.keys() & {'torch', 'datasets'}))
"""
    ended = subprocess.run([sys.executable, "-c", code], check=False, capture_output=True, text=True)
    assert ended.returncode == 2
    assert ended.stderr.splitlines()[1:] == [
        "  dataset.train  must be a file, got no.csv, which does not exist",
        "  dataset.test   must be a file, got none.csv, which does not exist",
    ]
    write("a.csv", "text,label\n" + "".join(f"word {i},{i % 2}\n" for i in range(40)))
    _, out, _ = llmft("finetune", *SMALL, "run.dir=run")
    lines = out.splitlines()
    assert lines[:3] == ["  reading   a.csv", "  loading   tiny-bert", "llmft finetune: bert_textcls"]
    for line in ("  writing   run/model", "  scoring   4 validation rows", "  scoring   4 test rows"):
        assert line in lines
    _, out, _ = llmft("eval", "run", "run.dir=scored")
    assert out.splitlines()[:2] == ["  reading   a.csv", "  loading   run"]
    assert "  scoring   4 test rows" in out.splitlines()


def test_a_long_count_says_how_far_it_is(capsys: pytest.CaptureFixture[str], monkeypatch: pytest.MonkeyPatch) -> None:
    clock = iter([0.0, 10.0, 40.0, 50.0, 80.0])
    monkeypatch.setattr("llmft.reporting.lines.time.perf_counter", lambda: next(clock))
    with counting("scoring", 1000, "test rows") as seen:
        for _ in range(4):
            seen(250)
    assert capsys.readouterr().out == "  scoring   1,000 test rows\n  scoring   500 of 1,000 test rows, 40 s left\n"


def test_what_will_be_read_is_said_and_looked_for_by_those_who_read_it(
    write: Write, capsys: pytest.CaptureFixture[str]
) -> None:
    write("a.csv", "text,label\na,1\n")
    config = load("finetune", ["+recipe=bert_textcls", "dataset.train=a.csv"])
    _look(config)
    _look(config.model_copy(update={"resume": True}))
    assert capsys.readouterr().out == "  reading   a.csv\n" * 2
    Path("a.csv").unlink()
    with pytest.raises(UserError, match="which does not exist"):
        _look(config)
    _look(config.model_copy(update={"resume": True}))
    assert capsys.readouterr().out == "  reading   a.csv\n"
    _look(config.model_copy(update={"command": "chat"}))  # its standard output holds answers alone
    assert capsys.readouterr().out == ""
