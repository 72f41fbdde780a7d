"""Preference tuning: rows of pairs and their mistakes, the loss by hand, and what the first weights are asked."""

import json
import math
import re
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pyarrow
import pytest
import torch
from datasets import Dataset

from llmft import tasks
from llmft.config.load import load as compose
from llmft.data.pipeline import load
from llmft.models.build import build
from llmft.schema.tasks import IGNORED
from llmft.tasks.chat.conversations import Unfit
from llmft.tasks.chat.pairs import pair
from llmft.training.features import encode

Run = Callable[..., tuple[int, str, str]]


def user(text: str) -> dict[str, str]:
    return {"role": "user", "content": text}


def said(text: str) -> dict[str, str]:
    return {"role": "assistant", "content": text}


Q, GOOD, BAD = "你好? 🙂", "Bonjour, ça va?", "Non."
ALIKE: dict[str, dict[str, Any]] = {
    "texts": {"prompt": Q, "chosen": GOOD, "rejected": BAD},
    "messages": {"prompt": [user(Q)], "chosen": [said(GOOD)], "rejected": [said(BAD)]},
    "ShareGPT's keys": {
        "prompt": [{"from": "human", "value": Q}],
        "chosen": [{"from": "gpt", "value": GOOD}],
        "rejected": [{"from": "gpt", "value": BAD}],
    },
    "whole conversations": {"chosen": [user(Q), said(GOOD)], "rejected": [user(Q), said(BAD)]},
    "a prompt and whole conversations": {"prompt": Q, "chosen": [user(Q), said(GOOD)], "rejected": [user(Q), said(BAD)]},
    "a text and a message": {"prompt": Q, "chosen": GOOD, "rejected": [said(BAD)]},
}  # fmt: skip


@pytest.mark.parametrize("form", ALIKE)
def test_rows_of_all_forms_are_the_same_pair(form: str) -> None:
    row = {key: json.dumps(value) for key, value in ALIKE[form].items()}
    assert [talk.messages for talk in pair(row)] == [[user(Q), said(GOOD)], [user(Q), said(BAD)]]


WRONG: dict[str, tuple[dict[str, Any], str]] = {
    "the same answer twice": ({"prompt": "q", "chosen": "a", "rejected": "a"}, "chosen and rejected are the same answer"),
    "other prompts": (
        {"chosen": [user("q"), said("a")], "rejected": [user("r"), said("b")]},
        "chosen and rejected answer different prompts",
    ),
    "a prompt that is not theirs": (
        {"prompt": "r", "chosen": [user("q"), said("a")], "rejected": [user("q"), said("b")]},
        "chosen is a conversation that does not begin with the prompt",
    ),
    "no prompt": ({"chosen": "a", "rejected": "b"}, "chosen is an answer, and the row has no prompt"),
    "no answer": ({"prompt": "q", "chosen": [], "rejected": "b"}, "chosen is neither a text nor a list of messages"),
    "an empty answer": ({"prompt": "q", "chosen": [said(" ")], "rejected": "b"}, "the content of message 2 is empty"),
    "a question at the end": (
        {"chosen": [user("q"), said("a"), user("r")], "rejected": [user("q"), said("b")]},
        "chosen does not end with an answer",
    ),
    "a number": ({"prompt": "q", "chosen": 3, "rejected": "b"}, "chosen is neither a text nor a list of messages"),
    "a prompt that is a number": ({"prompt": 3, "chosen": "a", "rejected": "b"}, "prompt is neither a text nor a list"),
    "an unknown role": ({"chosen": [{"role": "judge", "content": "q"}], "rejected": "b"}, 'message 1 is of "judge"'),
}  # fmt: skip


@pytest.mark.parametrize("name", WRONG)
def test_a_row_that_is_no_pair_is_explained(name: str) -> None:
    row, why = WRONG[name]
    with pytest.raises(Unfit) as error:
        pair({key: json.dumps(value) for key, value in row.items()})
    assert why in str(error.value)


