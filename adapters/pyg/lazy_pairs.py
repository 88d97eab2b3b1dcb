"""Lazy functions of both ends of an edge: f(a_i + b_j + e), products of it, and concatenations.

A Pair holds features of nodes, not messages. What a layer computes from its messages row by row is computed from those
features where a rewrite is exact and nodes are fewer than edges (lazy_functions.py). A reduction of a Pair is one
pair_reduce, and its product with attention vectors, summed, is one pair_dot. Neither stores anything of the size of
edges x features. Any other operation settles the Pair: it becomes the tensor that PyG would have computed.
"""

from __future__ import annotations

import weakref
from collections.abc import Callable, Sequence
from typing import Any, NamedTuple

import torch
from torch import Tensor

from gnna_plugin import report, surroundings

from . import consume
from .index_errors import as_index_error
from .lazy import LazyMessage, Value, new_handle, with_dims
from .small_graphs import mark_composed

_plain = torch._C.DisableTorchFunctionSubclass
_ops = torch.ops.gnna
_address = torch._C._data_address  # type: ignore[attr-defined]  # unlike data_ptr(), it does not end copy-on-write sharing


class Term(NamedTuple):
    """Features [N, *S] of nodes, of which every edge e reads the row ids[e]."""

    ids: Tensor
    features: Tensor


class Form(NamedTuple):
    """The messages f(sum of terms + edges) * scale * product of factors.

    Attributes:
        terms: at most two, with different indices.
        edges: [E, *S] or None.
        function: a name that the pair ops know, see csrc/torch/library.cpp.
        parameter: of the function.
        scale: [E, *W], a weight per edge (W is a prefix of S), or None.
        factors: at most one per index.
        shared: [1, *S], which multiplies the messages of all edges, or None.
    """

    terms: tuple[Term, ...] = ()
    edges: Tensor | None = None
    function: str = "identity"
    parameter: float = 0.0
    scale: Tensor | None = None
    factors: tuple[Term, ...] = ()
    shared: Tensor | None = None

    def is_sum(self) -> bool:
        return self.function == "identity" and self.scale is None and not self.factors and self.shared is None

    def describe(self, dst: Tensor) -> str:
        """Return the formula, such as "relu(a_i + b_j) * w". i marks features of the destinations `dst`."""

        def named(terms: tuple[Term, ...], of_destination: str, of_source: str) -> list[str]:
            return sorted(of_destination if same_index(t.ids, dst) else of_source for t in terms)

        inner = " + ".join(named(self.terms, "a_i", "b_j") + ([] if self.edges is None else ["e"]))
        if self.function != "identity":
            inner = f"{self.function}({inner})"
        elif not self.is_sum() and "+" in inner:
            inner = f"({inner})"
        others = named(self.factors, "u_i", "v_j")
        others += [name for name, t in (("w", self.scale), ("c", self.shared)) if t is not None]
        return " * ".join([inner, *others])

    def map(self, function: Callable[[Tensor], Tensor]) -> Form:
        """Return the form with a function applied to every operand that has the features of a message."""

        def of_terms(terms: tuple[Term, ...]) -> tuple[Term, ...]:
            return tuple(Term(t.ids, function(t.features)) for t in terms)

        return self._replace(
            terms=of_terms(self.terms),
            edges=None if self.edges is None else function(self.edges),
            factors=of_terms(self.factors),
            shared=None if self.shared is None else function(self.shared),
        )


def same_index(a: Tensor, b: Tensor) -> bool:
    """Return whether two index tensors are the same memory."""
    if a is b:
        return True
    layouts = [(t.storage_offset(), t.numel(), t.stride(), t.dtype) for t in (a, b)]
    return layouts[0] == layouts[1] and _address(a) == _address(b)


class Expression(Value):
    """A value without an x of its own: its x is a template with the shape of one message, [1, *S].

    Attributes:
        bases: the gathered values whose features it holds unchanged, and whose versions are checked.
    """

    foldable = False
    __slots__ = ("bases", "recorded")

    def __init__(self, like: Value, shape: Sequence[int], bases: tuple[Value, ...], operands: list[Tensor]) -> None:
        template = like.x.new_empty((1, *shape[1:]), dtype=operands[0].dtype)
        self.recorded = torch.is_grad_enabled() and any(t.requires_grad for t in operands)
        if self.recorded:
            template.requires_grad_()
        super().__init__(template, like.src, like.conv, like.source, like.index, None, 0, like.call)
        self.bases = bases

    def work(self) -> int:
        """Return the number of elements of the messages."""
        return self.src.numel() * self.x.numel()

    def check_versions(self) -> None:
        for base in self.bases:
            base.check_versions()

    def settle(self, operation: str) -> None:
        """Turn the handle into PyG's tensor, with a gradient to the features of the nodes."""
        handles = [handle for ref in self.handles if (handle := ref()) is not None]
        if not handles:
            self.handles.clear()
            return
        (handle,) = handles
        self.check_versions()
        with _plain(), surroundings.outside_transforms(), torch.set_grad_enabled(self.recorded):
            messages = self.compute()
        self.handles.clear()
        self.settled = True
        with _plain(), surroundings.outside_transforms():
            _become(handle, messages, self.layer)
        report.materialised(self.layer, operation, messages.numel())


