"""lm-eval on a task that lies in a local folder: nothing is fetched."""

import json
import math

import pytest
import torch

from hf.small import TEXT, config, tokenizer
from ttmem.hf import TitansForCausalLM

lm_eval = pytest.importorskip("lm_eval", reason='needs lm-eval: pip install "ttmem[eval]"')
HFLM = pytest.importorskip("lm_eval.models.huggingface").HFLM

TASK = """
task: {name}
dataset_path: json
dataset_kwargs: {{data_files: {{test: {folder}/data.jsonl}}, cache_dir: {folder}/cache}}
test_split: test
doc_to_text: "{{{{start}}}}"
"""
CHOICE = """
output_type: multiple_choice
doc_to_target: 0
doc_to_choice: "{{ends}}"
metric_list: [{metric: acc, aggregation: mean, higher_is_better: true}]
"""
TEXTS = """
output_type: loglikelihood_rolling
doc_to_target: "{{start}}"
metric_list: [{metric: bits_per_byte, aggregation: bits_per_byte, higher_is_better: false}]
"""


def tasks(folder):
    """Choose the last word of a text, or another; and bits per byte of what stands before it."""
    rows = [{"start": text.rsplit(" ", 1)[0], "ends": [text.rsplit(" ", 1)[1], "zebra"]} for text in TEXT[:3]]
    (folder / "data.jsonl").write_text("\n".join(map(json.dumps, rows)))
    for name, rest in (("ending", CHOICE), ("beginning", TEXTS)):
        (folder / f"{name}.yaml").write_text(TASK.format(name=name, folder=folder) + rest)
    return lm_eval.tasks.TaskManager(include_path=str(folder), include_defaults=False)


def test_a_task_of_a_local_folder_is_scored_as_by_hand(tmp_path):
    words = tokenizer()
    torch.manual_seed(0)
    made = TitansForCausalLM(config("lmm", vocab_size=len(words), num_hidden_layers=1)).eval()
    judged = HFLM(pretrained=made, tokenizer=words, backend="causal", batch_size=2, max_length=32)
    names = ["ending", "beginning"]
    found = lm_eval.simple_evaluate(judged, tasks=names, task_manager=tasks(tmp_path), bootstrap_iters=0)["results"]
    assert found["ending"]["acc,none"] in (0, 1 / 3, 2 / 3, 1)
    nats = size = 0
    for text in TEXT[:3]:
        start = text.rsplit(" ", 1)[0]
        rows = torch.tensor([[words.eos_token_id, *words(start).input_ids]])
        nats, size = nats + made(rows, labels=rows).loss.item() * (rows.shape[1] - 1), size + len(start)
    assert found["beginning"]["bits_per_byte,none"] == pytest.approx(nats / size / math.log(2), rel=1e-4)
