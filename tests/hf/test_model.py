import subprocess
import sys

import pytest
import torch
import torch.nn.functional as F
from transformers import AutoModelForCausalLM, DynamicCache

from hf.small import ARCHITECTURES, VOCAB, config, ids, left_padded, model
from ttmem.hf import TitansConfig, TitansForCausalLM
from ttmem.models import Titans

pytestmark = pytest.mark.usefixtures("float64")
every = pytest.mark.parametrize("architecture", ARCHITECTURES)


def close(a, b):
    torch.testing.assert_close(a, b, rtol=1e-9, atol=1e-9)


def test_importing_ttmem_loads_no_transformers():
    code = "import sys, ttmem.models, ttmem.zoo; print('transformers' in sys.modules)"
    done = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True)
    assert done.stdout.strip() == "False", done.stderr


@every
def test_logits_are_the_core_models(architecture):
    made, rows = model(architecture), ids(2, 15)
    logits, state = made.model(rows)
    out = made(rows)
    close(out.logits, logits)
    assert out.past_key_values.get_seq_length() == state.step == 15


def test_a_new_model_has_the_weights_of_a_new_core_model():
    torch.manual_seed(3)
    made = AutoModelForCausalLM.from_config(config("mag"))
    torch.manual_seed(3)
    expected = Titans(config("mag").to_core()).state_dict()
    assert type(made) is TitansForCausalLM
    assert all(torch.equal(weight.double(), expected[name]) for name, weight in made.model.state_dict().items())


def test_the_loss_is_the_mean_over_the_shifted_labels_that_count():
    made, rows = model(), ids(2, 9)
    labels = rows.clone()
    labels[0, :4] = labels[1, 7] = -100
    out = made(rows, labels=labels)
    nats = [
        -out.logits[row, place - 1].log_softmax(-1)[rows[row, place]]
        for row, places in ((0, [4, 5, 6, 7, 8]), (1, [1, 2, 3, 4, 5, 6, 8]))
        for place in places
    ]
    torch.testing.assert_close(out.loss.double(), torch.stack(nats).mean(), rtol=1e-6, atol=1e-6)
    summed = made(rows, labels=labels, num_items_in_batch=torch.tensor(5)).loss
    torch.testing.assert_close(summed.double(), torch.stack(nats).sum() / 5, rtol=1e-6, atol=1e-6)


def test_labels_shifted_already_give_the_same_loss():
    made, rows = model(), ids(2, 9)
    shifted = F.pad(rows[:, 1:], (0, 1), value=-100)
    assert torch.equal(made(rows, labels=rows).loss, made(rows, shift_labels=shifted).loss)


def test_embeddings_stand_for_their_ids():
    made, rows = model(), ids(2, 9)
    close(made(inputs_embeds=made.get_input_embeddings()(rows)).logits, made(rows).logits)


@pytest.mark.parametrize("keep", [1, 4, torch.tensor([0, 3, 8])])
def test_logits_to_keep_are_those_of_the_whole(keep):
    made, rows = model(), ids(2, 9)
    whole = made(rows).logits
    close(made(rows, logits_to_keep=keep).logits, whole[:, -keep:] if isinstance(keep, int) else whole[:, keep])


@every
def test_padding_anywhere_changes_nothing(architecture):
    made, one, two = model(architecture), ids(11), ids(7)
    rows, mask = left_padded([one, two])
    rows, mask = (torch.cat([x[:, :8], torch.zeros(2, 2, dtype=torch.long), x[:, 8:]], dim=1) for x in (rows, mask))
    logits = made(rows, attention_mask=mask).logits
    for row, alone in enumerate((one, two)):
        close(logits[row][mask[row].bool()], made(alone[None]).logits[0])


@every
@pytest.mark.parametrize("split", [1, 7])
def test_several_new_tokens_behind_a_memory_are_one_call(architecture, split):
    made, rows = model(architecture), ids(2, 15)
    whole = made(rows)
    memory = made(rows[:, :split], use_cache=True).past_key_values
    rest = made(rows[:, split:], past_key_values=memory)
    close(rest.logits, whole.logits[:, split:])
    assert rest.past_key_values is memory
    assert memory.get_seq_length() == 15


@pytest.mark.parametrize("full", [False, True])
def test_a_mask_of_the_new_tokens_and_one_of_all_columns_mean_the_same(full):
    made = model()
    rows, mask = left_padded([ids(12), ids(9)])
    mask[1, 10] = 0
    whole = made(rows, attention_mask=mask).logits
    memory = made(rows[:, :8], attention_mask=mask[:, :8]).past_key_values
    given = mask if full else mask[:, 8:]
    close(made(rows[:, 8:], attention_mask=given, past_key_values=memory).logits, whole[:, 8:])


