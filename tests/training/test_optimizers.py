"""Each optimizer against its formula, written out, and which weights get which rate and decay."""

from collections.abc import Callable
from typing import Any

import pytest
import torch
from peft import IA3Config, LoraConfig, get_peft_model
from torch import nn
from transformers import AutoConfig, AutoModelForSequenceClassification, Trainer

from llmft.models.table_models import MLPConfig, MLPForClassification
from llmft.schema.optimizer import OptimizerConfig
from llmft.schema.problem import UserError
from llmft.training.optimization import build_optimizer, orthogonalize, parameter_groups

State = dict[str, torch.Tensor]
LR, DECAY = 0.1, 0.05


def adam(w: torch.Tensor, g: torch.Tensor, s: State, t: int, coupled: bool) -> torch.Tensor:
    if coupled:
        g = g + DECAY * w
    else:
        w = w - LR * DECAY * w
    s["m"] = 0.8 * s.get("m", 0) + 0.2 * g
    s["v"] = 0.9 * s.get("v", 0) + 0.1 * g**2
    return w - LR * (s["m"] / (1 - 0.8**t)) / ((s["v"] / (1 - 0.9**t)).sqrt() + 1e-8)


def sgd(w: torch.Tensor, g: torch.Tensor, s: State, t: int, nesterov: bool) -> torch.Tensor:
    g = g + DECAY * w
    s["b"] = g if t == 1 else 0.5 * s["b"] + g
    return w - LR * (g + 0.5 * s["b"] if nesterov else s["b"])


def rmsprop(w: torch.Tensor, g: torch.Tensor, s: State, t: int) -> torch.Tensor:
    g = g + DECAY * w
    s["v"] = 0.9 * s.get("v", 0) + 0.1 * g**2
    s["b"] = 0.5 * s.get("b", 0) + g / (s["v"].sqrt() + 1e-8)
    return w - LR * s["b"]


def adagrad(w: torch.Tensor, g: torch.Tensor, s: State, t: int) -> torch.Tensor:
    g = g + DECAY * w
    s["sum"] = s.get("sum", 0) + g**2
    return w - LR * g / (s["sum"].sqrt() + 1e-8)


def adafactor(w: torch.Tensor, g: torch.Tensor, s: State, t: int) -> torch.Tensor:
    """Of a matrix: Shazeer and Stern 2018, algorithm 4, with `lr` as the bound of the relative step."""
    keep = 1 - t**-0.8
    rate = max(1e-3, w.square().mean().sqrt().item()) * min(LR, t**-0.5)
    w = w - LR * DECAY * w
    s["row"] = keep * s.get("row", 0) + (1 - keep) * g.square().mean(dim=1, keepdim=True)
    s["col"] = keep * s.get("col", 0) + (1 - keep) * g.square().mean(dim=0, keepdim=True)
    step = g / (s["row"] * s["col"] / s["row"].mean()).sqrt()
    return w - rate * step / max(1.0, step.square().mean().sqrt().item())


def lion(w: torch.Tensor, g: torch.Tensor, s: State, t: int) -> torch.Tensor:
    mean = s.get("m", torch.zeros_like(g))
    s["m"] = 0.9 * mean + 0.1 * g
    return w - LR * ((0.8 * mean + 0.2 * g).sign() + DECAY * w)


FORMULAS: dict[str, tuple[dict[str, Any], Callable[..., torch.Tensor]]] = {
    "adam": ({}, lambda *step: adam(*step, coupled=True)),
    "adamw": ({}, lambda *step: adam(*step, coupled=False)),
    "sgd": ({}, lambda *step: sgd(*step, nesterov=False)),
    "sgd, nesterov": ({"nesterov": True}, lambda *step: sgd(*step, nesterov=True)),
    "rmsprop": ({}, rmsprop),
    "adagrad": ({}, adagrad),
    "adafactor": ({}, adafactor),
    "lion": ({}, lion),
}


