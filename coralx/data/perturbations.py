"""Built-in attacks on classifiers: rewritings of rows to be flagged that a reader hardly notices.

None of them changes what a text means, so each should still be flagged:

- `swap`: two neighbouring letters inside some of the words change places (Belinkov and Bisk 2018,
  section 3.1, "swap");
- `homoglyph`: some letters are replaced by ones of other scripts that look the same (Boucher et al.
  2022, section III, "homoglyphs");
- `spacing`: some words are split, some are joined (Gröndahl et al. 2018, section 4);
- `prefix`: a harmless opening without a negation is put before the text (in the spirit of Ribeiro
  et al. 2020, "invariance tests").
"""

from __future__ import annotations

import re

import numpy as np

from coralx.config.tables import Perturbation

SHARE = 0.3
"""The share that is rewritten: of the words, or of the letters that have a twin."""

TWINS = str.maketrans(
    "aceiopsxyABCEHIKMOPTX",
    "\u0430\u0441\u0435\u0456\u043e\u0440\u0455\u0445\u0443"
    "\u0410\u0412\u0421\u0415\u041d\u0406\u041a\u041c\u041e\u0420\u0422\u0425",
)
"""Latin letters, and Cyrillic ones that look like them."""

PREFIXES = (
    "Just so you know: ",
    "As I said before, ",
    "To put it plainly, ",
    "Here is something I read today: ",
    "By the way, ",
    "Quick thought: ",
)


def perturbed(text: str, kind: Perturbation, rng: np.random.Generator) -> str:
    """The text, rewritten; unchanged where there is nothing to rewrite (for `swap`, no word of four
    letters)."""
    match kind:
        case "swap":
            return _swapped(text, rng)
        case "homoglyph":
            return _homoglyphs(text, rng)
        case "spacing":
            return _spaced(text, rng)
        case "prefix":
            return PREFIXES[rng.integers(len(PREFIXES))] + text


def _chosen(count: int, rng: np.random.Generator) -> set[int]:
    """A random share of so many places; at least one, if there is one."""
    size = min(count, max(1, round(SHARE * count)))
    return set(rng.choice(count, size=size, replace=False).tolist()) if count else set()


def _swapped(text: str, rng: np.random.Generator) -> str:
    """Two letters inside some words change places; a word's first and last letter stay, by which
    people recognise it."""
    words = [word for word in re.finditer(r"[^\W\d_]{4,}", text) if _differ_inside(word[0])]
    letters = list(text)
    for number in sorted(_chosen(len(words), rng)):
        start, word = words[number].start(), words[number][0]
        places = [at for at in range(1, len(word) - 2) if word[at] != word[at + 1]]
        at = start + places[rng.integers(len(places))]
        letters[at], letters[at + 1] = letters[at + 1], letters[at]
    return "".join(letters)


def _differ_inside(word: str) -> bool:
    return any(word[at] != word[at + 1] for at in range(1, len(word) - 2))


def _homoglyphs(text: str, rng: np.random.Generator) -> str:
    places = [at for at, letter in enumerate(text) if ord(letter) in TWINS]
    chosen = {places[number] for number in _chosen(len(places), rng)}
    return "".join(
        letter.translate(TWINS) if at in chosen else letter for at, letter in enumerate(text)
    )


def _spaced(text: str, rng: np.random.Generator) -> str:
    """Of the words chosen, the long ones are split and the others joined to the next."""
    words = text.split(" ")
    candidates = [n for n, word in enumerate(words) if len(word) >= 4 or n + 1 < len(words)]
    chosen = {candidates[number] for number in _chosen(len(candidates), rng)}
    pieces = []
    for number, word in enumerate(words):
        is_split = number in chosen and len(word) >= 4
        if is_split:
            at = int(rng.integers(1, len(word)))
            word = f"{word[:at]} {word[at:]}"
        pieces.append(word if number in chosen and not is_split else word + " ")
    return "".join(pieces).removesuffix(" ")
