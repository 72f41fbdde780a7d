"""Tags of every scheme become BIO, and say the same entities."""

import pytest

from llmft.data.annotated import spans, to_bio

SCHEMES = [
    # BIO stays as it is
    ("O B-per I-per O B-org B-org", "O B-per I-per O B-org B-org"),
    # IOB1: B- only between two of a kind
    ("I-per I-per O I-per B-per I-per I-org", "B-per I-per O B-per B-per I-per B-org"),
    # BIOES
    ("B-per I-per E-per S-per S-org O B-org E-org", "B-per I-per I-per B-per B-org O B-org I-org"),
    ("B-per E-per I-per", "B-per I-per B-per"),
    # BILOU
    ("B-per L-per U-per O", "B-per I-per B-per O"),
    # What no scheme allows: an entity begins where it cannot go on.
    ("I-per", "B-per"),
    ("E-per O", "B-per O"),
    ("B-per I-org I-org", "B-per B-org I-org"),
    ("S-per I-per", "B-per B-per"),
    # A kind may hold any letters.
    ("B-creative-work I-creative-work B-人名 I-人名", "B-creative-work I-creative-work B-人名 I-人名"),
    ("", ""),
]


@pytest.mark.parametrize(("given", "wanted"), SCHEMES)
def test_every_scheme_becomes_bio(given: str, wanted: str) -> None:
    assert to_bio(given.split()) == wanted.split()
    assert to_bio(wanted.split()) == wanted.split()


@pytest.mark.parametrize("tag", ["X-per", "B", "B-", "foo", "o", "b-per", "", "B-per ", "0", "B_per"])
def test_what_is_no_tag(tag: str) -> None:
    with pytest.raises(ValueError, match="is not a tag"):
        to_bio(["O", tag])


def test_entities_of_tags() -> None:
    tags = ["B-per", "I-per", "O", "B-org", "B-org", "I-org"]
    assert spans(tags) == [(0, 2, "per"), (3, 4, "org"), (4, 6, "org")]


@pytest.mark.parametrize(
    "given", [given for given, _ in SCHEMES if not {"E", "S", "L", "U"} & {tag[0] for tag in given.split()}]
)
def test_entities_are_those_of_seqeval(given: str) -> None:
    from seqeval.metrics.sequence_labeling import get_entities

    assert [(start, after - 1, kind) for start, after, kind in spans(to_bio(given.split()))] == [
        (start, end, kind) for kind, start, end in get_entities(given.split())
    ]
