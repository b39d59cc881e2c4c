"""The memories of a layer: ARMT's matrix is its published formula, PRMT4's network is the engine's gradient step."""

from dataclasses import replace

import pytest
import torch
import torch.nn.functional as F

from core.titans_rows import assert_close, gradients, leaf
from ttmem.core import ChunkState, Form, Rates, Rows, associative, begin, chunkwise, fold, gradient_step, titans
from ttmem.core.network import read
from ttmem.core.state import map_state
from ttmem.memories.associative import BOUNDS, EPS, TARGETS, AssociativeMatrix, LayerNetwork, Pass, dpfp
from ttmem.nn.stacked import linear, rms_norm

pytestmark = pytest.mark.usefixtures("float64")
G, B, T, D, H = 2, 3, 5, 8, 2
MATRIX = AssociativeMatrix(D, key=3, features=2)
NETWORKS = {
    "default": LayerNetwork(D, heads=H),
    "thrice": LayerNetwork(D, heads=H, steps=3),
    "deep": LayerNetwork(D, heads=H, depth=3, steps=2, clip=None),
    "still": LayerNetwork(D, heads=H, depth=2, steps=2, momentum=False, conv=0, clip=None),
    "hidden": LayerNetwork(D, heads=H, target="hidden"),
    "overlap": LayerNetwork(D, heads=H, steps=2, bound="overlap", damped=True),
    "residual": LayerNetwork(D, heads=H, target="residual", depth=2, clip=0.3),
}
every = pytest.mark.parametrize("kind", NETWORKS)


def shaken(tree):
    """Numbers that matter, at which gradients end."""
    return {name: leaf(w + 0.3 * torch.randn_like(w)) for name, w in tree.items()}


def matrix_case():
    state = MATRIX.start(G, B, torch.zeros(()))
    return shaken(MATRIX.weights(G, 0.5)), {name: leaf(torch.rand_like(part)) for name, part in state.items()}


def network_case(kind):
    memory = NETWORKS[kind]
    weights = shaken(memory.weights(G, 0.5))
    state = shaken(memory.start(memory.init(G), B))
    seen, x, y = (leaf(torch.randn(G, B, T, D)) for _ in range(3))
    real = torch.arange(T) < torch.tensor([[T, 2, 0], [3, T, T]])[..., None]
    return memory, weights, state, Pass(seen, x, y), real


def test_features_are_products_of_rectified_neighbours_of_length_one():
    x = torch.tensor([1.0, -2.0, 3.0])
    r = [1.0, 0.0, 3.0, 0.0, 2.0, 0.0]
    wanted = torch.tensor([r[i] * r[(i - j) % 6] for j in (1, 2, 3) for i in range(6)])
    assert wanted.any()
    torch.testing.assert_close(dpfp(x, 3), wanted / wanted.norm(), rtol=0, atol=1e-12)


def test_a_matrix_is_written_and_read_by_the_published_formula():
    weights, state = matrix_case()
    tokens, x = torch.randn(G, B, 4, D), torch.randn(G, B, T, D)
    written = MATRIX.write(weights, state, tokens, torch.ones(G, B, dtype=torch.bool))
    said = MATRIX.read(weights, written, x)
    for g in range(G):
        w = {name: part[g] for name, part in weights.items()}
        for b in range(B):
            a, z = state["a"][g, b].T.clone(), state["z"][g, b].clone()
            for token in F.rms_norm(tokens[g, b], (D,), w["norm_write"], 1e-6):
                phi, v = dpfp(token @ w["memory_k"], 2), token @ w["memory_v"]
                z0 = state["z"][g, b]
                known = state["a"][g, b].T @ phi / (z0 @ phi + EPS)
                beta = torch.sigmoid(token @ w["memory_rate"])
                gamma = (1 - z0 @ phi / phi.square().sum()).clamp(0, 1)
                a, z = a + beta * torch.outer(v - known, phi), z + gamma * phi
            assert_close((written["a"][g, b].T, written["z"][g, b]), (a, z))
            for t, token in enumerate(F.rms_norm(x[g, b], (D,), w["norm_read"], 1e-6)):
                phi = dpfp(token @ w["memory_q"], 2)
                assert_close((said[g, b, t],), (a @ phi / (z @ phi + EPS),))


