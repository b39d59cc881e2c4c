"""The inner loop: fast weights changed by gradient steps. Torch only; knows no network and no task."""

from .chunkwise import ChunkState, Form, Rows, chunkwise, tokenwise
from .gradient import surprise
from .loop import begin, fold, gradient_step, scheduled_step
from .network import Norm
from .objectives import associative, token_loss
from .rates import LearnedRates, Rates, constant, from_data
from .rules import Rule, adam, chain, clip, forget, momentum, sgd, titans
from .state import Log, State, Tree, detach

__all__ = [
    "ChunkState",
    "Form",
    "Norm",
    "Rows",
    "chunkwise",
    "tokenwise",
    "LearnedRates",
    "Log",
    "Rates",
    "Rule",
    "State",
    "Tree",
    "adam",
    "associative",
    "begin",
    "chain",
    "clip",
    "constant",
    "detach",
    "fold",
    "forget",
    "from_data",
    "gradient_step",
    "momentum",
    "scheduled_step",
    "sgd",
    "surprise",
    "titans",
    "token_loss",
]