def test_bad_rows_are_told_by_file_and_line(llmft: Run, write: Callable[[str, str], Path]) -> None:
    rows = [{"prompt": f"q{i}", "chosen": "yes", "rejected": "no"} for i in range(20)]
    rows[3]["rejected"], rows[5]["chosen"] = "yes", " "
    write("pairs.jsonl", "".join(json.dumps(row) + "\n" for row in rows))
    words = ("+recipe=llm_dpo", "smoke=true", "dataset=json", "dataset.train=pairs.jsonl")
    code, _, err = llmft("finetune", *words, "dataset.drop_empty=true", "run.dir=run")
    assert code == 2
    assert "pairs.jsonl:4  chosen and rejected are the same answer" in err
    rows[3]["rejected"] = "no"
    write("pairs.jsonl", "".join(json.dumps(row) + "\n" for row in rows))
    code, _, err = llmft("finetune", *words, "run.dir=run")
    assert code == 2
    assert "pairs.jsonl:6" in err
    assert "empty" in err


def test_streamed_rows_are_refused(llmft: Run) -> None:
    code, _, err = llmft("finetune", "+recipe=llm_dpo", "dataset.streaming=true")
    assert code == 2
    assert "dataset.streaming  preference computes all rows with the initial weights before training" in err


def prepared(*words: str) -> tuple[Any, Any, Any, Any]:
    config = compose("finetune", ["+recipe=llm_dpo", "smoke=true", *words])
    task = tasks.build(config.task)
    rows = load(config.dataset, task)["train"]
    task = task.fit(rows, config.model)
    torch.manual_seed(0)
    return task, build(config.model, task.head, task.model_kwargs()).eval(), rows


def test_only_the_last_answer_counts() -> None:
    task, _, _ = prepared()
    talk = [user("tavo"), said("renn"), user("ilpa")]
    row = {side: [json.dumps([*talk, said(word)])] for side, word in (("chosen", "lumo"), ("rejected", "mirk"))}
    features = task.encode(row)
    for side, word in (("chosen", "lumo"), ("rejected", "mirk")):
        trained = [label for label in features[f"{side}_labels"][0] if label != IGNORED]
        assert task.state.tokenizer.decode(trained) == f"{word}{task.state.tokenizer.eos_token}"


def test_both_answers_follow_the_same_cut_prompt() -> None:
    task, _, _ = prepared()
    ids = task.state.tokenizer.encode(["tavo renn osk"], special=False)[0].ids
    task.state.max_length = 48
    row = {
        "prompt": ["tavo renn osk " * 40, "tavo", "tavo " * 40],
        "chosen": ["lumo"] * 3,
        "rejected": ["mirk " * 4, "mirk", "osk " * 60],
    }
    whole = task.encode({key: [json.dumps(cell) for cell in cells] for key, cells in row.items()})
    assert whole["cut"] == [True, False, True]
    assert ids and len(whole["chosen_ids"][0]) < len(whole["rejected_ids"][0]) == 48
    for pair_ in range(3):
        prompts, trained = [], []
        for side in ("chosen", "rejected"):
            tokens, labels = whole[f"{side}_ids"][pair_], whole[f"{side}_labels"][pair_]
            first = next(place for place, label in enumerate(labels) if label != IGNORED)
            prompts.append(tokens[:first])
            trained.append(task.state.tokenizer.decode(tokens[first:]))
        assert prompts[0] == prompts[1]
        assert trained[0] == f"lumo{task.state.tokenizer.eos_token}"
        assert len(prompts[0]) >= 2
        assert trained[1].endswith(task.state.tokenizer.eos_token) == (
            pair_ < 2
        )  # an answer that is too long loses its end
    assert len(prompts[0]) == 48 // 4
    assert task.state.tokenizer.decode(prompts[0]).endswith("tavo \n")
    note = "train: 2 of 3 pairs are longer than task.max_length: their prompt loses its beginning, the same for both answers"
    assert task.notes_on(None, "train", pyarrow.table({"prompt_lost": whole["prompt_lost"]})) == [note]