def test_how_new_a_key_is_is_a_constant_to_the_outer_loop():
    weights, state = matrix_case()
    tokens = torch.randn(G, B, 4, D)
    small = state | {"z": leaf(0.1 * state["z"])}  # gamma between 0 and 1
    written = MATRIX.write(weights, small, tokens, torch.ones(G, B, dtype=torch.bool))
    (grad,) = torch.autograd.grad(written["z"].sum(), small["z"])
    torch.testing.assert_close(grad, torch.ones_like(grad))


def test_an_empty_matrix_says_nothing_and_one_key_is_recalled_exactly():
    weights, _ = matrix_case()
    empty, x = MATRIX.start(G, B, torch.zeros(())), torch.randn(G, B, 1, D)
    assert not MATRIX.read(weights, empty, x).any()
    same = weights | {"memory_q": weights["memory_k"], "norm_read": weights["norm_write"]}
    certain = same | {"memory_rate": torch.zeros_like(weights["memory_rate"])}  # beta 1/2
    full = MATRIX.write(certain, empty, x, torch.ones(G, B, dtype=torch.bool))
    value = linear(rms_norm(x, weights["norm_write"]), weights["memory_v"])
    torch.testing.assert_close(MATRIX.read(certain, full, x), value / 2, rtol=2 * EPS, atol=1e-9)


def test_rows_that_are_not_active_keep_their_matrix_to_the_last_bit():
    weights, state = matrix_case()
    active = torch.tensor([[True, False, True], [False, True, True]])
    written = MATRIX.write(weights, state, torch.randn(G, B, 4, D), active)
    for name, part in written.items():
        assert torch.equal((part == state[name]).flatten(2).all(-1), ~active)


def engine(memory, weights, state, done, real, steps):
    """The write by the engine: autograd's gradient of the weighted objective, and the rule of Titans."""
    k, v = memory.associations(weights, done)
    said = linear(done.seen, weights["memory_rates"]) + weights["memory_bias"][:, None, None]
    said = said.unflatten(-1, (H, -1, memory.depth))  # g b t h gate matrix
    gate = [said[..., i, :].sigmoid() for i in range(said.shape[-2])]
    there = real[..., None, None]
    weight = gate[0] * there
    crowd = torch.ones(k.shape[0], T, T) if memory.bound == "sum" else (k[:, :, None] * k[:, None]).sum(-1).abs()
    near = crowd.unflatten(0, (G, B, H)).transpose(2, 3)  # g b t h j
    theta = 0.5 * weight / torch.einsum("gbthj,gbjhi->gbthi", near, weight).clamp_min(1)
    mean = [(said[..., i, :] * there).sum(2) / real.sum(-1).clamp_min(1)[..., None, None] for i in range(len(gate))]
    names, out = memory.names, []
    for row in range(len(k)):
        g, b, h = row // (B * H), row // H % B, row % H
        if not real[g, b].any():
            out.append({name: part[g, b, h] for name, part in state.items()})
            continue
        fast = {name: state[name][g, b, h][None] for name in names}
        past = {name: state[f"s{name[1:]}"][g, b, h][None] for name in names} if memory.momentum else None
        for _ in range(steps):
            alpha = {n: mean[-1][g, b, h, i].sigmoid() for i, n in enumerate(names)}
            eta = {n: mean[1][g, b, h, i].sigmoid() if memory.momentum else 0.0 for i, n in enumerate(names)}
            rate = {n: theta[g, b, :, h, i] * (1 - memory.damped * eta[n]) for i, n in enumerate(names)}
            grads = weighted_gradients(memory, fast, k[row], v[row], rate)
            memo = (past if past is not None else {n: torch.zeros_like(w) for n, w in fast.items()}, ())
            change, memo = titans().update(grads, memo, fast, Rates(1.0, eta, alpha))
            fast, past = {n: w + change[n] for n, w in fast.items()}, memo[0] if memory.momentum else None
        out.append({n: w[0] for n, w in fast.items()} | {f"s{n[1:]}": s[0] for n, s in (past or {}).items()})
    return {name: torch.stack([each[name] for each in out]).view_as(part) for name, part in state.items()}


def weighted_gradients(memory, fast, k, v, rate):
    """Token by token by autograd, clipped as the config says, and summed with the tokens' step sizes."""
    total = {name: torch.zeros_like(w) for name, w in fast.items()}
    for t in range(len(k)):
        loss = associative(read)(fast, (k[None, t : t + 1], v[None, t : t + 1])).sum()
        grads = torch.autograd.grad(loss, list(fast.values()), create_graph=True)
        for name, grad in zip(fast, grads, strict=True):
            limit = 1.0 if memory.clip is None else (memory.clip / grad.norm()).clamp(max=1)
            total[name] = total[name] + rate[name][t] * limit * grad
    return total


