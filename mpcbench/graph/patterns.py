"""What a captured node computes, recognised from its structure.

Each matcher looks at one node of ``torch.export``'s graph and answers with a :class:`Match` (an operator
of :data:`~mpcbench.graph.secure_graph.OPERATORS`, the captured nodes it reads, the tensors it uses) or
None. Structure, not class names, decides wherever it can, so that relatives of Llama match as well.
"""

from __future__ import annotations

from collections.abc import Callable, Iterator
from dataclasses import dataclass, field

import torch
from torch.fx import Node as FxNode

from mpcbench.errors import UserError
from mpcbench.graph.capture import Captured

aten = torch.ops.aten
_CASTS = {
    aten.to.dtype,
    aten.to.device,
    aten.to.dtype_layout,
    aten.contiguous.default,
    aten.clone.default,
    aten.alias.default,
    aten.detach.default,
    aten.dropout.default,
}
_RESHAPES = {aten.view.default, aten.reshape.default, aten._unsafe_view.default, aten.unsqueeze.default}
_END = 2**62  # slices to the end carry a huge number


@dataclass
class Match:
    """One recognised operator and the captured nodes that it reads."""

    op: str
    inputs: list[FxNode] = field(default_factory=list)
    weights: list[FxNode] = field(default_factory=list)
    attrs: dict = field(default_factory=dict)


def settled(node: FxNode) -> FxNode:
    """The node itself, or what it copies when it is a cast or a copy (float32 throughout)."""
    while node.op == "call_function" and node.target in _CASTS:
        node = node.args[0]
    return node


def match(captured: Captured, node: FxNode) -> Match:
    """Recognise ``node``; raises UserError naming module and operator when nothing fits."""
    if node is captured.tokens:
        return Match("tokens")
    for matcher in _MATCHERS:
        found = matcher(captured, node)
        if found is not None:
            return found
    where = captured.origin(node).path or "the model"
    raise UserError(
        f"{where} uses {node.target}, for which there is no secure operator: use a Llama-family model."
    )


def concrete_shape(node: FxNode) -> list[int]:
    """A node's shape with -1 for the dimension that depends on the number of tokens."""
    shape = [int(d) if isinstance(d, int) else -1 for d in node.meta["val"].shape]
    if shape.count(-1) > 1:
        raise UserError(f"{node.name} has two dimensions that depend on the number of tokens.")
    return shape


def ancestors(node: FxNode) -> Iterator[FxNode]:
    """``node`` and everything it is computed from, each once."""
    seen, stack = set(), [node]
    while stack:
        current = stack.pop()
        if current not in seen:
            seen.add(current)
            yield current
            stack.extend(current.all_input_nodes)


def _is(node: object, *targets: object) -> bool:
    return isinstance(node, FxNode) and node.op == "call_function" and node.target in targets


def _args(node: FxNode) -> list[FxNode]:
    return [settled(arg) for arg in node.args if isinstance(arg, FxNode)]


def _either(node: FxNode, test: Callable[[FxNode], bool]) -> tuple[FxNode, FxNode] | None:
    """The two operands of a commutative node, the one that passes ``test`` first."""
    operands = _args(node)
    if len(operands) != 2:
        return None
    first, second = operands
    if test(first):
        return first, second
    return (second, first) if test(second) else None


def _rms_norm(captured: Captured, node: FxNode) -> Match | None:
    """``[gain ·] x · rsqrt(mean(x²) + eps)``."""
    if not _is(node, aten.mul.Tensor):
        return None
    gain: list[FxNode] = []
    with_gain = _either(node, lambda n: n.name in captured.tensors)
    if with_gain is not None:
        gain, node = [with_gain[0]], with_gain[1]
    pair = _either(node, lambda n: _is(n, aten.rsqrt.default)) if _is(node, aten.mul.Tensor) else None
    if pair is None:
        return None
    root, x = pair
    shifted = settled(root.args[0])
    if not _is(shifted, aten.add.Tensor) or not isinstance(shifted.args[1], float):
        return None
    mean = settled(shifted.args[0])
    square = settled(mean.args[0]) if _is(mean, aten.mean.dim) and mean.args[1] == [-1] else None
    if not _is(square, aten.pow.Tensor_Scalar) or square.args[1] != 2 or settled(square.args[0]) is not x:
        return None
    return Match("rms_norm", [x], gain, {"eps": shifted.args[1]})


