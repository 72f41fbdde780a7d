"""Tags of words: where entities begin and go on. BIO, IOB1 and BIOES are read and become BIO."""

import re
from collections.abc import Sequence

OUTSIDE = "O"
TAG = re.compile(r"O|[BIESLU]-\S(.*\S)?")
"""`O`, or how a word belongs to an entity and of which kind that is. L and U are other letters for E and S."""

Span = tuple[int, int, str]
"""The first word of an entity, the word after its last one, and its kind."""


def to_bio(tags: Sequence[str]) -> list[str]:
    """The same entities with a `B-` at the first word of each and an `I-` at the others.

    A word goes on with the entity before it if it says so (I or E), is of the same kind, and that one has not ended
    (E or S); else it begins one. This holds for all of the schemes, and what none of them allows is read as seqeval
    reads it.

    Raises:
        ValueError: naming a tag that is of none of them.
    """
    found: list[str] = []
    open_kind = ""  # of the entity that may go on
    for tag in tags:
        if not TAG.fullmatch(tag):
            raise ValueError(f"{tag!r} is no tag")
        place, _, kind = tag.partition("-")
        if tag == OUTSIDE:
            found.append(OUTSIDE)
            open_kind = ""
            continue
        inside = place in "IEL" and kind == open_kind
        found.append(f"I-{kind}" if inside else f"B-{kind}")
        open_kind = "" if place in "ESLU" else kind
    return found


def spans(bio: Sequence[str]) -> list[Span]:
    """The entities of a row of BIO tags, in their order."""
    found: list[Span] = []
    for place, tag in enumerate(bio):
        if tag.startswith("B-"):
            found.append((place, place + 1, tag[2:]))
        elif tag.startswith("I-"):
            start, _, kind = found.pop()
            found.append((start, place + 1, kind))
    return found
