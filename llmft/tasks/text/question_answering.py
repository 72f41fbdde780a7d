"""Extractive question answering: the part of a text that answers a question, of the text given, or of a corpus."""

import json
import random
from collections import Counter
from collections.abc import Sequence
from dataclasses import dataclass, field, replace
from pathlib import Path
from typing import TYPE_CHECKING, Any, NamedTuple, Self

import numpy

from llmft.data.source import Rows, listed
from llmft.schema.column import Column
from llmft.schema.model import ModelConfig
from llmft.schema.problem import Problem, UserError
from llmft.tasks.explaining import Ask, Subject, span_overlap
from llmft.tasks.task import UNSAVED, Answer, Features, RowScore, State, Task
from llmft.tasks.text import config as sections
from llmft.tasks.text.contexts import (
    Span,
    answer_texts,
    best_of_windows,
    best_span,
    holds_answers,
    read_answers,
    rows_of,
    windows,
)
from llmft.tasks.text.words import explain_words, hidden_of, input_rows
from llmft.tasks.tokenizer import Tokenizer, learn

if TYPE_CHECKING:
    from datasets import Dataset

    from llmft.data.passages import Passages
    from llmft.tasks.text.search import Search

LABELS = ("start_positions", "end_positions")
PASSAGES = "passages.jsonl"
"""In RUN/model: the corpus of a run."""
GIVEN = -1
"""The place of a context that the row has, which is none in the corpus."""
UNKNOWN = -1
"""The rank of the right passage where nothing says which it is."""
RANKS = (1, 5, 20)
"""The k of recall@k. So many passages are searched at least, but only `task.top_k` are read."""
OR_A_CORPUS = "To answer questions without a context, write dataset.corpus=FILES."
SEARCH_WEIGHT = 1.0
WEIGHTS = (0.0, 0.5, 1.0, 2.0, 3.0, 4.0, 6.0, 8.0, 12.0, 16.0, 24.0, 1000.0)
"""Those that `calibrate` tries; with the last one the search alone decides."""


@dataclass
class QuestionState(State):
    """The tokenizer, and the threshold for giving no answer."""

    tokenizer: Tokenizer
    max_length: int
    threshold: float = 0.0
    """No answer is given if log p(none) - log p(answer) is above it."""
    search_weight: float = SEARCH_WEIGHT
    """What the score of the search adds to that of the answer in a passage; the best passage has 1."""
    search: "Search | None" = field(default=None, metadata=UNSAVED)
    """What finds passages for questions without a context."""

    @property
    def description(self) -> str:
        if self.search:
            return f"a part of the context, or of {len(self.search.passages):,} passages"
        return "a part of the context"

    def save(self, folder: Path) -> None:
        """See `State`; the corpus is beside it."""
        super().save(folder)
        if self.search:
            self.search.save(folder)

    @classmethod
    def load(cls, folder: Path) -> Self:
        """Read what `save` wrote."""
        found = super().load(folder)
        if (folder / PASSAGES).is_file():
            from llmft.tasks.text.search import load_search

            found.search = load_search(folder)
        return found


