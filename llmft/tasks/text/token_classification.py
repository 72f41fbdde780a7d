"""Named entities: which words of a text name something, and what."""

import json
import random
from collections.abc import Sequence
from dataclasses import dataclass
from itertools import pairwise
from typing import TYPE_CHECKING, Any

from llmft.data.annotated import OUTSIDE, spans, to_bio
from llmft.data.checks import few, unknown_labels
from llmft.data.source import Rows
from llmft.schema.column import Column
from llmft.schema.model import ModelConfig
from llmft.schema.problem import Problem, UserError, missing_package, plural
from llmft.schema.tasks import IGNORED
from llmft.tasks.explaining import NOTHING, Ask, of_surest, span_overlap
from llmft.tasks.targets.decisions import softmax
from llmft.tasks.task import Answer, Features, RowScore, State, Task
from llmft.tasks.text import config as sections
from llmft.tasks.text.sentences import Entity, Sentence, is_labeled, read, sentence_of
from llmft.tasks.text.words import Spans, explain_words, hidden_of, input_rows, mask_id
from llmft.tasks.tokenizer import Tokenizer, learn

if TYPE_CHECKING:
    from datasets import Dataset


@dataclass
class EntityState(State):
    """The labels of entities, and the tokenizer."""

    labels: list[str]
    tokenizer: Tokenizer
    max_length: int
    stride: int
    of_tokens: bool
    """Whether the training rows were lists of words rather than texts."""
    widened: int
    """How many spans of the training rows began or ended inside a word, and were widened to whole words."""

    @property
    def tags(self) -> list[str]:
        """The BIO tags, in the order of the model's outputs."""
        return [OUTSIDE, *(f"{place}-{label}" for label in self.labels for place in "BI")]

    @property
    def notes(self) -> list[str]:
        what = "begins or ends inside a word, and is" if self.widened == 1 else "begin or end inside a word, and are"
        found = f"train: {plural(self.widened, 'spans')} {what} taken to cover whole ones"
        return [found] if self.widened else []

    @property
    def description(self) -> str:
        return f"{plural(len(self.labels), 'labels')}: {few(self.labels)}"


