from dataclasses import asdict, fields

import pytest
from huggingface_hub.errors import StrictDataclassFieldValidationError
from transformers import AutoConfig

from hf.small import config
from ttmem.hf import TitansConfig
from ttmem.models import TitansConfig as CoreConfig
from ttmem.models import preset

# Every field away from its default, so that a field that is lost on the way shows.
OTHER = CoreConfig(
    architecture="mac",
    vocab=31,
    dim=24,
    layers=3,
    heads=3,
    hidden=40,
    memory_heads=6,
    memory_depth=3,
    memory_expansion=2,
    memory_norm=False,
    chunk_size=5,
    momentum=False,
    forget="channel",
    conv=0,
    lr_max=0.5,
    clip=None,
    recompute=False,
    segment_size=7,
    window_size=9,
    persistent_tokens=1,
    memory_tokens=2,
    gate="product",
    tied=False,
    checkpoint=True,
    context_loss=0.25,
    truncate=True,
    pad=30,
)


def test_the_sample_config_moves_every_field():
    default = asdict(CoreConfig())
    assert {name for name, value in asdict(OTHER).items() if value == default[name]} == {"architecture"}


def test_the_fields_map_one_to_one_there_and_back():
    assert TitansConfig.from_core(OTHER).to_core() == OTHER
    assert TitansConfig.from_core(preset("340M", "mag")).to_core().dim == 1024


def test_every_field_of_the_core_has_a_field_here_of_the_same_default():
    ours, theirs = CoreConfig(), TitansConfig().to_core()
    differ = {field.name for field in fields(ours) if getattr(ours, field.name) != getattr(theirs, field.name)}
    assert differ == {"pad"}


@pytest.mark.parametrize("changes", [{}, {"clip": None, "forget": "none", "eos_token_id": [2, 3]}])
def test_a_config_survives_its_file(tmp_path, changes):
    made = config("mal", **changes)
    made.save_pretrained(tmp_path)
    for again in (TitansConfig.from_pretrained(tmp_path), AutoConfig.from_pretrained(tmp_path)):
        assert type(again) is TitansConfig
        assert again.to_core() == made.to_core()
        assert again.eos_token_id == made.eos_token_id


def test_the_heads_answer_to_both_names():
    made = TitansConfig(num_attention_heads=8)
    assert made.num_heads == made.num_attention_heads == made.to_core().heads == 8


def test_a_padding_id_outside_the_vocabulary_is_none():
    assert TitansConfig.from_core(CoreConfig(vocab=40, pad=-1)).pad_token_id is None
    assert TitansConfig.from_core(CoreConfig()).pad_token_id == 257


@pytest.mark.parametrize(
    "changes, message",
    [
        ({"architecture": "rnn"}, "^architecture must be one of lmm, mac"),
        ({"hidden_size": 30}, "^hidden_size must be a multiple of 2 heads = 8, got 30$"),
        ({"num_hidden_layers": 0}, "^num_hidden_layers must be >= 1, got 0$"),
        ({"vocab_size": 0}, "^vocab_size must be >= 1, got 0$"),
        ({"num_memory_tokens": -1}, "^num_memory_tokens must be >= 0, got -1$"),
        ({"chunk_size": 0}, "^chunk_size must be >= 1, got 0$"),
        ({"pad_token_id": 300}, "^pad_token_id must be < 258, got 300$"),
    ],
)
def test_a_bad_value_is_told_in_the_names_used_here(changes, message):
    with pytest.raises(ValueError, match=message):
        TitansConfig(**changes)


def test_a_value_of_another_type_is_refused():
    with pytest.raises(StrictDataclassFieldValidationError, match="chunk_size"):
        TitansConfig(chunk_size="16")