def _polynomial_glu(captured: Captured, node: FxNode) -> Match | None:
    """The whole region of a PolynomialGLU module, from its last multiplication."""
    here = captured.origin(node)
    if here.class_name != "PolynomialGLU" or not _is(node, aten.mul.Tensor):
        return None
    value, up = _args(node)
    outside: list[FxNode] = []
    stack, coefficients = [value], None
    while stack:
        current = settled(stack.pop())
        if current.name in captured.tensors:
            coefficients = current
        elif captured.origin(current) == here:
            stack.extend(current.all_input_nodes)
        elif current not in outside:
            outside.append(current)
    if coefficients is None or len(outside) != 1:
        return None
    degree = captured.tensors[coefficients.name].shape[0] - 1
    return Match("polynomial_glu", [outside[0], up], [coefficients], {"degree": degree})


def _swiglu(captured: Captured, node: FxNode) -> Match | None:
    pair = _either(node, lambda n: _is(n, aten.silu.default)) if _is(node, aten.mul.Tensor) else None
    return None if pair is None else Match("swiglu", [settled(pair[0].args[0]), pair[1]])


def _rope(captured: Captured, node: FxNode) -> Match | None:
    """``x · cos + rotate_half(x) · sin`` with tables made by a rotary embedding module."""
    if not _is(node, aten.add.Tensor):
        return None
    products = _args(node)
    if len(products) != 2 or not all(_is(p, aten.mul.Tensor) for p in products):
        return None
    straight, turned = products
    cos = _table(captured, straight, aten.cos.default)
    sin = _table(captured, turned, aten.sin.default)
    if cos is None or sin is None:
        return None
    x = cos[0]
    half = int(x.meta["val"].shape[-1]) // 2
    if not _is_rotate_half(sin[0], x, half):
        raise UserError(f"{captured.origin(node).path} rotates only a part of each head: no such operator.")
    frequencies = [n for n in ancestors(cos[1]) if n.name in captured.tensors]
    scale = [n.args[1] for n in ancestors(cos[1]) if _is(n, aten.mul.Tensor) and isinstance(n.args[1], float)]
    if len(frequencies) != 1:
        return None
    return Match("rope", [x], frequencies, {"scale": float(scale[0]) if scale else 1.0})


def _table(captured: Captured, product: FxNode, function: object) -> tuple[FxNode, FxNode] | None:
    def is_table(node: FxNode) -> bool:
        while _is(node, aten.unsqueeze.default):
            node = settled(node.args[0])
        made_here = captured.origin(node).class_name.endswith("RotaryEmbedding")
        return made_here and any(_is(n, function) for n in ancestors(node))

    pair = _either(product, is_table)
    return None if pair is None else (pair[1], pair[0])


def _is_rotate_half(node: FxNode, x: FxNode, half: int) -> bool:
    if not _is(node, aten.cat.default) or len(node.args[0]) != 2:
        return False
    negated, kept = (settled(part) for part in node.args[0])
    upper = settled(negated.args[0]) if _is(negated, aten.neg.default) else None
    return (
        _is(upper, aten.slice.Tensor)
        and settled(upper.args[0]) is x
        and upper.args[2] == half
        and _is(kept, aten.slice.Tensor)
        and settled(kept.args[0]) is x
        and kept.args[3] == half
    )


