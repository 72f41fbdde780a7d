"""Quality rules pass what people write, in any script, and name what is wrong with the rest."""

import base64
import random

import pytest

from llmft.data.clean import flaw

PROSE = (
    "The house stood at the end of the road, where the hill begins. Nobody had lived in it for years, and the garden "
    "had grown over the gate. In spring one could hear birds there long before one saw the roof.\n"
)
GOOD = {
    "prose": PROSE,
    "one word": "Wonderful",
    "a short one with marks": "Oh no!!",
    "Chinese": "这家店的味道很好，服务也很热情，下次还会再来。我们坐在窗边，看着外面的河。\n价格不贵，环境安静。",
    "Thai, with marks and no spaces": "บ้านหลังนี้ตั้งอยู่ปลายถนนที่เนินเขาเริ่มต้นไม่มีใครอาศัยอยู่มานานหลายปี",
    "Hindi, with marks": "यह घर सड़क के अंत में था, जहाँ पहाड़ी शुरू होती है। वर्षों से वहाँ कोई नहीं रहता था।",
    "Arabic": "كان البيت في نهاية الطريق حيث يبدأ التل، ولم يسكنه أحد منذ سنوات طويلة.",
    "German compounds": "Donaudampfschifffahrtsgesellschaft und Rechtsschutzversicherungsgesellschaften streiten",
    "code in documentation": "Use it so::\n\n    x = f(a, b=1)\n    for i in range(10):\n        print(i)\n\nand it works.",
    "a heading": "Title\n=====\n\n" + PROSE,
    "verse with a refrain": PROSE + "\nO the wind.\n" + "Another line of it here.\nO the wind.\nAnd one more to end.\n",
    "numbers": "In 2019 there were 1,024 of 65,536 (1.6%); in 2020, 2,048.",
    "nothing": " \n",
}
BAD = {
    "numbers and strokes": ("| + | - | + | = | > | < | * |\n" * 3, "too few letters"),
    "emoji": ("🙂🙃🙂 🙃🙃", "too few letters"),
    "marks": ("a,b!cd?e;f.gh:", "too much punctuation"),
    "a cry": ("Yessssssssssssssssss it is", "long runs of one character"),
    "base64": (base64.b64encode(random.Random(0).randbytes(900)).decode(), "words of unusual length"),
    "letters apart": ("s p a c e d o u t " * 9, "words of unusual length"),
    "a menu": ("Home\nAbout us\nContact\n" * 9 + "One line of its own.", "repeated lines"),
    "a prayer wheel": ("all of this is said again and again, and again it is said. " * 12, "repeated passages"),
    "a Chinese one": ("东西不错，外观漂亮，运行稳定，速度很快，客服热情。" * 12, "repeated passages"),
}


@pytest.mark.parametrize("name", GOOD)
def test_what_people_write_passes(name: str) -> None:
    assert flaw(GOOD[name]) == ""


@pytest.mark.parametrize("name", BAD)
def test_what_nobody_reads_is_named(name: str) -> None:
    text, what = BAD[name]
    assert flaw(text) == what
