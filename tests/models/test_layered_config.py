"""What a config of ARMT or PRMT4 allows, and which models have a diagonal schedule."""

import pytest
import torch

from models.small_layers import KINDS, config
from ttmem.core.schedule import stack_of
from ttmem.models import LayeredConfig, ModelConfig, TitansConfig, build, config_of
from ttmem.models.base import MemoryModel
from ttmem.tasks.characters import BAR

every = pytest.mark.parametrize("kind", KINDS)


@every
def test_layered_models_are_memory_models_and_their_configs_come_back_from_plain_values(kind):
    own = config(kind)
    assert config_of(vars(own)) == own and isinstance(build(own), MemoryModel)
    assert isinstance(config_of({"architecture": "mac"}), TitansConfig) and isinstance(config_of({}), ModelConfig)
    assert all(map(torch.equal, build(own, seed=3).parameters(), build(own, seed=3).parameters()))


@pytest.mark.parametrize("memory", ["tokens", "forward", "full", "rmt", "rmt4"])
def test_a_model_whose_memory_crosses_layers_has_no_diagonal_schedule(memory):
    with pytest.raises(ValueError, match="schedule must be sequential for .*: (it|a write)"):
        stack_of(build(ModelConfig(memory=memory)))


@pytest.mark.parametrize(
    "field, value",
    [("layers", 0), ("schedule", "row"), ("target", "key"), ("bound", "max"), ("dim", 12), ("key", 0)],
)
def test_a_bad_config_is_refused_by_the_name_of_its_field(field, value):
    with pytest.raises(ValueError, match=f"^{field} must be"):
        LayeredConfig(**{field: value})


@pytest.mark.parametrize(
    "changes, message",
    [
        ({"vocab": 10, "pad": 11, "separator": 9}, "pad must be < 10, got 11"),
        ({"pad": -1}, "pad must be >= 0, got -1"),
        ({"separator": 700}, "separator must be < vocab = 70, got 700: give the task's, or None and a segment_size"),
        ({"separator": -1}, "separator must be >= 0, got -1"),
        ({"separator": 0}, "separator must be another id than pad = 0, got 0"),
    ],
)
def test_padding_and_separator_are_two_ids_below_vocab(changes, message):
    with pytest.raises(ValueError) as error:
        LayeredConfig(**changes)
    assert str(error.value) == message


@pytest.mark.parametrize(
    "kind, changes, message",
    [
        ("armt", {"steps": 5}, "steps must be 2 for architecture=armt, got 5: an option of prmt4"),
        ("armt", {"memory_heads": 1}, "memory_heads must be None for architecture=armt, got 1: an option of prmt4"),
        ("armt", {"momentum": False}, "momentum must be True for architecture=armt, got False: an option of prmt4"),
        ("prmt4", {"slots": 16}, "slots must be 8 for architecture=prmt4, got 16: an option of armt"),
    ],
)
def test_an_option_of_the_other_architecture_is_refused(kind, changes, message):
    with pytest.raises(ValueError) as error:
        LayeredConfig(kind, **changes)
    assert str(error.value) == message
    assert LayeredConfig({"armt": "prmt4", "prmt4": "armt"}[kind], **changes)


def test_the_overlap_of_keys_bounds_the_steps_of_a_linear_memory_alone():
    with pytest.raises(ValueError, match="^bound must be sum where memory_depth is above 1, got overlap at 2$"):
        LayeredConfig(bound="overlap", memory_depth=2)


def test_a_segment_ends_by_separator_or_by_size_not_both():
    with pytest.raises(ValueError, match="either separator or segment_size"):
        LayeredConfig(segment_size=4)
    assert LayeredConfig().separator == BAR
