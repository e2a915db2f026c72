"""From the shape of an expression to column operations: names and types are settled here, once."""

from __future__ import annotations

import difflib
from collections.abc import Collection, Mapping, Sequence

import numpy as np

from headrace.column import Column
from headrace.errors import ExpressionError
from headrace.expression import operands, syntax
from headrace.expression.functions import FUNCTIONS
from headrace.expression.operands import Kernel, Kind
from headrace.expression.syntax import Node
from headrace.expression.tokens import KEYWORDS
from headrace.expression.typed import Fitting, Typed, column, joined, known
from headrace.field_types import FieldType

_FLOATS: dict[str, Kernel] = {
    "+": operands.add_floats,
    "-": operands.subtract_floats,
    "*": operands.multiply_floats,
    "/": operands.divide_floats,
    "%": operands.remainder_floats,
}
_INTS: dict[str, Kernel] = {
    "+": operands.add_ints,
    "-": operands.subtract_ints,
    "*": operands.multiply_ints,
    "%": operands.remainder_ints,
}
_COMPARISONS: dict[str, np.ufunc] = {
    "=": np.equal,
    "!=": np.not_equal,
    "<": np.less,
    "<=": np.less_equal,
    ">": np.greater,
    ">=": np.greater_equal,
}
_NUMBERS = ("int", "float")
_MOST_NAMES_SHOWN = 12


