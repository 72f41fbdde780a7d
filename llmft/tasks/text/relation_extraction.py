"""How two marked entities of a text are related: cause and effect, part and whole."""

import random
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any

from tokenizers import AddedToken, Encoding

from llmft.data.source import CHUNK, Rows, listed
from llmft.schema.column import Column
from llmft.schema.model import ModelConfig
from llmft.schema.problem import Problem
from llmft.tasks.explaining import Ask, of_target
from llmft.tasks.targets import problems
from llmft.tasks.targets.problems import TargetState, TargetTask
from llmft.tasks.task import Answer, Features
from llmft.tasks.text import config as sections
from llmft.tasks.text import entity_markers
from llmft.tasks.text.entity_markers import Marked, Unfit
from llmft.tasks.text.words import DROPPED, explain_words, hidden_of, ids_without, input_rows
from llmft.tasks.tokenizer import Tokenizer, learn

if TYPE_CHECKING:
    from datasets import Dataset

# Around each entity, as in Baldini Soares et al. 2019, "Matching the Blanks", section 3.
MARKERS = ("[E1]", "[/E1]", "[E2]", "[/E2]")


@dataclass
class RelationState(TargetState):
    """The relations, and the tokenizer, to which the markers are added."""

    tokenizer: Tokenizer
    max_length: int


@dataclass(frozen=True)
class Tokens:
    """A text as the model reads it."""

    ids: list[int]
    types: list[int]
    cut: bool


class RelationExtraction(TargetTask[RelationState]):
    """What has e1 to do with e2?"""

    config = sections.RelationExtraction
    head = "AutoModelForSequenceClassification"
    state_class = RelationState
    options: sections.RelationExtraction

    @property
    def columns(self) -> dict[str, Column]:
        span = Column("json", required=False, blank=True)
        return {
            "text": Column("text", fixed=True),
            "head": span,
            "tail": span,
            "label": problems.column(self.options),
        }

    def learn(self, train: "Dataset", model: ModelConfig) -> RelationState:
        texts = list(map(entity_markers.plain, train["text"]))
        tokenizer, length = learn(texts, texts, self.options.max_length, model)
        # As special tokens, so that a `[E1]` in a text stays letters.
        tokenizer.add_tokens([AddedToken(marker, special=True) for marker in MARKERS], special_tokens=True)
        return RelationState(problems.fit(train, self.options), tokenizer, length)

    def model_kwargs(self) -> dict[str, Any]:
        tokenizer = self.state.tokenizer
        sizes: dict[str, Any] = {"vocab_size": len(tokenizer), "max_position_embeddings": self.state.max_length}
        # A head that reads the last token finds padding there unless padding is on the left.
        sizes["pools_last"] = tokenizer.padding_side == "left"
        added = {"pad_token_id": tokenizer.pad_token_id, "added_tokens": len(MARKERS)}
        return self.state.target.model_kwargs() | added | sizes

    def check(self, rows: Rows, split: str) -> list[Problem]:
        # In slices: the tokens of a large split at once would take more memory than its features.
        slices = (rows[start : start + CHUNK] for start in range(0, len(rows), CHUNK))
        problems = [
            Problem(place, f"{found} ({split})", hint=found.hint)
            for part in slices
            for place, found in zip(part["id"], self._encoded(part), strict=True)
            if isinstance(found, Unfit)
        ]
        return listed(problems) + self.state.target.check(rows, split)

    def encode(self, rows: dict[str, list[Any]]) -> Features:
        tokens = []
        for found in self._encoded(rows):
            assert isinstance(found, Tokens), found  # `check` has reported all others
            tokens.append(found)
        features: Features = {
            "input_ids": [found.ids for found in tokens],
            "row": list(range(len(tokens))),
            "length": [len(found.ids) for found in tokens],
            "cut": [found.cut for found in tokens],
        }
        if self.state.tokenizer.reads_types:
            features["token_type_ids"] = [found.types for found in tokens]
        if "label" in rows:
            features["labels"] = self.state.target.encode(rows["label"])
        return features

    def score(self, answers: list[Answer], references: "Dataset") -> dict[str, Any]:
        from llmft.metrics.extraction_metrics import DirectedRelations, are_directed  # evaluate takes seconds to import

        found = super().score(answers, references)
        if not are_directed(list(self.state.target.model_kwargs()["label2id"])):
            return found
        said = [answer["answer"] for answer in answers]
        return found | DirectedRelations().compute(predictions=said, references=references["label"][:])

    def format_input(self, row: dict[str, Any]) -> str:
        return str(_marked(row))

    def explain(self, rows: Rows, answers: list[Answer], ask: Ask) -> list[dict[str, Any]]:
        """What speaks for the most probable relation of each text, without the marks of its entities; see words.py."""
        pairs = zip(input_rows(rows, ("text", "head", "tail")), answers, strict=True)
        return [
            explain_words(row, {"text": entity_markers.plain(row["text"])}, of_target(answer), ask)
            for row, answer in pairs
        ]

    def synthetic_rows(self, rows: int, seed: int) -> dict[str, list[Any]]:
        """Made-up sentences: e1 is a maker or a thing; another such word has no marks and means nothing."""
        rng = random.Random(seed)
        makers, things = ("smith", "baker", "weaver"), ("blade", "bread", "cloth")
        filler = ("tavo", "renn", "ilpa", "osk", "dume")
        texts, labels = [], []
        for index in range(rows):
            made = index % 2 == 0
            e1 = rng.choice(makers if made else things)
            parts = [f"<e1>{e1}</e1>", f"<e2>{rng.choice(filler)}</e2>"]
            rng.shuffle(parts)
            words = [rng.choice(makers + things), *rng.choices(filler, k=2)]
            rng.shuffle(words)
            texts.append(f"{words[0]} {parts[0]} {words[1]} {parts[1]} {words[2]}")
            labels.append("made(e1,e2)" if made else "made(e2,e1)")
        return {"text": texts, "label": labels}

    def _encoded(self, rows: dict[str, list[Any]]) -> list[Tokens | Unfit]:
        """The tokens of each row with the markers, or why it cannot be encoded."""
        texts = list(map(entity_markers.plain, rows["text"]))
        encodings = self.state.tokenizer.encode(texts)
        hidden = hidden_of(rows)
        found: list[Tokens | Unfit] = []
        for place, encoding in enumerate(encodings):
            try:
                sentence = _marked({name: column[place] for name, column in rows.items()})
                ids = ids_without(encoding, hidden[place], ("text",), self.state.tokenizer)
                found.append(_with_markers(encoding, ids, sentence, self.state))
            except Unfit as error:
                found.append(error)
        return found


