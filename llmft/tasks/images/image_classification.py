"""A label, several labels, or a number for an image."""

from dataclasses import dataclass
from typing import TYPE_CHECKING, Any

from PIL import Image

from llmft.data.images import Cell, as_array, name_of, open_image
from llmft.data.source import Rows
from llmft.schema.column import Column
from llmft.schema.model import ModelConfig
from llmft.schema.problem import Problem
from llmft.tasks.explaining import Ask, of_target
from llmft.tasks.images import config as sections
from llmft.tasks.images import shapes
from llmft.tasks.images.drawing import shrunk
from llmft.tasks.images.occlusion import draw_weights, explain_image
from llmft.tasks.images.pixels import ImageState, encode_pixels, learn_pixels
from llmft.tasks.padding import Arrays
from llmft.tasks.targets import problems
from llmft.tasks.targets.problems import TargetState, TargetTask
from llmft.tasks.task import Answer, Features

if TYPE_CHECKING:
    from datasets import Dataset


@dataclass
class ImageClassificationState(ImageState, TargetState):
    """What `label` holds, and how images become pixels."""


class ImageClassification(TargetTask[ImageClassificationState]):
    """Is it an ant or a bee, what is in the image, how ripe is the fruit?"""

    config = sections.ImageClassification
    head = "AutoModelForImageClassification"
    state_class = ImageClassificationState
    objective_class = "llmft.tasks.images.image_objective:ImageTargetObjective"
    default_input_role = "image"
    options: sections.ImageClassification

    @property
    def columns(self) -> dict[str, Column]:
        return {"image": Column("image"), "label": problems.column(self.options)}

    def learn(self, train: "Dataset", model: ModelConfig) -> ImageClassificationState:
        pixels = learn_pixels(self.options, model, self.options.margin)
        return ImageClassificationState(target=problems.fit(train, self.options), **pixels)

    def model_kwargs(self) -> dict[str, Any]:
        state = self.state
        size = state.height if state.height == state.width else [state.height, state.width]
        return state.target.model_kwargs() | {"image_size": size, "num_channels": state.channels}

    def check(self, rows: Rows, split: str) -> list[Problem]:
        return self.state.target.check(rows, split)

    def encode(self, rows: dict[str, list[Any]]) -> Features:
        pixels, _ = encode_pixels(rows["image"], rows["id"], self.state)
        features: Features = {"pixels": pixels, "row": list(range(len(pixels)))}
        if "label" in rows:
            features["labels"] = self.state.target.encode(rows["label"])
        return features

    def collate(self, features: list[dict[str, Any]]) -> Arrays:
        return {"pixel_values": self.state.pixel_values(features)}

    def score(self, answers: list[Answer], references: "Dataset") -> dict[str, Any]:
        found, most = super().score(answers, references), self.options.top_k
        if self.options.problem == "single_label" and len(self.state.target.model_kwargs()["id2label"]) > most:
            pairs = list(zip(answers, references["label"][:], strict=True))
            found["top_k_accuracy"] = sum(label in _highest(answer["scores"], most) for answer, label in pairs) / len(
                pairs
            )
        return found

    def format_input(self, row: dict[str, Any]) -> str:
        return name_of(row["image"])

    def explain(self, rows: Rows, answers: list[Answer], ask: Ask) -> list[dict[str, Any]]:
        """The weights of a grid of parts of each image; see occlusion.py."""
        pairs = zip(rows["image"], answers, strict=True)
        return [explain_image(cell, of_target(answer), self.state, ask) for cell, answer in pairs]

    def draw(self, cell: Cell, answer: Answer, side: int | None = None) -> Image.Image:
        """The image, with the weights of its parts in colors where the answer was explained."""
        image = as_array(open_image(cell), 3)
        found = draw_weights(image, answer["explanation"]) if "explanation" in answer else image
        return shrunk(found, side)[0]

    def synthetic_rows(self, rows: int, seed: int) -> dict[str, list[Any]]:
        """Images of one circle, square, or triangle; see shapes.py."""
        return shapes.classified(rows, seed, self.options.problem)


def _highest(scores: dict[str, float], count: int) -> list[str]:
    """The labels with the highest scores; of equal ones the first."""
    return sorted(scores, key=lambda label: -scores[label])[:count]
