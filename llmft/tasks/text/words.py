"""From a text in any script to its words, each with its place."""

import regex

# Scripts that put no spaces between words: each of their letters is taken alone, with the marks on it.
ALONE = r"[\p{Han}\p{Hiragana}\p{Katakana}\p{Thai}\p{Lao}\p{Khmer}\p{Myanmar}\p{Tibetan}]"
# Letters, digits and marks; the joiners stand inside words of Persian and of Indian scripts.
LETTERS = rf"[[\p{{L}}\p{{N}}\p{{M}}\u200c\u200d]--{ALONE}]"
WORD = regex.compile(rf"(?V1){ALONE}\p{{M}}*|{LETTERS}+|(?!\s)\X")


def split(text: str) -> list[tuple[int, int]]:
    """The start and end of each word: runs of letters and digits; signs, emoji and Chinese characters one by one."""
    return [match.span() for match in WORD.finditer(text)]
