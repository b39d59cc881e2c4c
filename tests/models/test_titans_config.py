"""What a Titans model may be made of, and the sizes of the paper."""

import json
import math
from dataclasses import asdict, replace

import pytest
import torch

from ttmem.models import MIXERS, PRESETS, ModelConfig, Titans, TitansConfig, build, config_of, preset
from ttmem.models.titans_config import ARCHITECTURES

PAPER = {  # blocks, dim, heads: the paper's table of configurations; 400M, which it lacks, is 340M's shape
    "170M": (12, 768, 16),
    "340M": (24, 1024, 16),
    "400M": (24, 1024, 16),
    "760M": (24, 1536, 16),
    "1.3B": (18, 2048, 8),
}
MILLIONS = {"170M": 170, "340M": 340, "400M": 400, "760M": 760, "1.3B": 1300}
sizes = pytest.mark.parametrize("name", PAPER)


def count(config: TitansConfig) -> float:
    """Millions of parameters, of which none is made."""
    with torch.device("meta"):
        return sum(p.numel() for p in Titans(config).parameters()) / 1e6


def told(name: str) -> list[float]:
    """The counts in the docstring of `preset`."""
    line = next(line for line in (preset.__doc__ or "").splitlines() if line.split()[:1] == [name])
    return [float(word) for word in line.split()[-len(ARCHITECTURES) :]]


def test_every_architecture_has_a_page():
    assert tuple(MIXERS) == ARCHITECTURES


@sizes
def test_every_architecture_of_a_preset_has_the_parameters_of_its_name(name):
    found = [count(preset(name, architecture)) for architecture in ARCHITECTURES]
    assert max(abs(millions / MILLIONS[name] - 1) for millions in found) < 0.01
    assert told(name) == [round(millions, 1) for millions in found]


@sizes
def test_a_preset_has_the_shape_of_the_paper(name):
    for architecture in ARCHITECTURES:
        config = preset(name, architecture)
        assert (config.layers, config.dim, config.heads) == PAPER[name]
        assert config.hidden is not None and config.hidden % 64 == 0
        assert (config.memory_depth, config.memory_expansion, config.conv, config.chunk_size) == (2, 4, 4, 16)
        assert (config.segment_size, config.window_size, config.persistent_tokens) == (512, 2048, 128)
        assert config.memory_tokens == (256 if architecture == "mac" else 0)
        assert config.vocab == 32_000 and config.tied


def test_there_is_a_preset_for_every_size_and_a_tiny_one():
    assert list(PRESETS) == ["tiny", *PAPER]
    assert count(preset("tiny", "mac")) < 0.1


def test_what_a_preset_is_asked_to_change_goes_before_its_own():
    config = preset("170M", "mac", memory_tokens=3, hidden=64, vocab=258, lr_max=0.5)
    assert (config.memory_tokens, config.hidden, config.vocab, config.lr_max) == (3, 64, 258, 0.5)
    assert preset("170M", "mac", hidden=None).hidden_size == 2048


def test_an_unknown_preset_or_architecture_is_named():
    with pytest.raises(ValueError, match="preset must be one of tiny, 170M, 340M, 400M, 760M, 1.3B, got '7B'"):
        preset("7B", "mac")
    for name in PRESETS:
        with pytest.raises(ValueError, match="architecture must be one of lmm, mac, mag, mal, swa, full, got 'mamba'"):
            preset(name, "mamba")


