"""Extractive question answering: the part of a text that answers a question."""

import json
import random
from collections.abc import Sequence
from dataclasses import dataclass, replace
from typing import TYPE_CHECKING, Any, Self

import numpy

from llmft.data.source import Rows, listed
from llmft.schema.column import Column
from llmft.schema.model import ModelConfig
from llmft.schema.problem import Problem, UserError
from llmft.tasks.explaining import Ask, Subject, span_overlap
from llmft.tasks.task import Answer, Features, RowScore, State, Task
from llmft.tasks.text import config as sections
from llmft.tasks.text.contexts import Span, best_of_windows, best_span, holds_answers, read_answers, rows_of, windows
from llmft.tasks.text.words import explain_words, hidden_of, input_rows
from llmft.tasks.tokenizer import Tokenizer, learn

if TYPE_CHECKING:
    from datasets import Dataset

LABELS = ("start_positions", "end_positions")


@dataclass
class QuestionState(State):
    """The tokenizer, and the threshold for giving no answer."""

    tokenizer: Tokenizer
    max_length: int
    threshold: float = 0.0
    """No answer is given if log p(none) - log p(answer) is above it."""

    @property
    def description(self) -> str:
        return "a part of the context"


class QuestionAnswering(Task[QuestionState]):
    """When was the bridge built? The words of the text that answer it."""

    config = sections.QuestionAnswering
    head = "AutoModelForQuestionAnswering"
    state_class = QuestionState
    objective_class = "llmft.tasks.text.objectives:SpanObjective"
    padding_side = "right"  # for any model: labels and windows count tokens from the left
    token_axis = 1
    separator = " / "
    no_answer = "(no answer)"

    @property
    def columns(self) -> dict[str, Column]:
        return {
            "question": Column("text"),
            "context": Column("text", fixed=True),
            "answers": Column("json", target=True, blank=True, structure=holds_answers),
            "answer_start": Column("number", required=False),
        }

    def learn(self, train: "Dataset", model: ModelConfig) -> QuestionState:
        texts = (text for name in ("question", "context") for text in train[name])
        tokenizer, length = learn(texts, train["context"], self.options.max_length, model, side="right")
        if self.options.stride >= (half := sections.least_context(length)):
            what = f"the model reads {length} tokens at a time, and two windows can share fewer than {half}"
            raise UserError(Problem("task.stride", what, hint=f"Write task.stride={half // 2}."))
        return QuestionState(tokenizer, length)

    def model_kwargs(self) -> dict[str, Any]:
        sizes = {"vocab_size": len(self.state.tokenizer), "max_position_embeddings": self.state.max_length}
        return {"pad_token_id": self.state.tokenizer.pad_token_id} | sizes

    def check(self, rows: Rows, split: str) -> list[Problem]:
        if "answers" not in rows.column_names:
            return []
        problems: list[Problem] = []
        for row in rows:
            try:
                found = read_answers(row["answers"], row.get("answer_start"), row["context"], row["id"])
            except UserError as error:
                problems += error.problems
                continue
            if not found and not self.options.unanswerable:
                hint = "If its context holds none, write task.unanswerable=true."
                problems.append(Problem(row["id"], f"has no answer ({split})", hint=hint))
        return listed(problems)

    def encode(self, rows: dict[str, list[Any]]) -> Features:
        labeled = "answers" in rows  # rows of predict have none
        places = [self._place(rows, row) for row in range(len(rows["context"]))] if labeled else []
        features: Features = {}
        tokenizer, length, stride = self.state.tokenizer, self.state.max_length, self.options.stride
        for window in windows(rows["question"], rows["context"], tokenizer, length, stride, hidden_of(rows)):
            made = {
                **window.inputs,
                "row": window.row,
                "length": len(window.inputs["input_ids"]),
                "cut": window.cut,
                "aside": window.aside(rows["context"][window.row]),
            }
            if labeled:
                place = places[window.row]
                # A window without the answer learns "none" too: most windows of a long context are like that.
                tokens = window.tokens(*place) if place else (window.none, window.none)
                made |= dict(zip(LABELS, tokens, strict=True))
            for key, value in made.items():
                features.setdefault(key, []).append(value)
        return features

    def _place(self, rows: dict[str, list[Any]], row: int) -> tuple[int, int] | None:
        """The characters of the first right answer of a row, which training learns; None without an answer."""
        start = rows["answer_start"][row] if "answer_start" in rows else None
        found = read_answers(rows["answers"][row], start, rows["context"][row])
        return (found[0].start, found[0].end) if found else None

    @property
    def calibrates(self) -> bool:
        """Whether rows may have no answer."""
        return self.options.unanswerable

    def calibrate(self, outputs: list[Any], references: "Dataset") -> Self:
        """The task with the threshold that has the best F1 on these rows, as SQuAD 2.0 chooses it."""
        from llmft.metrics.text_metrics import f1  # evaluate imports pipelines, which takes seconds

        spans = self._spans(outputs, rows_of([aside for _, aside in outputs]))
        right = [self.reference(row) for row in references]
        # What a row gains if its answer is given. Only these differences depend on the threshold.
        gains = [f1(span.text, texts) - f1("", texts) for span, texts in zip(spans, right, strict=True)]
        found = best_threshold([span.none - span.score for span in spans], gains)
        return self.with_state(replace(self.state, threshold=found))

    def decode(self, outputs: list[Any], rows: list[int]) -> list[Answer]:
        return [self._answer(span) for span in self._spans(outputs, rows)]

    def _spans(self, outputs: list[Any], rows: list[int]) -> list[Span]:
        """The likeliest span of each row."""
        found: dict[int, list[Span]] = {}
        for (logits, window), row in zip(outputs, rows, strict=True):
            found.setdefault(row, []).append(best_span(logits, window, self.options.max_answer_length))
        return [best_of_windows(found[row]) for row in sorted(found)]

    def _answer(self, span: Span) -> Answer:
        """The text and its characters; `score` is its probability, or that of no answer."""
        if span.start is None or (self.options.unanswerable and span.none - span.score > self.state.threshold):
            return {"answer": "", "start": None, "end": None, "score": float(numpy.exp(span.none))}
        end = span.start + len(span.text)
        return {"answer": span.text, "start": span.start, "end": end, "score": float(numpy.exp(span.score))}

    def score(self, answers: list[Answer], references: "Dataset") -> dict[str, Any]:
        """Exact match and F1; see llmft.metrics.text_metrics."""
        from llmft.metrics.text_metrics import SpanAnswers  # evaluate imports pipelines, which takes seconds

        right = [self.reference(row) for row in references]
        return SpanAnswers().compute(predictions=[answer["answer"] for answer in answers], references=right)

    def format_input(self, row: dict[str, Any]) -> str:
        return f"{row['question']} ⏐ {row['context']}"

    def reference(self, row: dict[str, Any]) -> Any:
        """The right answers, each once; an empty list for a question without an answer."""
        if row.get("answers") is None:
            return None
        found = read_answers(row["answers"], row.get("answer_start"), row["context"])
        return list(dict.fromkeys(span.text for span in found))

    def row_score(self, answer: Answer, reference: Any) -> RowScore:
        """F1 of the words; the error is how sure an answer is, times what it lacks of F1."""
        from llmft.metrics.text_metrics import exact_match, f1

        part = f1(answer["answer"], reference)
        if exact_match(answer["answer"], reference):
            return RowScore("f1", part)
        # Sure and wrong comes first in the report. Above 0, so that a wrong answer of score 0 is still an error.
        error = max(float(answer["score"]) * (1 - part), 1e-9)
        return RowScore("f1", part, error=error, why=f"{100 * error:.1f}%" if error > 1e-9 else "")

    def explain(self, rows: Rows, answers: list[Answer], ask: Ask) -> list[dict[str, Any]]:
        """Which words of the question and its context speak for the answer of each row; see words.py."""
        found = []
        for row, answer in zip(input_rows(rows, ("question", "context")), answers, strict=True):

            def strength(other: Answer, given: Answer = answer) -> float:
                # No answer is one, too: what is left of it is its score where there is none again.
                if given["start"] is None or other["start"] is None:
                    return float(other["score"]) if given["start"] == other["start"] else 0.0
                return float(other["score"]) * span_overlap(given, other)

            place = {key: answer[key] for key in ("start", "end")} if answer["answer"] else {}
            subject = Subject(answer["answer"] or self.no_answer, "score", strength, place)
            found.append(explain_words(row, {name: row[name] for name in ("question", "context")}, subject, ask))
        return found

    def synthetic_rows(self, rows: int, seed: int) -> dict[str, list[Any]]:
        """Made-up words, among them a person and a place; the question asks for one of them."""
        rng = random.Random(seed)
        telling = {"who": ("lumo", "shine", "vita"), "where": ("mirk", "dross", "blag")}
        filler = ("tavo", "renn", "ilpa", "osk", "dume", "karr", "pell", "unda", "sift", "gron")
        made: dict[str, list[Any]] = {"question": [], "context": [], "answers": []}
        for index in range(rows):
            asked = ("who", "where")[index % 2]
            silent = self.options.unanswerable and index % 4 < 2  # half of the rows, of both questions alike
            told = [rng.choice(names) for kind, names in telling.items() if not (silent and kind == asked)]
            words = [*told, *rng.choices(filler, k=rng.randint(2, 6))]
            rng.shuffle(words)
            context = " ".join(words)
            answers = [word for word in words if word in telling[asked]]
            starts = [context.index(word) for word in answers]
            made["question"].append(f"{asked} is it")
            made["context"].append(context)
            made["answers"].append(json.dumps({"text": answers, "answer_start": starts}))
        return made


def best_threshold(doubts: Sequence[float], gains: Sequence[float]) -> float:
    """The threshold of doubt below which answers are given: that with the largest sum of gains, nearest to 0.

    Args:
        doubts: of each row, log p(none) - log p(answer).
        gains: the F1 of its answer, minus that of no answer.
    """
    # A context without tokens has an infinite doubt, which would make the midpoints below NaN.
    finite = numpy.clip(numpy.asarray(doubts, dtype=float), -1e6, 1e6)
    order = numpy.argsort(finite, kind="stable")
    sorted_doubts = finite[order]
    # sums[k]: the total gain if the k rows with the least doubt get their answer; edges: the doubts around it.
    sums = numpy.concatenate([[0.0], numpy.cumsum(numpy.asarray(gains, dtype=float)[order])])
    edges = numpy.concatenate([[sorted_doubts[0] - 1], sorted_doubts, [sorted_doubts[-1] + 1]])
    # A threshold cannot separate rows of equal doubt.
    parted = numpy.concatenate([[True], sorted_doubts[1:] > sorted_doubts[:-1], [True]])
    between = ((edges[:-1] + edges[1:]) / 2)[parted & (sums == sums[parted].max())]
    return float(between[numpy.abs(between).argmin()])
