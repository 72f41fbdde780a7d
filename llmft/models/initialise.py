"""First weights by a named rule, for the matrices of linear layers; the others stay as the architecture makes them."""

from collections.abc import Callable
from functools import partial

from torch import Tensor, nn
from transformers.pytorch_utils import Conv1D

RULES: dict[str, Callable[[Tensor], object]] = {
    # Variance 2 / (inputs + outputs): Glorot and Bengio 2010.
    "xavier_uniform": nn.init.xavier_uniform_,
    "xavier_normal": nn.init.xavier_normal_,
    # Variance 2 / inputs: He et al. 2015.
    "kaiming_uniform": partial(nn.init.kaiming_uniform_, nonlinearity="relu"),
    "kaiming_normal": partial(nn.init.kaiming_normal_, nonlinearity="relu"),
    # Orthonormal rows or columns, whichever are fewer: Saxe et al. 2014.
    "orthogonal": nn.init.orthogonal_,
}


def initialise(model: nn.Module, rule: str) -> None:
    """Draw the matrix of every linear layer anew, the head's included, from torch's global random state.

    Embeddings, norms and biases stay as the architecture makes them, and so does a matrix that is tied to an embedding.
    """
    embeddings = {id(module.weight) for module in model.modules() if isinstance(module, nn.Embedding)}
    for module in model.modules():
        if isinstance(module, nn.Linear | Conv1D) and id(module.weight) not in embeddings:
            # GPT-2's Conv1D is a linear layer that keeps its matrix the other way round, (in, out).
            RULES[rule](module.weight.T if isinstance(module, Conv1D) else module.weight)
