from dataclasses import asdict

import pytest
import torch

import ttmem
from ttmem import zoo
from ttmem.checkpoint import save_model
from ttmem.models import ModelConfig, build
from untrained import SMALL, TASK, checkpoint


@pytest.fixture
def shelf(tmp_path, monkeypatch):
    """A folder in place of the package's own, with one shipped checkpoint."""
    monkeypatch.setattr(zoo, "folder", lambda: tmp_path / "shelf")
    checkpoint(tmp_path / "shelf" / "tokens-n2.safetensors", exact_match=0.875)
    monkeypatch.chdir(tmp_path)
    return tmp_path / "shelf"


def test_a_shipped_name_and_its_path_are_the_same_model(shelf):
    by_name, by_path = zoo.load("tokens-n2"), zoo.load(shelf / "tokens-n2.safetensors")
    assert by_name.fingerprint == by_path.fingerprint and by_name.name == by_path.name == "tokens-n2"
    assert by_name.task == TASK and not by_name.model.training


def test_a_loaded_model_computes_what_the_saved_one_did(tmp_path):
    path = checkpoint(tmp_path / "mine.safetensors", memory="neural", seed=3)
    saved, loaded = build(ModelConfig(memory="neural", **SMALL), seed=3), zoo.load(path)
    episode = loaded.make_task().sample(2)
    assert torch.equal(saved.loss(episode).loss, loaded.model.loss(episode).loss)


def test_a_file_goes_before_a_shipped_checkpoint_of_the_same_name(shelf):
    own = checkpoint(shelf.parent / "own.safetensors", seed=5)
    own.rename(shelf.parent / "tokens-n2")
    assert zoo.locate("tokens-n2").parent != shelf
    assert zoo.load("tokens-n2").fingerprint != zoo.load(shelf / "tokens-n2.safetensors").fingerprint


def test_a_known_name_without_its_file_says_what_there_is(shelf):
    with pytest.raises(FileNotFoundError, match="tokens-n8 is not in this installation, which has: tokens-n2"):
        zoo.load("tokens-n8")


def test_an_unknown_name_is_answered_with_the_known_ones(shelf):
    with pytest.raises(FileNotFoundError, match="no file tokens-n3") as caught:
        zoo.load("tokens-n3")
    assert all(name in str(caught.value) for name in zoo.NAMES)
    with pytest.raises(ValueError, match="is a folder"):
        zoo.locate(shelf)


def test_the_listing_has_every_name_and_the_facts_of_those_that_are_there(shelf):
    found = {entry["name"]: entry for entry in zoo.listing()}
    assert tuple(found) == zoo.NAMES
    there = found["tokens-n2"]
    assert (there["shipped"], there["task"], there["exact_match"]) == (True, TASK, 0.875)
    assert there["memory_bytes"] == 4 * 4 * 16 and there["bytes"] == (shelf / "tokens-n2.safetensors").stat().st_size
    assert found["tokens-n1"]["shipped"] is False and found["tokens-n1"]["exact_match"] is None


def test_the_test_split_goes_before_validation_in_what_is_recorded():
    assert zoo.recorded({"scores": {"exact_match": 0.5}}) == 0.5
    assert zoo.recorded({"scores": {"exact_match": 0.5}, "exact_match": 0.25}) == 0.25
    assert zoo.recorded({}) is None


def test_a_task_is_the_trained_one_unless_another_is_named(tmp_path):
    path = checkpoint(tmp_path / "a.safetensors")
    assert zoo.load(path).make_task().name == TASK
    assert zoo.load(path).make_task("N1-K1V1-V62").name == "N1-K1V1-V62"
    silent = checkpoint(tmp_path / "b.safetensors", task=None)
    with pytest.raises(ValueError, match="does not say its task: give --task"):
        zoo.load(silent).make_task()


def test_a_config_of_another_version_is_named(tmp_path):
    config = ModelConfig(**SMALL)
    path = save_model(
        tmp_path / "a.safetensors", asdict(config) | {"colour": "blue"}, build(config, 0).state_dict(), {}
    )
    with pytest.raises(ValueError, match="a config that this ttmem does not know.*colour"):
        zoo.load(path)


@pytest.mark.parametrize("bad", [float("nan"), float("-inf")])
def test_weights_that_are_no_numbers_are_refused(tmp_path, bad):
    config = ModelConfig(**SMALL)
    weights = build(config, 0).state_dict()
    next(iter(weights.values())).view(-1)[3] = bad
    path = save_model(tmp_path / "a.safetensors", asdict(config), weights, {})
    with pytest.raises(ValueError, match=r"a.safetensors holds numbers that are not finite, in \w+"):
        zoo.load(path)


def test_no_name_is_refused():
    with pytest.raises(ValueError, match="the checkpoint must be a file or a name, got ''"):
        zoo.load("")


def test_every_shipped_file_has_a_known_name():
    shipped = {path.stem for path in zoo.folder().glob("*.safetensors")}
    assert shipped <= set(zoo.NAMES)


def test_the_package_gives_its_names_lazily_and_no_others():
    assert ttmem.load is zoo.load and set(ttmem.__all__) <= set(dir(ttmem))
    with pytest.raises(AttributeError, match="no attribute 'fly'"):
        getattr(ttmem, "fly")  # noqa: B009