class Compiler:
    """Turns the nodes of one text into column operations over fields and tags of known types."""

    def __init__(self, text: str, types: Mapping[str, FieldType]) -> None:
        self._types = types
        self._fitting = Fitting(text)
        self.names: set[str] = set()

    def compile(self, node: Node) -> Typed:  # noqa: PLR0911 - one return a kind of node
        """The node as column operations. Raises ExpressionError for an unknown name or types that do not fit."""
        match node:
            case syntax.Literal():
                return _literal(node)
            case syntax.Name():
                return self._name(node)
            case syntax.Sign():
                return self._sign(node)
            case syntax.Not():
                return joined("bool", node.at, operands.negation, self._condition(node.operand, "not"))
            case syntax.Logic():
                kernel = operands.conjunction if node.word == "and" else operands.disjunction
                return joined("bool", node.at, kernel, *[self._condition(part, node.word) for part in node.operands])
            case syntax.Binary():
                left, right = self.compile(node.left), self.compile(node.right)
                if node.sign in _COMPARISONS:
                    return self._comparison(node, left, right)
                return self._arithmetic(node, left, right)
            case syntax.Within():
                return self._within(node)
            case syntax.Between():
                return self._between(node)
            case syntax.IsNull():
                return joined("bool", node.at, operands.is_null, self.compile(node.operand))
            case syntax.Case():
                return self._case(node)
            case syntax.Call():
                return self._call(node)
        raise AssertionError(f"no such node: {node!r}")

    def whole(self, node: Node) -> Typed:
        """The whole expression: as :meth:`compile`, but it must have a type."""
        typed = self.compile(node)
        if typed.kind == "null":
            raise self._error("this is always null, so it has no type", node.at, "give it a field or a value")
        return typed

    def _error(self, message: str, at: int, hint: str) -> ExpressionError:
        return self._fitting.error(message, at, hint)

    # ---- names

    def _name(self, node: syntax.Name) -> Typed:
        kind = self._types.get(node.name)
        if kind is None:
            raise self._error(f"there is no field or tag `{node.name}`", node.at, self._name_hint(node.name))
        self.names.add(node.name)
        return column(node.name, kind, node.at)

    def _name_hint(self, name: str) -> str:
        near = nearest(name, self._types)
        if near is not None:
            return f"did you mean {written(near)}? Text is written in quotes: '{name}'"
        if not self._types:
            return "there are no fields or tags here"
        names = [written(known_name) for known_name in self._types]
        more = ", ..." if len(names) > _MOST_NAMES_SHOWN else ""
        return f"there are {', '.join(names[:_MOST_NAMES_SHOWN])}{more}; text is written in quotes: '{name}'"

    def _call(self, node: syntax.Call) -> Typed:
        function = FUNCTIONS.get(node.name)
        if function is None:
            near = nearest(node.name, FUNCTIONS)
            hint = f"there are {', '.join(FUNCTIONS)}" if near is None else f"did you mean {FUNCTIONS[near].usage}?"
            raise self._error(f"there is no function `{node.name}`", node.at, hint)
        count = len(node.arguments)
        if count < function.least or (function.most is not None and count > function.most):
            raise self._error(
                f"{node.name} does not take {count} argument{'' if count == 1 else 's'}",
                node.at,
                f"write it as {function.usage}",
            )
        arguments = [self.compile(argument) for argument in node.arguments]
        return function.build(node.name, node.at, arguments, self._fitting)

    # ---- logic

    def _condition(self, node: Node, word: str) -> Typed:
        typed = self.compile(node)
        if typed.kind not in ("bool", "null"):
            raise self._error(
                f"`{word}` needs bool (true or false), but this is {typed.kind}",
                node.at,
                "compare it with something, as x > 0",
            )
        return self._fitting.fit(typed, "bool")

    def _case(self, node: syntax.Case) -> Typed:
        conditions = [self._condition(condition, "when") for condition in node.conditions]
        results = [self.compile(result) for result in node.results]
        results.append(known(None, "null", node.at) if node.otherwise is None else self.compile(node.otherwise))
        kind, results = self._fitting.fit_all(results, "this case")
        pairs = [part for pair in zip(conditions, results, strict=False) for part in pair]
        return joined(kind, node.at, operands.choose, *pairs, results[-1])

    # ---- comparison

    def _comparable(self, word: str, at: int, left: Typed, right: Typed, *, order: bool) -> Kind:
        """The kind in which the two are compared. ``word`` is the operator, ``order`` whether it needs one."""
        for side in (left, right):
            if side.kind == "null":
                raise self._error(
                    f"`{word}` with null is always null, never true", side.at, "write `is null` or `is not null`"
                )
        kind = self._fitting.common([left, right])
        if kind is None:
            hint = self._comparison_hint(left, right)
            raise self._error(f"`{word}` cannot compare {left.kind} with {right.kind}", at, hint)
        if kind == "bool" and order:
            raise self._error(f"`{word}` cannot order bool and bool", at, "compare them with = or !=")
        return kind

    def _comparison_hint(self, left: Typed, right: Typed) -> str:
        for side in (left, right):
            if hint := self._quoted_field_hint(side):
                return hint
        kinds = {left.kind, right.kind}
        if "time" in kinds:
            return "write a time in quotes with its zone, as '2026-01-31T12:00:00Z'"
        if kinds == {"text", "bool"}:
            return "write true and false without quotes"
        if "text" in kinds:
            return "write a number without quotes, and text with them"
        return "a bool stands alone: write `x` or `not x`"

    def _quoted_field_hint(self, typed: Typed) -> str | None:
        if typed.literal is None or typed.literal not in self._types:
            return None
        return f"quotes make text: for the field write {written(typed.literal)}"

    def _comparison(self, node: syntax.Binary, left: Typed, right: Typed) -> Typed:
        kind = self._comparable(node.sign, node.sign_at, left, right, order=node.sign not in ("=", "!="))
        left, right = self._fitting.fit(left, kind), self._fitting.fit(right, kind)
        return joined("bool", node.at, _kernel(_COMPARISONS[node.sign], right), left, right)

    def _within(self, node: syntax.Within) -> Typed:
        operand, items = self.compile(node.operand), [self.compile(item) for item in node.items]
        for item in items:
            if item.kind != "null" or operand.kind == "null":
                self._comparable("in", item.at, operand, item, order=False)
        kind, (operand, *items) = self._fitting.fit_all([operand, *items], "this list")
        if kind == "text" and all(item.folded is not None for item in items):
            return _within_texts(operand, items, node.at)
        equals = [_kernel(np.equal, item) for item in items]

        def kernel(value: Column, *others: Column) -> Column:
            return operands.disjunction(*[equal(value, other) for equal, other in zip(equals, others, strict=True)])

        return joined("bool", node.at, kernel, operand, *items)

    def _between(self, node: syntax.Between) -> Typed:
        operand, low, high = self.compile(node.operand), self.compile(node.low), self.compile(node.high)
        for bound in (low, high):
            self._comparable("between", bound.at, operand, bound, order=True)
        _, (operand, low, high) = self._fitting.fit_all([operand, low, high], "this between")
        at_least, at_most = _kernel(np.greater_equal, low), _kernel(np.less_equal, high)

        def kernel(value: Column, least: Column, most: Column) -> Column:
            return operands.conjunction(at_least(value, least), at_most(value, most))

        return joined("bool", node.at, kernel, operand, low, high)

    # ---- arithmetic

    def _number(self, typed: Typed, sign: str, at: int, others: Sequence[Typed]) -> Typed:
        if typed.kind in _NUMBERS:
            return typed
        if typed.kind == "null":
            raise self._error(f"null beside `{sign}` makes all of it null", typed.at, "leave it out, or write coalesce")
        kinds = " and ".join(other.kind for other in others)
        hint = "it is for numbers (float or int)"
        if "time" in kinds:
            hint = "of times only a difference is taken, time - time, which is in seconds"
        hint = self._quoted_field_hint(typed) or hint
        raise self._error(f"`{sign}` cannot be applied to {kinds}", at, hint)

    def _sign(self, node: syntax.Sign) -> Typed:
        operand = self.compile(node.operand)
        number = self._number(operand, node.sign, node.at, [operand])
        if node.sign == "+":
            return number
        kernel = operands.negate_floats if number.kind == "float" else operands.negate_ints
        return joined(number.kind, node.at, kernel, number)

    def _arithmetic(self, node: syntax.Binary, left: Typed, right: Typed) -> Typed:
        both = [left, right]
        if node.sign == "-" and self._fitting.common(both) == "time" and "null" not in (left.kind, right.kind):
            later, earlier = (self._fitting.fit(side, "time") for side in both)
            return joined("float", node.at, operands.seconds_between, later, earlier)
        for side in both:
            self._number(side, node.sign, node.sign_at, both)
        kind: Kind = "int" if left.kind == right.kind == "int" and node.sign != "/" else "float"
        kernels = _INTS if kind == "int" else _FLOATS
        return joined(kind, node.at, kernels[node.sign], *[self._fitting.fit(side, kind) for side in both])