def test_a_prompt_may_be_in_alpacas_columns_or_in_sharegpts() -> None:
    answers = {"chosen": '"a"', "rejected": '"b"'}
    for row, asked in (
        ({"instruction": '"Add"', "input": "1, 2"}, "Add\n\n1, 2"),
        ({"conversations": json.dumps([{"from": "human", "value": "Add"}])}, "Add"),
    ):
        chosen, rejected = pair(row | answers)
        assert chosen.messages == [user(asked), said("a")]
        assert rejected.messages == [user(asked), said("b")]
    tools = json.dumps([{"name": "f"}])
    for talk in pair({"prompt": '"q"', "system": "Be kind.", "tools": tools, **answers}):
        assert talk.messages[0] == {"role": "system", "content": "Be kind."}
        assert talk.given["tools"][0]["function"] == {"name": "f"}
    with pytest.raises(
        Unfit, match=r"has prompt and instruction, which both ask; write dataset.ignore=\[instruction\]"
    ):
        pair({"prompt": '"q"', "instruction": '"q"', **answers})
    with pytest.raises(Unfit, match="has an input, and no prompt"):
        pair({"input": "q", **answers})


def test_show_marks_both_answers(llmft: Run) -> None:
    code, out, err = llmft("finetune", "+recipe=llm_dpo", "show=1")
    assert code == 0, err
    pattern = r"chosen: (?P<asked>.+)\n⟦.+<\|endoftext\|>⟧\nrejected: (?P=asked)\n⟦.+<\|endoftext\|>⟧"
    assert re.search(pattern, out), out


@pytest.mark.parametrize("smoothing", [0.0, 0.25])
def test_the_loss_is_the_one_of_the_paper(smoothing: float) -> None:
    task, model, rows = prepared(f"task.label_smoothing={smoothing}", "task.beta=0.5")
    features = encode(task, rows).__getitems__([0, 1, 2])
    reference = [1.5, -2.0, 0.0]
    batch = task.objective.collate([row | {"reference": r} for row, r in zip(features, reference, strict=True)])
    losses = []
    for row, given in zip(features, reference, strict=True):
        sums = []
        for side in ("chosen", "rejected"):
            ids, labels = row[f"{side}_ids"], row[f"{side}_labels"]
            found = model(input_ids=torch.tensor([ids])).logits[0].log_softmax(dim=1)
            sums.append(sum(found[t - 1, ids[t]].item() for t in range(1, len(ids)) if labels[t] != IGNORED))
        gained = 0.5 * (sums[0] - sums[1] - given)
        right, wrong = (math.log1p(math.exp(-sign * gained)) for sign in (1, -1))
        losses.append((1 - smoothing) * right + smoothing * wrong)
    with torch.no_grad():
        assert task.objective.loss(model, batch).item() == pytest.approx(sum(losses) / 3, abs=1e-5)


def test_an_answer_is_judged_by_the_mean_of_its_tokens() -> None:
    task, model, rows = prepared()
    batch = task.objective.collate(encode(task, rows).__getitems__([0, 1]))
    with torch.no_grad():
        outputs, loss = task.objective.predict(model, batch)
        whole = task.objective.reference_scores(model, batch)
    assert loss is None
    counts = (batch["labels"][:, 1:] != IGNORED).sum(dim=1).view(2, 2).T.numpy()
    assert ((outputs * counts)[:, 0] - (outputs * counts)[:, 1]).tolist() == pytest.approx(whole, abs=1e-4)
    answers = task.decode([[-1.0, -2.0], [-2.0, -1.0]], [0, 1])
    assert answers == [{"answer": "chosen", "margin": 1.0}, {"answer": "rejected", "margin": -1.0}]
    assert task.score([*answers, answers[0]], rows) == {"accuracy": 2 / 3, "margin": pytest.approx(1 / 3)}
    assert task.row_score(answers[0], "chosen").error == 0
    assert task.row_score(answers[1], "chosen").error == 1