def _become(handle: Tensor, tensor: Tensor, layer: str) -> None:
    """Turn a handle into this tensor, with its place in the autograd graph."""
    torch.ops.gnna.arm(handle, False)
    tensor = tensor.contiguous()
    wanted = handle.requires_grad
    try:
        torch._C._swap_tensor_impl(handle, tensor)
    except RuntimeError:  # C++ code holds the handle: only its memory can be filled
        if wanted:
            raise RuntimeError(
                f"{layer}: an operation in C++ received a function of gathered features, to which it cannot pass the "
                "gradient; give it a copy, (x_i + x_j).clone(), or exclude the layer with `conv.gnna = False`"
            ) from None
        torch.ops.gnna.fill(handle, tensor.detach().clone())
    handle.__class__ = Tensor
    handle.__dict__.pop("_value", None)
    handle.__dict__.pop("_shape", None)


def register_expression(value: Expression) -> LazyMessage:
    mark_composed(value.conv)
    value.call.values.append(weakref.ref(value))
    return new_handle(value)


class Pair(Expression):
    """Messages in a Form."""

    __slots__ = ("form",)

    def __init__(self, like: Value, shape: Sequence[int], form: Form, bases: tuple[Value, ...]) -> None:
        tensors = [t.features for t in (*form.terms, *form.factors)]
        tensors += [t for t in (form.edges, form.scale, form.shared) if t is not None]
        super().__init__(like, shape, bases, tensors)
        self.form = form

    def compute(self) -> Tensor:
        form = self.form
        ends = self._ends()
        if ends is None:  # all features are those of one end, so no op of both ends is needed
            out = FUNCTIONS[form.function](_sum_of_operands(form), form.parameter)
            for factor in form.factors:
                out = out * _gathered(factor)
            out = out if form.shared is None else out * form.shared
            return out if form.scale is None else out * with_dims(form.scale, out.dim())
        src, dst = ends
        operands = self._operands(src, dst, saved=self.recorded)
        rows, cols, left, right = operands
        left = _times(left, form.shared)
        num_src, num_dst = self._rows(src), self._rows(dst)
        return self._run(
            num_src, _ops.pair_map, rows, cols, form.edges, form.scale, left, right, src, dst, num_src, num_dst,
            form.function, form.parameter, 0, True,
        )  # fmt: skip

    def reduce(self, dst: Tensor, num_dst: int, reduce: str) -> Tensor | Any:
        out = self.reduced(dst, num_dst, reduce)
        if out is not NotImplemented:
            report.fused(self.layer, form=self.form.describe(dst), work=self.work())
        return out

    def reduced(self, dst: Tensor, num_dst: int, reduce: str) -> Tensor | Any:
        """Reduce the messages over their destinations: [num_dst, *S], or NotImplemented."""
        form = self.form
        others = [t for t in (*form.terms, *form.factors) if not same_index(t.ids, dst)]
        extremum = reduce in ("max", "min")
        if extremum and not (form.scale is None and form.shared is None and not form.factors):
            return NotImplemented
        src = others[0].ids if others else dst
        if any(not same_index(t.ids, src) for t in others) or not others:
            return NotImplemented
        if any(t.features.size(0) != num_dst for t in (*form.terms, *form.factors) if same_index(t.ids, dst)):
            return NotImplemented
        self.check_versions()
        rows, cols, left, right = self._operands(src, dst, saved=self.recorded)
        left = _times(left, form.shared)
        num_src = others[0].features.size(0)
        if extremum and left is not None:
            return NotImplemented
        return self._run(
            num_src, _ops.pair_reduce, rows, cols, form.edges, form.scale, left, right, src, dst, num_src, num_dst,
            form.function, form.parameter, 0, reduce, True,
        )  # fmt: skip

    def summed(self, kept: int) -> Tensor | Any:
        """Return the messages summed over all feature dimensions but the first `kept`: [E, *S[:kept]]."""
        form, ends = self.form, self._ends()
        if ends is None or form.scale is not None:
            return NotImplemented
        src, dst = ends
        self.check_versions()
        rows, cols, left, right = self._operands(src, dst, saved=self.recorded)
        left, edges = _times(left, form.shared), form.edges
        if src.is_cuda and torch.is_autocast_enabled():  # autocast runs sums of 16-bit values in float32
            rows, cols, edges, left, right = map(_widened, (rows, cols, edges, left, right))
        num_src, num_dst = self._rows(src), self._rows(dst)
        out = self._run(
            num_src, _ops.pair_dot, rows, cols, edges, left, right, src, dst, num_src, num_dst, form.function,
            form.parameter, 0, kept, True,
        )  # fmt: skip
        report.fused(self.layer, form=f"scores sum({form.describe(dst)})", work=self.work())
        return out

    def _ends(self) -> tuple[Tensor, Tensor] | None:
        """Return the two indices, the layer's destinations second; None if there is one index."""
        first: Tensor | None = None
        for term in (*self.form.terms, *self.form.factors):
            if first is None:
                first = term.ids
            elif not same_index(first, term.ids):
                ends = (first, term.ids)
                by_target = self.conv.flow == "source_to_target"
                # The rows of edge_index are sources and destinations.
                ascending = first.storage_offset() <= term.ids.storage_offset()
                return ends if ascending == by_target else ends[::-1]
        return None

    def _rows(self, index: Tensor) -> int:
        return next(t.features.size(0) for t in (*self.form.terms, *self.form.factors) if same_index(t.ids, index))

    def _operands(self, src: Tensor, dst: Tensor, saved: bool) -> list[Tensor | None]:
        """Return rows, cols, left and right, in a form that the backward pass can keep."""
        found = []
        for terms in (self.form.terms, self.form.factors):
            for index in (dst, src):
                features = next((t.features for t in terms if same_index(t.ids, index)), None)
                found.append(consume.kept_features(features) if saved and features is not None else features)
        return found

    def _run(self, num_src: int, op: Callable, *operands: Any) -> Tensor:
        """Run a pair op, with PyG's exception for an index out of range."""
        try:
            return op(*operands)
        except ValueError as error:
            text = str(error)
            if text.startswith("dst[") and self._gathers_destinations():
                text = f"src{text[3:]}"  # PyG finds it when it gathers x_i, as it does a bad source
            raise as_index_error(text, self.call, num_src) from None

    def _gathers_destinations(self) -> bool:
        ends = self._ends()
        return ends is not None and any(same_index(t.ids, ends[1]) for t in (*self.form.terms, *self.form.factors))


