import json
import subprocess
import sys
from dataclasses import asdict

import pytest
import torch
from safetensors.torch import load_file, save_file
from transformers import AutoConfig, AutoModelForCausalLM

from hf.small import ARCHITECTURES, VOCAB, config, ids, model
from ttmem.checkpoint import save_model
from ttmem.core.state import tensors
from ttmem.hf import TitansForCausalLM, from_ttmem
from ttmem.models import MIXERS, LayeredConfig, ModelConfig, TitansConfig, build

OTHER_PROCESS = """
import sys, torch, ttmem.hf
from safetensors.torch import load_file, save_file
from transformers import AutoConfig, AutoModelForCausalLM
torch.set_num_threads(1)
assert AutoConfig.for_model("titans-ttm").architecture == "mac"
model = AutoModelForCausalLM.from_pretrained(sys.argv[1])
save_file({"logits": model(load_file(sys.argv[2])["ids"]).logits.detach()}, sys.argv[3])
"""


def close(a, b):
    """Equal but for the last digits, which depend on where in memory the file's weights come to lie."""
    torch.testing.assert_close(a, b, rtol=1e-11, atol=1e-11)


def assert_same(one, other, rows):
    ours, theirs = one.state_dict(), other.state_dict()
    assert ours.keys() == theirs.keys()
    assert all(torch.equal(weight, theirs[name]) for name, weight in ours.items())
    close(one(rows).logits, other(rows).logits)


@pytest.mark.parametrize("tied", [True, False])
@pytest.mark.parametrize("architecture", ARCHITECTURES)
def test_a_saved_model_gives_equal_weights_and_logits(tmp_path, architecture, tied):
    made, rows = model(architecture, tie_word_embeddings=tied), ids(2, 9)
    made.save_pretrained(tmp_path)
    again, told = TitansForCausalLM.from_pretrained(tmp_path, output_loading_info=True)
    assert not any(told[part] for part in ("missing_keys", "unexpected_keys", "mismatched_keys"))
    assert again.dtype == torch.float64 and not again.training
    assert_same(again, made, rows)
    assert ("model.head.weight" in load_file(tmp_path / "model.safetensors")) is not tied


def test_another_process_loads_it_through_the_auto_class(tmp_path):
    made, rows = model("mac", num_memory_tokens=2), ids(2, 9)
    made.save_pretrained(tmp_path / "model")
    save_file({"ids": rows}, tmp_path / "ids")
    files = [str(tmp_path / name) for name in ("model", "ids", "logits")]
    done = subprocess.run([sys.executable, "-c", OTHER_PROCESS, *files], capture_output=True, text=True)
    assert done.returncode == 0, done.stderr
    close(load_file(tmp_path / "logits")["logits"], made(rows).logits)


def test_in_bfloat16_the_memory_stays_float32(tmp_path):
    model().save_pretrained(tmp_path)
    made = AutoModelForCausalLM.from_pretrained(tmp_path, dtype=torch.bfloat16)
    with torch.no_grad():
        out = made(ids(2, 9))
    assert out.logits.dtype == torch.bfloat16
    memories = [part.memory.memory for part in out.past_key_values.state.fast.values()]
    assert {leaf.dtype for part in memories for leaf in tensors(part[:3])} == {torch.float32}
    assert made.generate(ids(1, 5), max_new_tokens=3, do_sample=False).shape == (1, 8)


def test_what_a_file_lacks_is_drawn_as_in_a_new_model(tmp_path):
    made = model(tie_word_embeddings=False)
    made.save_pretrained(tmp_path)
    kept = load_file(tmp_path / "model.safetensors")
    lost = {name for name in kept if "blocks.1.mixer" in name}
    save_file({n: t for n, t in kept.items() if n not in lost}, tmp_path / "model.safetensors", {"format": "pt"})
    torch.manual_seed(5)
    again, told = TitansForCausalLM.from_pretrained(tmp_path, output_loading_info=True)
    fresh = build(made.config.to_core(), seed=5).state_dict()
    assert set(told["missing_keys"]) == lost
    for name, weight in again.state_dict().items():
        assert torch.equal(weight, fresh[name.removeprefix("model.")].double() if name in lost else kept[name])


@pytest.mark.parametrize("tied", [True, False])
def test_more_tokens_leave_the_logits_of_the_old_ones(tmp_path, tied):
    made, rows = model(tie_word_embeddings=tied), ids(2, 9)
    before = made(rows).logits
    made.resize_token_embeddings(VOCAB + 4)
    after = made(rows).logits
    assert after.shape[-1] == VOCAB + 4 == made.config.vocab_size == made.model.config.vocab
    torch.testing.assert_close(after[..., :VOCAB], before)
    made.save_pretrained(tmp_path)
    assert_same(TitansForCausalLM.from_pretrained(tmp_path), made, rows)


