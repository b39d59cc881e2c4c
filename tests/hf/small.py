"""Hugging Face models, texts and a tokenizer, small enough for a law per second."""

import torch
from tokenizers import Tokenizer, decoders, models, pre_tokenizers, trainers
from torch import Tensor
from transformers import PreTrainedTokenizerFast

from ttmem.hf import TitansConfig, TitansForCausalLM

ARCHITECTURES = ("lmm", "mac", "mag", "mal")
VOCAB, PAD = 23, 0
TEXT = ["the cat sat on the mat", "a dog ran to the hat", "the hat sat on a dog"] * 3


def config(architecture: str = "mac", **changes) -> TitansConfig:
    """Chunks of 4, segments of 6 and windows of 5: a prompt of 15 tokens spans several of each."""
    said = dict(vocab_size=VOCAB, hidden_size=8, num_heads=2, intermediate_size=8, memory_expansion=2)
    said |= dict(chunk_size=4, segment_size=6, window_size=5, persistent_tokens=2, pad_token_id=PAD)
    return TitansConfig(architecture=architecture, **said | changes)


def model(architecture: str = "mac", **changes) -> TitansForCausalLM:
    """A float64 model in evaluation mode, whose weights are large enough that its tokens differ."""
    torch.manual_seed(0)
    made = TitansForCausalLM(config(architecture, **changes)).double().eval()
    with torch.no_grad():
        for weight in made.parameters():
            weight.add_(torch.randn_like(weight) * 0.5)
    return made


def ids(*shape: int) -> Tensor:
    """Random ids without padding."""
    return torch.randint(1, VOCAB, shape)


def left_padded(rows: list[Tensor]) -> tuple[Tensor, Tensor]:
    """Rows of unequal length as ids and mask, padding in front."""
    width = max(map(len, rows))
    padded = torch.stack([torch.cat([torch.full((width - len(row),), PAD), row]) for row in rows])
    return padded, torch.stack([torch.arange(width) >= width - len(row) for row in rows]).long()


def tokenizer() -> PreTrainedTokenizerFast:
    """A byte-pair encoding, trained here on TEXT."""
    made = Tokenizer(models.BPE(unk_token="<unk>"))
    made.pre_tokenizer, made.decoder = pre_tokenizers.Metaspace(), decoders.Metaspace()
    trainer = trainers.BpeTrainer(vocab_size=40, special_tokens=["<pad>", "<unk>", "</s>"], show_progress=False)
    made.train_from_iterator(TEXT, trainer)
    special = dict(pad_token="<pad>", unk_token="<unk>", eos_token="</s>", padding_side="left")
    names = ["input_ids", "attention_mask"]
    return PreTrainedTokenizerFast(tokenizer_object=made, model_input_names=names, **special)
