"""Prompts of label words: too long, odd, as chats, and where the label begins."""

from __future__ import annotations

import copy
import json

import numpy as np
import pytest
import torch

from coralx.errors import ConfigError
from tests.support.label_words import (
    KINDS,
    PROMPT,
    TEXTS,
    examples,
    label_tokens,
    plain_ids,
    plain_probabilities,
    scored,
)
from tests.support.languages import Language

CHAT = (
    "{{ bos_token or '' }}{% for message in messages %}"
    "[{{ message['role'] }}]{{ message['content'] }}{{ eos_token }}\n{% endfor %}"
    "{% if add_generation_prompt %}[assistant]{% endif %}"
)


def with_template(language: Language, template: str | None) -> Language:
    tokenizer = copy.deepcopy(language.tokenizer)
    tokenizer.chat_template = template
    return Language(tokenizer, language.model)


# -- prompts that are too long -------------------------------------------------------------------

LONG = "a great film and the slow, awful coffee of a very good team; positive! negative: fine " * 3


@pytest.mark.parametrize("max_length", [24, 25, 31, 35, 41, 67])
@pytest.mark.parametrize("kind", KINDS)
def test_a_prompt_too_long_loses_text_never_the_label(
    languages: dict[str, Language], kind: str, max_length: int
) -> None:
    language = languages[kind]
    labels = ("good", "very good film")
    data = label_tokens(language, labels, max_length).encode(examples([LONG, "bad"]))
    longest = max(len(plain_ids(language, "bad", label)[1]) for label in labels)
    cut, short = data.ids
    assert list(short) == plain_ids(language, "bad", "good")[0]
    assert len(cut) + longest <= max_length
    assert data.cut == 1
    beginnings = [LONG[:place].rstrip() for place in range(len(LONG))]
    possible = [plain_ids(language, text, "good")[0] for text in beginnings]
    fitting = [ids for ids in possible if len(ids) + longest <= max_length]
    kept = beginnings[len(possible) - 1 - possible[::-1].index(list(cut))]
    longest_text = beginnings[len(possible) - 1 - possible[::-1].index(fitting[-1])]
    assert len(longest_text.split()) - len(kept.split()) <= (0 if kind == "words" else 1)


@pytest.mark.parametrize("kind", KINDS)
def test_a_prompt_that_just_fits_is_left_alone(languages: dict[str, Language], kind: str) -> None:
    language = languages[kind]
    prompt, word = plain_ids(language, TEXTS[2], "positive")
    exact = len(prompt) + len(word)
    for max_length, cut in ((exact + 1, 0), (exact, 0), (exact - 1, 1)):
        task = label_tokens(language, ("negative", "positive"), max_length)
        data = task.encode(examples([TEXTS[2]]))
        assert data.cut == cut
        assert (list(data.ids[0]) == prompt) == (not cut)


def test_the_longest_label_sets_the_room_for_all(languages: dict[str, Language]) -> None:
    language = languages["words"]
    short = label_tokens(language, ("good", "bad"), 20).encode(examples([LONG]))
    long = label_tokens(language, ("good", "very very very bad"), 20).encode(examples([LONG]))
    assert (len(short.ids[0]), len(long.ids[0])) == (19, 16)


@pytest.mark.parametrize("chat", [False, True])
@pytest.mark.parametrize("kind", KINDS)
def test_a_template_that_leaves_no_room_is_refused(
    languages: dict[str, Language], kind: str, chat: bool
) -> None:
    language = with_template(languages[kind], CHAT)
    prompt = "Question " * 12 + "{text} Answer :"
    task = label_tokens(language, ("good", "bad"), 12, prompt=prompt, chat=chat)
    with pytest.raises(ConfigError, match=r"model\.max_length: 12, but the prompt alone takes"):
        task.encode(examples([LONG]))


def test_a_label_longer_than_the_context_is_refused(languages: dict[str, Language]) -> None:
    task = label_tokens(languages["words"], ("good", "bad bad bad bad"), 4)
    with pytest.raises(ConfigError, match=r"model\.max_length: 4.*the longest label 4"):
        task.encode(examples(["fine"]))


def test_a_cut_chat_keeps_its_end(languages: dict[str, Language]) -> None:
    language = with_template(languages["bytes"], CHAT)
    task = label_tokens(language, ("good", "bad"), 60, chat=True)
    (ids,) = task.encode(examples([LONG])).ids
    text = language.tokenizer.decode(ids)
    assert text.startswith("<|endoftext|>[user]Text: a great film")
    assert text.endswith("\nLabel:<|endoftext|>\n[assistant]")
    assert 55 <= len(ids) <= 60 - 1


def test_text_that_is_cut_at_the_end_of_a_prompt_leaves_no_second_space(
    languages: dict[str, Language],
) -> None:
    language = languages["bytes"]
    for length in range(20, 30):
        task = label_tokens(language, ("good", "bad"), length, prompt="Of: {text}")
        (ids,) = task.encode(examples(["slow " * 40])).ids
        assert not language.tokenizer.decode(ids).endswith(" ")