@pytest.mark.parametrize(
    "changes, message",
    [
        ({"architecture": "rnn"}, "architecture must be one of lmm, mac, mag, mal, swa, full, got 'rnn'"),
        ({"gate": "sum"}, "gate must be one of two-way, product, got 'sum'"),
        ({"vocab": 0}, "vocab must be >= 1, got 0"),
        ({"vocab": 100}, "pad must be < 100, got 257"),
        ({"vocab": 100, "pad": 100}, "pad must be < 100, got 100"),
        ({"dim": 0}, "dim must be >= 1, got 0"),
        ({"dim": 36}, "dim must be a multiple of 2 heads = 8, got 36"),
        ({"layers": 0}, "layers must be >= 1, got 0"),
        ({"heads": 0}, "heads must be >= 1, got 0"),
        ({"hidden": 0}, "hidden must be >= 1, got 0"),
        ({"memory_heads": 0}, "memory_heads must be >= 1, got 0"),
        ({"memory_heads": 3}, "dim must be a multiple of memory_heads = 3, got 128"),
        ({"memory_depth": 0}, "memory_depth must be >= 1, got 0"),
        ({"memory_expansion": 0}, "memory_expansion must be >= 1, got 0"),
        ({"chunk_size": 0}, "chunk_size must be >= 1, got 0"),
        ({"segment_size": 0}, "segment_size must be >= 1, got 0"),
        ({"window_size": 0}, "window_size must be >= 1, got 0"),
        ({"persistent_tokens": -1}, "persistent_tokens must be >= 0, got -1"),
        ({"memory_tokens": -1}, "memory_tokens must be >= 0, got -1"),
        ({"architecture": "mag", "memory_tokens": 4}, "memory_tokens must be 0 for mag: only mac has them"),
        ({"forget": "all"}, "forget must be one of scalar, channel, none, got 'all'"),
        ({"conv": -1}, "conv must be >= 0, got -1"),
        ({"lr_max": 0.0}, "lr_max must be > 0, got 0.0"),
        ({"clip": -1.0}, "clip must be > 0, got -1.0"),
        ({"context_loss": -0.1}, "context_loss must be >= 0, got -0.1"),
        ({"context_loss": math.nan}, "context_loss must be >= 0, got nan"),
    ],
)
def test_a_field_out_of_range_is_named_with_its_value(changes, message):
    with pytest.raises(ValueError) as error:
        TitansConfig(**changes)
    assert str(error.value) == message


def test_padding_is_an_id_below_vocab_or_none_at_all():
    assert (TitansConfig(vocab=100, pad=99).pad, TitansConfig(vocab=100, pad=-1).pad) == (99, -1)


def test_a_config_cannot_be_changed():
    with pytest.raises(AttributeError):
        TitansConfig().dim = 64  # type: ignore[misc]


@pytest.mark.parametrize(
    "config",
    [
        TitansConfig(),
        preset("340M", "mac"),
        preset("tiny", "mal", memory_heads=4, clip=None, forget="channel", context_loss=0.5),
        ModelConfig(),
        ModelConfig(memory="neural", slots=4, rule="titans", window=3),
    ],
)
def test_a_config_of_either_family_comes_back_from_plain_values(config):
    again = config_of(json.loads(json.dumps(asdict(config))))
    assert again == config and type(again) is type(config)


def test_a_field_that_neither_family_knows_is_refused():
    for config in (TitansConfig(), ModelConfig()):
        with pytest.raises(TypeError, match="segments"):
            config_of(asdict(config) | {"segments": 3})


@pytest.mark.parametrize("architecture", ARCHITECTURES)
def test_a_seed_gives_the_same_weights_and_leaves_the_world_s_dice_alone(architecture):
    config = preset("tiny", architecture)
    torch.manual_seed(5)
    expected = torch.rand(1)
    torch.manual_seed(5)
    one, two, other = build(config, 1), build(config, 1), build(config, 2)
    assert torch.equal(torch.rand(1), expected)
    trios = list(zip(one.parameters(), two.parameters(), other.parameters(), strict=True))
    assert all(torch.equal(a, b) for a, b, _ in trios) and not all(torch.equal(a, c) for a, _, c in trios)


def test_an_untied_head_has_weights_of_its_own():
    tied, untied = (build(preset("tiny", "swa", tied=tied), 0) for tied in (True, False))
    more = sum(p.numel() for p in untied.parameters()) - sum(p.numel() for p in tied.parameters())
    assert more == tied.config.vocab * tied.config.dim


@pytest.mark.parametrize(
    "changes",
    [{"memory_depth": 3}, {"memory_expansion": 2}, {"memory_norm": False}, {"conv": 0}, {"forget": "channel"}]
    + [{"momentum": False}, {"hidden": 64}, {"persistent_tokens": 3}],
)
def test_a_field_that_shapes_the_memory_reaches_it(changes):
    base = preset("tiny", "mac")
    assert count(replace(base, **changes)) != count(base)


def test_the_memory_has_the_heads_of_attention_unless_told_otherwise():
    assert TitansConfig(heads=8).memory.heads == 8
    assert TitansConfig(heads=8, memory_heads=2).memory.heads == 2
