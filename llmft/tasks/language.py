"""Whether a tokenizer knows the language of the rows."""

from transformers import PreTrainedTokenizerFast

from llmft.schema.problem import Problem, UserError

SAMPLE = 1000  # rows that tell
CHOOSE = "Choose a model of their language, such as model=bert_base_chinese."


def unknown(texts: list[str], tokenizer: PreTrainedTokenizerFast) -> float:
    """The share of the tokens of some texts that stand for what the tokenizer does not know."""
    mark = tokenizer.unk_token_id
    if mark is None:
        return 0.0
    ids = [i for row in tokenizer(texts, add_special_tokens=False)["input_ids"] for i in row]
    return ids.count(mark) / max(len(ids), 1)


def check_language(texts: list[str], tokenizer: PreTrainedTokenizerFast, hint: str = CHOOSE) -> None:
    """Raise UserError where the tokenizer knows less than half of the text: its model would learn nothing."""
    if (share := unknown(texts, tokenizer)) > 0.5:
        what = f"{share:.0%} of the words of train are unknown to it"
        raise UserError(Problem("model.tokenizer", what, hint=hint), "the data")


def unwritable(what: str, texts: list[str], tokenizer: PreTrainedTokenizerFast) -> list[str]:
    """A note on texts that a model can't write since tokens don't hold all of their letters, where one in 100 is such.

    Spaces and line breaks count as other letters do; those at both ends are stripped of every answer.
    """
    read = tokenizer(texts, padding=False, split_special_tokens=True)["input_ids"]
    again = tokenizer.batch_decode(read, skip_special_tokens=True)
    changed = sum(one.strip() != other.strip() for one, other in zip(texts, again, strict=True)) / max(len(texts), 1)
    if changed < 0.01:
        return []
    how = "come back from the tokenizer otherwise, in case or spaces: they can't be written as they are"
    return [f"train: {changed:.0%} of {what} {how}"]