def _attention(captured: Captured, node: FxNode) -> Match | None:
    """Scaled dot-product attention; repeated key/value heads are undone, the mask must be causal."""
    if not _is(node, aten.scaled_dot_product_attention.default):
        return None
    q, k, v = (settled(arg) for arg in node.args[:3])
    if not _is_causal(captured, node):
        where = captured.origin(node).path
        raise UserError(f"{where} has an attention mask that is not causal: no such operator.")
    scale = node.kwargs.get("scale") or int(q.meta["val"].shape[-1]) ** -0.5
    k, v = _unrepeated(k), _unrepeated(v)
    groups = int(q.meta["val"].shape[1]) // int(k.meta["val"].shape[1])
    shape = [int(q.meta["val"].shape[i]) for i in (1, 3)]
    return Match(
        "attention", [q, k, v], [], {"scale": scale, "groups": groups, "heads": shape[0], "dim": shape[1]}
    )


def _unrepeated(node: FxNode) -> FxNode:
    """Undo Transformers' repeat_kv: reshape(expand(unsqueeze(x, 2)))."""
    if _is(node, aten.reshape.default):
        expand = settled(node.args[0])
        if _is(expand, aten.expand.default):
            inserted = settled(expand.args[0])
            if _is(inserted, aten.unsqueeze.default) and inserted.args[1] == 2:
                return settled(inserted.args[0])
    return node


def _is_causal(captured: Captured, node: FxNode) -> bool:
    mask = node.args[3] if len(node.args) > 3 else node.kwargs.get("attn_mask")
    if mask is None:
        return bool(node.args[5] if len(node.args) > 5 else node.kwargs.get("is_causal", False))
    count = 12
    value = _evaluate(captured, mask, torch.zeros(1, count, dtype=torch.long))
    allowed = value if value.dtype == torch.bool else value == 0
    return bool((allowed == torch.ones(count, count).tril().bool()).all())


def _evaluate(captured: Captured, node: FxNode, tokens: torch.Tensor) -> torch.Tensor:
    """Run the (public) part of the captured graph that computes ``node``."""
    order = [n for n in captured.graph.nodes if n in set(ancestors(node))]
    env: dict[FxNode, object] = {}
    for current in order:
        if current.op == "placeholder":
            env[current] = tokens if current is captured.tokens else captured.tensors[current.name]
        else:
            args, kwargs = torch.fx.node.map_arg((current.args, current.kwargs), lambda n: env[n])
            if "device" in kwargs:  # a mask has values, also where the model is on the meta device
                kwargs = {**kwargs, "device": "cpu"}
            env[current] = current.target(*args, **kwargs)
    return env[node]


def _embedding(captured: Captured, node: FxNode) -> Match | None:
    if not _is(node, aten.embedding.default):
        return None
    return Match("embedding", [settled(node.args[1])], [node.args[0]])


def _linear(captured: Captured, node: FxNode) -> Match | None:
    if not _is(node, aten.linear.default):
        return None
    weights = [arg for arg in node.args[1:] if isinstance(arg, FxNode)]
    return Match("linear", [settled(node.args[0])], weights)


def _add(captured: Captured, node: FxNode) -> Match | None:
    operands = _args(node) if _is(node, aten.add.Tensor) else []
    same = len(operands) == 2 and operands[0].meta["val"].shape == operands[1].meta["val"].shape
    return Match("add", operands) if same else None


def _shape(captured: Captured, node: FxNode) -> Match | None:
    if _is(node, *_RESHAPES):
        return Match("reshape", [settled(node.args[0])], [], {"shape": concrete_shape(node)})
    if _is(node, aten.transpose.int):
        return Match("transpose", [settled(node.args[0])], [], {"dims": list(node.args[1:3])})
    if _is(node, aten.slice.Tensor) and node.args[1] == 1 and node.args[2] == -1 and node.args[3] > _END:
        return Match("last_token", [settled(node.args[0])])
    return None


_MATCHERS = (
    _rms_norm, _polynomial_glu, _swiglu, _rope, _attention, _embedding, _linear, _add, _shape,
)  # fmt: skip