class TokenClassification(Task[EntityState]):
    """Who and what is named in a text?"""

    config = sections.TokenClassification
    head = "AutoModelForTokenClassification"
    state_class = EntityState
    objective_class = "llmft.tasks.text.objectives:WordObjective"
    padding_side = "right"  # for any model: positions count from the first token
    token_axis = 0
    options: sections.TokenClassification

    @property
    def columns(self) -> dict[str, Column]:
        return {
            "tokens": Column("words", required=False, unless="text"),
            "tags": Column("words", required=False, unless="spans", target=True, blank=True),
            "text": Column("text", required=False, fixed=True),
            "spans": Column("json", required=False, target=True, blank=True, also=("label", "labels", "entities")),
        }

    def learn(self, train: "Dataset", model: ModelConfig) -> EntityState:
        _check_package()
        found, problems = read(train, "train")
        # Sorted, so that the order of rows does not change the ids of labels.
        labels = self.options.labels or sorted({label for sentence in found for label in sentence.labels})
        if not labels:
            nothing = Problem("dataset.columns.tags", "train has no entity: all its words are O")
            raise UserError(problems or nothing, "the data")
        texts = [sentence.text for sentence in found]
        tokenizer, length = learn(texts, texts, self.options.max_length, model, side="right")
        tokenizer.pretrained.truncation_side = "right"  # of windows, as below
        widened = sum(sentence.widened for sentence in found)
        of_tokens = "text" not in train.column_names or "tags" in train.column_names
        # A stride above half of the window would repeat most tokens in three windows and more.
        return EntityState(labels, tokenizer, length, min(self.options.stride, length // 2), of_tokens, widened)

    def model_kwargs(self) -> dict[str, Any]:
        return {
            "num_labels": len(self.state.tags),
            "id2label": dict(enumerate(self.state.tags)),
            "label2id": {tag: place for place, tag in enumerate(self.state.tags)},
            "pad_token_id": self.state.tokenizer.pad_token_id,
            "vocab_size": len(self.state.tokenizer),
            "max_position_embeddings": self.state.max_length,
        }

    def check(self, rows: Rows, split: str) -> list[Problem]:
        if not is_labeled(rows):
            return []
        found, problems = read(rows, split)
        return problems or unknown_labels(rows["id"][:], [one.labels for one in found], self.state.labels, split)

    def encode(self, rows: dict[str, list[Any]]) -> Features:
        records = (dict(zip(rows, values, strict=True)) for values in zip(*rows.values(), strict=True))
        sentences = [sentence_of(row, self.state.of_tokens) for row in records]
        tokenizer = self.state.tokenizer
        encoded = tokenizer.encode(
            # RoBERTa has other tokens for words after a space than for those that begin a text.
            [[f" {token}" for token in sentence.tokens] for sentence in sentences],
            max_length=self.state.max_length,
            stride=self.state.stride,
            side="right",  # so that windows begin at the beginning
        )
        windows = [(whole, *whole.overflowing) for whole in encoded]
        owners = [row for row, found in enumerate(windows) for _ in found]
        parts = [part for found in windows for part in found]
        word_ids = [[part.word_ids for part in found] for found in windows]
        places = [found for ids in word_ids for found in first_pieces(ids, self.state.stride)]
        hidden = [_hidden_words(*pair) for pair in zip(sentences, hidden_of(rows), strict=True)]
        mask = mask_id(tokenizer, in_place=True)
        features: Features = {
            "input_ids": [
                [mask if word in hidden[row] else token for word, token in zip(part.word_ids, part.ids, strict=True)]
                for row, part in zip(owners, parts, strict=True)
            ]
        }
        if tokenizer.reads_types:
            features["token_type_ids"] = [part.type_ids for part in parts]
        features["row"] = owners
        features["length"] = list(map(len, parts))
        # The first window of a row has the words of the whole row.
        firsts = [row != before for before, row in pairwise([-1, *owners])]
        features["aside"] = [
            json.dumps(
                {"places": found} | ({"text": sentences[row].text, "words": sentences[row].words} if first else {})
            )
            for row, found, first in zip(owners, places, firsts, strict=True)
        ]
        if "tags" in rows or "spans" in rows:
            number = {tag: place for place, tag in enumerate(self.state.tags)}
            features["labels"] = []
            for row, found, ids in zip(owners, places, features["input_ids"], strict=True):
                # Only the first token of each word has a label, in one window: every word counts once in the loss.
                labels = [IGNORED] * len(ids)
                for word, place in found:
                    labels[place] = number[(sentences[row].tags or [])[word]]
                features["labels"].append(labels)
        return features

    def decode(self, outputs: list[Any], rows: list[int]) -> list[Answer]:
        """The likeliest tag of each word, O for a word without tokens; an I after another label counts as B."""
        windows: dict[int, list[tuple[Any, dict[str, Any]]]] = {}
        for (logits, aside), row in zip(outputs, rows, strict=True):
            windows.setdefault(row, []).append((softmax(logits), json.loads(aside)))
        return [self._answer(windows[row]) for row in sorted(windows)]

    def _answer(self, windows: list[tuple[Any, dict[str, Any]]]) -> Answer:
        """The answer of a row, whose words each have their scores in one of the windows."""
        kept = windows[0][1]
        tags, scores = [OUTSIDE] * len(kept["words"]), [0.0] * len(kept["words"])
        for shares, aside in windows:
            for word, place in aside["places"]:
                likeliest = int(shares[place].argmax())
                tags[word], scores[word] = self.state.tags[likeliest], float(shares[place][likeliest])
        sentence = Sentence(kept["text"], kept["words"], to_bio(tags))
        # The score of an entity is the mean of its words: a product would punish long names.
        entities = [
            sentence.entity(span) | {"score": sum(scores[span[0] : span[1]]) / (span[1] - span[0])}
            for span in spans(sentence.tags or [])
        ]
        return {"answer": entities, "tokens": sentence.tokens, "tags": sentence.tags}

    def score(self, answers: list[Answer], references: "Dataset") -> dict[str, Any]:
        """Precision, recall, and F1 of entities, accuracy of tags; see llmft.metrics.extraction_metrics."""
        _check_package()
        from llmft.metrics.extraction_metrics import Entities  # evaluate imports pipelines, which takes seconds

        return Entities().compute(
            predictions=[answer["tags"] for answer in answers],
            references=[sentence_of(row).tags for row in references],
        )

    def format_input(self, row: dict[str, Any]) -> str:
        return sentence_of(row).text

    def reference(self, row: dict[str, Any]) -> list[Entity]:
        return sentence_of(row).entities

    def row_score(self, answer: Answer, reference: Any) -> RowScore:
        """F1 of entities is 2 TP / (given + right), both sums over all rows; the error counts those wrong or missed."""
        # As sets: an entity counts once, and only if start, end, and label are right, as seqeval counts.
        given, right = ({_key(entity) for entity in entities} for entities in (answer["answer"], reference))
        error = len(given ^ right)
        part, whole = 2.0 * len(given & right), float(len(given) + len(right))
        return RowScore("f1", part, whole, error=float(error), why=f"{error} wrong or missed")

    def explain(self, rows: Rows, answers: list[Answer], ask: Ask) -> list[dict[str, Any]]:
        """What speaks for the surest entity of each text; see words.py."""
        found = []
        for row, answer in zip(input_rows(rows, ("tokens", "text")), answers, strict=True):
            subject = of_surest(answer, ("start", "end"), span_overlap)
            text = sentence_of(row, self.state.of_tokens).text
            found.append(explain_words(row, {"text": text}, subject, ask) if subject else NOTHING)
        return found

    def synthetic_rows(self, rows: int, seed: int) -> dict[str, list[Any]]:
        """Sentences of made-up words; persons have one to three words, the first of which is a title."""
        rng = random.Random(seed)
        filler = ("tavo", "renn", "ilpa", "osk", "dume", "karr", "pell", "unda", "sift", "gron")
        titles, names = ("mira", "lord", "saint"), ("abel", "corv", "iden", "juno")
        places = ("harbor", "ridge", "fen")
        tokens: list[list[str]] = []
        tags: list[list[str]] = []
        for index in range(rows):
            parts = [([word], ["O"]) for word in rng.choices(filler, k=rng.randint(3, 9))]
            if index % 3 != 1:
                person = [rng.choice(titles), *rng.choices(names, k=rng.randint(0, 2))]
                parts.append((person, ["B-person", *["I-person"] * (len(person) - 1)]))
            if index % 3 != 2:
                parts.append(([rng.choice(places)], ["B-place"]))
            rng.shuffle(parts)
            tokens.append([word for words, _ in parts for word in words])
            tags.append([tag for _, found in parts for tag in found])
        return {"tokens": tokens, "tags": tags}


def _hidden_words(sentence: Sentence, spans: Spans) -> set[int]:
    """The words of a sentence that have characters of these spans."""
    return {
        number
        for span in spans
        for number, (start, end) in enumerate(sentence.words)
        if start < span["end"] and end > span["start"]
    }


def _key(entity: Entity) -> tuple[int, int, str]:
    return entity["start"], entity["end"], entity["label"]


def _check_package() -> None:
    """Raise UserError if seqeval is not installed; `predict` does not need it."""
    if problems := missing_package("task", "token_classification", "seqeval", "text"):
        raise UserError(problems)


Place = tuple[int, int]
"""A word, and the position of its first token in the window."""


def first_pieces(windows: Sequence[Sequence[int | None]], shared: int) -> list[list[Place]]:
    """The words that are answered in each window of a text: every word that has tokens, once.

    A word of two windows is answered in the one with more context around it. The beginning and the end of the whole
    text count as endless context.

    Args:
        windows: for each token of each window its word, None for special tokens.
        shared: how many tokens a window shares with the one before it.
    """
    best: dict[int, tuple[float, int, int]] = {}  # word -> context on its shorter side, window, position
    before: list[int] = []  # the words of the tokens of the previous window
    for number, window in enumerate(windows):
        tokens = [(place, word) for place, word in enumerate(window) if word is not None]
        # A window may begin in the middle of a word, whose first token is not in it.
        last = before[len(before) - shared - 1] if number else None
        for i, (place, word) in enumerate(tokens):
            if word != last:
                # Tokens before and after the word in this window.
                left = i if number else float("inf")
                right = len(tokens) - 1 - i if number < len(windows) - 1 else float("inf")
                around = min(left, right)
                if word not in best or around > best[word][0]:
                    best[word] = (around, number, place)
            last = word
        before = [word for _, word in tokens]
    found: list[list[Place]] = [[] for _ in windows]
    for word, (_, number, place) in sorted(best.items()):
        found[number].append((word, place))
    return found
