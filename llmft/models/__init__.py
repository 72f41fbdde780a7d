"""From a name to a model ready to train. Importing this makes transformers' Auto classes know our own architectures."""

from llmft.models import mlp

mlp.register()