# -- odd texts -----------------------------------------------------------------------------------


@pytest.mark.parametrize(
    "text",
    ["{text}", "ünï 漢字 👩‍👩‍👧 é", "\u200b", "a\n\nb", "{{ messages }}", "{0} {} %s \\1 \\g<0>"],
)
@pytest.mark.parametrize("kind", KINDS)
def test_a_text_stands_in_the_prompt_as_it_is(
    languages: dict[str, Language], kind: str, text: str
) -> None:
    language = languages[kind]
    (ids,) = label_tokens(language, ("good", "bad")).encode(examples([text])).ids
    assert list(ids) == language.tokenizer(f"Text: {text}\nLabel:")["input_ids"]


@pytest.mark.parametrize("chat", [False, True])
@pytest.mark.parametrize("kind", KINDS)
def test_long_texts_of_several_bytes_a_character_fit(
    languages: dict[str, Language], kind: str, chat: bool
) -> None:
    language = with_template(languages[kind], CHAT)
    for length in (40, 41, 42, 43):
        task = label_tokens(language, ("good", "bad"), length, chat=chat)
        data = task.encode(examples(["漢字👩‍👩‍👧" * 30, "</s><s>" * 40, "<|endoftext|>" * 90]))
        assert all(len(ids) + 1 <= length for ids in data.ids)
        if kind == "bytes":
            assert "\ufffd" not in language.tokenizer.decode(data.ids[0]), "half a character"


def test_a_prompt_of_no_token_at_all_still_has_something_to_predict_from(
    languages: dict[str, Language],
) -> None:
    """Four bytes that do not fit into three tokens leave a bare template empty."""
    language = languages["bytes"]
    task = label_tokens(language, ("good", "bad"), 4, prompt="{text}")
    data = task.encode(examples(["👩", "bad"]))
    assert data.cut == 1
    with torch.no_grad():
        alone = [task.scores(language.model, data, [row])[0] for row in (0, 1)]
        assert task.scores(language.model, data, [0, 1]) == pytest.approx(np.array(alone), abs=1e-5)


# -- where the prompt ends and the label begins --------------------------------------------------


@pytest.mark.parametrize("end", ["", " ", "   "])
@pytest.mark.parametrize("kind", KINDS)
def test_spaces_at_the_end_of_a_prompt_belong_to_the_label(
    languages: dict[str, Language], kind: str, end: str
) -> None:
    language = languages[kind]
    task = label_tokens(language, ("negative", "positive"), prompt=PROMPT + end)
    plain = label_tokens(language, ("negative", "positive"))
    assert task.encode(examples(TEXTS)).ids == plain.encode(examples(TEXTS)).ids
    one, other = (scored(t, language.model, examples(TEXTS)) for t in (task, plain))
    assert one == pytest.approx(other)


@pytest.mark.parametrize("end", ["\n", "\n\n", " \n", "\n "])
@pytest.mark.parametrize("kind", ["pieces", "bytes"])
def test_after_a_line_feed_the_label_begins_without_a_space(
    languages: dict[str, Language], kind: str, end: str
) -> None:
    language = languages[kind]
    task = label_tokens(language, ("good", "bad"), prompt=PROMPT + end)
    prompt = list(task.encode(examples(["the film"])).ids[0])
    asked = f"Text: the film\nLabel:{end.rstrip(' ')}"
    assert prompt == language.tokenizer(asked)["input_ids"]
    words = [language.tokenizer(asked + label)["input_ids"] for label in ("good", "bad")]
    assert all(word[: len(prompt)] == prompt for word in words)
    words = [word[len(prompt) :] for word in words]
    assert language.tokenizer.convert_ids_to_tokens(words[0]) == ["g", "ood"]
    assert scored(task, language.model, examples(["the film"]))[0] == pytest.approx(
        plain_probabilities(language.model, prompt, words), abs=1e-5
    )


@pytest.mark.parametrize(("kind", "opening"), [("words", 1), ("pieces", 1), ("bytes", 0)])
def test_a_prompt_opens_as_the_tokenizer_opens_any_text(
    languages: dict[str, Language], kind: str, opening: int
) -> None:
    language = languages[kind]
    (ids,) = label_tokens(language, ("good", "bad")).encode(examples(["the film"])).ids
    assert ids.count(language.tokenizer.bos_token_id) == opening
    assert list(ids) == language.tokenizer("Text: the film\nLabel:")["input_ids"]


def test_a_prompt_opens_with_every_token_that_the_tokenizer_puts_there(
    languages: dict[str, Language],
) -> None:
    """As GLM's does: two tokens, neither of them called the beginning of a sequence."""
    from tokenizers import processors

    tokenizer = copy.deepcopy(languages["pieces"].tokenizer)
    tokenizer.backend_tokenizer.post_processor = processors.TemplateProcessing(
        single="<unk> <pad> $A", special_tokens=[("<unk>", 1), ("<pad>", 0)]
    )
    language = Language(tokenizer, languages["pieces"].model)
    (ids,) = label_tokens(language, ("good", "bad")).encode(examples(["the film"])).ids
    assert list(ids) == tokenizer("Text: the film\nLabel:")["input_ids"]
    assert ids[:2] == (1, 0)


