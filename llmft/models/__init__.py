"""From a name to a model ready to train. Importing this makes transformers' Auto classes know our own architectures."""

from transformers import AutoConfig, AutoModelForSequenceClassification

from llmft.models.boosting import BoostingConfig, BoostingForClassification
from llmft.models.table_models import (
    FTTransformerConfig,
    FTTransformerForClassification,
    LinearConfig,
    LinearForClassification,
    MLPConfig,
    MLPForClassification,
)
from llmft.schema.tasks import plugins

for config, model in (
    (LinearConfig, LinearForClassification),
    (MLPConfig, MLPForClassification),
    (FTTransformerConfig, FTTransformerForClassification),
    (BoostingConfig, BoostingForClassification),
):
    AutoConfig.register(config.model_type, config, exist_ok=True)
    AutoModelForSequenceClassification.register(config, model, exist_ok=True)


def register() -> None:
    """Let the packages that bring architectures, by an entry point in `llmft.models`, register theirs too."""
    for point in plugins("llmft.models").values():
        point.load()
