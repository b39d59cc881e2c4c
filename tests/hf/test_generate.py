import copy

import pytest
import torch
from transformers import GenerationConfig

from hf.small import ARCHITECTURES, config, ids, left_padded, model, tokenizer
from ttmem.hf import TitansCache, TitansForCausalLM

pytestmark = pytest.mark.usefixtures("float64")
every = pytest.mark.parametrize("architecture", ARCHITECTURES)


def greedy(made, rows, **options):
    said = dict(max_new_tokens=4, do_sample=False) | options
    return made.generate(rows, **said)


def all_greedy(made, rows, **options):
    out = greedy(made, rows, return_dict_in_generate=True, output_logits=True, **options)
    return out.sequences, torch.stack(out.logits)


@every
def test_greedy_with_memory_is_greedy_without(architecture):
    made, rows = model(architecture), ids(2, 15)
    with_memory, without = (all_greedy(made, rows, use_cache=use) for use in (True, False))
    assert torch.equal(with_memory[0], without[0])
    torch.testing.assert_close(with_memory[1], without[1])
    assert len(with_memory[0][:, 15:].unique()) > 2


@every
def test_left_padded_rows_continue_as_each_alone(architecture):
    made, parts = model(architecture), [ids(15), ids(8), ids(2)]
    rows, mask = left_padded(parts)
    sequences, logits = all_greedy(made, rows, attention_mask=mask)
    for row, part in enumerate(parts):
        alone, own = all_greedy(made, part[None])
        assert torch.equal(sequences[row, -4:], alone[0, -4:])
        torch.testing.assert_close(logits[:, row], own[:, 0])


@every
def test_beam_search_with_memory_is_beam_search_without(architecture):
    made = model(architecture)
    rows, mask = left_padded([ids(13), ids(9)])
    one, other = (
        greedy(
            made,
            rows,
            attention_mask=mask,
            num_beams=3,
            num_return_sequences=2,
            use_cache=use,
            return_dict_in_generate=True,
            output_scores=True,
        )
        for use in (True, False)
    )
    assert torch.equal(one.sequences, other.sequences)
    torch.testing.assert_close(one.sequences_scores, other.sequences_scores)
    assert one.beam_indices.unique().numel() > 2


def test_sampling_draws_and_the_seed_decides():
    made, rows = model(), ids(1, 9)
    drawn = []
    for seed in (1, 1, 2):
        torch.manual_seed(seed)
        drawn.append(made.generate(rows, max_new_tokens=8, do_sample=True, num_return_sequences=3, top_k=0))
    assert torch.equal(drawn[0], drawn[1]) and not torch.equal(drawn[0], drawn[2])
    assert len(drawn[0].unique(dim=0)) == 3


def test_embeddings_are_continued_as_their_ids():
    made, rows = model(), ids(2, 9)
    embeds = made.get_input_embeddings()(rows)
    assert torch.equal(greedy(made, None, inputs_embeds=embeds), greedy(made, rows)[:, 9:])


def test_a_prompt_read_in_pieces_is_a_prompt():
    made, rows = model(), ids(2, 15)
    assert torch.equal(greedy(made, rows, prefill_chunk_size=4), greedy(made, rows))


@pytest.mark.parametrize("read, new", [(9, 4), (3, 10)])
@pytest.mark.parametrize("given", ["new ids", "new ids, full mask", "all ids", "all ids, mask"])
def test_going_on_from_a_memory_is_one_call(read, new, given):
    made, rows = model(), ids(2, read + new)
    with torch.no_grad():
        memory = made(rows[:, :read]).past_key_values
    options = {"attention_mask": torch.ones(2, read + new)} if "mask" in given else {}
    out = greedy(made, rows if "all" in given else rows[:, read:], past_key_values=memory, **options)
    assert torch.equal(out[:, -4:], greedy(made, rows)[:, -4:])
    assert memory.get_seq_length() == read + new + 3


def test_padding_in_what_a_memory_reads_next_changes_nothing():
    made, first, parts = model(), ids(2, 4), [ids(7), ids(5)]
    rows, mask = left_padded(parts)
    with torch.no_grad():
        memory = made(first).past_key_values
    out = greedy(made, rows, attention_mask=mask, past_key_values=memory)
    for row, part in enumerate(parts):
        alone = greedy(made, torch.cat([first[row], part])[None])
        assert torch.equal(out[row, -4:], alone[0, -4:])


