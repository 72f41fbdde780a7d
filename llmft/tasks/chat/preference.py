"""The better one of two answers: direct preference optimization (Rafailov et al. 2023, arXiv:2305.18290)."""

import json
import random
import sys
from collections.abc import Container, Iterable, Iterator
from contextlib import suppress
from dataclasses import replace
from typing import TYPE_CHECKING, Any

import torch
from pyarrow import compute
from torch.nn import functional

from llmft.models.generate import generate_after
from llmft.models.labeled import token_losses
from llmft.schema.column import Column
from llmft.schema.model import ModelConfig
from llmft.schema.problem import Problem
from llmft.schema.tasks import IGNORED
from llmft.tasks.chat import config as sections
from llmft.tasks.chat import conversations, pairs
from llmft.tasks.chat.chat_state import ChatState
from llmft.tasks.chat.conversations import Conversation, Unfit
from llmft.tasks.chat.pairs import pair, prompt_of
from llmft.tasks.objective import Batch, Objective, pad, pad_values
from llmft.tasks.task import Answer, Features, RowScore, Task

if TYPE_CHECKING:
    import pyarrow
    from datasets import Dataset

SIDES = ("chosen", "rejected")
LOST = "prompt_lost"
"""The key of a feature: how many tokens of the prompt were cut."""
KEPT = 4  # a quarter of `max_length` is kept for the end of the prompt, which holds the question


class PreferenceObjective(Objective):
    """How much more likely the chosen answer has become relative to the rejected one, since before training."""

    def collate(self, features: list[dict[str, Any]]) -> Batch:
        """All chosen answers (B), then all rejected ones (B), and `reference` (B,), once it is known."""
        values = pad_values(self.task.state.tokenizer)
        if "input_ids" in features[0]:  # prompts to answer: generation continues the last token
            return pad(features, values, "left")
        both = [
            {"input_ids": feature[f"{side}_ids"], "labels": feature[f"{side}_labels"]}
            for side in SIDES
            for feature in features
        ]
        # Chosen answers first: the likelihoods of a batch are then a view of shape (2, B).
        batch = pad(both, values)
        if "reference" in features[0]:
            batch["reference"] = torch.tensor([feature["reference"] for feature in features])
        return batch

    def reference_scores(self, model: torch.nn.Module, batch: Batch) -> list[float]:
        """log p(chosen) - log p(rejected) of each row, computed by the weights before training."""
        return _margins(_likelihoods(model, batch)).tolist()

    def loss(self, model: torch.nn.Module, batch: Batch) -> torch.Tensor:
        return self.loss_of_margins(_margins(_likelihoods(model, batch)), batch["reference"])

    def loss_of_margins(self, margins: torch.Tensor, reference: torch.Tensor) -> torch.Tensor:
        """-log sigmoid(beta (margin - reference)), equation 7 of the paper; both (B,).

        With `label_smoothing` e, 1 - e times that and e times that of the reversed pair: the conservative loss of
        Mitchell (2023), https://ericmitchell.ai/cdpo.pdf.
        """
        options = self.task.options
        gained, wrong = options.beta * (margins - reference), options.label_smoothing
        # logsigmoid, not log(sigmoid): the latter is -inf in float32 below -88.
        return -((1 - wrong) * functional.logsigmoid(gained) + wrong * functional.logsigmoid(-gained)).mean()

    def predict(self, model: torch.nn.Module, batch: Batch) -> tuple[Any, float | None]:
        """The log-likelihood a token of both answers of each row, (B, 2): a mean, so that length does not decide.

        There is a loss only in training, which knows the first weights.
        """
        if "labels" not in batch:
            return [
                {"written": ids} for ids in generate_after(model, batch["input_ids"], batch["attention_mask"])
            ], None
        found = _likelihoods(model, batch)
        loss = self.loss_of_margins(_margins(found), batch["reference"]).item() if "reference" in batch else None
        return (found / _tokens(batch).view(2, -1)).T.cpu().numpy(), loss


class Preference(Task[ChatState]):
    """Is the answer that people chose more likely than the other one?"""

    config = sections.Preference
    head = "AutoModelForCausalLM"
    state_class = ChatState
    objective_class = PreferenceObjective
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

    def check(self, rows: "Dataset", split: str) -> list[Problem]:
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


def _likelihoods(model: torch.nn.Module, batch: dict[str, torch.Tensor]) -> torch.Tensor:
    """The log-likelihood of each answer given its prompt, summed over its tokens: (2, B), chosen answers first."""
    inputs = {key: value for key, value in batch.items() if key != "reference"}
    losses = token_losses(model, inputs, shift=True)
    tokens = _tokens(batch)
    # The losses of all tokens come as one array, row after row: (row of each token,), to sum them by row.
    rows = torch.arange(len(tokens), device=losses.device).repeat_interleave(tokens)
    return -losses.new_zeros(len(tokens)).index_add(0, rows, losses).view(2, -1)


def _tokens(batch: dict[str, torch.Tensor]) -> torch.Tensor:
    """The tokens of each answer (2B,)."""
    # From the second on: the first token has nothing before it from which it could be predicted.
    return (batch["labels"][:, 1:] != IGNORED).sum(dim=1)


def _margins(likelihoods: torch.Tensor) -> torch.Tensor:
    return likelihoods[0] - likelihoods[1]
