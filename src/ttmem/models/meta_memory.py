"""Meta-learned memory: written by gradient descent, read by the backbone (GradMem; the deck's NeuralMemory, MemoryMLP).

WRITE   context ──embed──> [memory | c_1 .. c_T] ──backbone (frozen)──> reconstruct c_1 .. c_T
                              ^ K gradient steps on the mean log-loss, one copy per sample
READ    query   ──embed──> [memory | q_1 .. q_S] ──backbone──> answer          (the context is gone)
OUTER   d(read loss + w * write loss) through the K steps -> backbone, initial memory, step sizes, write head
"""

import copy
from dataclasses import dataclass

import torch
import torch.nn.functional as F
from jaxtyping import Float, Int
from torch import Tensor, nn

from ..checks import at_least, not_negative, one_of, own, positive
from ..core.gradient import check_meta_gradient
from ..core.loop import begin, fold, scheduled_step
from ..core.objectives import Objective, token_loss
from ..core.rates import LearnedRates
from ..core.rules import Rule, adam, chain, clip, momentum, sgd, titans
from ..core.state import Log, State, Tree, detach
from ..memories.base import Memory, Source
from ..nn.conv import CausalConv
from ..nn.layers import RMSNorm
from .base import Backbone, Episode, Outcome, answer_logits, fits, join, of_rows, score, spread
from .segments import pushed

RULES = {"sgd": sgd, "momentum": momentum, "titans": titans, "adam": adam}


@dataclass(frozen=True)
class WriteConfig:
    """How a memory is written.

    Args:
        steps: gradient steps K of one write; at test time any number can be asked for.
        lr: where the learned step size of memory tokens starts.
        memory_lr: where that of other fast weights (matrices of neural and mlp) starts.
        rule: sgd, momentum, titans (momentum and forgetting) or adam.
        momentum, forget: where these learned rates start (rules that use them).
        clip: largest norm of a row's surprise; None: no limit.
        meta_gradient: second, first, none, or last_K.
        head: a separate write head beside the backbone's own. It starts as a copy: what the first gradients write is
            then in the words the read head understands; from an unrelated start nothing is learnt.
        projection: a learned linear map of the memory in front of the backbone, started as the identity.
        weigh: each token counts in the write by a learned weight between 0 and 2, from it and the seven before it;
            all of them 1 at first. Titans' theta of the token, for a log-loss: filler need not be written.
        weigh_steps: with `weigh`, each step of a write has weights of its own; the last one's serve further steps. So
            a first step may write all of a pair, and the last mend what is asked for alone.
        weight: w of the outer loss, read + w * write.
        recompute: keep nearly no activations of the write steps; slower, memory nearly flat in K.
    """

    steps: int = 2
    lr: float = 2.5
    memory_lr: float = 0.03
    rule: str = "sgd"
    momentum: float = 0.5
    forget: float = 0.01
    clip: float | None = None
    meta_gradient: str = "second"
    head: bool = True
    projection: bool = False
    weigh: bool = False
    weigh_steps: bool = False
    weight: float = 0.5
    recompute: bool = False

    def __post_init__(self):
        check_meta_gradient(self.meta_gradient)
        one_of(self, {"rule": tuple(RULES)})
        own(self, "rule", {"momentum": ("momentum", "titans"), "forget": ("titans",)})
        at_least(self, {"steps": 0, "weight": 0})
        positive(self, ("lr", "memory_lr", "clip"))
        if self.weigh_steps and not self.weigh:
            raise ValueError("weigh_steps must be False where weigh is: without weights of tokens no step has its own")
        if self.weigh and self.meta_gradient in ("first", "none"):
            raise ValueError(f"weigh must be False for meta_gradient={self.meta_gradient}, which cannot train it")
        self.make_rule()
        self.make_rates(["mem"])

    def make_rule(self) -> Rule:
        """The rule, behind clipping where asked."""
        rule = RULES[self.rule]()
        return chain(clip(self.clip), rule) if self.clip is not None else rule

    def make_rates(self, names: list[str]) -> LearnedRates:
        """The learned rates of the fast weights: the tokens start at `lr`, weight matrices at `memory_lr`."""
        used = {"momentum": ("momentum",), "titans": ("momentum", "forget")}.get(self.rule, ())
        lr = {name: self.lr if name == "mem" else self.memory_lr for name in names}
        return LearnedRates(lr, max(self.steps, 1), **{part: getattr(self, part) for part in used})


