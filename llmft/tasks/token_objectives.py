"""What training minimizes for tasks whose models write, complete, or compare texts: losses of tokens."""

from typing import Any

import numpy
import torch
from torch.nn import functional

from llmft.models.adapters import unwrap
from llmft.models.generate import generate_after
from llmft.models.labeled import labeled_output, mean_loss, row_scores, sums_by_row, token_loss, token_losses
from llmft.schema.tasks import IGNORED
from llmft.tasks.chat.instruction import PROMPT
from llmft.tasks.chat.preference import SIDES
from llmft.tasks.language_models.masked_lm import BEST
from llmft.tasks.objective import Batch, Objective, tensors
from llmft.tasks.padding import pad, pad_values, padded, stack


class TextToTextObjective(Objective):
    """The mean loss over the tokens of the right text; the decoder reads it shifted by one token.

    A batch has `input_ids` and `attention_mask` (B, longest input), and `labels` (B, longest target) where the right
    text is known.
    """

    mean_over = "tokens"

    def loss(self, model: torch.nn.Module, batch: Batch) -> torch.Tensor:
        """The mean cross entropy in nats; in training with `task.label_smoothing` e, as in Szegedy et al. (2016).

        It is 1 - e times the cross entropy of the right token and e times its mean over the vocabulary (section 7,
        arXiv:1512.00567). In evaluation e is 0, so that losses of runs with different e can be compared.
        """
        smoothing = self.task.options.label_smoothing if model.training else 0.0
        return token_loss(model, batch, shift=False, smoothing=smoothing)

    def predict(self, model: torch.nn.Module, batch: Batch) -> tuple[Any, float | None]:
        """The tokens that the decoder writes, and the mean loss of the right text.

        Returns:
            a list of token ids for each row, padded to the longest of the batch; the loss is None without labels.
        """
        loss = token_loss(model, batch, shift=False).item() if "labels" in batch else None
        inputs = {key: value for key, value in batch.items() if key != "labels"}
        return model.generate(**inputs).tolist(), loss  # type: ignore[operator]


class LanguageObjective(Objective):
    """The mean loss of the labeled tokens of a batch. A task adds how its model answers a prompt."""

    mean_over = "tokens"

    def collate(self, features: list[dict[str, Any]]) -> Batch:
        """Tensors (B, longest of the key), or (B,) for numbers; fast for rows of one length, such as blocks.

        There is an attention mask only if something is padded, or if there are no labels.
        """
        values = {"input_ids": self.task.state.tokenizer.pad_token_id, "labels": IGNORED, "token_type_ids": 0}
        prompts = self.task.state.inference and self.task.head == "AutoModelForCausalLM"
        side = "left" if prompts else "right"  # generation continues the last token
        batch = {}
        for key in features[0]:
            rows = [feature[key] for feature in features]
            batch[key] = padded(rows, values[key], side) if key in values else stack(rows)
        lengths = [len(feature["input_ids"]) for feature in features]
        if "labels" not in batch or min(lengths) < max(lengths):
            batch["attention_mask"] = padded([numpy.ones(length, dtype=numpy.int64) for length in lengths], 0, side)
        return tensors(batch)

    def loss(self, model: torch.nn.Module, batch: Batch) -> torch.Tensor:
        return token_loss(model, batch, shift=False)

    def predict(self, model: torch.nn.Module, batch: Batch) -> tuple[Any, float | None]:
        """The loss in nats of each example and its counts, (B, 1 + counts); for prompts, the answers."""
        if "labels" not in batch:
            return self.answer(model, batch), None
        scores = self.scored(model, batch).cpu().numpy()
        nats, tokens = scores[:, 0].sum(), scores[:, 1].sum()
        return scores, float(nats / tokens) if tokens else None

    def scored(self, model: torch.nn.Module, batch: Batch) -> torch.Tensor:
        """(B, 1 + len(counts)), float64: the nats of an example, then its counts, the tokens first."""
        return row_scores(model, batch)[:, : 1 + len(self.task.counts)]

    def answer(self, model: Any, batch: Batch) -> list[Any]:
        """The output for each prompt of a batch, for `to_answer`."""
        raise NotImplementedError