def test_fewer_tokens_than_the_padding_s_id_are_refused_before_anything_changes():
    made, rows = model(pad_token_id=VOCAB - 1), ids(2, 9) % (VOCAB - 1)
    before = made(rows).logits
    with pytest.raises(ValueError, match=f"^new_num_tokens must be > pad_token_id = {VOCAB - 1}, got 5: change"):
        made.resize_token_embeddings(5)
    assert made.config.vocab_size == VOCAB and torch.equal(made(rows).logits, before)
    made.resize_token_embeddings(5, pad_to_multiple_of=VOCAB)
    assert made.config.vocab_size == VOCAB


@pytest.mark.parametrize("architecture", MIXERS)
def test_a_checkpoint_of_ttmem_becomes_the_same_model(tmp_path, architecture):
    core = build(config(architecture, tie_word_embeddings=False).to_core(), seed=0)
    path = save_model(tmp_path / "core.safetensors", asdict(core.config), core.state_dict())
    made, rows = from_ttmem(path, eos_token_id=3), ids(2, 9)
    assert torch.equal(made(rows).logits, core(rows)[0])
    assert made.generation_config.eos_token_id == 3 and not made.training
    made.save_pretrained(tmp_path)
    said = json.loads((tmp_path / "config.json").read_text())
    assert (said["architecture"], said["model_type"]) == (architecture, "titans-ttm")


def test_a_tied_checkpoint_of_ttmem_becomes_a_tied_model(tmp_path):
    core = build(TitansConfig(dim=8, heads=2, vocab=VOCAB, pad=0), seed=0)
    made = from_ttmem(save_model(tmp_path / "core.safetensors", asdict(core.config), core.state_dict()))
    rows = ids(1, 9)
    assert made.config.tie_word_embeddings and torch.equal(made(rows).logits, core(rows)[0])


def test_a_checkpoint_of_another_kind_is_refused(tmp_path):
    small = ModelConfig(dim=8, heads=2, layers=1, hidden=8)
    path = save_model(tmp_path / "tokens.safetensors", asdict(small), build(small).state_dict())
    with pytest.raises(ValueError, match="tokens.safetensors holds a tokens model; only Titans"):
        from_ttmem(path)


def test_a_layered_checkpoint_is_refused_by_the_name_of_its_architecture(tmp_path):
    small = LayeredConfig("armt", dim=8, heads=2, layers=1, hidden=8)
    path = save_model(tmp_path / "armt.safetensors", asdict(small), build(small).state_dict())
    with pytest.raises(ValueError, match="armt.safetensors holds a armt model; only Titans"):
        from_ttmem(path)


def test_a_field_that_there_is_not_is_refused(tmp_path):
    core = build(config().to_core(), seed=0)
    path = save_model(tmp_path / "core.safetensors", asdict(core.config), core.state_dict())
    with pytest.raises(TypeError, match="TitansConfig has no chunksize, hops: leave it out"):
        from_ttmem(path, chunksize=3, eos_token_id=3, hops=1)
    assert from_ttmem(path, num_attention_heads=2, output_hidden_states=True).config.output_hidden_states


@pytest.mark.parametrize("name, size", [("chunk_size", 4), ("segment_size", 6), ("window_size", 5)])
def test_another_chunk_segment_or_window_than_the_saved_one_is_refused_unless_the_config_says_so(tmp_path, name, size):
    made = model()
    made.save_pretrained(tmp_path)
    path = save_model(tmp_path / "core.safetensors", asdict(made.model.config), made.model.state_dict())
    for load in (
        lambda **said: from_ttmem(path, **said),
        lambda **said: TitansForCausalLM.from_pretrained(tmp_path, **said),
        lambda **said: AutoModelForCausalLM.from_pretrained(tmp_path, **said),
        lambda **said: AutoConfig.from_pretrained(tmp_path, **said),
    ):
        with pytest.raises(ValueError, match=f"^{name} must be {size}, as the model was trained, got 3: "):
            load(**{name: 3})
        load(**{name: size})
    changed = AutoConfig.from_pretrained(tmp_path)
    setattr(changed, name, 3)
    again = AutoModelForCausalLM.from_pretrained(tmp_path, config=changed)
    assert getattr(again.model.config, name) == 3


def test_a_checkpoint_with_an_unknown_field_is_refused(tmp_path):
    path = save_model(tmp_path / "new.safetensors", {"architecture": "mac", "hops": 3}, {"w": torch.zeros(1)})
    with pytest.raises(ValueError, match="has a config that this ttmem does not know: .*hops"):
        from_ttmem(path)