def _gathered(term: Term) -> Tensor:
    return term.features.index_select(0, term.ids)


def _widened(t: Tensor | None) -> Tensor | None:
    return t.float() if t is not None and t.itemsize == 2 else t


def _times(a: Tensor | None, b: Tensor | None) -> Tensor | None:
    return b if a is None else a if b is None else a * b


class Concatenation(Expression):
    """torch.cat of pieces along the last dimension: sums (Form) and tensors [E, *S, K]."""

    __slots__ = ("pieces",)

    def __init__(self, like: Value, shape: Sequence[int], pieces: list[Form], bases: tuple[Value, ...]) -> None:
        tensors = [t.features for piece in pieces for t in piece.terms]
        tensors += [piece.edges for piece in pieces if piece.edges is not None]
        super().__init__(like, shape, bases, tensors)
        self.pieces = pieces

    def compute(self) -> Tensor:
        return torch.cat([_sum_of_operands(piece) for piece in self.pieces], dim=-1)


def _sum_of_operands(form: Form) -> Tensor:
    values = [_gathered(term) for term in form.terms] + ([] if form.edges is None else [form.edges])
    return sum(values[1:], values[0])


class HeadSum(Expression):
    """The sum of weighted messages [E, H, F] over the heads H, which is taken after the reduction."""

    __slots__ = ("messages",)

    def __init__(self, messages: LazyMessage) -> None:
        product = messages._value
        shape = (messages.shape[0], messages.shape[2])
        super().__init__(product, shape, (product,), [product.x, product.weight])
        self.messages = messages

    @staticmethod
    def takes(product: Value) -> bool:
        return not product.settled and not product.lead and product.weight is not None and product.src.numel() > 0

    def compute(self) -> Tensor:
        self.messages._value.settle("sum")
        return self.messages.sum(1)

    def reduce(self, dst: Tensor, num_dst: int, reduce: str) -> Tensor | Any:
        if reduce not in ("sum", "mean") or type(self.messages) is not LazyMessage:
            return NotImplemented
        out = consume.aggregate(self.messages, dst, num_dst, reduce)
        return out if out is NotImplemented else out.sum(1)


FUNCTIONS: dict[str, Callable[[Tensor, float], Tensor]] = {
    "identity": lambda z, _: z,
    "relu": lambda z, _: torch.relu(z),
    "leaky_relu": torch.nn.functional.leaky_relu,
    "square": lambda z, _: torch.square(z),
    "exp": lambda z, _: torch.exp(z),
    "elu": torch.nn.functional.elu,
    "gelu": lambda z, _: torch.nn.functional.gelu(z),
    "silu": lambda z, _: torch.nn.functional.silu(z),
    "sigmoid": lambda z, _: torch.sigmoid(z),
    "tanh": lambda z, _: torch.tanh(z),
}