class CausalObjective(LanguageObjective):
    """The loss of the next tokens."""

    def answer(self, model: Any, batch: Batch) -> list[Any]:
        """The tokens after each prompt."""
        return generate_after(model, batch["input_ids"], batch["attention_mask"])


class MaskedObjective(LanguageObjective):
    """The mean loss of the hidden tokens; with `task.next_sentence`, plus that of the pairs."""

    def loss(self, model: torch.nn.Module, batch: Batch) -> torch.Tensor:
        if not self.task.options.next_sentence:
            return super().loss(model, batch)
        # Two means, as in BERT: a pair counts as much as all hidden tokens of its row.
        labels, output = self._pair(model, batch)
        wanted = labels[labels != IGNORED]
        tokens = functional.cross_entropy(output.prediction_logits.float(), wanted, reduction="none")
        return mean_loss(tokens) + functional.cross_entropy(
            output.seq_relationship_logits.float(), batch["next_sentence_label"]
        )

    def scored(self, model: torch.nn.Module, batch: Batch) -> torch.Tensor:
        if not self.task.options.next_sentence:
            return super().scored(model, batch)
        labels, output = self._pair(model, batch)
        tokens = sums_by_row(output.prediction_logits.float(), labels, labels != IGNORED)
        right = output.seq_relationship_logits.argmax(-1) == batch["next_sentence_label"]
        return torch.cat([tokens, torch.ones_like(tokens[:, :1]), right[:, None].to(tokens.device).double()], dim=1)

    def _pair(self, model: Any, batch: Batch) -> tuple[torch.Tensor, Any]:
        inputs = {key: value for key, value in batch.items() if key not in ("labels", "next_sentence_label")}
        return batch["labels"], labeled_output(model, inputs, batch["labels"] != IGNORED)

    def answer(self, model: Any, batch: Batch) -> list[Any]:
        """For each prompt its tokens, and at each position the likeliest tokens and their scores."""
        output = model(**batch)
        logits = output.prediction_logits if self.task.options.next_sentence else output.logits
        best = logits.float().softmax(-1).topk(min(BEST, logits.shape[-1]))
        found = (batch["input_ids"], best.indices, best.values)
        return list(zip(*(part.cpu().numpy() for part in found), strict=True))


class GapObjective(LanguageObjective):
    """The mean loss of the tokens that were cut out, sentinels included."""

    def answer(self, model: Any, batch: Batch) -> list[Any]:
        """For each prompt its tokens, and those that the decoder writes."""
        written = unwrap(model).generate(**batch)[:, 1:]
        return list(zip(batch["input_ids"].cpu().numpy(), written.cpu().numpy(), strict=True))


class AnswerObjective(Objective):
    """The mean loss of the trained tokens, each predicted from those before it."""

    mean_over = "tokens"
    own_keys = (f"{PROMPT}ids", f"{PROMPT}mask")

    def collate(self, features: list[dict[str, Any]]) -> Batch:
        values = pad_values(self.task.state.tokenizer)
        if "labels" not in features[0]:  # prompts to answer: generation continues the last token
            return tensors(pad(features, values, "left"))
        batch = tensors(pad([{key: feature[key] for key in ("input_ids", "labels")} for feature in features], values))
        batch["labels"][:, 0] = IGNORED  # nothing stands before the first token to predict it from
        if f"{PROMPT}ids" in features[0]:
            before = tensors(pad([{"input_ids": feature[f"{PROMPT}ids"]} for feature in features], values, "left"))
            batch |= {f"{PROMPT}ids": before["input_ids"], f"{PROMPT}mask": before["attention_mask"]}
        return batch

    def loss(self, model: torch.nn.Module, batch: Batch) -> torch.Tensor:
        return token_loss(model, _without_prompts(batch), shift=True)

    def predict(self, model: torch.nn.Module, batch: Batch) -> tuple[Any, float | None]:
        """For each row the loss and the number of tokens of its answers, and what the model writes, if it does."""
        outputs: list[dict[str, Any]] = [{} for _ in batch["input_ids"]]
        loss = None
        if "labels" in batch:
            losses = token_losses(model, _without_prompts(batch), shift=True)
            loss = losses.mean().item()
            counts = (batch["labels"][:, 1:] != IGNORED).sum(dim=1).tolist()
            for output, own in zip(outputs, losses.split(counts), strict=True):
                output |= {"loss": own.mean().item(), "tokens": len(own)}
        asked = ("input_ids", "attention_mask") if "labels" not in batch else self.own_keys
        if asked[0] in batch:
            for output, ids in zip(outputs, generate_after(model, *(batch[key] for key in asked)), strict=True):
                output["written"] = ids
        return outputs, loss