def test_a_conversation_in_turns_is_its_transcript():
    made, memory, said = model(), TitansCache(), ids(1, 0)
    for length in (8, 5, 3):
        said = torch.cat([said, ids(1, length)], dim=1)
        again = greedy(made, said)
        said = greedy(made, said, past_key_values=memory)
        assert torch.equal(said, again)


def test_a_memory_with_a_row_per_beam_goes_on_in_beams():
    made, rows = model(), ids(2, 10)
    with torch.no_grad():
        memory = made(rows[:, :6]).past_key_values
    kept = copy.deepcopy(memory)
    with pytest.raises(ValueError, match=r"batch_repeat_interleave\(3\)"):
        greedy(made, rows[:, 6:], past_key_values=kept, num_beams=3)
    memory.batch_repeat_interleave(3)
    for given in (rows[:, 6:], rows):
        out = greedy(made, given, past_key_values=copy.deepcopy(memory), num_beams=3)
        assert torch.equal(out[:, -4:], greedy(made, rows, num_beams=3)[:, -4:])


def test_padding_behind_a_prompt_is_refused_as_nothing_could_follow_it():
    made, rows = model(), ids(2, 4)
    mask = torch.tensor([[1, 1, 1, 1], [1, 1, 0, 0]])
    with pytest.raises(ValueError, match="attention_mask must end in a token in every row, .* pad on the left"):
        greedy(made, rows, attention_mask=mask)


def test_a_prompt_without_a_token_is_refused():
    with pytest.raises(ValueError, match="the input must have a row and a token at least"):
        model()(torch.zeros(1, 0, dtype=torch.long))


@pytest.mark.parametrize(
    "architecture, changes",
    [
        ("lmm", {"memory_depth": 1, "forget": "channel"}),
        ("lmm", {"memory_depth": 4, "momentum": False}),
        ("mac", {"num_memory_tokens": 3}),
    ],
    ids=str,
)
def test_with_other_memories_too_generation_with_a_cache_is_that_without_one(architecture, changes):
    made, parts = model(architecture, **changes), [ids(15), ids(9)]
    rows, mask = left_padded(parts)
    for options in ({}, {"num_beams": 2}):
        found = greedy(made, rows, attention_mask=mask, **options)
        assert torch.equal(found, greedy(made, rows, attention_mask=mask, use_cache=False, **options))
        for row, part in enumerate(parts):
            assert torch.equal(found[row, -4:], greedy(made, part[None], **options)[0, -4:])


def test_new_ids_with_padding_need_a_mask():
    made = model()
    memory = made(ids(2, 4)).past_key_values
    rows, _ = left_padded([ids(6), ids(3)])
    with pytest.raises(ValueError, match="attention_mask must say .* pad_token_id 0 is in them"):
        greedy(made, rows, past_key_values=memory)


@pytest.mark.parametrize(
    "options, message",
    [
        ({"prompt_lookup_num_tokens": 2}, "not assisted_generation$"),
        ({"assistant_model": model()}, "not assisted_generation$"),
        ({"generation_config": GenerationConfig(penalty_alpha=0.6, top_k=4)}, "not contrastive_search$"),
        ({"num_beams": 4, "num_beam_groups": 2, "diversity_penalty": 0.5}, "not group_beam_search$"),
        ({"cache_implementation": "static"}, "cache_implementation must be None, .*, got 'static'"),
        ({"past_key_values": True, "use_cache": False}, "use_cache must be True to generate from past_key_values"),
        ({"past_key_values": True, "inputs_embeds": torch.zeros(1, 3, 8)}, "with input_ids alone"),
    ],
)
def test_what_it_cannot_do_is_refused(options, message):
    made, rows = model(), ids(1, 5)
    if "past_key_values" in options:
        options = options | {"past_key_values": made(rows).past_key_values}
    with pytest.raises(ValueError, match=message):
        made.generate(None if "inputs_embeds" in options else rows, **{"max_length": 9} | options)


def test_text_goes_in_and_comes_out():
    words = tokenizer()
    made = TitansForCausalLM(config(vocab_size=len(words), pad_token_id=words.pad_token_id)).eval()
    batch = words(["the cat sat", "a dog"], padding=True, return_tensors="pt")
    out = greedy(made, batch.input_ids, attention_mask=batch.attention_mask)
    alone = words(["a dog"], return_tensors="pt")
    assert out[1, -4:].tolist() == made.generate(**alone, max_new_tokens=4, do_sample=False)[0, -4:].tolist()
    assert words.batch_decode(out, skip_special_tokens=True)[0].startswith("the cat sat")
