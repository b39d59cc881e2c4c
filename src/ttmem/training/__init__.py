"""The outer loop: slow weights learned through the write; curriculum, checkpoints, resumption, several processes."""

from .config import TrainConfig
from .curriculum import Curriculum, Promotion, Stage, Standing
from .experiment import Experiment, load_experiment, override
from .loop import Diverged, train
from .state import Result

__all__ = [
    "Curriculum",
    "Diverged",
    "Experiment",
    "Promotion",
    "Result",
    "Stage",
    "Standing",
    "TrainConfig",
    "load_experiment",
    "override",
    "train",
]
