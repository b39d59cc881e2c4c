import json

import pytest

from ttmem.tasks import make_task
from ttmem.training import Curriculum, Stage, Standing
from ttmem.training.curriculum import questions

NAMES = ("N4-K1V1-V62", "N4-K2V2-V62", "N2-K4V4-S2_16-32")


def curriculum(**changes) -> Curriculum:
    return Curriculum(tuple(Stage(name, **changes) for name in NAMES))


def walk(plan: Curriculum, exacts) -> list[Standing]:
    """The standings after each step."""
    found, standing = [], Standing()
    for step, exact in enumerate(exacts, 1):
        standing = plan.advance(standing, exact, step)
        found.append(standing)
    return found


def test_the_running_mean_forgets_half_in_a_half_life():
    plan = curriculum(threshold=1.0, half_life=5.0)
    assert walk(plan, [1.0] * 5)[-1].mean == pytest.approx(0.5)
    assert walk(plan, [1.0] * 5 + [0.0] * 5)[-1].mean == pytest.approx(0.25)


def test_a_stage_is_left_at_its_threshold_and_the_next_starts_from_nothing():
    plan = curriculum(threshold=0.5, half_life=5.0)
    standings = walk(plan, [1.0] * 6)
    assert [s.stage for s in standings] == [0, 0, 0, 0, 1, 1]
    assert (standings[4].mean, standings[4].steps) == (0.0, 0)
    (promotion,) = standings[5].promotions
    assert (promotion.task, promotion.step, promotion.mean) == (NAMES[0], 5, pytest.approx(0.5))


def test_no_stage_is_left_before_its_least_steps():
    assert [s.stage for s in walk(curriculum(threshold=0.0, min_steps=3), [1.0] * 4)] == [0, 0, 1, 1]


def test_a_used_up_budget_promotes_or_stops_as_told():
    promoting, stopping = (curriculum(max_steps=2, on_budget=what) for what in ("promote", "stop"))
    assert [s.stage for s in walk(promoting, [0.0] * 4)] == [0, 1, 1, 2]
    assert not any(promoting.is_over(s) for s in walk(promoting, [0.0] * 5))
    standings = walk(stopping, [0.0] * 2)
    assert [s.stage for s in standings] == [0, 0]
    assert [stopping.is_over(s) for s in standings] == [False, True]


def test_the_last_stage_is_never_left_and_its_budget_always_stops():
    plan = curriculum(threshold=0.0, max_steps=3)
    standings = walk(plan, [1.0] * 5)
    assert [s.stage for s in standings] == [1, 2, 2, 2, 2]
    assert [plan.is_over(s) for s in standings] == [False, False, False, False, True]
    assert plan.is_last(standings[1]) and not plan.is_last(standings[0])


def test_a_rehearsal_moves_the_steps_and_not_the_mean():
    plan = curriculum(threshold=1.0)
    before = Standing(1, 0.4, 7)
    assert plan.advance(before, None, 20) == Standing(1, 0.4, 8)


def test_rehearsal_draws_its_share_of_earlier_stages_by_the_step_alone():
    plan, standing = curriculum(rehearsal=0.3), Standing(2)
    drawn = [plan.draw(standing, step, 0) for step in range(2000)]
    assert [plan.draw(standing, step, 0) for step in range(2000)] == drawn
    assert drawn != [plan.draw(standing, step, 1) for step in range(2000)]
    assert drawn.count(2) / 2000 == pytest.approx(0.7, abs=0.04)
    assert drawn.count(0) / 2000 == pytest.approx(0.15, abs=0.03)
    assert {plan.draw(Standing(0), step, 0) for step in range(50)} == {0}
    assert {curriculum().draw(standing, step, 0) for step in range(50)} == {2}


def test_a_standing_survives_json_bit_for_bit():
    standing = walk(curriculum(threshold=0.4, half_life=3.0), [0.9, 1 / 3, 0.7, 0.1, 1.0, 0.6])[-1]
    assert standing.promotions and standing.mean
    assert Standing.from_dict(json.loads(json.dumps(standing.as_dict()))) == standing


@pytest.mark.parametrize(
    "change, line",
    [
        ({"task": "N2"}, "task name must look like"),
        ({"threshold": 1.1}, "threshold and rehearsal must be in"),
        ({"rehearsal": 1.0}, "threshold and rehearsal must be in"),
        ({"half_life": 0.0}, "half_life must be > 0, got 0.0"),
        ({"min_steps": 5, "max_steps": 4}, "max_steps must be >= min_steps and 1, got 4"),
        ({"on_budget": "cry"}, "on_budget must be one of promote, stop, got 'cry'"),
        ({"queries": 0}, "queries must be >= 1, got 0"),
    ],
)
def test_a_bad_stage_is_told_when_it_is_made(change, line):
    with pytest.raises(ValueError, match=line):
        Stage(**{"task": NAMES[0]} | change)


def test_a_curriculum_needs_a_stage():
    with pytest.raises(ValueError, match="at least one stage"):
        Curriculum(())


@pytest.mark.parametrize("wanted, asked", [(None, None), (1, 1), (3, 2)])
def test_no_more_questions_are_asked_than_there_are_pairs(wanted, asked):
    assert questions(make_task(NAMES[2]), wanted) == asked
