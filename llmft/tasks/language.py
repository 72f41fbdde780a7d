"""Whether a tokenizer knows the language of the rows."""

from transformers import PreTrainedTokenizerFast

from llmft.schema.problem import Problem, UserError

SAMPLE = 1000  # rows that tell


def unknown(texts: list[str], tokenizer: PreTrainedTokenizerFast) -> float:
    """The share of the tokens of some texts that stand for what the tokenizer does not know."""
    mark = tokenizer.unk_token_id
    if mark is None:
        return 0.0
    ids = [i for row in tokenizer(texts, add_special_tokens=False)["input_ids"] for i in row]
    return ids.count(mark) / max(len(ids), 1)


def check_language(texts: list[str], tokenizer: PreTrainedTokenizerFast, hint: str) -> None:
    """Raise UserError where the tokenizer knows less than half of the text: its model would learn nothing."""
    if (share := unknown(texts, tokenizer)) > 0.5:
        what = f"{share:.0%} of the words of train are unknown to it"
        raise UserError(Problem("model.tokenizer", what, hint=hint), "the data")