@every
def test_a_network_is_written_by_the_engines_gradient_and_rule(kind):
    memory, weights, state, done, real = network_case(kind)
    written = memory.write(weights, state, done, real)
    wanted = engine(memory, weights, state, done, real, memory.steps)
    assert_close(written, wanted)
    sources = (weights, state, tuple(done))
    grads = gradients(wanted, sources)
    assert_close(gradients(written, sources), grads)
    used = dict(zip([*weights, *state, "seen", "x", "y"], grads, strict=True))
    unused = {name for name, grad in used.items() if not grad.any()}
    layer = {"hidden": {"x"}, "residual": set()}.get(memory.target, {"x", "y"})
    assert unused == layer | {"norm_read", "norm_out", "memory_q", "memory_gate", "memory_out"} | (
        {"conv_q"} if memory.conv else set()
    )


def test_steps_on_one_segment_are_the_fold_of_the_engines_step():
    memory = replace(NETWORKS["still"], depth=1)
    weights, state = shaken(memory.weights(G, 0.5)), shaken(memory.start(memory.init(G), B))
    done = Pass(*(torch.randn(G, B, T, D) for _ in range(3)))
    real = torch.ones(G, B, T, dtype=torch.bool)
    weights["memory_rates"] = torch.zeros_like(weights["memory_rates"])  # every token and row alike
    weights["memory_bias"] = torch.tensor([1.0, -2.0]).repeat(G, H)
    theta = 0.5 * 0.7310585786300049 / max(1, T * 0.7310585786300049)
    k, v = memory.associations(weights, done)
    rates = lambda step, data: Rates(theta, 0.0, 0.11920292202211755)  # noqa: E731
    start = begin(titans(), {"w1": state["w1"].flatten(0, 2)})
    end, _ = fold(gradient_step(associative(read), titans(), rates), start, [(k, v)] * 3)
    written = memory.write(weights, state, done, real, steps=3)
    assert_close((written["w1"].flatten(0, 2),), (end.fast["w1"],))


@pytest.mark.parametrize("depth", [1, 2])
def test_without_momentum_the_write_is_the_chunkwise_engine_with_the_segment_as_its_chunk(depth):
    memory = replace(NETWORKS["still"], depth=depth, steps=3, conv=4)
    weights, state = shaken(memory.weights(G, 0.5)), shaken(memory.start(memory.init(G), B))
    done, real = Pass(*(torch.randn(G, B, T, D) for _ in range(3))), torch.ones(G, B, T, dtype=torch.bool)
    k, v = memory.associations(weights, done)
    weight, _, forget = memory.rates(weights, done.seen, real)
    theta, forget = memory.theta(weight, k), memory.by_name(forget)
    # A step forgets once, a token of the engine each time it passes: the first of the chunk does, and of no gradient.
    keeps = []
    for name in memory.names:
        keep = torch.zeros(len(k), T, 1)
        keep[:, :1] = torch.log1p(-forget[name])
        keeps.append(keep.repeat(1, 3, 1))
    rows = Rows(k.repeat(1, 3, 1), k.repeat(1, 3, 1), v.repeat(1, 3, 1), theta.repeat(1, 3, 1), None, tuple(keeps))
    fast = {name: state[name].flatten(0, 2) for name in memory.names}
    _, end = chunkwise(ChunkState(fast, {}, fast, torch.zeros(len(k), dtype=torch.long)), rows, Form(T), phase=0)
    written = memory.write(weights, state, done, real)
    assert_close({name: written[name].flatten(0, 2) for name in memory.names}, end.fast)


@every
def test_what_a_network_says_is_its_forward_pass_normed_and_gated(kind):
    memory, weights, state, done, _ = network_case(kind)
    said, e = memory.read(weights, state, done.seen), D // H
    for g in range(G):
        q = memory.project(weights, done.seen, "q")[g]
        for b in range(B):
            heads = []
            for h in range(H):
                fast = {name: state[name][g, b, h][None] for name in memory.names}
                heads.append(F.rms_norm(read(fast, F.normalize(q[b, :, h], dim=-1)[None])[0], (e,), eps=1e-4))
            y = torch.cat(heads, dim=-1) * weights["norm_out"][g]
            y = y * (done.seen[g, b] @ weights["memory_gate"][g]).sigmoid()
            assert_close((said[g, b],), (y @ weights["memory_out"][g],))