def _literal(node: syntax.Literal) -> Typed:
    value = node.value
    if value is None:
        return known(None, "null", node.at)
    if isinstance(value, bool):
        return known(value, "bool", node.at)
    if isinstance(value, str):
        return known(value, "text", node.at, literal=value)
    return known(value, "int" if isinstance(value, int) else "float", node.at)


def _within_texts(operand: Typed, items: Sequence[Typed], at: int) -> Typed:
    texts = frozenset(str(item.folded[0]) for item in items if item.folded is not None and item.is_known)
    null_item = not all(item.is_known for item in items)
    return joined("bool", at, operands.member_of(texts, null_item=null_item), operand)


def _kernel(ufunc: np.ufunc, right: Typed) -> Kernel:
    return operands.comparison(ufunc, floats=right.kind == "float", right_is_known=right.is_known)


def nearest(name: str, names: Collection[str]) -> str | None:
    """The one of ``names`` that was most likely meant by ``name``; None if none is like it."""
    by_lower = {each.lower(): each for each in names}
    close = difflib.get_close_matches(name.lower(), by_lower, n=1)
    return by_lower[close[0]] if close else None


def written(name: str) -> str:
    """The name as an expression writes it: in backticks where it must be."""
    if name.isidentifier() and name.lower() not in KEYWORDS:
        return name
    return "`" + name.replace("`", "``") + "`"
