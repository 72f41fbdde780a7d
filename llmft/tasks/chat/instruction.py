"""Instruction tuning: answers to instructions, and turns of a chat, written by the model's chat template."""

import json
import random
from collections.abc import Iterator
from contextlib import suppress
from typing import TYPE_CHECKING, Any

from pyarrow import compute

from llmft.data.source import Rows
from llmft.schema.column import Column
from llmft.schema.model import ModelConfig
from llmft.schema.problem import Problem, UserError, missing_package
from llmft.schema.tasks import IGNORED
from llmft.tasks.chat import config as sections
from llmft.tasks.chat import conversations
from llmft.tasks.chat.chat_state import ChatState
from llmft.tasks.chat.chat_template import Tokens
from llmft.tasks.chat.conversations import Conversation, Form, Unfit, form_of
from llmft.tasks.task import Answer, Features, RowScore, Task

if TYPE_CHECKING:
    import pyarrow
    from datasets import Dataset

PROMPT = "prompt_"
"""The prefix of the keys of a batch that hold prompts alone, for `generate`."""


class Instruction(Task[ChatState]):
    """What should the assistant say?"""

    config = sections.Instruction
    head = "AutoModelForCausalLM"
    state_class = ChatState
    default_input_role = "prompt"
    objective_class = "llmft.tasks.token_objectives:AnswerObjective"
    options: sections.Instruction

    @property
    def columns(self) -> dict[str, Column]:
        return conversations.COLUMNS

    def learn(self, train: "Dataset", model: ModelConfig) -> ChatState:
        if self.options.generate and (problems := missing_package("task.generate", "ROUGE", "rouge_score", "text")):
            raise UserError(problems)
        form = form_of(train.column_names, "train")
        return ChatState.fit(
            form, lambda: self._talks(train, form), self.options.template, self.options.max_length, model
        )

    def _talks(self, rows: "Dataset", form: Form) -> Iterator[Conversation]:
        """The conversations of the readable rows; `check` reports the others."""
        for row in rows:
            with suppress(Unfit):
                yield conversations.conversation(row, form)

    def model_kwargs(self) -> dict[str, Any]:
        return self.state.model_kwargs()

    def check(self, rows: Rows, split: str) -> list[Problem]:
        try:
            form = form_of(rows.column_names, split, answered=not self.state.inference)
        except UserError as error:
            return error.problems

        def read(row: dict[str, Any]) -> None:
            talk = conversations.conversation(row, form, bool(self.state.inference))
            if self.state.inference:
                self.state.template.prompt(self.state.to_prompt(talk))
                return
            if talk.untrained and self.options.train_on == "all":
                raise Unfit("leaves an answer out of training, and task.train_on=all trains every token")
            self.state.template.answers(talk.to_last_answer())

        return conversations.problems_of(rows, read)

    def notes_on(self, rows: "Dataset | None", split: str, features: "pyarrow.Table | None" = None) -> list[str]:
        """How many tokens are trained.

        Raises:
            UserError: if there are none.
        """
        if features is None:
            return []
        labels = compute.list_flatten(features["labels"])
        trained = compute.sum(compute.not_equal(labels, IGNORED)).as_py() or 0
        if not trained:
            what = f"leaves nothing to train on: none of the {len(labels):,} tokens of {split} is an answer's"
            raise UserError(Problem("task.train_on", what), "the data")
        return [f"{split}: {trained:,} of {len(labels):,} tokens are trained, {trained / len(labels):.1%}"]

    def encode(self, rows: dict[str, list[Any]]) -> Features:
        form = form_of(list(rows), "rows", answered=not self.state.inference)
        count = len(rows["id"])
        talks = [
            conversations.conversation(
                {key: values[row] for key, values in rows.items()}, form, bool(self.state.inference)
            )
            for row in range(count)
        ]
        if self.state.inference:
            found = [
                self.state.template.encode_prompt(self.state.to_prompt(talk), self.state.max_length) for talk in talks
            ]
        else:
            found = [self._encoded(talk) for talk in talks]
        features: Features = {
            "input_ids": [tokens.ids for tokens in found],
            "row": list(range(count)),
            "length": [len(tokens.ids) for tokens in found],
            "cut": [tokens.cut for tokens in found],
        }
        if not self.state.inference:
            features["labels"] = [tokens.labels for tokens in found]
            if self.options.generate:
                features[f"{PROMPT}ids"] = [
                    self.state.template.encode_prompt(talk.to_last_answer(), self.state.max_length).ids
                    for talk in talks
                ]
        return features

    def _encoded(self, talk: Conversation) -> Tokens:
        return self.state.template.encode(talk.to_last_answer(), self.options.train_on, self.state.max_length)

    def chat_state(self) -> ChatState:
        return self.state

    def decode(self, outputs: list[Any], rows: list[int]) -> list[Answer]:
        return [
            {"answer": self.state.answer(output["written"]) if "written" in output else None}
            | {key: output[key] for key in ("loss", "tokens") if key in output}
            for output in outputs
        ]

    def score(self, answers: list[Answer], references: "Dataset") -> dict[str, Any]:
        if not self.options.generate:
            return {}
        from llmft.metrics.text_metrics import (
            Rouge,  # evaluate imports pipelines, which takes seconds
            Written,
        )

        said, right = [answer["answer"] for answer in answers], [self.reference(row) for row in references]
        found: dict[str, Any] = Written(self.options.answer_pattern).compute(predictions=said, references=right)
        return found | Rouge().compute(predictions=said, references=[[text] for text in right])

    def format_input(self, row: dict[str, Any]) -> str:
        if self.state.inference:
            form = form_of([key for key, value in row.items() if value is not None], "the row", answered=False)
            messages = conversations.conversation(row, form, asked=True).question().messages
        else:
            messages = conversations.of_row(row).question().messages
        if len(messages) == 1:
            return conversations.text_of(messages[0])
        return "\n".join(f"{message['role']}: {conversations.text_of(message)}" for message in messages)

    def reference(self, row: dict[str, Any]) -> Any:
        return conversations.text_of(conversations.of_row(row).messages[-1])

    def row_score(self, answer: Answer, reference: Any) -> RowScore:
        """Whether the right answer was written; without generation, the loss over all tokens.

        The error is the loss of a right answer that was not written.
        """
        from llmft.metrics.text_metrics import normalize_answer

        if answer["answer"] is None:
            found = RowScore("loss", answer["loss"] * answer["tokens"], answer["tokens"])
        else:
            said, right = (
                normalize_answer(text, self.options.answer_pattern) for text in (answer["answer"], reference)
            )
            found = RowScore("exact_match", float(said == right))
            if said == right:
                return found
        loss = float(answer["loss"])
        return found._replace(error=loss, why=f"loss of the right answer {loss:.3f}")

    def synthetic_rows(self, rows: int, seed: int) -> dict[str, list[Any]]:
        """Each made-up word has a made-up answer; a chat has a second question."""
        rng = random.Random(seed)
        facts = {"lumo": "dax", "vita": "wug", "mirk": "blicket", "dross": "fep", "tavo": "zib", "renn": "toma"}
        asked = [rng.choices(list(facts), k=2) for _ in range(rows)]
        filler = ("say", "tell", "give", "name")
        if self.options.template != "chatml":
            prompts = [f"{rng.choice(filler)} {one}" for one, _ in asked]
            return {"prompt": prompts, "response": [facts[one] for one, _ in asked]}
        talks = [
            [
                turn
                for word in pair
                for turn in (
                    {"role": "user", "content": f"{rng.choice(filler)} {word}"},
                    {"role": "assistant", "content": facts[word]},
                )
            ]
            for pair in asked
        ]
        return {"messages": [json.dumps(talk) for talk in talks]}