class Quadratic(nn.Module):
    """A valley that is steeper for some weights than for others; its gradient is `slopes * (weight - centre)`."""

    def __init__(self) -> None:
        super().__init__()
        self.weight = nn.Parameter(torch.tensor([[0.0, 3.0, -0.5], [1.3, 2.0, -4.0]]))
        self.centre = torch.tensor([[1.0, -2.0, 0.5], [0.3, 4.0, -0.1]])
        self.slopes = torch.tensor([[1.0, 0.1, 3.0], [2.0, 0.5, 1.0]])

    def forward(self) -> torch.Tensor:
        return (self.slopes * (self.weight - self.centre) ** 2).sum() / 2


def steps(model: Quadratic, count: int = 5, **keys: Any) -> list[torch.Tensor]:
    """The weights after each step."""
    built, found = build_optimizer(OptimizerConfig(**{"lr": LR, "weight_decay": 0.0} | keys), model), []
    for _ in range(count):
        built.zero_grad()
        model().backward()
        built.step()
        found.append(model.weight.detach().clone())
    return found


@pytest.mark.parametrize("name", FORMULAS)
def test_an_optimizer_takes_the_steps_of_its_formula(name: str) -> None:
    more, formula = FORMULAS[name]
    keys = {"name": name.partition(",")[0], "weight_decay": DECAY, "momentum": 0.5, "betas": (0.8, 0.9), "alpha": 0.9}
    model = Quadratic()
    weight, state = model.weight.detach().clone(), State()
    found = steps(model, **keys, **more)
    for step, after in enumerate(found, 1):
        weight = formula(weight, model.slopes * (weight - model.centre), state, step)
        assert torch.allclose(after, weight, atol=1e-6), step


@pytest.mark.parametrize("name", ["adam", "sgd", "rmsprop", "adagrad"])
def test_l2_is_what_these_call_weight_decay(name: str) -> None:
    one, other = steps(Quadratic(), name=name, l2=DECAY), steps(Quadratic(), name=name, weight_decay=DECAY)
    assert all(torch.allclose(a, b, atol=1e-6) for a, b in zip(one, other, strict=True))
    assert not torch.allclose(one[-1], steps(Quadratic(), name=name)[-1], atol=1e-4)


@pytest.mark.parametrize("name", ["adamw", "lion"])
def test_l2_is_no_decoupled_decay(name: str) -> None:
    plain, l2, decay = (steps(Quadratic(), name=name, **{key: 1.0})[-1] for key in ("l1", "l2", "weight_decay"))
    assert not torch.allclose(l2, decay, atol=1e-3)
    assert not torch.allclose(plain, l2, atol=1e-3)


def test_l1_finds_the_minimum_of_the_penalised_valley() -> None:
    """Of slope / 2 * (w - c)² + l1 * |w| per weight: c, moved by l1 / slope towards zero and not beyond."""
    model = Quadratic()
    weight = steps(model, 400, name="sgd", momentum=0.0, l1=0.8)[-1]
    expected = model.centre.sign() * (model.centre.abs() - 0.8 / model.slopes).clamp(min=0)
    assert torch.allclose(weight, expected, atol=1e-4)
    assert ((weight == 0) == (expected == 0)).all(), "exactly zero"
    assert (expected == 0).sum() == 3


def tiny(architecture: str, layers: int = 2) -> nn.Module:
    config = AutoConfig.for_model(architecture)
    sizes = {"hidden_size": 16, "num_hidden_layers": layers, "num_attention_heads": 2, "vocab_size": 20}
    sizes = {config.attribute_map.get(key, key): value for key, value in sizes.items()}
    special = {"pad_token_id": 0, "bos_token_id": 0, "eos_token_id": 0}
    return AutoModelForSequenceClassification.from_config(type(config)(**sizes, **special))


