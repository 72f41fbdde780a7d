"""From a name to a model ready to train. Importing this makes transformers' Auto classes know our own architectures."""

from llmft.models import mlp
from llmft.schema.plugins import plugins

mlp.register()


def register() -> None:
    """Let the packages that bring architectures, by an entry point in `llmft.models`, register theirs too."""
    for point in plugins("llmft.models").values():
        point.load()