def test_as_likely_is_not_more_likely() -> None:
    """Else a model that cannot tell answers apart, or whose outputs are not numbers, would be right in all rows."""
    task, _, rows = prepared()
    answers = task.decode([[-1.0, -1.0], [math.nan, math.nan]], [0, 1])
    assert [answer["answer"] for answer in answers] == ["rejected", "rejected"]
    assert task.score(answers, rows)["accuracy"] == 0
    assert task.row_score(answers[0], "chosen").error > 0


def test_the_first_loss_is_that_of_no_change(llmft: Run, here: Path) -> None:
    code, _, err = llmft("finetune", "+recipe=llm_dpo", "smoke=true", "run.dir=run")
    assert code == 0, err
    events = [json.loads(line) for line in (here / "run/events.jsonl").read_text().splitlines()]
    losses = [event["loss"] for event in events if "loss" in event]
    assert losses[0] == pytest.approx(math.log(2), abs=1e-4)
    assert losses[-1] < losses[0]
    assert all("eval_margin" in event for event in events if "eval_loss" in event)
    assert set(json.loads((here / "run/metrics.json").read_text())["test"]) == {"accuracy", "margin"}
    # A run can be asked, too: for an answer, or which of two it finds more likely.
    code, out, err = llmft("predict", "run", "predict.text=tavo renn", "generation.max_new_tokens=3")
    assert (code, list(json.loads(out))) == (0, ["id", "answer"]), err
    answer = json.loads(out)["answer"]
    row = "predict.row={prompt: tavo renn, chosen: lumo, rejected: mirk}"
    code, out, err = llmft("predict", "run", row)
    assert json.loads(out)["answer"] in ("chosen", "rejected"), err
    (here / "rows.jsonl").write_text(
        '{"prompt": "tavo renn"}\n{"prompt": ""}\n{"text": "a"}\n{"prompt": [{"role": "user", "content": "tavo renn"}]}\n'
    )
    code, out, err = llmft("predict", "run", "predict.input=rows.jsonl", "generation.max_new_tokens=3")
    found = [json.loads(line) for line in out.splitlines()]
    assert [row.get("answer") for row in found] == [answer, None, None, answer]
    assert "content of message 1 is empty" in found[1]["error"]
    assert "note: columns that are not read: text\n" in err


def test_what_is_asked_begins_as_training_did() -> None:
    rows = {
        "id": ["1", "2"],
        "prompt": ['"q"', '"r"'],
        "system": ["Be kind."] * 2,
        "chosen": ['"a"'] * 2,
        "rejected": ['"b"'] * 2,
    }
    task, *_ = prepared()
    assert task.state.system == ""
    config = compose("finetune", ["+recipe=llm_dpo", "smoke=true"])
    task = task.fit(Dataset.from_dict(rows), config.model)
    assert task.state.system == "Be kind."
    assert "the system prompt of all rows is kept for predict and chat: Be kind." in task.state.notes
    lines = {**rows, "chosen": ['"a  b\\nc"'] * 2}
    words = compose("finetune", ["+recipe=llm_dpo", "smoke=true", "model.tokenizer.kind=wordpiece"])
    assert any(
        "of the answers come back" in note for note in task.fit(Dataset.from_dict(lines), words.model).state.notes
    )
    asking = task.for_inference()
    (ids,) = asking.encode({"id": ["1"], "prompt": ['"q"']})["input_ids"]
    assert task.state.tokenizer.decode(ids) == "Be kind.\nq\n"
    (ids,) = asking.encode({"id": ["1"], "prompt": ['"q"'], "system": ["No."]})["input_ids"]
    assert task.state.tokenizer.decode(ids) == "No.\nq\n"
    rows["system"][1] = "Be brief."
    assert task.fit(Dataset.from_dict(rows), config.model).state.system == ""
