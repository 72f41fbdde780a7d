"""A short text for a long one."""

import random
from typing import TYPE_CHECKING, Any

from llmft.tasks.task import Answer
from llmft.tasks.text_to_text import config as sections
from llmft.tasks.text_to_text.text_to_text import TextToText, TextToTextState

if TYPE_CHECKING:
    from datasets import Dataset


class Summarization(TextToText[TextToTextState]):
    """What does this paper find, in a sentence?"""

    config = sections.Summarization
    state_class = TextToTextState
    options: sections.Summarization
    source_role, target_role = "text", "summary"
    scores_by = "rouge_score"
    likeness_metric = "rougeL"

    def make_state(self, train: "Dataset", **found: Any) -> TextToTextState:
        return TextToTextState(**found)

    def score(self, answers: list[Answer], references: "Dataset") -> dict[str, Any]:
        from llmft.metrics.text_metrics import Rouge

        said = [answer["answer"] for answer in answers]
        return dict(Rouge().compute(predictions=said, references=references[self.target_role][:]))

    def likeness(self, answer: str, right: list[str]) -> float:
        from llmft.metrics.text_metrics import rouge_l_of

        return rouge_l_of(answer, right)

    def format_likeness(self, likeness: float) -> str:
        return f"ROUGE-L {likeness:.2f}"

    def synthetic_rows(self, rows: int, seed: int) -> dict[str, list[Any]]:
        """Made-up reports: one word says the weather, one the direction, and the others mean nothing."""
        rng = random.Random(seed)
        telling = {
            "rain": ("mirk", "dross"),
            "wind": ("lumo", "shine"),
            "snow": ("vita", "blag"),
            "north": ("karr", "pell"),
            "south": ("unda", "sift"),
            "east": ("gron", "hask"),
        }
        filler = ("tavo", "renn", "ilpa", "osk", "dume")
        texts: list[str] = []
        targets: list[list[str]] = []
        for _ in range(rows):
            what, where = rng.choice(("rain", "wind", "snow")), rng.choice(("north", "south", "east"))
            words = [*rng.choices(filler, k=rng.randint(4, 9)), *(rng.choice(telling[name]) for name in (what, where))]
            rng.shuffle(words)
            texts.append(" ".join(words))
            targets.append([f"{where} {what}"])
        return {"text": texts, "summary": targets}
