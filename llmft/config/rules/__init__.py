"""Rules between several keys. Each checks one thing and says what to write instead."""

from llmft.config.rules import of_data, of_models, of_runs

RULES = (*of_data.RULES, *of_models.RULES, *of_runs.RULES)