class PreferenceObjective(Objective):
    """How much more likely the chosen answer has become relative to the rejected one, since before training."""

    def collate(self, features: list[dict[str, Any]]) -> Batch:
        """All chosen answers (B), then all rejected ones (B), and `reference` (B,), once it is known."""
        values = pad_values(self.task.state.tokenizer)
        if "input_ids" in features[0]:  # prompts to answer: generation continues the last token
            return tensors(pad(features, values, "left"))
        both = [
            {"input_ids": feature[f"{side}_ids"], "labels": feature[f"{side}_labels"]}
            for side in SIDES
            for feature in features
        ]
        # Chosen answers first: the likelihoods of a batch are then a view of shape (2, B).
        batch = tensors(pad(both, values))
        if "reference" in features[0]:
            batch["reference"] = torch.tensor([feature["reference"] for feature in features])
        return batch

    def reference_scores(self, model: torch.nn.Module, batch: Batch) -> list[float]:
        """log p(chosen) - log p(rejected) of each row, computed by the weights before training."""
        return _margins(_likelihoods(model, batch)).tolist()

    def loss(self, model: torch.nn.Module, batch: Batch) -> torch.Tensor:
        return self.loss_of_margins(_margins(_likelihoods(model, batch)), batch["reference"])

    def loss_of_margins(self, margins: torch.Tensor, reference: torch.Tensor) -> torch.Tensor:
        """-log sigmoid(beta (margin - reference)), equation 7 of the paper; both (B,).

        With `label_smoothing` e, 1 - e times that and e times that of the reversed pair: the conservative loss of
        Mitchell (2023), https://ericmitchell.ai/cdpo.pdf.
        """
        options = self.task.options
        gained, wrong = options.beta * (margins - reference), options.label_smoothing
        # logsigmoid, not log(sigmoid): the latter is -inf in float32 below -88.
        return -((1 - wrong) * functional.logsigmoid(gained) + wrong * functional.logsigmoid(-gained)).mean()

    def predict(self, model: torch.nn.Module, batch: Batch) -> tuple[Any, float | None]:
        """The log-likelihood a token of both answers of each row, (B, 2): a mean, so that length does not decide.

        There is a loss only in training, which knows the first weights.
        """
        if "labels" not in batch:
            return [
                {"written": ids} for ids in generate_after(model, batch["input_ids"], batch["attention_mask"])
            ], None
        found = _likelihoods(model, batch)
        loss = self.loss_of_margins(_margins(found), batch["reference"]).item() if "reference" in batch else None
        return (found / _tokens(batch).view(2, -1)).T.cpu().numpy(), loss


def _without_prompts(batch: dict[str, torch.Tensor]) -> dict[str, torch.Tensor]:
    return {key: value for key, value in batch.items() if not key.startswith(PROMPT)}


def _likelihoods(model: torch.nn.Module, batch: dict[str, torch.Tensor]) -> torch.Tensor:
    """The log-likelihood of each answer given its prompt, summed over its tokens: (2, B), chosen answers first."""
    inputs = {key: value for key, value in batch.items() if key != "reference"}
    losses = token_losses(model, inputs, shift=True)
    tokens = _tokens(batch)
    # The losses of all tokens come as one array, row after row: (row of each token,), to sum them by row.
    rows = torch.arange(len(tokens), device=losses.device).repeat_interleave(tokens)
    return -losses.new_zeros(len(tokens)).index_add(0, rows, losses).view(2, -1)


def _tokens(batch: dict[str, torch.Tensor]) -> torch.Tensor:
    """The tokens of each answer (2B,)."""
    # From the second on: the first token has nothing before it from which it could be predicted.
    return (batch["labels"][:, 1:] != IGNORED).sum(dim=1)


def _margins(likelihoods: torch.Tensor) -> torch.Tensor:
    return likelihoods[0] - likelihoods[1]