def test_without_use_cache_a_memory_is_read_and_left_as_it_was():
    made, rows = model(), ids(2, 12)
    memory = made(rows[:, :5]).past_key_values
    for _ in range(2):
        out = made(rows[:, 5:], past_key_values=memory, use_cache=False)
        assert out.past_key_values is None
        assert memory.get_seq_length() == 5
        close(out.logits, made(rows).logits[:, 5:])


def test_training_gives_no_memory_unless_asked():
    made = model().train()
    assert made(ids(1, 5)).past_key_values is None
    assert made(ids(1, 5), use_cache=True).past_key_values is not None


def test_layers_see_what_the_core_model_computes_padding_apart():
    made = model(num_hidden_layers=3)
    rows, mask = left_padded([ids(9), ids(5)])
    out = made(rows, attention_mask=mask, output_hidden_states=True)
    alone = made(rows[1:, 4:], output_hidden_states=True)
    assert len(out.hidden_states) == 4
    for whole, own in zip(out.hidden_states, alone.hidden_states, strict=True):
        close(whole[1, 4:], own[0])
    close(made.model.logits(out.hidden_states[-1]), out.logits)
    close(made.model.norm(made.model.blocks[2](out.hidden_states[2][:1], None)[0]), out.hidden_states[3][:1])
    assert not any(block._forward_hooks for block in made.model.blocks)


def test_as_a_tuple_the_output_is_loss_logits_memory():
    made, rows = model(), ids(1, 5)
    loss, logits, memory = made(rows, labels=rows, return_dict=False)
    assert loss.ndim == 0 and logits.shape == (1, 5, VOCAB) and memory.get_seq_length() == 5


def gradients(made, rows):
    made.zero_grad()
    made(rows, labels=rows).loss.backward()
    return [weight.grad.clone() for weight in made.parameters()]


def test_activation_checkpointing_computes_blocks_again_and_gives_the_same_gradients():
    made, rows, runs = model(recompute=False).train(), ids(2, 9), []
    plain = gradients(made, rows)
    for block in made.model.blocks:
        block.mixer.register_forward_hook(lambda *_: runs.append(1))
    made.activation_checkpointing_enable()
    assert made.is_activation_checkpointing
    close(gradients(made, rows), plain)
    assert len(runs) == 4
    made.activation_checkpointing_disable()
    close(gradients(made, rows), plain)
    assert len(runs) == 6


def test_the_config_turns_on_activation_checkpointing():
    made = model(checkpoint=True)
    assert made.is_activation_checkpointing and all(block.checkpoint for block in made.model.blocks)


@pytest.mark.parametrize("options", [{"activation_checkpointing_kwargs": {"use_reentrant": True}}, {"offload": True}])
def test_checkpointing_that_the_blocks_do_not_do_is_refused(options):
    with pytest.raises(ValueError, match="without use_reentrant and offload"):
        model().activation_checkpointing_enable(**options)


@pytest.mark.parametrize(
    "error, message, given",
    [
        (ValueError, "input_ids and inputs_embeds must be given, got neither", {}),
        (ValueError, "got both", {"input_ids": ids(2, 3), "inputs_embeds": torch.zeros(2, 3, 8)}),
        (ValueError, r"attention_mask must be \(2, 3\), got \(2, 4\)", {"attention_mask": torch.ones(2, 4)}),
        (ValueError, r"got \(2, 1, 3, 3\)", {"attention_mask": torch.ones(2, 1, 3, 3)}),
        (ValueError, "output_attentions must be False", {"output_attentions": True}),
        (ValueError, "must be a TitansCache, got DynamicCache", {"past_key_values": DynamicCache()}),
        (TypeError, "forward takes no position_ids", {"position_ids": torch.arange(3)[None]}),
    ],
)
def test_bad_input_is_told_in_one_line(error, message, given):
    given = given if not given or "input_ids" in given else given | {"input_ids": ids(2, 3)}
    with pytest.raises(error, match=message) as caught:
        model()(**given)
    assert "\n" not in str(caught.value)


def test_a_memory_of_other_rows_is_refused_with_the_mend():
    made = model()
    memory = made(ids(2, 5)).past_key_values
    with pytest.raises(ValueError, match=r"6, got 2: call past_key_values.batch_repeat_interleave\(3\)"):
        made(ids(6, 2), past_key_values=memory)
    with pytest.raises(ValueError, match="3, got 2$"):
        made(ids(3, 2), past_key_values=memory)


def test_only_the_documented_config_class_makes_a_model():
    assert TitansForCausalLM.config_class is TitansConfig
