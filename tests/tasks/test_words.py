"""Which words of a text, and which columns of a table, speak for its answer."""

import json
import math
from collections.abc import Callable
from pathlib import Path
from types import SimpleNamespace
from typing import Any

import numpy
import pytest
from datasets import Dataset

from llmft import tasks
from llmft.cli import main
from llmft.config.load import load as compose
from llmft.data.pipeline import load
from llmft.data.source import Rows, Table
from llmft.predictions.predict import ready
from llmft.reporting.answers import weights
from llmft.tasks.explaining import log_odds, of_target
from llmft.tasks.tables.columns import TableColumns
from llmft.tasks.tables.number_columns import FLAG
from llmft.tasks.text.sentences import split
from llmft.tasks.text.words import DROPPED, HIDDEN, MOST, explain_words, ids_without

Run = Callable[..., tuple[int, str, str]]
WEIGHTS = {"good": 2.0, "fine": 0.5, "bad": -1.5}


def known(rows: Rows) -> list[dict[str, Any]]:
    """A model whose weights are known: the log-odds of `yes` are the sum over the words that it sees."""
    found = []
    for row in rows:
        seen = 0.0
        for role, text in ((name, row[name]) for name in ("text", "text_pair") if name in row):
            spans = [span for span in row[HIDDEN] if span["role"] == role]
            for start, end in split(text):
                if not any(span["start"] < end and start < span["end"] for span in spans):
                    seen += WEIGHTS.get(text[start:end], 0.0)
        score = 1 / (1 + math.exp(-seen))
        found.append({"answer": "yes" if score >= 0.5 else "no", "scores": {"yes": score, "no": 1 - score}})
    return found


def explained(ask: Callable[[Rows], list[dict[str, Any]]] = known, **texts: str) -> dict[str, Any]:
    (answer,) = known(table(**{name: [text] for name, text in texts.items()}, hidden=[[]]))
    return explain_words(dict(texts), texts, of_target(answer), ask)


def table(**columns: list[Any]) -> Table:
    return Table(columns, [str(number) for number in range(len(columns[HIDDEN]))])


def test_weights_are_those_of_the_model() -> None:
    found = explained(text="A good, not bad one.")
    assert (found["of"], found["measure"]) == ("yes", "log-odds")
    assert [part["text"] for part in found["parts"]] == ["A", "good", ",", "not", "bad", "one", "."]
    assert [part["weight"] for part in found["parts"]] == pytest.approx([0, 2.0, 0, 0, -1.5, 0, 0])
    assert found["parts"][1] | {"weight": 0} == {"role": "text", "start": 2, "end": 6, "text": "good", "weight": 0}


def test_both_texts_of_a_pair_have_words() -> None:
    found = explained(text="good", text_pair="bad fine")
    assert [(part["role"], part["text"]) for part in found["parts"]] == [
        ("text", "good"),
        ("text_pair", "bad"),
        ("text_pair", "fine"),
    ]
    assert [part["weight"] for part in found["parts"]] == pytest.approx([2.0, -1.5, 0.5])


def test_words_of_a_long_text_are_found_with_few_questions() -> None:
    words = ["w"] * 900
    words[321], words[700] = "good", "bad"
    asked = []

    def ask(rows: Rows) -> list[dict[str, Any]]:
        asked.append(len(rows))
        return known(rows)

    found = explained(ask, text=" ".join(words))
    assert sum(asked) <= MOST
    alone = {part["text"]: part["weight"] for part in found["parts"] if " " not in part["text"]}
    assert alone["good"] == pytest.approx(2.0)
    assert alone["bad"] == pytest.approx(-1.5)
    # Nothing is lost: the parts are the whole text, in its order.
    assert " ".join(part["text"] for part in found["parts"]) == " ".join(words)


def test_an_empty_text_has_no_parts() -> None:
    assert explained(text="")["parts"] == []


def test_hiding_the_fifth_named_first_lowers_the_score() -> None:
    rng = numpy.random.default_rng(0)
    best, random = [], []
    for _ in range(40):
        words = rng.choice([*WEIGHTS, "a", "b", "c", "d", "e", "f"], 20).tolist()
        text = " ".join(words)
        found = explained(text=text)
        order = sorted(found["parts"], key=lambda part: -part["weight"])[:4]
        drawn = rng.choice(len(words), 4, replace=False)
        places = split(text)
        chance = [{"role": "text", "start": places[n][0], "end": places[n][1]} for n in drawn]
        whole, one, other = (
            answer["scores"][found["of"]] for answer in known(table(text=[text] * 3, hidden=[[], order, chance]))
        )
        best.append(whole - one)
        random.append(whole - other)
    assert numpy.mean(best) - numpy.mean(random) >= 0.08