def test_the_same_weights_decay_as_with_transformers() -> None:
    for architecture in ("bert", "distilbert", "roberta", "deberta-v2", "gpt2", "llama", "t5"):
        model = tiny(architecture)
        decays, plain = parameter_groups(OptimizerConfig(weight_decay=0.5), model)
        assert (decays["weight_decay"], plain["weight_decay"]) == (0.5, 0)
        names = Trainer.get_decay_parameter_names(None, model)  # type: ignore[arg-type]
        assert {id(p) for p in decays["params"]} == {id(p) for n, p in model.named_parameters() if n in names}
        assert len(decays["params"]) + len(plain["params"]) == len(list(model.parameters()))


def test_embeddings_can_be_left_alone() -> None:
    model = tiny("bert")
    config = OptimizerConfig(weight_decay=0.5, l1=0.1, l2=0.2, no_decay=["embeddings"])
    _, plain = parameter_groups(config, model)
    names = {name for name, p in model.named_parameters() if any(p is q for q in plain["params"])}
    assert names == {f"bert.embeddings.{kind}_embeddings.weight" for kind in ("word", "position", "token_type")}
    assert [plain[key] for key in ("weight_decay", "l1", "l2")] == [0, 0, 0]


def test_rates_fall_from_the_head_to_the_embeddings() -> None:
    model = tiny("bert", layers=3)
    found = parameter_groups(OptimizerConfig(lr=1.0, layer_decay=0.5), model)
    rates = {id(p): group["lr"] for group in found for p in group["params"]}
    expected = {
        "classifier.weight": 1.0,
        "bert.pooler.dense.bias": 1.0,
        "bert.encoder.layer.2.output.dense.weight": 0.5,
        "bert.encoder.layer.1.output.LayerNorm.bias": 0.25,
        "bert.encoder.layer.0.attention.self.query.bias": 0.125,
        "bert.embeddings.word_embeddings.weight": 0.0625,
    }
    assert {name: rates[id(p)] for name, p in model.named_parameters() if name in expected} == expected
    assert found[0]["lr"] == 1.0, "what is logged is the peak"


def test_what_is_frozen_is_in_no_group() -> None:
    model = tiny("bert")
    model.bert.requires_grad_(False)  # type: ignore[union-attr, operator]
    assert [len(group["params"]) for group in parameter_groups(OptimizerConfig(), model)] == [1, 1]


def test_rates_by_layer_want_layers() -> None:
    model = MLPForClassification(MLPConfig(num_numbers=2, category_sizes=[3]))
    with pytest.raises(UserError, match=r"optimizer.layer_decay  MLPForClassification has no numbered layers"):
        parameter_groups(OptimizerConfig(layer_decay=0.9), model)


class Layered(nn.Module):
    """A table, two layers and a head, all linear."""

    def __init__(self) -> None:
        super().__init__()
        torch.manual_seed(0)
        self.table = nn.Embedding(5, 4)
        self.layers = nn.ModuleList([nn.Linear(4, 6), nn.Linear(6, 4)])
        self.head = nn.Linear(4, 2)

    def forward(self) -> torch.Tensor:
        x = self.table.weight
        for layer in self.layers:
            x = torch.tanh(layer(x))
        return self.head(x).square().sum()


