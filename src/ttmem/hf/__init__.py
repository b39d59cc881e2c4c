"""The Titans models as Hugging Face classes: Auto classes, `from_pretrained`, `generate`, `Trainer`.

>>> import torch
>>> from transformers import AutoModelForCausalLM
>>> import ttmem.hf
>>> config = ttmem.hf.TitansConfig(architecture="mag", hidden_size=8, num_heads=2)
>>> model = AutoModelForCausalLM.from_config(config)
>>> model.generate(torch.tensor([[72, 105]]), max_new_tokens=2, do_sample=False).shape
torch.Size([1, 4])

Needs transformers (`pip install "ttmem[hf]"`); `import ttmem` alone does not load it.
"""

from transformers import AutoConfig, AutoModelForCausalLM

from .cache import TitansCache
from .config import TitansConfig
from .model import TitansForCausalLM, from_ttmem

__all__ = ["TitansCache", "TitansConfig", "TitansForCausalLM", "from_ttmem"]

AutoConfig.register(TitansConfig.model_type, TitansConfig, exist_ok=True)
AutoModelForCausalLM.register(TitansConfig, TitansForCausalLM, exist_ok=True)
