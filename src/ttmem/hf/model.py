"""The Titans language model as a PreTrainedModel: loss, save and load, `generate`.

input_ids ──► ttmem.models.Titans ──► logits ──► loss against labels, shifted by one
                    ▲    │
              past_key_values: a TitansCache, the state before and behind the ids
"""

from pathlib import Path
from typing import Any

import torch
from jaxtyping import Bool, Float, Int
from torch import Tensor, nn
from torch.utils.checkpoint import checkpoint
from transformers import GenerationMixin, PreTrainedModel
from transformers.generation.configuration_utils import GenerationMode
from transformers.modeling_outputs import CausalLMOutputWithPast
from transformers.utils.generic import can_return_tuple

from ..checkpoint import fill, load_model
from ..core.state import State
from ..models import Titans, config_of
from ..models import TitansConfig as CoreConfig
from ..nn.ragged import alignment
from .cache import TitansCache
from .config import TitansConfig
from .inputs import asked, continued, masked, refuse_unknown

MODES = (
    GenerationMode.GREEDY_SEARCH,
    GenerationMode.SAMPLE,
    GenerationMode.BEAM_SEARCH,
    GenerationMode.BEAM_SAMPLE,
)
LOSS_OPTIONS = {"num_items_in_batch", "shift_labels", "ignore_index"}


