"""Perplexity: among how many tokens a model is as unsure as if it drew one of them."""

import math


def perplexity(loss: float) -> float:
    """The exponential of a mean cross entropy in nats; 1e304 for a loss above 700, whose own is no number."""
    return math.exp(min(loss, 700.0))
