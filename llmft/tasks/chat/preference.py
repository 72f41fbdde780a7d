"""The better one of two answers: direct preference optimization (Rafailov et al. 2023, arXiv:2305.18290)."""

import json
import random
import sys
from collections.abc import Container, Iterable, Iterator
from contextlib import suppress
from dataclasses import replace
from typing import TYPE_CHECKING, Any

from pyarrow import compute

from llmft.data.source import Rows
from llmft.schema.column import Column
from llmft.schema.model import ModelConfig
from llmft.schema.problem import Problem
from llmft.schema.tasks import IGNORED
from llmft.tasks.chat import config as sections
from llmft.tasks.chat import conversations, pairs
from llmft.tasks.chat.chat_state import ChatState
from llmft.tasks.chat.conversations import Conversation, Unfit
from llmft.tasks.chat.pairs import pair, prompt_of
from llmft.tasks.task import Answer, Features, RowScore, Task

if TYPE_CHECKING:
    import pyarrow
    from datasets import Dataset

SIDES = ("chosen", "rejected")
LOST = "prompt_lost"
"""The key of a feature: how many tokens of the prompt were cut."""
KEPT = 4  # a quarter of `max_length` is kept for the end of the prompt, which holds the question


class Preference(Task[ChatState]):
    """Is the answer that people chose more likely than the other one?"""

    config = sections.Preference
    head = "AutoModelForCausalLM"
    state_class = ChatState
    objective_class = "llmft.tasks.token_objectives:PreferenceObjective"
    default_input_role = "prompt"
    options: sections.Preference

    @property
    def columns(self) -> dict[str, Column]:
        """Without answers to compare, a row of `predict` is a prompt that the model answers."""
        if not hasattr(self, "state") or not self.state.inference:
            return pairs.COLUMNS
        optional = {side: replace(pairs.COLUMNS[side], required=False) for side in SIDES}
        return pairs.COLUMNS | optional

    def learn(self, train: "Dataset", model: ModelConfig) -> ChatState:
        form = pairs.form_of(train[0])
        return ChatState.fit(form, lambda: self._talks(train), self.options.template, self.options.max_length, model)

    def _talks(self, rows: "Dataset") -> Iterator[Conversation]:
        """Each readable row, with both answers one after the other; `check` reports the other rows."""
        for row in rows:
            with suppress(Unfit):
                chosen, rejected = pair(row)
                yield Conversation([*chosen.messages, rejected.messages[-1]])

    def model_kwargs(self) -> dict[str, Any]:
        return self.state.model_kwargs()

    def check(self, rows: Rows, split: str) -> list[Problem]:
        lacking = [side for side in SIDES if side not in rows.column_names]
        # Neither answer: a prompt to be answered. One of two: most likely a wrong name of a column.
        if len(lacking) == 1:
            what = f"has no column {lacking[0]!r}, and two answers are compared"
            hint = "Leave out both answers for the model to write one." if self.state.inference else ""
            return [Problem(f"dataset.columns.{lacking[0]}", f"{split} {what}", hint=hint)]

        def read(row: dict[str, Any]) -> None:
            if self._writes(rows.column_names):
                self.state.template.prompt(self.state.to_prompt(prompt_of(row)))
                return
            for talk in pair(row):
                self.state.template.answers(talk)

        return conversations.problems_of(rows, read)

    def notes_on(self, rows: "Dataset | None", split: str, features: "pyarrow.Table | None" = None) -> list[str]:
        """How many pairs of the training rows were too long."""
        if features is None:
            return []
        lost = compute.sum(compute.greater(features[LOST], 0)).as_py()
        what = "pairs are longer than task.max_length: their prompt loses its beginning, the same for both answers"
        return [f"{split}: {lost:,} of {len(features):,} {what}"] if lost else []

    def encode(self, rows: dict[str, list[Any]]) -> Features:
        if self._writes(rows):
            talks = [prompt_of(dict(zip(rows, values, strict=True))) for values in zip(*rows.values(), strict=True)]
            found = [
                self.state.template.encode_prompt(self.state.to_prompt(talk), self.state.max_length) for talk in talks
            ]
            return {
                "input_ids": [tokens.ids for tokens in found],
                "row": list(range(len(found))),
                "length": [len(tokens.ids) for tokens in found],
                "cut": [tokens.cut for tokens in found],
            }
        features: Features = {"row": list(range(len(rows["chosen"]))), "length": [], "cut": []}
        features |= {f"{side}_{what}": [] for side in SIDES for what in ("ids", "labels")} | {LOST: []}
        for values in zip(*rows.values(), strict=True):
            both, gone, cut = self._encoded(pair(dict(zip(rows, values, strict=True))))
            for side, (ids, labels) in zip(SIDES, both, strict=True):
                features[f"{side}_ids"].append(ids)
                features[f"{side}_labels"].append(labels)
            features["length"].append(sum(len(ids) for ids, _ in both))
            features["cut"].append(cut)
            features[LOST].append(gone)
        return features

    def _encoded(self, both: Iterable[Conversation]) -> tuple[list[tuple[list[int], list[int]]], int, bool]:
        """Tokens and labels of both conversations, how many tokens of the prompt were cut, and whether any were.

        Only the last answer has labels. Both answers follow the same prompt, else their likelihoods would be of
        different questions: what the longer conversation has no room for is cut from the beginning of both. A part of
        `max_length` is kept for the prompt; an answer that does not fit beside it loses its end.
        """
        found, firsts = [], []
        for talk in both:
            # Without a limit: where to cut depends on both conversations.
            tokens = self.state.template.encode(talk, "answers", sys.maxsize)
            # The last answer begins after the last token without a label that stands before it.
            last = max(place for place, label in enumerate(tokens.labels) if label != IGNORED)
            firsts.append(next((place + 1 for place in range(last, -1, -1) if tokens.labels[place] == IGNORED), 0))
            found.append((tokens.ids, [IGNORED] * firsts[-1] + tokens.labels[firsts[-1] :]))
        # `gone` tokens of the prompt: what the longer one exceeds, but never so many that less than a quarter of
        # max_length would remain of the prompt.
        over = max(len(ids) for ids, _ in found) - self.state.max_length
        gone = max(0, min(over, min(firsts) - self.state.max_length // KEPT))
        kept = slice(gone, gone + self.state.max_length)
        return [(ids[kept], labels[kept]) for ids, labels in found], gone, over > 0

    def chat_state(self) -> ChatState:
        return self.state

    def decode(self, outputs: list[Any], rows: list[int]) -> list[Answer]:
        if outputs and isinstance(outputs[0], dict):
            return [{"answer": self.state.answer(output["written"])} for output in outputs]
        return [
            {"answer": "chosen" if chosen > rejected else "rejected", "margin": chosen - rejected}
            for chosen, rejected in ((float(chosen), float(rejected)) for chosen, rejected in outputs)
        ]

    def score(self, answers: list[Answer], references: "Dataset") -> dict[str, Any]:
        margins = [answer["margin"] for answer in answers]
        right = sum(answer["answer"] == "chosen" for answer in answers)
        return {"accuracy": right / len(answers), "margin": sum(margins) / len(margins)}

    def format_input(self, row: dict[str, Any]) -> str:
        if self.state.inference and not any(row.get(side) for side in SIDES):
            return "\n".join(map(conversations.text_of, prompt_of(row).messages))
        chosen, rejected = pair(row)
        asked = "\n".join(map(conversations.text_of, chosen.messages[:-1]))
        return " ⏐ ".join((asked, *(conversations.text_of(talk.messages[-1]) for talk in (chosen, rejected))))

    def reference(self, row: dict[str, Any]) -> Any:
        return "chosen"

    def row_score(self, answer: Answer, reference: Any) -> RowScore:
        """Whether the chosen answer is more likely; the error is by how many nats a token it is less likely."""
        if answer["answer"] == reference:
            return RowScore("accuracy", 1.0)
        error = max(-answer["margin"], 1e-9)  # a tie is wrong, too
        return RowScore(
            "accuracy", 0.0, error=error, why=f"the other answer is more likely by {error:.2f} nats a token"
        )

    def synthetic_rows(self, rows: int, seed: int) -> dict[str, list[Any]]:
        """Made-up questions; the chosen answer has a word of one list, the rejected one of another."""
        rng = random.Random(seed)
        filler = ("tavo", "renn", "ilpa", "osk", "dume", "karr")
        words = {"chosen": ("lumo", "shine", "vita"), "rejected": ("mirk", "dross", "blag")}
        made: dict[str, list[Any]] = {"prompt": [], "chosen": [], "rejected": []}
        for _ in range(rows):
            made["prompt"].append(_told("user", rng.choices(filler, k=rng.randint(2, 5))))
            for side in SIDES:
                said = [*rng.choices(filler, k=rng.randint(1, 3)), rng.choice(words[side])]
                rng.shuffle(said)
                made[side].append(_told("assistant", said))
        return made

    def _writes(self, columns: Container[str]) -> bool:
        """Whether the model writes answers: for rows of predict that have none."""
        return bool(self.state.inference) and not any(side in columns for side in SIDES)


def _told(role: str, words: list[str]) -> str:
    return json.dumps([{"role": role, "content": " ".join(words)}])
