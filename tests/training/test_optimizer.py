import math
from dataclasses import replace

import pytest
import torch

from training.short import MODEL_CONFIG
from ttmem.models import build
from ttmem.training import TrainConfig
from ttmem.training.optimizer import factor, make_optimizers, part_of, set_share


def curve(config: TrainConfig, end: int | None = None) -> list[float]:
    return [factor(step, end or config.steps, config) for step in range(end or config.steps)]


@pytest.mark.parametrize("schedule", ["constant", "linear", "cosine", "wsd"])
def test_warm_up_climbs_in_equal_steps_to_the_schedule(schedule):
    config = TrainConfig(steps=10**6, warmup=4, schedule=schedule, decay=10.0)
    assert [factor(step, 10**6, config) for step in range(5)] == pytest.approx([0.25, 0.5, 0.75, 1.0, 1.0], abs=1e-4)


def test_each_schedule_ends_at_its_floor():
    def end(schedule):
        return curve(TrainConfig(steps=1000, warmup=0, schedule=schedule, decay=100.0, floor=0.1))[-1]

    assert end("constant") == 1.0
    assert end("linear") == pytest.approx(0.1, abs=2e-3)
    assert end("cosine") == pytest.approx(0.1, abs=2e-3)
    assert end("wsd") == pytest.approx(0.1, abs=1e-2)


def test_linear_and_cosine_follow_their_formulas():
    linear, cosine = (TrainConfig(steps=8, warmup=0, schedule=s, floor=0.0) for s in ("linear", "cosine"))
    assert curve(linear) == pytest.approx([1 - i / 8 for i in range(8)])
    assert curve(cosine) == pytest.approx([(1 + math.cos(math.pi * i / 8)) / 2 for i in range(8)])


def test_wsd_is_flat_until_the_decay_wherever_the_end_is_moved():
    config = TrainConfig(steps=100, warmup=0, decay=4.0, floor=0.0)
    for end in (100, 60, 20):
        assert curve(config, end) == [1.0] * (end - 4) + [1.0, 0.75, 0.5, 0.25]


@pytest.mark.parametrize("memory", ["tokens", "neural", "mlp", "full", "forward"])
def test_every_weight_is_in_one_group_and_only_matrices_decay(memory):
    from dataclasses import replace

    model = build(replace(MODEL_CONFIG, memory=memory), seed=0)
    for config in (TrainConfig(), TrainConfig(muon_lr=0.02)):
        groups = [group for optimizer in make_optimizers(model, config) for group in optimizer.param_groups]
        seen = [weight for group in groups for weight in group["params"]]
        assert len(seen) == len({id(weight) for weight in seen}) == len(list(model.parameters()))
        decayed = {id(w) for group in groups if group["weight_decay"] for w in group["params"]}
        for name, weight in model.named_parameters():
            free = "norm" in name or "before" in name or "rates" in name or "memory.init" in name or weight.ndim < 2
            assert (id(weight) in decayed) != free, name


def test_learned_rates_take_their_own_step_size_and_muon_the_matrices_of_the_blocks():
    model, config = build(MODEL_CONFIG, seed=0), TrainConfig(lr=1e-3, rates_lr=5.0, muon_lr=0.02)
    assert {n for n, w in model.named_parameters() if part_of(n, w, config) == "rates"} == {"rates.raw.lr_mem"}
    muon = {n.split(".", 3)[-1] for n, w in model.named_parameters() if part_of(n, w, config) == "muon"}
    assert muon == {"attention.qkv.weight", "attention.out.weight", "feed.up.weight", "feed.down.weight"}
    adam, second = make_optimizers(model, config)
    assert [group["lr"] for group in adam.param_groups] == [1e-3, 1e-3, 5e-3]
    assert isinstance(second, torch.optim.Muon) and second.param_groups[0]["lr"] == 0.02


def test_the_options_of_the_decoder_are_trained_as_its_blocks_are_and_learned_addresses_do_not_decay():
    config = replace(MODEL_CONFIG, addresses="learned", read_gate=True, stem=True)
    model, settings = build(config, seed=0), TrainConfig(muon_lr=0.02)
    groups = {name: part_of(name, weight, settings) for name, weight in model.named_parameters()}
    assert groups["backbone.blocks.0.attention.addresses"] == "free"
    assert {groups["backbone.blocks.0.attention.read_gate.weight"], groups["backbone.stem.feed.up.weight"]} == {"muon"}
    assert groups["backbone.stem.conv.weight"] == "decayed"


def test_sines_are_trained_and_decay_as_the_matrices_of_the_blocks_do():
    model = build(replace(MODEL_CONFIG, addresses="sines"), seed=0)
    weight = model.backbone.blocks[0].attention.sines.weight
    parts = [part_of("backbone.blocks.0.attention.sines.weight", weight, TrainConfig(muon_lr=lr)) for lr in (0.02, 0.0)]
    assert parts == ["muon", "decayed"]


def test_a_share_scales_every_group_and_can_be_taken_back():
    optimizers = make_optimizers(build(MODEL_CONFIG, seed=0), TrainConfig(lr=1e-3, muon_lr=0.02))
    set_share(optimizers, 0.5)
    set_share(optimizers, 0.1)
    rates = [group["lr"] for optimizer in optimizers for group in optimizer.param_groups]
    assert rates == pytest.approx([1e-4, 1e-4, 5e-4, 2e-3])
