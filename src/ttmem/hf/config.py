"""The fields of `ttmem.models.TitansConfig` under the names that Hugging Face gives them."""

from dataclasses import fields
from typing import Any, no_type_check

from huggingface_hub.dataclasses import strict
from transformers import PreTrainedConfig

from ..models import titans_config as core

_THEIRS = {
    "vocab": "vocab_size",
    "dim": "hidden_size",
    "layers": "num_hidden_layers",
    "heads": "num_heads",
    "hidden": "intermediate_size",
    "memory_tokens": "num_memory_tokens",
    "tied": "tie_word_embeddings",
    "pad": "pad_token_id",
}
_NAMES = {field.name: _THEIRS.get(field.name, field.name) for field in fields(core.TitansConfig)}
_SIZES = ("chunk_size", "segment_size", "window_size")
NO_PAD = -1
"""The core's id of padding where the tokenizer has none."""


@no_type_check  # strict checks the fields; jaxtyping would refuse what __init__ takes beyond them, such as model_type
@strict
class TitansConfig(PreTrainedConfig):
    """What shapes a TitansForCausalLM; each field is one of `ttmem.models.TitansConfig`, which says what it means.

    Those with another name there: vocab_size (vocab), hidden_size (dim), intermediate_size (hidden), num_hidden_layers
    (layers), num_heads, also num_attention_heads (heads), num_memory_tokens (memory_tokens), tie_word_embeddings
    (tied), pad_token_id (pad).

    `chunk_size`, `segment_size` and `window_size` are part of the function: a model is trained for one of each. So
    `from_pretrained(path, chunk_size=...)` refuses another one than the saved. Who means it changes a loaded config:
    `config.chunk_size = 8`, then `from_pretrained(path, config=config)`.

    >>> TitansConfig(hidden_size=30)
    Traceback (most recent call last):
    ValueError: hidden_size must be a multiple of 2 heads = 8, got 30
    """

    model_type = "titans-ttm"
    keys_to_ignore_at_inference = ["past_key_values"]
    attribute_map = {"num_attention_heads": "num_heads"}

    architecture: str = "mac"
    vocab_size: int = 258
    hidden_size: int = 128
    intermediate_size: int | None = None
    num_hidden_layers: int = 2
    num_heads: int = 4
    memory_heads: int | None = None
    memory_depth: int = 2
    memory_expansion: int = 4
    memory_norm: bool = True
    chunk_size: int = 16
    momentum: bool = True
    forget: str = "scalar"
    conv: int = 4
    lr_max: int | float | None = None
    clip: int | float | None = 10.0
    recompute: bool = True
    segment_size: int = 64
    window_size: int = 64
    persistent_tokens: int = 4
    num_memory_tokens: int = 0
    gate: str = "two-way"
    checkpoint: bool = False
    context_loss: int | float = 0.0
    truncate: bool = False
    tie_word_embeddings: bool = True
    use_cache: bool = True
    pad_token_id: int | None = None
    bos_token_id: int | None = None
    eos_token_id: int | list[int] | None = None

    def __post_init__(self, **kwargs: Any) -> None:
        super().__post_init__(**kwargs)
        self.to_core()

    def to_core(self) -> core.TitansConfig:
        """The config of the model inside; ValueError, in the names used here, for a field out of range."""
        said = {ours: getattr(self, theirs) for ours, theirs in _NAMES.items()}
        said["pad"] = NO_PAD if self.pad_token_id is None else self.pad_token_id
        try:
            return core.TitansConfig(**said)
        except ValueError as error:
            name, rest = str(error).split(" ", 1)
            raise ValueError(f"{_NAMES.get(name, name)} {rest}") from None

    @classmethod
    def from_dict(cls, config_dict: dict[str, Any], **kwargs: Any) -> Any:
        """As transformers' own, but ValueError for a chunk, segment or window other than the saved one."""
        keep({name: config_dict.get(name, getattr(cls, name)) for name in _SIZES}, kwargs)
        return super().from_dict(config_dict, **kwargs)

    @classmethod
    def from_core(cls, config: core.TitansConfig, **more: Any) -> "TitansConfig":
        """The same model's config here; `more` are fields besides, such as eos_token_id.

        Raises TypeError for one that there is not, ValueError for a chunk, segment or window other than the model's.

        >>> TitansConfig.from_core(core.preset("170M", "mag")).num_hidden_layers
        12
        """
        said = {theirs: getattr(config, ours) for ours, theirs in _NAMES.items()}
        if config.pad < 0:
            said["pad_token_id"] = None
        made = cls(**said)
        unknown = [name for name in more if not hasattr(made, name)]
        if unknown:
            raise TypeError(f"TitansConfig has no {', '.join(unknown)}: leave it out")
        keep({name: said[name] for name in _SIZES}, more)
        return cls(**said | more)


def keep(sizes: dict[str, int], asked: dict[str, Any]) -> None:
    """Raise ValueError where another size is asked for than the one that a model was trained for."""
    for name, size in sizes.items():
        if asked.get(name, size) != size:
            mend = "a loaded config may be changed, and given as config="
            raise ValueError(f"{name} must be {size}, as the model was trained, got {asked[name]}: {mend}")
