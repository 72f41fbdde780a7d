"""From a name to a model ready to train. Importing this makes transformers' Auto classes know our own architectures."""

from transformers import (
    AutoConfig,
    AutoModel,
    AutoModelForImageClassification,
    AutoModelForObjectDetection,
    AutoModelForSemanticSegmentation,
    AutoModelForSequenceClassification,
)

from llmft.models.boosting import BoostingConfig, BoostingForClassification
from llmft.models.centernet import CenterNetConfig, CenterNetForObjectDetection
from llmft.models.click_models import (
    ClickLRConfig,
    ClickLRForClassification,
    DCNConfig,
    DCNForClassification,
    DeepFMConfig,
    DeepFMForClassification,
    DINConfig,
    DINForClassification,
    FMConfig,
    FMForClassification,
    WideDeepConfig,
    WideDeepForClassification,
)
from llmft.models.factor_models import (
    BPR,
    IALS,
    BPRConfig,
    IALSConfig,
    ItemNeighbors,
    ItemNeighborsConfig,
    Popularity,
    PopularityConfig,
    SVDPlusPlus,
    SVDPlusPlusConfig,
    UserNeighbors,
    UserNeighborsConfig,
)
from llmft.models.image_models import (
    ImageCNNConfig,
    ImageCNNForImageClassification,
    ImageMLPConfig,
    ImageMLPForImageClassification,
    SmallResNetConfig,
    SmallResNetForImageClassification,
)
from llmft.models.sequence_models import GRU4Rec, GRU4RecConfig, SASRec, SASRecConfig
from llmft.models.table_models import (
    FTTransformerConfig,
    FTTransformerForClassification,
    LinearConfig,
    LinearForClassification,
    MLPConfig,
    MLPForClassification,
)
from llmft.models.unet import UNetConfig, UNetForSemanticSegmentation
from llmft.schema.tasks import plugins

for config, model, auto in (
    (LinearConfig, LinearForClassification, AutoModelForSequenceClassification),
    (MLPConfig, MLPForClassification, AutoModelForSequenceClassification),
    (FTTransformerConfig, FTTransformerForClassification, AutoModelForSequenceClassification),
    (BoostingConfig, BoostingForClassification, AutoModelForSequenceClassification),
    (ClickLRConfig, ClickLRForClassification, AutoModelForSequenceClassification),
    (FMConfig, FMForClassification, AutoModelForSequenceClassification),
    (WideDeepConfig, WideDeepForClassification, AutoModelForSequenceClassification),
    (DeepFMConfig, DeepFMForClassification, AutoModelForSequenceClassification),
    (DCNConfig, DCNForClassification, AutoModelForSequenceClassification),
    (DINConfig, DINForClassification, AutoModelForSequenceClassification),
    (ImageMLPConfig, ImageMLPForImageClassification, AutoModelForImageClassification),
    (ImageCNNConfig, ImageCNNForImageClassification, AutoModelForImageClassification),
    (SmallResNetConfig, SmallResNetForImageClassification, AutoModelForImageClassification),
    (CenterNetConfig, CenterNetForObjectDetection, AutoModelForObjectDetection),
    (UNetConfig, UNetForSemanticSegmentation, AutoModelForSemanticSegmentation),
    (PopularityConfig, Popularity, AutoModel),
    (ItemNeighborsConfig, ItemNeighbors, AutoModel),
    (UserNeighborsConfig, UserNeighbors, AutoModel),
    (IALSConfig, IALS, AutoModel),
    (BPRConfig, BPR, AutoModel),
    (SVDPlusPlusConfig, SVDPlusPlus, AutoModel),
    (SASRecConfig, SASRec, AutoModel),
    (GRU4RecConfig, GRU4Rec, AutoModel),
):
    AutoConfig.register(config.model_type, config, exist_ok=True)
    auto.register(config, model, exist_ok=True)


def register() -> None:
    """Let the packages that bring architectures, by an entry point in `llmft.models`, register theirs too."""
    for point in plugins("llmft.models").values():
        point.load()