def _marked(row: dict[str, Any]) -> Marked:
    return entity_markers.read(row["text"], row.get("head"), row.get("tail"))


def _with_markers(encoding: Encoding, ids: list[int], sentence: Marked, state: RelationState) -> Tokens:
    """The tokens of a text with markers around its entities, cut to `max_length` around both entities.

    Args:
        ids: the tokens of `encoding`; those that are DROPPED are left out.

    Raises:
        Unfit: if the entities are further apart than `max_length`, or have no tokens.
    """
    offsets, types = encoding.offsets, encoding.type_ids
    own = [place for place, sequence in enumerate(encoding.sequence_ids) if sequence == 0]
    spans = []
    for name, (start, end) in zip(entity_markers.ENTITIES, (sentence.head, sentence.tail), strict=True):
        # A token may begin with the space before its word: any overlap counts.
        inside = [place for place in own if offsets[place][0] < end and offsets[place][1] > start]
        if not inside:
            raise Unfit(f"has an {name} that the tokenizer leaves out")
        spans.append((inside[0], inside[-1] + 1))
    # The window reaches from the first entity to the end of the second, with as much context on both sides as fits.
    first, last = own[0], own[-1] + 1
    begin, stop = min(spans)[0], max(end for _, end in spans)
    room = state.max_length - len(MARKERS) - (len(ids) - len(own))
    if stop - begin > room:
        least = state.max_length + stop - begin - room
        raise Unfit(f"has entities too far apart for task.max_length={state.max_length}: they need {least}")
    low = max(first, min(begin - (room - (stop - begin)) // 2, last - room))
    high = min(last, low + room)
    # Special tokens at both ends stay, whatever is cut between them.
    kept = [*range(first), *range(low, high), *range(last, len(ids))]
    read, kinds = [ids[place] for place in kept], [types[place] for place in kept]
    # At one position, closing markers come before opening ones. They are inserted from the end: positions stay valid.
    opening = [(start - low + first, 1, MARKERS[2 * i]) for i, (start, _) in enumerate(spans)]
    closing = [(end - low + first, 0, MARKERS[2 * i + 1]) for i, (_, end) in enumerate(spans)]
    for place, _, marker in sorted(opening + closing, reverse=True):
        read.insert(place, state.tokenizer.backend.token_to_id(marker))
        kinds.insert(place, types[first])
    there = [place for place, token in enumerate(read) if token != DROPPED]
    return Tokens([read[place] for place in there], [kinds[place] for place in there], cut=len(kept) < len(ids))
