import pytest

from ttmem.training import TrainConfig


@pytest.mark.parametrize(
    "change, line",
    [
        ({"steps": 0}, "steps must be >= 1, got 0"),
        ({"batch": 0}, "batch must be >= 1, got 0"),
        ({"queries": 0}, "queries must be >= 1, got 0"),
        ({"lr": 0.0}, "lr must be > 0, got 0.0"),
        ({"lr": float("nan")}, "lr must be > 0, got nan"),
        ({"lr": float("inf")}, "lr must be finite, got inf"),
        ({"muon_lr": float("inf")}, "muon_lr must be finite, got inf"),
        ({"rates_lr": float("inf")}, "rates_lr must be finite, got inf"),
        ({"decay": float("inf")}, "decay must be finite, got inf"),
        ({"beta1": 1.0}, "beta1 must be < 1, got 1.0"),
        ({"beta2": 1.0}, "beta2 must be < 1, got 1.0"),
        ({"clip": -1.0}, "clip must be > 0, got -1.0"),
        ({"seconds": 0.0}, "seconds must be > 0"),
        ({"beta2": 1.5}, "beta2 must be between 0 and 1, got 1.5"),
        ({"target": 99.0}, "target must be between 0 and 1, got 99.0"),
        ({"schedule": "step"}, "schedule must be one of constant, linear, cosine, wsd, got 'step'"),
        ({"precision": "fp16"}, "precision must be one of fp32, bf16, got 'fp16'"),
        ({"seed": -1}, "seed must be between 0 and"),
        ({"settle": True}, "set target as well"),
        ({"schedule": "cosine", "final_steps": 9}, "take schedule wsd or constant, not cosine"),
        ({"decay": 50.0, "final_steps": 9}, "final_steps must be >= the decay of 50 steps, got 9"),
    ],
)
def test_a_bad_value_is_named_when_the_config_is_made(change, line):
    with pytest.raises(ValueError, match=line):
        TrainConfig(**change)


@pytest.mark.parametrize("decay, steps", [(0.25, 250), (0.0001, 1), (1.0, 1), (40.0, 40)])
def test_decay_is_a_fraction_below_one_and_steps_from_there(decay, steps):
    assert TrainConfig(steps=1000, decay=decay).decay_steps == steps
