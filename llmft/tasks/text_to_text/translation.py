"""A text in another language."""

import random
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any

from llmft.tasks.task import Answer
from llmft.tasks.text_to_text import config as sections
from llmft.tasks.text_to_text.text_to_text import TextToText, TextToTextState

if TYPE_CHECKING:
    from datasets import Dataset

WORDS = {
    "who": (("the cat", "felo"), ("my aunt", "tia mea"), ("a boy", "puer"), ("the king", "rego")),
    "does": (("sees", "vida"), ("finds", "trova"), ("takes", "prena"), ("wants", "vola")),
    "what": (("red", "rua"), ("old", "sena"), ("small", "eta"), ("heavy", "grava")),
    "thing": (("bread", "pano"), ("wood", "ligna"), ("water", "aqua"), ("gold", "oro")),
}


@dataclass
class TranslationState(TextToTextState):
    """The tokenizer, and how BLEU splits texts into words."""

    bleu_tokenize: str

    @property
    def notes(self) -> list[str]:
        how = f"BLEU is computed with sacreBLEU's tokenizer {self.bleu_tokenize}; task.bleu_tokenize names another"
        return [*super().notes, how]


class Translation(TextToText[TranslationState]):
    """What is this sentence in Chinese?"""

    config = sections.Translation
    state_class = TranslationState
    options: sections.Translation
    source_role = default_input_role = "source"
    target_role = "target"
    scores_by = "sacrebleu"
    likeness_metric = "chrf"

    def make_state(self, train: "Dataset", **found: Any) -> TranslationState:
        chosen: str = self.options.bleu_tokenize
        if chosen == "auto":
            from llmft.metrics.text_metrics import tokenizer_of
            from llmft.models.tokenizers import SAMPLE

            chosen = tokenizer_of([texts[0] for texts in train[:SAMPLE][self.target_role]])
        return TranslationState(**found, bleu_tokenize=chosen)

    def score(self, answers: list[Answer], references: "Dataset") -> dict[str, Any]:
        from llmft.metrics.text_metrics import TranslationScores

        said = [answer["answer"] for answer in answers]
        scores = TranslationScores(self.state.bleu_tokenize)
        return dict(scores.compute(predictions=said, references=references[self.target_role][:]))

    def likeness(self, answer: str, right: list[str]) -> float:
        from llmft.metrics.text_metrics import chrf_of

        return chrf_of(answer, right) / 100

    def format_likeness(self, likeness: float) -> str:
        return f"chrF {100 * likeness:.1f}"

    def synthetic_rows(self, rows: int, seed: int) -> dict[str, list[Any]]:
        """Sentences in which word order differs: the verb comes last, the adjective after its noun."""
        rng = random.Random(seed)
        texts: list[str] = []
        targets: list[list[str]] = []
        for _ in range(rows):
            who, does, what, thing = (rng.choice(pairs) for pairs in WORDS.values())
            texts.append(" ".join(pair[0] for pair in (who, does, what, thing)))
            targets.append([" ".join(pair[1] for pair in (who, thing, what, does))])
        return {"source": texts, "target": targets}