class MetaMemory(nn.Module):
    """A backbone and a memory that it learns to write by gradient descent.

    >>> from ttmem.memories import MemoryTokens
    >>> from ttmem.models import Transformer, TransformerConfig
    >>> model = MetaMemory(Transformer(TransformerConfig(dim=32, layers=2)), MemoryTokens(slots=4, dim=32))
    >>> state, log = model.write(model.start(3), torch.randint(4, 66, (3, 20)))   # 3 contexts of 20 tokens
    >>> state.fast["mem"].shape, log.loss.shape                                   # all that is kept; loss per step, row
    (torch.Size([3, 4, 32]), torch.Size([2, 3]))
    """

    takes_steps = True  # a write of any number of steps can be asked for
    neutral = ("weigh",)  # what changes nothing at first: a run may start from a checkpoint without it

    def __init__(self, backbone: Backbone, memory: Memory, config: WriteConfig = WriteConfig(), pad: int = 0):
        super().__init__()
        if memory.dim != backbone.dim:
            raise ValueError(f"memory has dim {memory.dim}, the backbone {backbone.dim}: give both the same")
        fits(backbone, memory.slots)
        self.backbone, self.memory, self.config, self.pad = backbone, memory, config, pad
        self.rates = config.make_rates(memory.names)
        self.write_head = copy.deepcopy(backbone.head) if config.head else None
        self.projection = nn.Parameter(torch.eye(memory.dim)) if config.projection else None
        kinds = max(config.steps, 1) if config.weigh_steps else 1
        self.weigh = TokenWeights(memory.dim, kinds) if config.weigh else None

    def start(self, batch: int) -> State:
        """A memory that has read nothing, for `batch` rows."""
        return State(self.memory.start(batch))

    def write(self, state: State, context: Int[Tensor, "b t"], steps: int | None = None) -> tuple[State, Log]:
        """K gradient steps on the context; what comes back holds the memory tokens alone.

        The log's `loss` and `surprise` are `(steps, batch)`: nats per token and gradient norm before each step. A row
        that is all padding keeps its memory.
        """
        steps, rule = self.config.steps if steps is None else steps, self.config.make_rule()
        not_negative(steps=steps)
        state = of_rows(state, len(context), self.start(1).fast)
        context = self.filled(context)
        sources = self.sources(context, steps)
        step = scheduled_step(self.objective(state), rule, self.rates, self.config.meta_gradient, steps)
        opened = begin(rule, self.memory.open(state.fast))
        stream = [(context, source) for source in sources[:steps]]
        kept_again = self.config.meta_gradient not in ("first", "none")  # these keep nothing that could be made again
        written, log = fold(step, opened, stream, self.config.recompute and kept_again)
        source = sources[-1]
        told = source.mask.any(1)[:, None, None]
        tokens = torch.where(told, self.memory.tokens(written.fast, source), state.fast["mem"])
        kept = State({"mem": tokens}, (), state.step + 1)
        return (detach(kept) if self.config.meta_gradient == "none" else kept), log

    def filled(self, context: Int[Tensor, "r t"]) -> Int[Tensor, "r _"]:
        """The context with its padding on the right, at least one token wide."""
        return pushed(context, self.pad) if context.shape[1] else F.pad(context, (0, 1), value=self.pad)

    def objective(self, before: State) -> Objective:
        """What a write of `(context, source)` makes smaller; `before` is the memory it begins with."""

        def loss(fast: Tree, data: tuple[Tensor, Source]) -> Tensor:
            context, source = data
            return self.reconstruction(self.memory.tokens(fast, source), context, source)

        return loss

    def sources(self, context: Int[Tensor, "b t"], steps: int) -> list[Source]:
        """For each step (at least one): the context's embeddings, which of them are tokens, how much each counts; and
        what the backbone makes of all but the last of them whatever the memory holds, made once for all steps."""
        embeddings, mask = self.backbone.embed(context), context != self.pad
        ahead = getattr(self.backbone, "ahead", lambda x: x)(embeddings[:, :-1])
        weights = [None] if self.weigh is None else self.weigh(embeddings).unbind(-1)
        return [Source(embeddings, mask, weights[min(i, len(weights) - 1)], ahead) for i in range(max(steps, 1))]

    def reconstruction(
        self, tokens: Float[Tensor, "b m d"], context: Int[Tensor, "r t"], source: Source
    ) -> Float[Tensor, "r"]:
        """The write loss: mean nats per token of the context, each predicted from the memory and what came before.

        `r` is a multiple of `b`: contexts that belong together share a memory.
        """
        ahead = source.embeddings[:, :-1] if source.ahead is None else source.ahead
        hidden, last = self.backbone.hidden(ahead, self.project(tokens))
        assert last is not None
        hidden = torch.cat([spread(last, len(hidden))[:, None], hidden], dim=1)
        logits = self.backbone.logits(hidden) if self.write_head is None else self.write_head(hidden)
        return token_loss(logits, context, source.mask, source.weight)

    def project(self, tokens: Float[Tensor, "b m d"]) -> Float[Tensor, "b m d"]:
        """The memory as the backbone sees it."""
        return tokens if self.projection is None else tokens @ self.projection.to(tokens.dtype)

    def read(self, state: State, query: Int[Tensor, "b q s"], target: Int[Tensor, "b q y"]) -> Float[Tensor, "b q y v"]:
        """Logits of every target token, given the memory, the query and the target tokens before it."""
        memory = self.project(of_rows(state, len(query), self.start(1).fast).fast["mem"])
        return answer_logits(self.backbone, memory, join(query, target, self.pad), len(query))

    def loss(self, episode: Episode) -> Outcome:
        """Write each context once, answer all its questions: read loss + w * write loss at the written memory."""
        state, log = self.outer_write(episode.context)
        outcome = score(self.read(state, episode.query, episode.target), episode)
        parts = outcome.parts
        if len(log.loss):
            parts = parts | {"write_first": log.loss[0].detach().mean()}
        if not self.config.weight:
            return outcome._replace(parts=parts)
        left = self.left(state, episode.context)
        return outcome._replace(loss=outcome.loss + self.config.weight * left, parts=parts | {"write": left.detach()})

    def outer_write(self, context: Int[Tensor, "b t"]) -> tuple[State, Log]:
        """The write that the outer loop differentiates through."""
        return self.write(self.start(len(context)), context)

    def left(self, state: State, context: Int[Tensor, "b t"]) -> Float[Tensor, ""]:
        """The write loss that the written memory leaves, over the batch."""
        return self.remains(state, context).mean()

    def remains(self, state: State, context: Int[Tensor, "r t"]) -> Float[Tensor, "r"]:
        """The write loss of each context at the written memory, as the last step weighs it; these weights are taken as
        given, or the outer loop would make it small by making them so."""
        context = self.filled(context)
        source = self.sources(context, self.config.steps)[-1]
        source = source if source.weight is None else source._replace(weight=source.weight.detach())
        return self.reconstruction(state.fast["mem"], context, source)

    forward = loss


class TokenWeights(nn.Module):
    """`2 sigmoid(MLP(conv(norm(x))))`: a number for each token and step, from the token and those before it; at first 1
    for all."""

    def __init__(self, dim: int, steps: int = 1, kernel: int = 8):
        super().__init__()
        self.norm, self.conv = RMSNorm(dim), CausalConv(dim, kernel)
        self.hidden, self.out = nn.Linear(dim, dim), nn.Linear(dim, steps)
        nn.init.zeros_(self.out.weight)
        nn.init.zeros_(self.out.bias)

    def forward(self, x: Float[Tensor, "b t d"]) -> Float[Tensor, "b t k"]:
        """Weigh."""
        return 2 * self.out(F.silu(self.hidden(self.conv(self.norm(x))))).sigmoid()

    @property
    def per_step(self) -> dict[str, int]:
        """The parameters whose first dimension counts steps, and how many they have."""
        return {"out.weight": self.out.out_features, "out.bias": self.out.out_features}
