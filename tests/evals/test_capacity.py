"""What a memory holds for what it costs."""

import pytest

from ttmem.evals import evaluate, wilson
from ttmem.evals.capacity import Point, measure, pooled
from ttmem.models import LayeredConfig, ModelConfig, build
from ttmem.tasks import make_task

TASK = make_task("N1-K1V1-V62")


@pytest.mark.parametrize("memory, steps", [("tokens", [1, 3]), ("rmt4", [1, 3]), ("forward", [None]), ("full", [None])])
def test_only_a_memory_written_by_steps_has_a_point_for_each_number_of_them(memory, steps):
    model = build(ModelConfig(memory=memory, dim=16, layers=1), 0)
    assert [point.steps for point in measure("m", model, TASK, (1, 3), samples=10)] == steps


@pytest.mark.parametrize("kind, steps", [("prmt4", [1, 3]), ("armt", [None])])
def test_of_the_memories_in_layers_prmt4_takes_steps(kind, steps):
    model = build(LayeredConfig(kind, dim=16, layers=1, heads=2), 0)
    assert [point.steps for point in measure("m", model, TASK, (1, 3), samples=10)] == steps


def test_a_context_in_view_costs_its_keys_and_values():
    model = build(ModelConfig(memory="full", dim=16, layers=3), 0)
    (point,) = measure("m", model, TASK, samples=10)
    assert point.memory_bytes == 4 * 2 * 3 * 16 * TASK.context_length
    (nothing,) = measure("m", build(ModelConfig(memory="none", dim=16, layers=3), 0), TASK, samples=10)
    assert nothing.memory_bytes == 0


def test_a_point_is_what_evaluate_reports():
    model = build(ModelConfig(dim=16, layers=1), 0)
    (point,), report = measure("m", model, TASK, (3,), samples=30), evaluate(model, TASK, 30, steps=3)
    assert (point.exact_match, point.interval) == (report.exact_match, report.interval)
    assert (point.memory_bytes, point.samples) == (report.memory_bytes, 30)


def test_seeds_of_one_memory_are_pooled_over_their_samples_and_others_are_not():
    def point(name, steps, right, seconds=1.0):
        return Point(name, steps, right / 100, wilson(right, 100), 0.02, 512, seconds, 100)

    one, other, longer = pooled([point("a", 1, 90), point("b", 1, 5), point("a", 1, 70, 2.0), point("a", 2, 99)])
    assert (one.exact_match, one.interval, one.samples) == (0.8, (0.7, 0.9), 200)  # the seeds' own are further apart
    alike = pooled([point("c", 1, 80), point("c", 1, 81)])[0]
    assert alike.interval == wilson(161, 200)
    assert (one.write_seconds, one.exact_match_reset) == (2.0, 0.02)
    assert (other.exact_match, longer.exact_match) == (0.05, 0.99)
