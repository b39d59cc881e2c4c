"""The ids are those of the published sets."""

import json

import pytest
import torch
from hypothesis import given
from hypothesis import strategies as st

from tasks.reading import N2, named
from ttmem.tasks.characters import ALPHABET, TOKENS, VOCAB, decode, encode


def test_ids_are_those_of_the_published_tokenizer(data):
    path = data / "tokenizers" / "gradmem_kv_alphabet_62" / "tokenizer.json"
    if not path.is_file():
        pytest.skip(f"TTMEM_DATA has no tokenizers/{path.parent.name}/{path.name}")
    assert json.loads(path.read_text())["model"]["vocab"] == {token: i for i, token in enumerate(TOKENS)}


def test_there_are_seventy_ids_in_the_order_of_the_sets():
    assert named(N2).vocab == VOCAB == 70
    assert encode("azAZ09!?:|") == [4, 29, 30, 55, 56, 65, 66, 67, 68, 69]
    assert TOKENS[:4] == ("[PAD]", "[BOS]", "[EOS]", "[UNK]")


@given(st.text(alphabet=ALPHABET + "!?:|"))
def test_decoding_undoes_encoding_whatever_the_padding(text):
    assert decode(torch.tensor(encode(text) + [0, 0])) == text


def test_a_foreign_character_is_named_with_its_place():
    with pytest.raises(
        ValueError, match="text 'ab€d': character 3, '€', is outside the alphabet a-z A-Z 0-9 ! \\? : \\|"
    ):
        named(N2).encode("ab€d")
    with pytest.raises(ValueError, match="id must be between 0 and 69, got 70"):
        named(N2).decode([70])
