"""Texts that look like no language, whichever it is: told by counting characters, with no list of words.

The rules follow those of Gopher (Rae et al. 2021, appendix A.1.1) and of C4 (Raffel et al. 2020, 2.2), with characters
in place of words where a language need not part them. The limits are wide: prose, verse, mathematics, documentation and
short texts in any script pass, and what fails is what nobody wrote to be read.
"""

import re
import unicodedata
from collections import Counter

LETTERS = 0.5  # share of letters, marks and digits among what is no space, at least; Gopher: 80% of words have a letter
PUNCTUATION = 0.4  # share of punctuation among it, at most
RUNS = 0.2  # share of it in runs of RUN equal characters, at most, such as `=====`
RUN = 5
WORD = (1.5, 15.0)  # mean length of words, where there are WORDS of them in letters that have cases; Gopher: 3 to 10
WORDS = 20
LINES = 0.3  # share of the characters in lines that stood before, at most; Gopher: 0.2 to 0.3
PASSAGES = 0.3  # share of places whose next PASSAGE characters stood before, at most; Gopher: 0.1 to 0.2 of words
PASSAGE = 40
_RUN = re.compile(rf"(\S)\1{{{RUN - 1},}}")
_SPACE = re.compile(r"\s+")


def flaw(text: str) -> str:
    """What a text has too much or too little of, or nothing for a good one."""
    counts = Counter(text)
    kinds = Counter[str]()
    for character, count in counts.items():
        if not character.isspace():
            kinds[unicodedata.category(character)] += count
    solid = kinds.total()
    if not solid:
        return ""
    if sum(count for kind, count in kinds.items() if kind[0] in "LMN") < LETTERS * solid:
        return "too few letters"
    if sum(count for kind, count in kinds.items() if kind[0] == "P") > PUNCTUATION * solid:
        return "too much punctuation"
    if sum(len(run[0]) for run in _RUN.finditer(text)) > RUNS * solid:
        return "long runs of one character"
    if _strange_words(text, kinds):
        return "words of a strange length"
    if _again(text) > LINES:
        return "repeated lines"
    if _passages(text) > PASSAGES:
        return "repeated passages"
    return ""


def _strange_words(text: str, kinds: Counter[str]) -> bool:
    """Whether words are shorter or longer than people write them, in letters with cases: those scripts have spaces."""
    words = text.split()
    cased = sum(kinds[kind] for kind in ("Lu", "Ll", "Lt"))
    if (len(text) < WORDS * WORD[1] and len(words) < WORDS) or 2 * cased < kinds.total():
        return False
    return not WORD[0] <= kinds.total() / len(words) <= WORD[1]


def _again(text: str) -> float:
    """The share of the characters that are in lines which stood before."""
    lines = [line for line in map(str.strip, text.splitlines()) if line]
    return 1 - sum(map(len, set(lines))) / sum(map(len, lines))


def _passages(text: str) -> float:
    """The share of places from which the next PASSAGE characters are the same as from an earlier place."""
    text = _SPACE.sub(" ", text)
    places = len(text) - PASSAGE + 1
    if places < PASSAGE:
        return 0.0
    return 1 - len({text[place : place + PASSAGE] for place in range(places)}) / places
