"""A head that comes with the weights: its rows go by the names of labels, or it is a new one."""

from pathlib import Path
from typing import Any

import pytest
import torch
import transformers

from llmft.models.build import build
from llmft.schema.model import ModelConfig
from tests.families import config_of

SEQUENCE, TOKENS = "AutoModelForSequenceClassification", "AutoModelForTokenClassification"


def needed(*names: str, problem: str = "single_label_classification") -> dict[str, Any]:
    labels = {"id2label": dict(enumerate(names)), "label2id": {name: place for place, name in enumerate(names)}}
    return labels | {"num_labels": len(names), "problem_type": problem, "vocab_size": 60}


def saved(folder: Path, kind: str, head: str, **labels: Any) -> Any:
    """A model in `folder` whose head has rows of different numbers."""
    torch.manual_seed(0)
    model = getattr(transformers, head).from_config(config_of(kind, 60, pad_token_id=0))
    model = getattr(transformers, head).from_config(type(model.config).from_dict(model.config.to_dict() | labels))
    for weight in model.parameters():
        weight.data.normal_()
    model.save_pretrained(folder)
    return model.eval()


def logits(model: Any) -> torch.Tensor:
    with torch.inference_mode():
        found: torch.Tensor = model.eval()(input_ids=torch.tensor([[5, 6, 7, 2]])).logits
    return found


def of(folder: Path, head: str, wanted: dict[str, Any]) -> tuple[Any, list[str]]:
    notes: list[str] = []
    torch.manual_seed(1)
    return build(ModelConfig(path=str(folder)), head, wanted, notes=notes), notes


@pytest.mark.parametrize(
    ("kind", "head"),
    [
        ("bert", SEQUENCE),
        ("roberta", SEQUENCE),
        ("gpt2", SEQUENCE),
        ("xlnet", SEQUENCE),
        ("bart", SEQUENCE),
        ("distilbert", SEQUENCE),
        ("modernbert", SEQUENCE),
        ("bert", TOKENS),
        ("deberta-v2", TOKENS),
    ],
)
def test_rows_follow_their_names(kind: str, head: str, here: Path) -> None:
    old = saved(here / "old", kind, head, id2label={0: "pos", 1: "neg", 2: "mixed"}, eos_token_id=2)
    new, notes = of(here / "old", head, needed("mixed", "neg", "pos"))
    assert torch.allclose(logits(new), logits(old)[..., [2, 1, 0]], atol=1e-5)
    assert notes == ["model.path: the head is kept, and its rows are in the order of the labels here"]
    assert new.config.id2label == {0: "mixed", 1: "neg", 2: "pos"}
    new.save_pretrained(here / "new")
    assert transformers.AutoConfig.from_pretrained(here / "new").id2label == {0: "mixed", 1: "neg", 2: "pos"}


@pytest.mark.parametrize(
    ("own", "wanted", "order", "note"),
    [
        (["neg", "pos"], ["neg", "pos"], [0, 1], None),
        (
            ["POSITIVE", "NEGATIVE"],
            ["negative", "positive"],
            [1, 0],
            "its labels are taken for those here (NEGATIVE fo",
        ),
        (["LABEL_0", "LABEL_1"], ["0", "1"], [0, 1], "its labels are taken for those here (LABEL_0 for 0, LABEL_1 fo"),
        (["LABEL_0", "LABEL_1"], ["1", "0"], [1, 0], "its labels are taken for those here (LABEL_1 for 1"),
        (
            ["LABEL_0", "LABEL_1"],
            ["neg", "pos"],
            None,
            "the head is new: that of model.path is for 2 labels without na",
        ),
        (["pos", "neg"], ["x", "y"], None, "the head is new: that of model.path is for 2 labels (pos, neg)"),
        (
            ["pos", "neg"],
            ["neg", "pos", "mixed"],
            None,
            "the head is new: that of model.path is for 2 labels (pos, neg)",
        ),
        (["a", "A"], ["A", "a"], [1, 0], "in the order"),
    ],
)
def test_other_names_are_other_labels(
    own: list[str], wanted: list[str], order: list[int] | None, note: str | None, here: Path
) -> None:
    old = saved(here / "old", "bert", SEQUENCE, id2label=dict(enumerate(own)))
    for problem in ("single_label_classification", "multi_label_classification"):
        new, notes = of(here / "old", SEQUENCE, needed(*wanted, problem=problem))
        assert len(notes) == (note is not None)
        assert note is None or note in notes[0]
        if order is not None:
            assert torch.equal(new.classifier.weight, old.classifier.weight[order])
            assert torch.equal(new.classifier.bias, old.classifier.bias[order])
        else:
            assert 0 < float(new.classifier.weight.std()) < 0.05  # BERT draws 0.02, and the old one has 1
            assert not new.classifier.bias.any()
        assert torch.equal(new.bert.pooler.dense.weight, old.bert.pooler.dense.weight)


def test_a_head_for_a_number_is_kept_and_named(here: Path) -> None:
    old = saved(here / "old", "bert", SEQUENCE, id2label={0: "LABEL_0"})
    number = {"num_labels": 1, "problem_type": "regression", "vocab_size": 60}
    new, notes = of(here / "old", SEQUENCE, number)
    assert torch.equal(new.classifier.weight, old.classifier.weight)
    assert "the pretrained head for regression is kept" in notes[0]
    new, notes = of(here / "old", SEQUENCE, needed("a", "b"))
    assert new.classifier.weight.shape[0] == 2
    assert notes == ["model.path: the head is new: that of model.path is for 1 label without names"]


def test_weights_without_a_head_say_nothing(here: Path) -> None:
    transformers.AutoModel.from_config(config_of("bert", 60)).save_pretrained(here / "body")
    assert of(here / "body", SEQUENCE, needed("a", "b"))[1] == []
