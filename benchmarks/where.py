"""Where the time of a training step goes: the profiler's operators in a few groups."""

import torch
from one_row import Row, Setting, loss_of, make, training_step
from torch.profiler import ProfilerActivity, profile

GROUPS = {
    "matmul": ("mm", "addmm", "linear"),
    "attention": ("bmm", "baddbmm", "softmax", "masked_fill", "where"),
    "norm": ("rms_norm", "fused_rms_norm", "rsqrt", "pow", "mean"),
    "embedding & loss": ("embedding", "log_softmax", "nll_loss", "gather", "scatter", "index", "argmax", "sort"),
    "moving data": ("copy", "cat", "fill", "zero", "empty", "clone", "slice", "select", "repeat", "pad", "stack"),
    "elementwise": (
        "mul",
        "add",
        "sub",
        "div",
        "neg",
        "silu",
        "sigmoid",
        "exp",
        "sqrt",
        "square",
        "sum",
        "rsub",
        "gelu",
    ),
}
"""Operators by the start of their names. The products inside a norm or a rotation count as elementwise, and both
products of attention as attention: the profiler sees operators, not the module that asked for them."""


def group_of(operator: str) -> str:
    """The group of an operator's name.

    >>> group_of("aten::mm"), group_of("aten::bmm"), group_of("aten::_softmax_backward_data"), group_of("MmBackward0")
    ('matmul', 'attention', 'attention', 'overhead')
    """
    scope, _, name = operator.rpartition("::")
    if scope not in ("aten", "mkldnn", "mkl"):
        return "fused by the compiler" if "fused" in name or "CompiledFxGraph" in name else "overhead"
    starts = ((group, start) for group, all_starts in GROUPS.items() for start in all_starts)
    return next((group for group, start in starts if name.lstrip("_").startswith(start)), "overhead")


def shares(row: Row, setting: Setting) -> dict[str, tuple[float, int]]:
    """Milliseconds and calls by group of one step of the row, after one to warm up; on a GPU, its kernels' time."""
    torch.set_num_threads(setting.threads)
    model, episode = make(row, setting)
    step = training_step(model, loss_of(row, model, episode, setting))
    step()
    on_gpu = setting.device != "cpu"
    with profile(activities=[ProfilerActivity.CPU, *([ProfilerActivity.CUDA] if on_gpu else [])]) as seen:
        step()
    found: dict[str, tuple[float, int]] = {}
    for event in seen.key_averages():
        spent = event.self_device_time_total if on_gpu else event.self_cpu_time_total
        time, calls = found.get(group_of(event.key), (0.0, 0))
        found[group_of(event.key)] = (time + spent / 1e3, calls + event.count)
    return found


def report(row: Row, setting: Setting) -> str:
    """The groups of a row's step, largest first."""
    found = shares(row, setting)
    total = sum(time for time, _ in found.values())
    lines = [f"{row.label}: {total:.1f} ms"]
    for group, (time, calls) in sorted(found.items(), key=lambda item: -item[1][0]):
        lines.append(f"  {group:24}{time:10.1f} ms{time / total:8.1%}{calls:8} calls")
    return "\n".join(lines)