FITTED = {
    "text_classification": "+recipe=bert_textcls",
    "relation_extraction": "+recipe=bert_relation",
    "token_classification": "+recipe=bert_ner",
    "question_answering": "+recipe=bert_qa",
}


@pytest.mark.parametrize(("kind", "architecture"), [("wordpiece", "bert"), ("bpe", "gpt2")])
@pytest.mark.parametrize("name", FITTED)
def test_hidden_words_become_the_mask_token(name: str, kind: str, architecture: str) -> None:
    """Tokens of the other words stay as they are; a tokenizer without a mask token leaves tokens out where it can."""
    words = ["smoke=true", "model=random", f"model.architecture={architecture}", f"model.tokenizer.kind={kind}"]
    config = compose("finetune", [FITTED[name], *words])
    task = tasks.build(config.task)
    found = load(config.dataset, task)["train"]
    task = task.fit(found, config.model)
    row = found[:1]
    role = "context" if name == "question_answering" else "text"
    (text,) = row.get(role) or [" ".join(row["tokens"][0])]
    text = text.replace("<e1>", "").replace("</e1>", "").replace("<e2>", "").replace("</e2>", "")
    start, end = split(text)[1]
    before, after = task.encode(row), task.encode(row | {HIDDEN: [[{"role": role, "start": start, "end": end}]]})
    one, other = before["input_ids"][0], after["input_ids"][0]
    mask = task.state.tokenizer.mask_token_id
    changed = [place for place, pair in enumerate(zip(one, other, strict=False)) if pair[0] != pair[1]]
    assert changed
    if mask is None and name in ("text_classification", "relation_extraction"):
        dropped = len(one) - len(other)
        assert dropped > 0
        assert one[: changed[0]] + one[changed[0] + dropped :] == other
        assert after["length"] == [len(other)]
    else:
        assert len(one) == len(other)
        assert {other[place] for place in changed} == {mask if mask is not None else task.state.tokenizer.unk_token_id}
        assert changed == list(range(changed[0], changed[-1] + 1))
    if "token_type_ids" in after:
        assert len(after["token_type_ids"][0]) == len(other)


def columns() -> TableColumns:
    return TableColumns(
        numbers={"age": [40.0, 10.0], "paid": [0.25, 0.43]},
        categories={"city": ["Ulm", "Rom", "Bonn", "Kiel"]},
        dates={"day": {"form": "%d.%m.%Y", "days": [0.0, 2.0], "clock": False}},
        forms={"paid": {"style": FLAG, "sign": ""}},
    )


def test_typical_cells_are_like_the_training_rows() -> None:
    found = columns().typical_cells()
    assert found["age"] == pytest.approx([40, 40 - 150**0.5, 40 + 150**0.5])
    assert found["paid"] == [0.0, 0.0, 1.0]
    assert found["city"] == ["Ulm", "Rom", "Bonn"]
    assert [day[:10] for day in found["day"]] == ["1970-01-01", "1969-12-29", "1970-01-03"]
    plain = columns().plain_row({"age": "41", "paid": "true", "city": " Rom ", "day": "02.01.1970"})
    assert plain == {"age": 41.0, "paid": 1.0, "city": "Rom", "day": "02.01.1970"}
    numbers = columns().encode([plain])
    assert numbers.numbers[0, :2].tolist() == pytest.approx([0.1, 0.75 / 0.43])
    assert numbers.categories.tolist() == [[2]]


def test_columns_have_weights(llmft: Run, here: Path) -> None:
    """`size` says nothing in made-up rows; weight and colour decide together."""
    words = ["+recipe=tabular_boosting", "smoke=true", "task.problem=regression", "run.dir=run"]
    assert llmft("finetune", *words)[0] == 0
    row = '{"weight": 2.0, "size": "5", "colour": "red"}'
    code, out, err = llmft("predict", "run", f"predict.row={row}", "predict.explain=true")
    assert code == 0, err
    answer = json.loads(out)
    explanation = answer["explanation"]
    assert explanation["of"] == answer["answer"]
    assert explanation["measure"] == "number"
    found = {part["column"]: part for part in explanation["parts"]}
    assert found.keys() == {"weight", "size", "colour"}
    assert found["weight"]["value"] == 2.0
    assert found["weight"]["weight"] > 0.3
    assert abs(found["size"]["weight"]) < found["weight"]["weight"] / 2


