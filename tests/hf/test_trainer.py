import shutil

import pytest
import torch
from transformers import DataCollatorForLanguageModeling, Trainer, TrainingArguments

from hf.small import TEXT, config, tokenizer
from ttmem.hf import TitansForCausalLM


def trainer(folder, **changes) -> Trainer:
    """Ten steps, each of two accumulated batches of padded text, with a checkpoint in the middle."""
    words = tokenizer()
    torch.manual_seed(0)
    made = TitansForCausalLM(config("mag", vocab_size=len(words), pad_token_id=words.pad_token_id))
    said = dict(max_steps=10, save_steps=5, logging_steps=5, per_device_train_batch_size=2, learning_rate=5e-2)
    said |= dict(gradient_accumulation_steps=2, use_cpu=True, report_to="none", disable_tqdm=True, seed=3)
    return Trainer(
        model=made,
        args=TrainingArguments(str(folder), **said | changes),
        train_dataset=[words(text) for text in TEXT],
        eval_dataset=[words(text) for text in TEXT[:3]],
        data_collator=DataCollatorForLanguageModeling(words, mlm=False),
    )


def weights(run: Trainer) -> dict[str, torch.Tensor]:
    return {name: weight.clone() for name, weight in run.model.state_dict().items()}


@pytest.fixture(scope="module")
def whole(tmp_path_factory):
    """Ten steps in one go: its folder, its loss before and after, its weights."""
    folder = tmp_path_factory.mktemp("whole")
    run = trainer(folder)
    before = run.evaluate()["eval_loss"]
    run.train()
    return folder, before, run.evaluate()["eval_loss"], weights(run)


def test_the_trainer_trains(whole):
    _, before, after, _ = whole
    assert after < 0.8 * before


def test_resuming_gives_the_same_weights_bit_by_bit(whole, tmp_path):
    folder, _, _, expected = whole
    shutil.copytree(folder / "checkpoint-5", tmp_path / "checkpoint-5")
    run = trainer(tmp_path)
    run.train(resume_from_checkpoint=True)
    assert run.state.global_step == 10
    assert all(torch.equal(weight, expected[name]) for name, weight in weights(run).items())


def test_the_weights_move_after_the_checkpoint(whole):
    folder, _, _, expected = whole
    half = TitansForCausalLM.from_pretrained(folder / "checkpoint-5").state_dict()
    assert not any(torch.equal(weight, expected[name]) for name, weight in half.items())


def test_accumulated_batches_train_as_one_large_batch(tmp_path, whole):
    run = trainer(tmp_path, gradient_accumulation_steps=1, per_device_train_batch_size=4, save_strategy="no")
    run.train()
    for name, weight in weights(run).items():
        torch.testing.assert_close(weight, whole[3][name], rtol=1e-3, atol=1e-3)


def test_the_trainers_switch_computes_blocks_again(tmp_path):
    run = trainer(tmp_path, activation_checkpointing=True, max_steps=1, save_strategy="no")
    run.train()
    assert all(block.checkpoint for block in run.model.model.blocks)
