"""First weights by rule, and every dropout by one key."""

import math
from collections.abc import Callable
from typing import Any, get_args

import pytest
import torch
from torch import nn
from transformers import PreTrainedModel, set_seed
from transformers.pytorch_utils import Conv1D

from llmft.models.build import build
from llmft.models.initialization import RULES
from llmft.schema.model import ModelConfig
from llmft.schema.problem import UserError

HEAD = "AutoModelForSequenceClassification"
SIZES = {"hidden_size": 64, "num_hidden_layers": 2, "num_attention_heads": 2}


def built(architecture: str, init: str = "random", seed: int = 0, **keys: Any) -> PreTrainedModel:
    set_seed(seed)
    sizes = {} if architecture == "mlp" else SIZES
    config = ModelConfig.model_validate({"architecture": architecture, "init": init, "config": sizes} | keys)
    needed = {"num_labels": 3} if architecture == "mlp" else {"num_labels": 3, "vocab_size": 50, "pad_token_id": 0}
    return build(config, HEAD, needed)


def matrices(model: nn.Module) -> list[torch.Tensor]:
    """The matrices of linear layers, each (out, in)."""
    found = [m for m in model.modules() if isinstance(m, nn.Linear | Conv1D)]
    return [(m.weight.T if isinstance(m, Conv1D) else m.weight).detach() for m in found]


def uniform(matrix: torch.Tensor, variance: float) -> bool:
    bound = math.sqrt(3 * variance)
    return 0.97 * bound < matrix.abs().max() <= bound and abs(matrix.var() / variance - 1) < 0.1


def normal(matrix: torch.Tensor, variance: float) -> bool:
    return matrix.abs().max() > 3 * math.sqrt(variance) and abs(matrix.var() / variance - 1) < 0.1


def orthonormal(matrix: torch.Tensor) -> bool:
    short = matrix if matrix.shape[0] <= matrix.shape[1] else matrix.T
    return torch.allclose(short @ short.T, torch.eye(len(short)), atol=1e-5)


FORMULAS: dict[str, Callable[[torch.Tensor], bool]] = {
    "xavier_uniform": lambda m: uniform(m, 2 / sum(m.shape)),
    "xavier_normal": lambda m: normal(m, 2 / sum(m.shape)),
    "kaiming_uniform": lambda m: uniform(m, 2 / m.shape[1]),
    "kaiming_normal": lambda m: normal(m, 2 / m.shape[1]),
    "orthogonal": orthonormal,
}


@pytest.mark.parametrize("architecture", ["bert", "gpt2"])
@pytest.mark.parametrize("rule", FORMULAS)
def test_a_rule_is_its_formula(rule: str, architecture: str) -> None:
    model, plain = built(architecture, rule), built(architecture)
    large = [matrix for matrix in matrices(model) if matrix.numel() > 4000]
    assert len(large) >= 8
    assert all(FORMULAS[rule](matrix) for matrix in large)
    own = {id(m.weight) for m in model.modules() if isinstance(m, nn.Linear | Conv1D)}
    others = {name: p for name, p in model.named_parameters() if id(p) not in own}
    assert {name.rpartition(".")[2] for name in others} == {"weight", "bias"}
    assert all(torch.equal(p, plain.get_parameter(name)) for name, p in others.items()), "embeddings, norms and biases"


def test_every_rule_can_be_named() -> None:
    kinds, _ = get_args(ModelConfig.model_fields["init"].annotation)
    kinds = get_args(kinds)
    assert set(FORMULAS) == set(RULES) == set(kinds) - {"pretrained", "random"}


def test_a_rule_draws_from_the_seed() -> None:
    one, same, other = (matrices(built("mlp", "orthogonal", seed))[0] for seed in (0, 0, 1))
    assert torch.equal(one, same)
    assert not torch.equal(one, other)


@pytest.mark.parametrize(
    "architecture", ["bert", "distilbert", "roberta", "albert", "electra", "deberta-v2", "mpnet", "gpt2", "mlp"]
)
def test_one_key_sets_every_dropout(architecture: str) -> None:
    sizes = {"hidden_dropout_prob": 0.5} if architecture == "bert" else {}
    model = built(architecture, dropout=0.25, config={} if architecture == "mlp" else SIZES | sizes)
    found = [module.p for module in model.modules() if isinstance(module, nn.Dropout)]
    assert set(found) == {0.25}
    if hasattr(model.config, "attention_probs_dropout_prob"):
        assert model.config.attention_probs_dropout_prob == 0.25, "some pass it to a function"


def test_an_architecture_without_dropout_says_so() -> None:
    config = ModelConfig.model_validate({"architecture": "mamba", "dropout": 0.1})
    with pytest.raises(UserError, match=r"model.dropout  mamba has no dropout"):
        build(config, "AutoModelForCausalLM", {"vocab_size": 50})
