"""A text that is written token by token: what is shown, joined, is the text, wherever tokens cut letters and stops."""

from itertools import pairwise

from hypothesis import given
from hypothesis import strategies as st

from llmft.predictions.continuation import Continuation
from llmft.tasks.tokenizer import CLEANED

END = 256
ENDS = frozenset({END})


def of_bytes(tokens: list[int]) -> str:
    return bytes(tokens).decode("utf-8", "replace")


def cleaned(tokens: list[int]) -> str:
    """As WordPiece decodes: spaces before punctuation go once it is there."""
    text = of_bytes(tokens)
    for spaced, plain in CLEANED:
        text = text.replace(spaced, plain)
    return text


TEXT = st.text("aé😀n' .t\n", max_size=30)


@given(text=TEXT, cuts=st.sets(st.integers(0, 80)), stops=st.lists(st.text("an't ", min_size=1, max_size=3), max_size=2), strip=st.booleans())  # fmt: skip
def test_what_is_shown_is_the_text(text: str, cuts: set[int], stops: list[str], strip: bool) -> None:
    shown: list[str] = []
    found = Continuation(of_bytes, ENDS, strip=strip, stops=tuple(stops), write=shown.append)
    whole = list(text.encode())
    places = [0, *sorted(cut for cut in cuts if cut < len(whole)), len(whole)]
    for start, end in pairwise(places):
        if not found.stopped:
            found.take(whole[start:end])
    found.end()
    kept = min([text.find(stop) for stop in stops if stop in text], default=len(text))
    expected = text[:kept].strip() if strip else text[:kept]
    assert found.text == "".join(shown) == expected
    assert found.stopped == any(stop in text for stop in stops)


@given(text=TEXT)
def test_spaces_that_are_cleaned_are_not_shown_before(text: str) -> None:
    shown: list[str] = []
    patterns = tuple(spaced for spaced, _ in CLEANED)
    found = Continuation(cleaned, ENDS, unsettled=patterns, write=shown.append)
    for token in text.encode():
        found.take([token])
    found.end()
    assert "".join(shown) == found.text == cleaned(list(text.encode()))


def test_an_end_token_ends_the_text() -> None:
    found = Continuation(of_bytes, ENDS)
    found.take([104, 105])
    assert (found.text, found.ended, found.finish_reason) == ("hi", False, "length")
    found.take([END, 33])
    assert (found.text, found.ended, found.finish_reason) == ("hi", True, "stop")