def test_an_end_that_the_tokenizer_appends_is_left_off(languages: dict[str, Language]) -> None:
    from tokenizers import processors

    tokenizer = copy.deepcopy(languages["pieces"].tokenizer)
    tokenizer.backend_tokenizer.post_processor = processors.TemplateProcessing(
        single="<s> $A </s>", special_tokens=[("<s>", 2), ("</s>", 3)]
    )
    ended = Language(tokenizer, languages["pieces"].model)
    ours, plain = (
        label_tokens(language, ("good", "bad")).encode(examples(TEXTS))
        for language in (ended, languages["pieces"])
    )
    assert ours.ids == plain.ids


@pytest.mark.parametrize("prepend_scheme", ["first", "always"])
def test_a_space_sign_of_its_own_token_does_not_get_into_a_label(
    languages: dict[str, Language], prepend_scheme: str
) -> None:
    """A vocabulary without merges splits what SentencePiece puts before a text from the text."""
    from tokenizers import Tokenizer, models, pre_tokenizers
    from transformers import PreTrainedTokenizerFast

    signs = ["<unk>", "</s>", "▁", "\n", *"abcdefghijklmnopqrstuvwxyzTL:"]
    vocabulary = {sign: place for place, sign in enumerate(signs)}
    tokenizer = Tokenizer(models.BPE(vocab=vocabulary, merges=[], unk_token="<unk>"))
    tokenizer.pre_tokenizer = pre_tokenizers.Metaspace("▁", prepend_scheme=prepend_scheme)
    wrapped = PreTrainedTokenizerFast(
        tokenizer_object=tokenizer, unk_token="<unk>", eos_token="</s>", pad_token="</s>"
    )
    language = Language(wrapped, languages["pieces"].model)
    task = label_tokens(language, ("good", "bad"), prompt=PROMPT + "\n")
    prompt = wrapped("Text: film\nLabel:\n")["input_ids"]
    words = [[vocabulary[sign] for sign in label] for label in ("good", "bad")]
    found = scored(task, language.model, examples(["film"]))[0]
    assert found == pytest.approx(plain_probabilities(language.model, prompt, words), abs=1e-5)


# -- chats ---------------------------------------------------------------------------------------


@pytest.mark.parametrize("kind", KINDS)
def test_a_chat_is_the_tokenizers_template_with_one_beginning(
    languages: dict[str, Language], kind: str
) -> None:
    language = with_template(languages[kind], CHAT)
    tokenizer = language.tokenizer
    task = label_tokens(language, ("good", "bad"), chat=True)
    (ids,) = task.encode(examples(["the film"])).ids
    asked = [{"role": "user", "content": "Text: the film\nLabel:"}]
    expected = tokenizer.apply_chat_template(asked, add_generation_prompt=True, return_dict=False)
    assert list(ids) == expected
    if kind != "bytes":  # whose beginning and end are the same token
        assert ids.count(tokenizer.bos_token_id) == 1


@pytest.mark.parametrize("gap", ["", " ", "\n"])
@pytest.mark.parametrize("kind", ["pieces", "bytes"])
def test_the_label_follows_as_the_template_writes_an_answer(
    languages: dict[str, Language], kind: str, gap: str
) -> None:
    template = (
        "{% for message in messages %}{% if message['role'] == 'user' %}"
        "[INST] {{ message['content'] }} [/INST]{% else %}"
        + json.dumps(gap).strip('"').join(["{{ '", "' + message['content'] + eos_token }}"])
        + "{% endif %}{% endfor %}"
    )
    language = with_template(languages[kind], template)
    tokenizer = language.tokenizer
    task = label_tokens(language, ("good", "very bad"), chat=True, prompt="{text}")
    prompt = list(task.encode(examples(["the film"])).ids[0])
    written = [
        tokenizer(f"[INST] the film [/INST]{gap}{label}", add_special_tokens=False)["input_ids"]
        for label in ("good", "very bad")
    ]
    assert all(ids[: len(prompt)] == prompt for ids in written)
    words = [ids[len(prompt) :] for ids in written]
    found = scored(task, language.model, examples(["the film"]))[0]
    assert found == pytest.approx(plain_probabilities(language.model, prompt, words), abs=1e-5)


def test_a_chat_without_a_template_is_refused(languages: dict[str, Language]) -> None:
    language = with_template(languages["words"], None)
    with pytest.raises(ConfigError, match=r"data\.chat: .*no chat template") as error:
        label_tokens(language, ("good", "bad"), chat=True).encode(examples(["a"]))
    assert "data.chat: false" in error.value.hint


def test_what_a_template_refuses_is_a_problem_of_the_config(
    languages: dict[str, Language],
) -> None:
    language = with_template(languages["words"], "{{ raise_exception('I take no users') }}")
    with pytest.raises(ConfigError, match="I take no users"):
        label_tokens(language, ("good", "bad"), chat=True).encode(examples(["a"]))