def test_the_report_marks_words_and_cells() -> None:
    config = compose("finetune", ["+recipe=bert_textcls", "smoke=true"])
    task = tasks.build(config.task)
    row = Dataset.from_dict({"id": ["1"], "text": ["Not good"]})
    parts = [
        {"role": "text", "start": 0, "end": 3, "text": "Not", "weight": -1.0},
        {"role": "text", "start": 4, "end": 8, "text": "good", "weight": 4.0},
    ]
    found = weights({"of": "yes", "measure": "log-odds", "parts": parts}, row, task)
    assert found == {
        "of": "yes",
        "measure": "log-odds",
        "most": 4.0,
        "parts": [("Not", -0.25), (" ", 0.0), ("good", 1.0)],
    }
    cells = [{"column": "age", "value": 41, "weight": 0.5}, {"column": "city", "value": "Rom", "weight": -1.0}]
    found = weights({"of": 3.5, "measure": "number", "parts": cells}, None, task)
    assert found is not None
    assert (found["of"], found["parts"]) == ("3.5", [("city=Rom", -1.0), (" ", 0.0), ("age=41", 0.5), (" ", 0.0)])
    boxes = {"of": "cat", "measure": "score", "parts": [{"box": [0, 0, 1, 1], "weight": 1.0}]}
    assert weights(boxes, None, task) is None


@pytest.mark.parametrize("recipe", ["bert_ner", "bert_qa", "bert_relation"])
def test_the_report_and_predict_explain(recipe: str, llmft: Run, here: Path) -> None:
    words = [f"+recipe={recipe}", "smoke=true", "trainer.max_steps=20", "optimizer.lr=3e-3"]
    assert llmft("finetune", *words, "run.dir=run")[0] == 0
    page = (here / "run/report.html").read_text()
    assert "what speaks for" in page
    assert '<mark class="for"' in page
    assert page.count("Attention is not an explanation") == page.count("attention, layer by layer") > 0
    row = {
        "bert_ner": {"tokens": ["mira", "abel", "tavo", "renn"]},
        "bert_qa": {"question": "who is it", "context": "tavo lumo renn mirk"},
        "bert_relation": {"text": "tavo <e1>smith</e1> renn <e2>blade</e2>"},
    }[recipe]
    code, out, err = llmft("predict", "run", f"predict.row={json.dumps(row)}", "predict.explain=true")
    assert code == 0, err
    found = json.loads(out)["explanation"]
    text = {"bert_ner": "mira abel tavo renn", "bert_relation": "tavo smith renn blade"}.get(recipe)
    for part in found["parts"]:
        own = text or row[part["role"]]
        assert own[part["start"] : part["end"]] == part["text"]


@pytest.mark.slow  # 3 minutes
def test_hiding_words_of_reviews(here: Path) -> None:
    """Measured: 0.503 and 0.342, at 41 s of one thread for 100 texts."""
    assert main(["finetune", "+recipe=bert_textcls", "run.dir=run"]) == 0
    best, random = faithfulness(Path("run"), 100)
    assert best - random >= 0.08


def faithfulness(run: Path, count: int) -> tuple[float, float]:
    """By how much the score falls without the fifth of the words that is named first, and without a random fifth."""
    config = compose("predict", [str(run)])
    answering = ready(config)
    task = answering.task
    rows = load(config.dataset, task)["test"][:count]
    rng = numpy.random.default_rng(0)
    best, random = [], []
    for text in rows["text"]:
        row = table(text=[text], hidden=[[]])
        answers = answering._ask(row)
        (found,) = task.explain(row, answers, answering._ask)
        fifth = max(len(found["parts"]) // 5, 1)
        order = sorted(found["parts"], key=lambda part: -part["weight"])
        drawn = [rng.permutation(len(order)) for _ in range(5)]
        spans = [[], order[:fifth], *([order[n] for n in chosen[:fifth]] for chosen in drawn)]
        keys = ("role", "start", "end")
        hidden = [[{key: part[key] for key in keys} for part in own] for own in spans]
        asked = answering._ask(table(text=[text] * 7, hidden=hidden))
        whole, *others = (answer["scores"][found["of"]] for answer in asked)
        best.append(whole - others[0])
        random.append(whole - numpy.mean(others[1:]))
    return float(numpy.mean(best)), float(numpy.mean(random))


def test_words_without_a_mask_token_are_dropped() -> None:
    encoding: Any = SimpleNamespace(ids=[5, 6, 7], sequence_ids=[0, 0, None], offsets=[(0, 3), (3, 8), (0, 0)])
    tokenizer: Any = SimpleNamespace(mask_token_id=None, unk_token_id=None, pad_token_id=1)
    spans = [{"role": "text", "start": 4, "end": 8}]
    assert ids_without(encoding, [], ("text",), tokenizer) == [5, 6, 7]
    assert ids_without(encoding, spans, ("text",), tokenizer) == [5, DROPPED, 7]
    encoding.ids = [5, 6, 7]  # a real one gives new lists
    assert ids_without(encoding, spans, ("text",), tokenizer, in_place=True) == [5, 1, 7]


def test_log_odds_are_finite() -> None:
    assert log_odds(0.5) == 0
    assert [log_odds(1.0), -log_odds(0.0)] == pytest.approx([math.log(1e9)] * 2, rel=1e-6)
