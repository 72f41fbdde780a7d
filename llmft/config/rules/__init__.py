"""Rules that look at several keys: each looks at one thing and says what to write instead."""

from llmft.config.rules import commands, data, generation, model, placement, raw_text, target, training

RULES = (
    *data.RULES,
    *model.RULES,
    *raw_text.RULES,
    *target.RULES,
    *training.RULES,
    *placement.RULES,
    *generation.RULES,
    *commands.RULES,
)
