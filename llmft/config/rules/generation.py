"""Rules of how texts are written."""

from llmft.config.origin import Origin
from llmft.schema.config import Config
from llmft.schema.problem import Problem

OF_DRAWS = ("temperature", "top_k", "top_p")


def _keys_of_generation_are_read(config: Config, origin: Origin) -> list[Problem]:
    """`generation.temperature=2` without `generation.sample=true` would change nothing."""
    generation, problems = config.generation, []
    unread = [(key, "generation.sample=true") for key in OF_DRAWS if not generation.sample]
    if generation.beams == 1:
        unread.append(("length_penalty", "generation.beams=2 or more"))
    for key, wanted in unread:
        if origin.typed(f"generation.{key}"):
            what, hint = f"is read with {wanted} alone", f"Leave it out, or write {wanted}."
            problems.append(Problem(f"generation.{key}", what, origin(f"generation.{key}"), hint))
    return problems


def _draws_follow_one_beginning(config: Config, origin: Origin) -> list[Problem]:
    key, generation = "generation.beams", config.generation
    if generation.sample and generation.beams > 1:
        what = "what is drawn would depend on the other rows of a batch"
        return [Problem(key, what, origin(key), "Leave out one of generation.beams and generation.sample.")]
    return []


RULES = (
    _keys_of_generation_are_read,
    _draws_follow_one_beginning,
)