class Reading(NamedTuple):
    """A text that is read for the question of a row."""

    row: int
    context: str
    place: int = GIVEN
    """Of the passage in the corpus."""
    score: float = 0.0
    """Of the search, divided by that of the best passage."""
    rank: int = UNKNOWN
    """Of the right passage among those that were found, from 1; 0 if it is not among them."""


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

    default_input_role = "question"
    only_scored = ("given", "rank")

    @property
    def _search(self) -> "Search | None":
        """What finds passages, where the task has a corpus."""
        state: QuestionState | None = getattr(self, "state", None)
        return state.search if state else None

    def with_corpus(self, passages: "Passages") -> Self:
        from llmft.tasks.text.search import open_search

        return self.with_state(replace(self.state, search=open_search(self.options.retriever, passages)))

    @property
    def columns(self) -> dict[str, Column]:
        found = self._search is not None
        return {
            "question": Column("text"),
            "context": Column("text", required=not found, blank=found, fixed=True, otherwise=OR_A_CORPUS),
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
                found = self._texts(row)
            except UserError as error:
                problems += error.problems
                continue
            if not found and not self.options.unanswerable:
                hint = "If its context holds none, write task.unanswerable=true."
                problems.append(Problem(row["id"], f"has no answer ({split})", hint=hint))
        return listed(problems)

    def _texts(self, row: dict[str, Any]) -> list[str]:
        """The right answers of a row, each once.

        Raises:
            UserError: for an answer that is not in the context, if there is one.
        """
        if not row.get("context"):
            return answer_texts(row["answers"], row.get("id", ""))
        found = read_answers(row["answers"], row.get("answer_start"), row["context"], row.get("id", ""))
        return list(dict.fromkeys(span.text for span in found))

    def encode(self, rows: dict[str, list[Any]]) -> Features:
        labeled = "answers" in rows  # rows of predict have none
        features: Features = {}
        tokenizer, length, stride = self.state.tokenizer, self.state.max_length, self.options.stride
        readings = self._readings(rows, labeled)
        questions = [rows["question"][reading.row] for reading in readings]
        hidden = hidden_of(rows)
        spans = [hidden[reading.row] for reading in readings]
        places = [self._place(rows, reading) for reading in readings] if labeled else []
        counts: Counter[int] = Counter()
        contexts = [reading.context for reading in readings]
        for window in windows(questions, contexts, tokenizer, length, stride, spans):
            reading = readings[window.row]
            aside = window.aside(reading.context) | {"number": counts[reading.row]}
            if self._search:
                aside |= {"place": reading.place, "search": reading.score, "rank": reading.rank}
            counts[reading.row] += 1
            made = {
                **window.inputs,
                "row": reading.row,
                "length": len(window.inputs["input_ids"]),
                "cut": window.cut,
                "aside": aside,
            }
            if labeled:
                place = places[window.row]
                # A window without the answer learns "none" too: most windows of a long context are like that.
                tokens = window.tokens(*place) if place else (window.none, window.none)
                made |= dict(zip(LABELS, tokens, strict=True))
            for key, value in made.items():
                features.setdefault(key, []).append(value)
        return features

    def _readings(self, rows: dict[str, list[Any]], labeled: bool) -> list[Reading]:
        """The texts that are read for each row: its context, and the passages that are found for its question.

        A row to answer is read in its context if it has one. Where answers are known, both are read: so the scores tell
        what the search costs.
        """
        questions, contexts = rows["question"], rows.get("context") or [None] * len(rows["question"])
        if not (search := self._search):
            return [Reading(row, context) for row, context in enumerate(contexts)]
        asked = [row for row, context in enumerate(contexts) if labeled or not context]
        count = self.options.top_k
        places, scores = search.search([questions[row] for row in asked], max(count, *RANKS) if labeled else count)
        found = dict(zip(asked, zip(places, scores, strict=True), strict=True))
        readings: list[Reading] = []
        for row, context in enumerate(contexts):
            if context:
                readings.append(Reading(row, context))
            if row in found:
                own, values = found[row]
                rank = self._rank(rows, row, own) if labeled else UNKNOWN
                best = max(float(values[0]), 1e-9)
                for place, value in zip(own[:count].tolist(), values[:count].tolist(), strict=True):
                    readings.append(Reading(row, search.passages.texts[place], place, value / best, rank))
        return readings

    def _rank(self, rows: dict[str, list[Any]], row: int, places: numpy.ndarray) -> int:
        """The rank of the right passage: the row's context, or without one the first passage that holds an answer."""
        assert self._search
        texts, context = self._search.passages.texts, (rows.get("context") or {row: None})[row]
        if context:
            return next((rank for rank, place in enumerate(places, 1) if texts[place] == context.strip()), 0)
        answers = answer_texts(rows["answers"][row])
        held = (any(answer in texts[place] for answer in answers) for place in places)
        return next((rank for rank, holds in enumerate(held, 1) if holds), 0)

    def _place(self, rows: dict[str, list[Any]], reading: Reading) -> tuple[int, int] | None:
        """The characters of the first right answer in a text, which training learns; None without an answer."""
        row = reading.row
        if reading.place != GIVEN:
            found = ((reading.context.find(answer), answer) for answer in answer_texts(rows["answers"][row]))
            return next(((first, first + len(answer)) for first, answer in found if first >= 0), None)
        start = rows["answer_start"][row] if "answer_start" in rows else None
        spans = read_answers(rows["answers"][row], start, reading.context)
        return (spans[0].start, spans[0].end) if spans else None

    @property
    def calibrates(self) -> bool:
        """Whether rows may have no answer, or passages are found for them."""
        return self.options.unanswerable or self._search is not None

    def calibrate(self, outputs: list[Any], references: "Dataset") -> Self:
        """The task with the weight of the search and the threshold that have the best F1 on these rows.

        SQuAD 2.0 chooses the threshold so.
        """
        from llmft.metrics.text_metrics import f1  # evaluate imports pipelines, which takes seconds

        task = self
        candidates = self._candidates(outputs, rows_of([aside for _, aside in outputs]))
        right = [self.reference(row) for row in references]
        if self._search:
            tried = [
                [(reader_score(one.span), one.search, f1(one.span.text, texts)) for one in found]
                for (_, found), texts in zip(candidates, right, strict=True)
            ]
            task = self.with_state(replace(self.state, search_weight=best_weight(tried)))
        if self.options.unanswerable:
            # What a row gains if its answer is given. Only these differences depend on the threshold.
            spans = [task._best(one).span for one in candidates]
            gains = [f1(span.text, texts) - f1("", texts) for span, texts in zip(spans, right, strict=True)]
            found = best_threshold([span.none - span.score for span in spans], gains)
            task = task.with_state(replace(task.state, threshold=found))
        return task

    def decode(self, outputs: list[Any], rows: list[int]) -> list[Answer]:
        answers = []
        for candidates in self._candidates(outputs, rows):
            given, best = candidates.given, self._best(candidates)
            answer = self._answer(best.span)
            if self._search and best.place != GIVEN:
                passages = self._search.passages
                answer["passage"] = {"id": passages.ids[best.place], "title": passages.titles[best.place]}
                answer["passage"]["text"] = passages.texts[best.place]
                if best.rank != UNKNOWN:
                    answer["rank"] = best.rank
                    answer["given"] = self._answer(given.span)["answer"] if given else None
            answers.append(answer)
        return answers

    def _candidates(self, outputs: list[Any], rows: list[int]) -> list["Candidates"]:
        """The likeliest spans of each row, in the order of rows."""
        spans: dict[int, dict[int, list[Span]]] = {}
        asides: dict[tuple[int, int], tuple[float, int]] = {}
        for (logits, window), row in zip(outputs, rows, strict=True):
            place = window.get("place", GIVEN)
            asides[row, place] = window.get("search", 0.0), window.get("rank", UNKNOWN)
            spans.setdefault(row, {}).setdefault(place, []).append(
                best_span(logits, window, self.options.max_answer_length)
            )
        found = []
        for row in sorted(spans):
            own = {
                place: Candidate(best_of_windows(of), place, *asides[row, place]) for place, of in spans[row].items()
            }
            found.append(Candidates(own.pop(GIVEN, None), list(own.values())))
        return found

    def _best(self, candidates: "Candidates") -> "Candidate":
        """The best of the passages that were found, else the context; none of them is the likeliest of `none`."""
        given, found = candidates
        if not found:
            assert given
            return given
        best = max(found, key=lambda one: reader_score(one.span) + self.state.search_weight * one.search)
        return best._replace(span=best.span._replace(none=min(one.span.none for one in found)))

    def _answer(self, span: Span) -> Answer:
        """The text and its characters; `score` is its probability, or that of no answer."""
        if span.start is None or (self.options.unanswerable and span.none - span.score > self.state.threshold):
            return {"answer": "", "start": None, "end": None, "score": float(numpy.exp(span.none))}
        end = span.start + len(span.text)
        return {"answer": span.text, "start": span.start, "end": end, "score": float(numpy.exp(span.score))}

    def score(self, answers: list[Answer], references: "Dataset") -> dict[str, Any]:
        """Exact match and F1; see llmft.metrics.text_metrics.

        Of answers out of a corpus: `recall@k`, the share of rows whose right passage is among the first k that were
        found; `in_corpus`, the share of rows whose context is in the corpus; and `given_exact_match` and `given_f1` of
        the answers that the model finds in the rows' own contexts.
        """
        from llmft.metrics.text_metrics import SpanAnswers  # evaluate imports pipelines, which takes seconds

        right = [self.reference(row) for row in references]
        found = SpanAnswers().compute(predictions=[answer["answer"] for answer in answers], references=right)
        if self._search and (ranks := [answer["rank"] for answer in answers if "rank" in answer]):
            found |= {f"recall@{k}": sum(0 < rank <= k for rank in ranks) / len(answers) for k in RANKS}
        if self._search and "context" in references.column_names:
            known = set(self._search.passages.texts)
            found["in_corpus"] = sum(text.strip() in known for text in references["context"]) / len(answers)
            given = [answer["given"] for answer in answers]
            scores = SpanAnswers().compute(predictions=given, references=right)
            found |= {f"given_{name}": value for name, value in scores.items()}
        return found

    def format_input(self, row: dict[str, Any]) -> str:
        return " ⏐ ".join(row[name] for name in ("question", "context") if row.get(name))

    def reference(self, row: dict[str, Any]) -> Any:
        """The right answers, each once; an empty list for a question without an answer."""
        return None if row.get("answers") is None else self._texts(row)

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
        """Which words of the question and its context speak for the answer of each row; see words.py.

        Of an answer out of a corpus, the words of its passage.
        """
        found = []
        for row, answer in zip(input_rows(rows, ("question", "context")), answers, strict=True):
            if "passage" in answer:
                row["context"] = answer["passage"]["text"]

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


class Candidate(NamedTuple):
    """The likeliest span of a context, or of a passage that was found."""

    span: Span
    place: int
    search: float
    rank: int
    """As `Reading` has them."""


class Candidates(NamedTuple):
    """The likeliest spans of a row: of its own context, if it has one, and of each passage that was found."""

    given: Candidate | None
    found: list[Candidate]


def reader_score(span: Span) -> float:
    """How sure the model is of a span, comparable between passages."""
    return span.score - span.none


def best_weight(rows: Sequence[Sequence[tuple[float, float, float]]]) -> float:
    """The weight of the search in WEIGHTS with the largest sum of F1; of equal ones the smallest.

    Args:
        rows: for each passage of a row the score of its span, that of the search, and the F1 of the span.
    """

    def gain(weight: float) -> float:
        return sum(max(row, key=lambda one: one[0] + weight * one[1])[2] for row in rows if row)

    return max(WEIGHTS, key=gain)


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