class TitansForCausalLM(PreTrainedModel, GenerationMixin):
    """`ttmem.models.Titans` (as `self.model`) with the interface of Hugging Face's causal language models.

    `past_key_values` is a TitansCache: the memory, which each call reads from and writes. A call with a memory takes
    new tokens only, one or many; its `attention_mask` covers the new tokens, or everything read and them. Padding may
    stand anywhere and writes nothing; only `generate`, which goes on behind the last column, wants it on the left.

    `generate` goes on from a memory with new ids alone, or, as is usual with transformers, with everything read and the
    new ids behind it. New ids that happen to begin with all that was read, as they may behind a memory of a token or
    two, pass for the latter; an `attention_mask` of ones for everything read and them says that they are new. It can do
    greedy search, sampling and beam search; a memory for `num_beams` beams needs
    `past_key_values.batch_repeat_interleave(num_beams)` first.

    >>> model = TitansForCausalLM(TitansConfig(hidden_size=8, num_heads=2)).eval()
    >>> ids = torch.randint(0, 258, (1, 20))
    >>> model(ids, labels=ids).loss.shape
    torch.Size([])
    """

    config_class = TitansConfig
    base_model_prefix = "model"
    supports_gradient_checkpointing = True
    _is_stateful = True
    _no_split_modules = ["Block"]
    _input_embed_layer = "embedding"

    def __init__(self, config: TitansConfig):
        super().__init__(config)
        self.model = Titans(config.to_core())
        self.gradient_checkpointing = config.checkpoint
        for weight in self.model.parameters():
            weight._is_hf_initialized = not weight.is_meta
        self.post_init()

    @can_return_tuple
    def forward(  # noqa: PLR0913  # transformers looks the names up in this signature
        self,
        input_ids: Int[Tensor, "b t"] | None = None,
        attention_mask: Tensor | None = None,
        past_key_values: Any = None,
        inputs_embeds: Float[Tensor, "b t d"] | None = None,
        labels: Int[Tensor, "b t"] | None = None,
        use_cache: bool | None = None,
        output_attentions: bool | None = None,
        output_hidden_states: bool | None = None,
        logits_to_keep: int | Tensor = 0,
        **kwargs: Any,
    ) -> CausalLMOutputWithPast:
        """Logits of the tokens that follow, the loss where there are labels, and the memory behind the last token.

        Args:
            input_ids, inputs_embeds: one of them.
            attention_mask: (batch, new tokens), or with all the columns read before in front; 0 is padding.
            past_key_values: a TitansCache to go on from; it is written, unless use_cache is False.
            labels: the ids again; -100 does not count. They are shifted here.
            use_cache: whether to give the memory; None: as the config says, but not in training.
            logits_to_keep: the last n tokens, or these places, whose logits are wanted; 0: all.
            kwargs: num_items_in_batch, by which the summed loss is divided; shift_labels, labels shifted already.

        Raises ValueError for input that does not fit, TypeError for an argument that it does not know.
        """
        refuse_unknown(kwargs, LOSS_OPTIONS, output_attentions)
        x = asked(input_ids, inputs_embeds, self.model.embedding)
        if use_cache is None:
            use_cache = self.config.use_cache and not self.training
        memory = TitansCache() if past_key_values is None else past_key_values
        mask = masked(attention_mask, memory, x)
        wanted = self.config.output_hidden_states if output_hidden_states is None else output_hidden_states
        hidden, state, layers = self._read(x, memory.state, mask, bool(wanted))
        if use_cache:
            memory.write(state, input_ids)
        kept = slice(-logits_to_keep, None) if isinstance(logits_to_keep, int) else logits_to_keep
        logits = self.model.logits(hidden[:, kept])
        loss = None
        if labels is not None or kwargs.get("shift_labels") is not None:
            loss = self.loss_function(logits=logits, labels=labels, vocab_size=self.config.vocab_size, **kwargs)
        return CausalLMOutputWithPast(loss, logits, memory if use_cache else None, layers)

    def _read(
        self, x: Float[Tensor, "b t d"], state: State | None, mask: Bool[Tensor, "b t"] | None, layers: bool
    ) -> tuple[Float[Tensor, "b t d"], State, tuple[Tensor, ...] | None]:
        """The model's `hidden`, and with `layers` the embeddings and every block's output, the last one normalised."""
        if not layers:
            return *self.model.hidden(x, state, mask), None
        outs: list[Tensor] = []
        hooks = [block.register_forward_hook(lambda *said: outs.append(said[-1][0])) for block in self.model.blocks]
        try:
            hidden, state = self.model.hidden(x, state, mask)
        finally:
            for hook in hooks:
                hook.remove()
        back = (lambda y: y) if mask is None else alignment(mask).restore
        return hidden, state, (x, *(back(y) for y in outs[:-1]), hidden)

    def generate(self, inputs: Int[Tensor, "b t"] | None = None, *args: Any, **kwargs: Any) -> Any:
        """As transformers' own; see the class for going on from `past_key_values`."""
        memory = kwargs.get("past_key_values")
        if isinstance(memory, TitansCache) and memory.has_previous_state():
            ids = kwargs.get("input_ids") if inputs is None else inputs
            if ids is None or kwargs.get("inputs_embeds") is not None:
                raise ValueError("generate goes on from past_key_values with input_ids alone: embed nothing, give ids")
            pad = kwargs.get("pad_token_id", self.generation_config.pad_token_id)
            kwargs["attention_mask"] = continued(ids, kwargs.get("attention_mask"), memory, pad)
        return super().generate(inputs, *args, **kwargs)  # type: ignore[misc]  # a protocol of transformers' own

    def _get_deprecated_gen_repo(self, generation_mode: GenerationMode, *args: Any, **kwargs: Any) -> None:
        # Here transformers would send some of them to code on its hub.
        if generation_mode not in MODES:
            raise ValueError(f"generate does greedy search, sampling and beam search, not {generation_mode.value}")

    def _prepare_cache_for_generation(self, generation_config: Any, model_kwargs: dict, *args: Any) -> None:  # type: ignore[override]
        if generation_config.cache_implementation not in (None, "dynamic"):
            asked = generation_config.cache_implementation
            raise ValueError(f"cache_implementation must be None, the state is a TitansCache, got {asked!r}")
        mask, memory = model_kwargs.get("attention_mask"), model_kwargs.get("past_key_values")
        if mask is not None and mask.ndim == 2 and not bool(mask[:, -1].all()):
            raise ValueError("attention_mask must end in a token in every row, to go on behind it: pad on the left")
        if memory is None and generation_config.use_cache is not False:
            model_kwargs["past_key_values"] = TitansCache()
        elif memory is not None and generation_config.use_cache is False:
            raise ValueError("use_cache must be True to generate from past_key_values, got False")
        elif memory is not None:
            memory._is_user_defined = True

    @torch.no_grad()
    def initialize_weights(self) -> None:
        """Draw what a file lacked as in a new model; a model just built has its weights."""
        weights = self.model.named_parameters()
        missing = {name: weight for name, weight in weights if not getattr(weight, "_is_hf_initialized", False)}
        fresh = Titans(self.config.to_core()).state_dict() if missing else {}
        for name, weight in missing.items():
            weight.copy_(fresh[name])

    def _set_gradient_checkpointing(
        self, enable: bool = True, gradient_checkpointing_func: Any = None, every_n_layers: int = 1
    ) -> None:
        said = getattr(gradient_checkpointing_func, "keywords", {})
        if said.get("use_reentrant") or getattr(gradient_checkpointing_func, "func", checkpoint) is not checkpoint:
            raise ValueError("gradient checkpointing must be without use_reentrant and offload: leave both out")
        self.gradient_checkpointing = enable
        for index, block in enumerate(self.model.blocks):
            block.checkpoint = enable and index % every_n_layers == 0

    def resize_token_embeddings(
        self, new_num_tokens: int | None = None, pad_to_multiple_of: int | None = None, mean_resizing: bool = True
    ) -> nn.Embedding:
        """As transformers' own: more or fewer tokens.

        Raises ValueError, and leaves the model as it was, where the padding's id would be gone.
        """
        size, pad = new_num_tokens, self.config.pad_token_id
        if size is not None and pad is not None:
            whole = pad_to_multiple_of or 1
            if pad >= -(-size // whole) * whole:
                raise ValueError(f"new_num_tokens must be > pad_token_id = {pad}, got {size}: change the padding first")
        embedding = super().resize_token_embeddings(new_num_tokens, pad_to_multiple_of, mean_resizing)
        self.model.config = self.config.to_core()
        return embedding

    def get_output_embeddings(self) -> nn.Linear | None:
        """The head; None where it shares the embedding."""
        return self.model.head

    def set_output_embeddings(self, new_embeddings: nn.Linear) -> None:
        """Another head."""
        self.model.head = new_embeddings


def from_ttmem(path: str | Path, **more: Any) -> TitansForCausalLM:
    """The Titans model of a ttmem checkpoint, in evaluation mode; `more` are fields of TitansConfig, as eos_token_id.

    Raises FileNotFoundError for no file, ValueError for one that is no checkpoint or holds another kind of model, and
    for a chunk, segment or window other than the model's, TypeError for a field that TitansConfig does not have.
    """
    found = load_model(path)
    try:
        config = config_of(found.config)
    except (TypeError, ValueError) as error:
        raise ValueError(f"{path} has a config that this ttmem does not know: {error}") from error
    if not isinstance(config, CoreConfig):
        kind = found.config.get("architecture") or found.config.get("memory")
        raise ValueError(f"{path} holds a {kind} model; only Titans are language models here")
    model = TitansForCausalLM(TitansConfig.from_core(config, **more))
    fill(model.model, found.tensors, path)
    return model.eval()
