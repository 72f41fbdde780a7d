"""From a name to a model ready to train. Importing this makes transformers' Auto classes know our own architectures."""

from llmft.models import table
from llmft.models.boosting import BoostingConfig, BoostingForClassification
from llmft.models.ft_transformer import FTTransformerConfig, FTTransformerForClassification
from llmft.models.linear import LinearConfig, LinearForClassification
from llmft.models.mlp import MLPConfig, MLPForClassification
from llmft.schema.plugins import plugins

table.register(LinearConfig, LinearForClassification)
table.register(MLPConfig, MLPForClassification)
table.register(FTTransformerConfig, FTTransformerForClassification)
table.register(BoostingConfig, BoostingForClassification)


def register() -> None:
    """Let the packages that bring architectures, by an entry point in `llmft.models`, register theirs too."""
    for point in plugins("llmft.models").values():
        point.load()
