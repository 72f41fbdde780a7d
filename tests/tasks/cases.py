"""One row a task, or a problem of it: what the tests of every task need to know of it."""

from dataclasses import dataclass, field

from llmft.schema.metric import METRICS


@dataclass(frozen=True)
class Case:
    """How a task is tried out."""

    recipe: str
    """A recipe of the task; `smoke=true` makes it small."""
    command: str = "finetune"
    """What the recipe is for."""
    losses: list[float] = field(default_factory=list)
    """Training loss of ten fixed steps of the tiny model with seed 0, in float32."""
    chance: float = 0.0
    """What guessing gets of `metric` on the synthetic test rows."""
    metric: str = "accuracy"
    good: float = 0.9
    """What a tiny model must get of it."""
    steps: int = 80
    """In how many steps."""
    lr: float = 0.003
    """At which learning rate; a T5's, by adafactor, is relative to the weights."""
    words: tuple[str, ...] = ()
    """What else is typed."""
    asked: bool = False
    """Whether `predict` answers something else than `eval` scores: a language model goes on with a text."""

    @property
    def better(self) -> bool:
        """Whether more of `metric` is better."""
        return METRICS[self.metric]


CASES = {
    "text_classification": Case(
        recipe="bert_textcls",
        losses=[0.6893, 0.6924, 0.6935, 0.6914, 0.6897, 0.6918, 0.6929, 0.6953, 0.6961, 0.6909],
        chance=0.5,
    ),
    "tabular": Case(
        recipe="tabular_mlp",
        losses=[0.6931, 0.6914, 0.6882, 0.6893, 0.686, 0.6824, 0.6818, 0.6756, 0.6874, 0.6704],
        chance=0.5,
    ),
    # What a user has clicked before tells the kind of item that this one clicks on.
    "ctr": Case(
        recipe="ctr_din",
        losses=[0.6931, 0.6919, 0.6961, 0.69, 0.6896, 0.6931, 0.6957, 0.6902, 0.6904, 0.699],
        chance=0.5,
        metric="auc",
        steps=200,
        lr=0.02,
    ),
    # Saying yes to all gets a precision of a half and a recall of 1.
    "text_classification multi_label": Case(
        recipe="bert_textcls",
        losses=[0.8191, 0.6854, 0.6827, 0.748, 0.6277, 0.7345, 0.7702, 0.6884, 0.7242, 0.7451],
        chance=0.67,
        metric="f1_micro",
        # BERT's 0.02 is for a width of 768. Of 32, nearly all texts come out as one direction, with room for one label.
        steps=320,
        words=("task.problem=multi_label", "task.threshold=f1", "model.config.initializer_range=0.2"),
    ),
    "text_classification regression": Case(
        recipe="bert_textcls",
        losses=[1.1013, 1.4304, 0.808, 1.352, 1.1012, 0.4363, 1.1614, 1.2881, 0.5371, 0.8798],
        chance=0.0,
        metric="pearson",
        steps=240,
        words=("task.problem=regression",),
    ),
    "tabular multi_label": Case(
        recipe="tabular_mlp",
        losses=[0.6931, 0.6925, 0.6913, 0.6925, 0.6929, 0.6917, 0.6902, 0.6879, 0.6927, 0.6849],
        chance=0.67,
        metric="f1_micro",
        steps=480,
        words=("task.problem=multi_label", "task.calibrate=true"),
    ),
    # Each of 32 words is as frequent as the others. A document has two of them, which take turns: who has seen one of
    # them finds another in half of the places.
    "causal_lm": Case(
        recipe="gpt_clm",
        command="pretrain",
        losses=[5.832, 5.7943, 5.7271, 5.6877, 5.6272, 5.6419, 5.6693, 5.6153, 5.6422, 5.5848],
        chance=32,
        metric="perplexity",
        good=3,
        asked=True,
        steps=160,
    ),
    "masked_lm": Case(
        recipe="bert_mlm",
        command="pretrain",
        losses=[4.1109, 4.0225, 4.0095, 4.0498, 4.1146, 4.0744, 4.015, 4.0433, 4.0568, 4.0111],
        chance=0.03,
        good=0.4,
        steps=168,
        asked=True,
    ),
    "masked_lm whole words": Case(
        recipe="bert_mlm",
        command="pretrain",
        losses=[4.1224, 4.0385, 4.0201, 4.0355, 4.0755, 4.0754, 4.0085, 4.0671, 4.072, 4.0116],
        chance=0.03,
        good=0.4,
        steps=240,
        words=("task.whole_word=true",),
        asked=True,
    ),
    # Half of the pairs belong together.
    "masked_lm next sentence": Case(
        recipe="bert_mlm_nsp",
        command="pretrain",
        losses=[6.45, 5.515, 5.1944, 4.892, 5.1026, 5.0686, 4.944, 4.516, 5.0941, 4.7159],
        chance=0.5,
        metric="next_sentence_accuracy",
        good=0.7,
        steps=240,
        words=("model.config.initializer_range=0.2",),
        asked=True,
    ),
    "span_corruption": Case(
        recipe="t5_span",
        lr=0.02,
        command="pretrain",
        losses=[6.5178, 6.6071, 6.1535, 5.9293, 5.8241, 5.6488, 5.7085, 5.8641, 5.3049, 5.4972],
        chance=32,
        metric="perplexity",
        good=12,
        steps=160,
        asked=True,
    ),
    "tabular regression": Case(
        recipe="tabular_regression",
        losses=[0.5305, 0.6028, 0.4819, 0.2499, 0.4902, 0.5114, 0.498, 0.4835, 0.3416, 0.4753],
        chance=0.0,
        metric="r2",
        steps=320,
        words=("task.loss=huber",),
    ),
    # Two words of a context could be the answer, and the question says which of them is. Width 32 as above.
    "question_answering": Case(
        recipe="bert_qa",
        losses=[2.9297, 2.3693, 2.4167, 2.3165, 2.2945, 2.224, 2.193, 2.2616, 2.1861, 2.0312],
        chance=0.5,
        metric="exact_match",
        steps=112,
        words=("model.config.initializer_range=0.2",),
    ),
    # Half of the contexts hold no answer, so that silence gets a half.
    "question_answering unanswerable": Case(
        recipe="bert_qa",
        losses=[2.6059, 2.5512, 2.232, 1.9845, 1.8452, 1.7798, 1.9812, 1.6277, 1.8082, 1.5518],
        chance=0.5,
        metric="exact_match",
        steps=140,
        words=("task.unanswerable=true", "model.config.initializer_range=0.2"),
    ),
    # Calling every word a place finds half of the entities, and one word in twelve is a place.
    "token_classification": Case(
        recipe="bert_ner",
        losses=[1.6061, 1.4727, 1.3698, 1.2455, 1.2571, 1.2115, 1.1985, 1.1474, 1.1015, 1.0926],
        chance=0.15,
        metric="f1",
    ),
    # The dense head learns the boxes of shapes in 100 steps; RT-DETR's queries, which the recipe has, need four times
    # as many.
    "object_detection": Case(
        recipe="detection",
        losses=[6.1777, 6.3035, 5.5616, 5.3568, 5.5746, 5.9851, 5.1691, 5.7131, 5.0967, 6.0436],
        chance=0.05,
        metric="map50",
        good=0.5,
        steps=100,
        words=("model=centernet", "optimizer.backbone_lr=null"),
    ),
    "preference": Case(
        recipe="llm_dpo",
        losses=[0.6931, 0.6884, 0.6896, 0.6813, 0.6867, 0.6772, 0.6801, 0.6618, 0.6572, 0.6694],
        chance=0.5,
    ),
    # Half of the words that tell are not marked: who does not see the marks finds three rows in four.
    "relation_extraction": Case(
        recipe="bert_relation",
        losses=[0.5844, 0.9311, 0.8768, 0.7271, 1.0366, 0.668, 1.0518, 0.8292, 0.8464, 0.5048],
        chance=0.75,
        metric="semeval_f1",
        words=("model.config.initializer_range=0.2",),
        steps=112,
    ),
    # Six answers of one token each, and an end of turn that is sure: exp(ln 6 / 2).
    "instruction": Case(
        recipe="llm_chat",
        losses=[5.7737, 5.6176, 5.5346, 5.4432, 5.3862, 5.2802, 5.2354, 5.1856, 5.1331, 5.0636],
        words=("task.generate=false",),
        chance=2.45,
        metric="perplexity",
        good=1.2,
        asked=True,
        steps=160,
    ),
    # The best single sentence as the answer to all rows scores as much as `chance`.
    # WordPiece takes whole words here, where byte-level BPE has its bytes to learn as well.
    "translation": Case(
        recipe="t5_translation",
        lr=0.02,
        losses=[5.514, 5.3586, 5.1135, 5.1683, 4.7854, 4.5707, 4.6742, 4.3978, 4.3766, 4.2542],
        chance=15.0,
        metric="bleu",
        good=90.0,
        words=("model.tokenizer.kind=wordpiece",),
    ),
    "summarization": Case(
        recipe="t5_summary",
        lr=0.02,
        losses=[5.7143, 5.1295, 4.9387, 4.7356, 4.1967, 4.0099, 3.9761, 3.8557, 3.7492, 3.4462],
        chance=0.55,
        metric="rougeL",
        good=0.95,
        words=("model.tokenizer.kind=wordpiece",),
    ),
    # Texts of two of six topics: 16 passages of 15 kinds.
    "embedding": Case(
        recipe="embedding",
        losses=[2.3921, 2.1934, 1.9661, 2.0339, 2.0508, 2.0359, 2.0992, 1.9998, 2.0016, 2.093],
        chance=0.3,
        metric="ndcg@10",
        good=0.6,
        asked=True,
    ),
    "embedding scores": Case(
        recipe="embedding_sts",
        losses=[3.2604, 3.2098, 3.2571, 3.5322, 2.9436, 3.0842, 3.3126, 3.0822, 3.2026, 3.0146],
        chance=0.3,
        metric="spearman",
        good=0.7,
    ),
    # One of four candidates is right: in any order (1 + 0.63 + 0.5 + 0.43) / 4.
    "reranking": Case(
        recipe="reranker",
        losses=[1.3886, 1.3861, 1.3885, 1.3892, 1.3885, 1.3864, 1.3862, 1.3852, 1.3884, 1.3847],
        chance=0.64,
        metric="ndcg@10",
        asked=True,
    ),
    # A square or a triangle, of any size, color, and angle.
    # The color of a shape tells its kind. Calling every pixel background has an IoU of 0.
    "semantic_segmentation": Case(
        recipe="segmentation",
        losses=[3.0718, 2.9454, 2.7986, 2.7216, 2.5874, 2.4865, 2.5229, 2.3648, 2.2289, 2.4391],
        chance=0.0,
        metric="iou_by_image",
        good=0.6,
        steps=160,
    ),
    # Forty items in a ring, of which a user has had up to eight: ten of the others at random hold the next one in a third
    # of the cases, in any order.
    "recommendation": Case(
        recipe="recsys_sasrec",
        losses=[3.7191, 3.6964, 3.6806, 3.6555, 3.6716, 3.6597, 3.6501, 3.6324, 3.654, 3.6133],
        chance=0.15,
        metric="ndcg@10",
        steps=320,
    ),
    "image_classification": Case(
        recipe="cifar_resnet",
        words=("optimizer=adamw", "augment=none"),
        losses=[0.6863, 0.6896, 0.6676, 0.6588, 0.6439, 0.6425, 0.6246, 0.6141, 0.6011, 0.5835],
        chance=0.5,
    ),
}