@every
def test_rows_without_a_token_keep_their_network_to_the_last_bit(kind):
    memory, weights, state, done, real = network_case(kind)
    written = memory.write(weights, state, done, real)
    for name, part in written.items():
        assert torch.equal((part == state[name]).flatten(2).all(-1), ~real.any(-1)), name


@every
def test_padding_is_not_written(kind):
    memory, weights, state, done, real = network_case(kind)
    other = Pass(*(torch.where(real[..., None], part, torch.randn_like(part)) for part in done))
    written, told = (memory.write(weights, state, each, real) for each in (done, other))
    assert all(torch.equal(told[name], part) for name, part in written.items())
    loud = memory.write(weights, state, other, torch.ones_like(real))
    assert not torch.equal(loud["w1"], written["w1"])


@pytest.mark.parametrize("t", [1, 7, 200])
@pytest.mark.parametrize("same", [True, False])
@pytest.mark.parametrize("bound", BOUNDS)
def test_a_step_on_a_linear_memory_never_makes_its_error_larger(t, same, bound):
    memory = LayerNetwork(D, heads=1, conv=0, momentum=False, clip=None, bound=bound)
    weights = memory.weights(1, 0.5)
    weights["memory_bias"] = torch.tensor([[9.0, -30.0]])  # the largest step, no forgetting
    seen = torch.randn(1, 1, 1 if same else t, D).expand(1, 1, t, D)  # one token again and again is the worst case
    done, real = Pass(seen, seen, seen), torch.ones(1, 1, t, dtype=torch.bool)
    k, v = memory.associations(weights, done)
    theta = memory.theta(memory.rates(weights, seen, real)[0], k)
    state, errors = memory.start(memory.init(1), 1), []
    for _ in range(5):
        errors.append(float((theta * (read({"w1": state["w1"].flatten(0, 2)}, k) - v).square()).sum()))
        state = memory.write(weights, state, done, real)
    assert all(after <= before + 1e-12 for before, after in zip(errors, errors[1:], strict=False)), errors
    assert errors[1] < errors[0] and (not same or errors[1] < 1e-6 * errors[0] + 1e-6)


def test_the_overlap_bound_is_tight_and_writes_unlike_keys_at_full_strength():
    memory = LayerNetwork(D, heads=1, bound="overlap")
    for k in (F.normalize(torch.randn(3, 20, D), dim=-1), F.normalize(torch.rand(3, 20, D), dim=-1)):
        for weight in (torch.ones(3, 20, 1), torch.rand(3, 20, 1)):
            step = (k @ k.mT) * (2 * memory.theta(weight, k)).mT
            size = torch.linalg.eigvals(step).abs().amax()
            assert 0.5 < size <= 1 + 1e-12  # alike or not, and never more than the whole error
    weight, unlike, same = torch.ones(1, 4, 1), torch.eye(D)[None, :4], torch.eye(D)[None, :1].expand(1, 4, D)
    assert torch.equal(memory.theta(weight, unlike), weight / 2)
    assert torch.equal(memory.theta(weight, same), weight / 8)
    assert torch.equal(replace(memory, bound="sum").theta(weight, unlike), weight / 8)


@pytest.mark.parametrize("memory", [MATRIX, *(NETWORKS[kind] for kind in ("default", "deep"))])
def test_questions_may_share_a_memory(memory):
    questions = 2
    if memory is MATRIX:
        weights, state = matrix_case()
    else:
        weights, state = shaken(memory.weights(G, 0.5)), shaken(memory.start(memory.init(G), B))
    x = torch.randn(G, B * questions, T, D)
    repeated = map_state(lambda part: part.repeat_interleave(questions, 1), state)
    assert_close((memory.read(weights, state, x),), (memory.read(weights, repeated, x),))


def test_targets_are_what_their_names_say():
    made = {name: replace(NETWORKS["default"], target=name) for name in TARGETS}
    seen, x, y = (torch.randn(G, B, T, D) for _ in range(3))
    weights = made["hidden"].weights(G, 0.5)
    found = {n: m.associations(weights, Pass(seen, x, y)) for n, m in made.items() if n != "value"}
    by_head = lambda part: part.unflatten(-1, (H, -1)).transpose(2, 3).flatten(0, 2)  # noqa: E731
    assert torch.equal(found["hidden"][1], by_head(y)) and torch.equal(found["residual"][1], by_head(y - x))
    k, v = made["value"].associations(made["value"].weights(G, 0.5), Pass(seen, x, y))
    assert v.shape == k.shape and torch.allclose(k.norm(dim=-1), torch.ones(()))