@pytest.mark.parametrize("native", [True, False])
@pytest.mark.parametrize("shape", [(8, 8), (4, 30), (30, 4)])
def test_the_step_of_muon_is_nearly_orthogonal(
    shape: tuple[int, int], native: bool, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(torch.cpu, "get_capabilities", lambda: {"avx512_bf16": native})
    torch.manual_seed(0)
    matrix = torch.randn(shape)
    assert orthogonalize(matrix).dtype == (torch.bfloat16 if native else torch.float32)
    left, values, right = torch.linalg.svd(matrix, full_matrices=False)
    turned = left.T @ orthogonalize(matrix).float() @ right.T
    assert values.max() / values.min() > 1.5
    assert ((turned.diag() > 0.6) & (turned.diag() < 1.3)).all()
    assert torch.allclose(turned, turned.diag().diag(), atol=0.05), "the same directions"
    assert torch.allclose(orthogonalize(1024 * matrix).float(), orthogonalize(matrix).float(), atol=0.02), (
        "whatever its size"
    )


def test_muon_turns_hidden_matrices_and_is_adamw_elsewhere() -> None:
    keys = {"lr": LR, "weight_decay": DECAY, "betas": (0.8, 0.9)}
    model, other = Layered(), Layered()
    built = build_optimizer(OptimizerConfig(name="muon", momentum=0.5, **keys), model)
    adamw = build_optimizer(OptimizerConfig(name="adamw", **keys), other)
    means = [torch.zeros_like(layer.weight) for layer in model.layers]  # type: ignore[arg-type]
    for _ in range(3):
        built.zero_grad(), adamw.zero_grad()
        model().backward()
        for mine, its in zip(model.parameters(), other.parameters(), strict=True):
            its.data.copy_(mine)
            its.grad = mine.grad.clone()  # type: ignore[union-attr]
        expected = []
        for layer, mean in zip(model.layers, means, strict=True):
            weight, gradient = layer.weight.detach(), layer.weight.grad
            mean.copy_(0.5 * mean + 0.5 * gradient)  # type: ignore[operator]
            step = 0.2 * 6**0.5 * orthogonalize(0.5 * mean + 0.5 * gradient).float()  # type: ignore[operator]
            expected.append(weight - LR * (step + DECAY * weight))  # type: ignore[operator]
        built.step(), adamw.step()
        for layer, wanted in zip(model.layers, expected, strict=True):
            assert torch.allclose(layer.weight, wanted, atol=1e-6)  # type: ignore[arg-type]
            assert layer.weight.grad is not None, "l1 asks for it"
        for (name, mine), its in zip(model.named_parameters(), other.parameters(), strict=True):
            hidden = name.startswith("layers") and name.endswith("weight")
            assert torch.equal(mine, its) != hidden, name


@pytest.mark.parametrize(("architecture", "count"), [("bert", 12), ("gpt2", 8), ("t5", 32), ("modernbert", 8)])
def test_muon_leaves_tables_and_heads_alone(architecture: str, count: int) -> None:
    model = tiny(architecture)
    found = parameter_groups(OptimizerConfig(name="muon", weight_decay=0.5), model)
    hidden = {id(p) for group in found if group["hidden"] for p in group["params"]}
    names = [name for name, p in model.named_parameters() if id(p) in hidden]
    assert len(names) == count
    assert not [name for name in names if "embed" in name or "classif" in name or "score" in name or "bias" in name]
    assert sum(len(group["params"]) for group in found) == len(list(model.parameters()))


def test_muon_turns_adapters_and_no_vectors() -> None:
    bert, config = tiny("bert"), OptimizerConfig(name="muon")
    lora = get_peft_model(bert, LoraConfig(target_modules=["query"]))
    hidden = [group["params"] for group in parameter_groups(config, lora) if group["hidden"]]
    assert [len(found) for found in hidden] == [4], "two matrices in each of two layers"
    ia3 = get_peft_model(tiny("bert"), IA3Config(target_modules=["query"], feedforward_modules=[]))
    assert not [group for group in parameter_groups(config, ia3) if group["hidden"]]


def test_penalties_are_added_once_whatever_was_built_before() -> None:
    """torch puts its hooks into the class that is built, for all that are built of it, and of those above it."""
    torch.optim.AdamW(nn.Linear(1, 1).parameters())
    for name in ("muon", "adamw"):
        model = Layered()
        built = build_optimizer(OptimizerConfig(name=name, lr=LR, weight_decay=0.0, l2=0.5), model)
        model().backward()
        before = model.head.weight.grad.clone()  # type: ignore[union-attr]
        expected = before + 0.5 * model.head.weight.detach()
        built.step()
        assert torch.allclose(model.head.weight.grad, expected), name  # type: ignore[arg-type]


def test_muon_wants_layers() -> None:
    model = MLPForClassification(MLPConfig(num_numbers=2, category_sizes=[3]))
    with pytest.raises(
        UserError, match=r"optimizer.name  muon is .* MLPForClassification has none. Write optimizer=adamw"
    ):
        build_optimizer(OptimizerConfig(name="muon"), model)
