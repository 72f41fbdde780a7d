"""From a name to a model ready to train. Importing this registers our own architectures with transformers' Auto classes."""

from llmft.models import mlp

mlp.register()
