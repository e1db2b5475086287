"""Built-in attacks: what each may change, and what it must leave."""

from __future__ import annotations

import re
import unicodedata
from collections import Counter
from typing import get_args

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from coralx.config.tables import Perturbation
from coralx.data.perturbations import PREFIXES, TWINS, perturbed

KINDS: tuple[Perturbation, ...] = get_args(Perturbation)
BACK = {twin: latin for latin, twin in TWINS.items()}
WORDS = re.compile(r"[^\W\d_]+")

texts = st.one_of(
    st.text(max_size=60),
    st.lists(st.sampled_from("a go I team offer bookkeeper \U0001f600 x1y2 don't naïve".split()))
    .map(" ".join)
    .filter(bool),
)
seeds = st.integers(0, 2**32)


def rewritten(text: str, kind: Perturbation, seed: int = 0) -> str:
    return perturbed(text, kind, np.random.default_rng(seed))


def without_spaces(text: str) -> str:
    return text.replace(" ", "")


@pytest.mark.parametrize("kind", KINDS)
@given(text=texts, seed=seeds)
def test_the_same_draw_gives_the_same_text(kind: Perturbation, text: str, seed: int) -> None:
    assert rewritten(text, kind, seed) == rewritten(text, kind, seed)


@given(text=texts, seed=seeds)
def test_a_swap_keeps_every_letter_and_both_ends_of_words(text: str, seed: int) -> None:
    found = rewritten(text, "swap", seed)
    assert len(found) == len(text)
    assert Counter(found) == Counter(text)
    for word in WORDS.finditer(text):
        again = found[word.start() : word.end()]
        assert Counter(again) == Counter(word[0])
        assert (again[0], again[-1]) == (word[0][0], word[0][-1])
        if len(word[0]) < 4:
            assert again == word[0]
    # Signs such as ² count as letters, as they do for regular expressions.
    outside = [i for i, c in enumerate(text) if not WORDS.fullmatch(c)]
    assert [found[i] for i in outside] == [text[i] for i in outside]


@given(text=texts, seed=seeds)
def test_a_swap_changes_a_share_of_the_words_that_it_can(text: str, seed: int) -> None:
    found = rewritten(text, "swap", seed)
    words = [w for w in WORDS.finditer(text) if len(w[0]) > 3 and len(set(w[0][1:-1])) > 1]
    changed = [w for w in words if found[w.start() : w.end()] != w[0]]
    assert len(changed) == (max(1, round(0.3 * len(words))) if words else 0)


@given(text=texts, seed=seeds)
def test_homoglyphs_change_letters_for_their_twins_alone(text: str, seed: int) -> None:
    found = rewritten(text, "homoglyph", seed)
    assert len(found) == len(text)
    changed = [(a, b) for a, b in zip(text, found, strict=True) if a != b]
    assert all(TWINS[ord(a)] == ord(b) for a, b in changed)
    could = sum(ord(letter) in TWINS for letter in text)
    assert len(changed) == (max(1, round(0.3 * could)) if could else 0)


@given(text=st.text(st.characters(max_codepoint=0x24F), max_size=80), seed=seeds)
def test_homoglyphs_translated_back_give_the_text(text: str, seed: int) -> None:
    assert rewritten(text, "homoglyph", seed).translate(BACK) == text


def test_twins_are_of_another_script_one_for_each_letter() -> None:
    assert len(BACK) == len(TWINS)
    for latin, twin in TWINS.items():
        names = unicodedata.name(chr(latin)), unicodedata.name(chr(twin))
        assert names[0].startswith("LATIN")
        assert names[1].startswith("CYRILLIC")
        assert names[0].split()[1] == names[1].split()[1]  # both CAPITAL, or both SMALL


@given(text=texts, seed=seeds)
def test_spacing_touches_spaces_alone(text: str, seed: int) -> None:
    found = rewritten(text, "spacing", seed)
    assert without_spaces(found) == without_spaces(text)
    assert abs(len(found) - len(text)) <= max(1, round(0.3 * len(text.split(" "))))


@given(text=texts, seed=seeds)
def test_spacing_changes_whatever_has_a_long_word_or_two_words(text: str, seed: int) -> None:
    words = text.split(" ")
    if len(words) > 1 or len(words[0]) >= 4:
        assert rewritten(text, "spacing", seed) != text
    else:
        assert rewritten(text, "spacing", seed) == text


@given(text=texts, seed=seeds)
def test_a_prefix_stands_before_the_whole_text(text: str, seed: int) -> None:
    found = rewritten(text, "prefix", seed)
    assert found.endswith(text)
    assert found.removesuffix(text) in PREFIXES


def test_every_prefix_is_used_and_none_negates() -> None:
    found = {rewritten("", "prefix", seed) for seed in range(100)}
    assert found == set(PREFIXES)
    assert not re.search(r"\b(no|not|never|none|nothing)\b|n't", " ".join(PREFIXES).lower())


@pytest.mark.parametrize(
    ("kind", "text"),
    [
        *((kind, "") for kind in ("swap", "homoglyph", "spacing")),
        ("swap", "a"),
        ("swap", "the cat saw"),
        ("swap", "noon aaaaa 1234567"),
        ("swap", "\U0001f600\U0001f600\U0001f600\U0001f600 ..."),
        ("homoglyph", "q"),
        ("homoglyph", "\u0441\u043e\u0440\u0430 12 \U0001f600"),
        ("spacing", "cat"),
        ("spacing", "\U0001f600"),
    ],
)
def test_what_cannot_be_rewritten_stays(kind: Perturbation, text: str) -> None:
    assert all(rewritten(text, kind, seed) == text for seed in range(20))


@pytest.mark.parametrize(
    ("kind", "text", "possible"),
    [
        ("swap", "film", {"flim"}),
        ("swap", "aabcb", {"abacb", "aacbb"}),
        ("homoglyph", "xz", {"\u0445z"}),
        ("homoglyph", "a", {"\u0430"}),
        ("spacing", "fine", {"f ine", "fi ne", "fin e"}),
        ("spacing", "I am", {"Iam"}),
        ("spacing", "a  b", {"a b"}),
        ("spacing", "go then", {"gothen", "go t hen", "go th en", "go the n"}),
    ],
)
def test_small_texts_by_hand(kind: Perturbation, text: str, possible: set[str]) -> None:
    assert {rewritten(text, kind, seed) for seed in range(200)} == possible


@pytest.mark.parametrize("kind", KINDS)
def test_a_very_long_text_is_rewritten_throughout(kind: Perturbation) -> None:
    text = "a film of some quality \U0001f600 " * 20_000
    found = rewritten(text, kind)
    assert found != text
    if kind != "prefix":
        assert found[:1000] != text[:1000]
        assert found[-1000:] != text[-1000:]
