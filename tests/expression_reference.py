"""A row-at-a-time interpreter of expressions, with trees and columns at random to hold it against."""

# ruff: noqa: C901, PLR0911, PLR0912 - one case of a match for each kind of node, and for each function

from __future__ import annotations

import math
import operator
from dataclasses import dataclass
from datetime import UTC, datetime, timedelta
from decimal import ROUND_HALF_UP, Decimal
from typing import Any

import numpy as np
from hypothesis import strategies as st

from headrace.batch import Batch

EPOCH = datetime(1970, 1, 1, tzinfo=UTC)
INT_MIN, INT_MAX = -(2**63), 2**63 - 1
TYPES: Any = {
    "f": "float",
    "g": "float",
    "odd-name": "float",
    "i": "int",
    "j": "int",
    "b": "bool",
    "c": "bool",
    "s": "text",
    "t": "text",
    "w": "time",
    "end": "time",
}


def batch_of(**columns: list[Any]) -> Batch:
    count = len(next(iter(columns.values())))
    return Batch(["device"] * count, np.arange(count, dtype=np.int64), columns)


# ---- the reference: trees, how they are written, and what they mean for one row


@dataclass(frozen=True)
class Tree:
    op: str
    kind: str
    parts: tuple[Any, ...]


ATOM, SIGN, MULTIPLY, ADD, RANGE, COMPARE, IS, NOT, AND, OR = range(10, 0, -1)
LEVELS = {"*": MULTIPLY, "/": MULTIPLY, "%": MULTIPLY, "+": ADD, "-": ADD}
ORDERS = {
    "=": operator.eq,
    "==": operator.eq,
    "!=": operator.ne,
    "<>": operator.ne,
    "<": operator.lt,
    "<=": operator.le,
    ">": operator.gt,
    ">=": operator.ge,
}


def level(tree: Tree) -> int:
    if tree.op in LEVELS:
        return LEVELS[tree.op]
    if tree.op in ORDERS:
        return COMPARE
    value = tree.parts[0] if tree.op == "literal" else None
    if isinstance(value, (int, float)) and not isinstance(value, bool) and math.copysign(1, value) < 0:
        return SIGN
    levels = {"and": AND, "or": OR, "not": NOT, "is null": IS, "is not null": IS, "negate": SIGN}
    return levels.get(tree.op, RANGE if "in" in tree.op.split() or "between" in tree.op else ATOM)


def within(tree: Tree, least: int) -> str:
    """The tree as text, in parentheses only where it binds looser than ``least``."""
    text = written(tree)
    return f"({text})" if level(tree) < least else text


def written(tree: Tree) -> str:
    op, parts, own = tree.op, tree.parts, level(tree)
    if op == "literal":
        return literal(parts[0], tree.kind)
    if op == "name":
        return parts[0] if parts[0] in ("f", "g", "i", "j", "b", "c", "s", "t", "w") else f"`{parts[0]}`"
    if op in LEVELS:
        return f"{within(parts[0], own)} {op} {within(parts[1], own + 1)}"
    if op in ORDERS:
        return f"{within(parts[0], own + 1)}{op}{within(parts[1], own + 1)}"
    if op == "negate":
        return f"-{within(parts[0], SIGN)}"
    if op == "not":
        return f"NOT {within(parts[0], NOT)}"
    if op in ("and", "or"):
        return f" {op} ".join(within(part, own + 1) for part in parts)
    if op in ("is null", "is not null"):
        return f"{within(parts[0], IS)} {op}"
    if op in ("in", "not in"):
        return f"{within(parts[0], RANGE + 1)} {op} ({', '.join(map(written, parts[1:]))})"
    if op in ("between", "not between"):
        value, low, high = (within(part, RANGE + 1) for part in parts)
        return f"{value} {op} {low} and {high}"
    if op == "case":
        *pairs, otherwise = parts
        whens = " ".join(
            f"when {written(condition)} then {written(result)}"
            for condition, result in zip(pairs[::2], pairs[1::2], strict=True)
        )
        return f"case {whens}{'' if otherwise is None else f' else {written(otherwise)}'} end"
    return f"{op}({', '.join(map(written, parts))})"


def literal(value: Any, kind: str) -> str:
    if value is None or isinstance(value, bool):
        return str(value).replace("None", "null").lower()
    if kind == "time":
        return f"'{(EPOCH + timedelta(microseconds=value)).isoformat()}'"
    if isinstance(value, str):
        quote = "'\""[len(value) % 2]
        return quote + value.replace("\\", "\\\\").replace("\n", "\\n").replace(quote, quote * 2) + quote
    return repr(value)


def meaning(tree: Tree, row: dict[str, Any]) -> Any:
    """What the tree gives for one row, None for null: slow, plain, and without numpy."""
    op, parts = tree.op, tree.parts
    if op == "literal":
        return parts[0]
    if op == "name":
        return row[parts[0]]
    if op == "case":
        *pairs, otherwise = parts
        for condition, result in zip(pairs[::2], pairs[1::2], strict=True):
            if meaning(condition, row) is True:
                return widened(meaning(result, row), tree.kind)
        return None if otherwise is None else widened(meaning(otherwise, row), tree.kind)
    values = [meaning(part, row) for part in parts]
    if op == "coalesce":
        return widened(next((value for value in values if value is not None), None), tree.kind)
    if op in ("and", "or"):
        decisive = op == "or"
        return decisive if decisive in values else None if None in values else not decisive
    if op in ("is null", "is not null"):
        return (values[0] is None) == (op == "is null")
    if op in ("in", "not in"):
        kinds = {part.kind for part in parts}
        found = any_of([equal(values[0], item, float if "float" in kinds else None) for item in values[1:]])
        return found if op == "in" or found is None else not found
    if op in ("between", "not between"):
        kind = float if "float" in {part.kind for part in parts} else None
        value, low, high = (value if kind is None or value is None else kind(value) for value in values)
        bounds = [None if None in (low, value) else low <= value, None if None in (value, high) else value <= high]
        held = False if False in bounds else None if None in bounds else True
        return held if op == "between" or held is None else not held
    if None in values:
        return None
    if op in ORDERS:
        if "float" in {part.kind for part in parts}:
            values = [float(value) for value in values]
        return ORDERS[op](*values)
    if op in LEVELS:
        return arithmetic(op, tree, values)
    return call(op, tree.kind, values)


def any_of(values: list[Any]) -> Any:
    return True if True in values else None if None in values else False


def equal(left: Any, right: Any, kind: Any) -> Any:
    if left is None or right is None:
        return None
    return left == right if kind is None else kind(left) == kind(right)


def widened(value: Any, kind: str) -> Any:
    return float(value) if kind == "float" and value is not None else value


def held(value: Any) -> Any:
    """The number, or None where it is beyond its type."""
    if isinstance(value, int):
        return value if INT_MIN <= value <= INT_MAX else None
    return value if math.isfinite(value) else None


def arithmetic(op: str, tree: Tree, values: list[Any]) -> Any:
    left, right = values
    if tree.parts[0].kind == "time":
        return (left - right) / 1e6
    if tree.kind == "float":
        left, right = float(left), float(right)
    if op in "/%" and right == 0:
        return None
    if op == "/":
        return held(left / right)
    if op == "%":
        if tree.kind == "float":
            return math.fmod(left, right)
        return int(math.copysign(1, left)) * (abs(left) % abs(right))
    return held({"+": operator.add, "-": operator.sub, "*": operator.mul}[op](left, right))


def half_up(value: Any) -> int:
    return int(Decimal(value).to_integral_value(ROUND_HALF_UP))


def call(op: str, kind: str, values: list[Any]) -> Any:
    first = values[0]
    match op:
        case "negate":
            return held(-first)
        case "not":
            return not first
        case "abs":
            return held(abs(first))
        case "sqrt":
            return math.sqrt(first) if first >= 0 else None
        case "floor":
            return held(math.floor(first))
        case "ceil":
            return held(math.ceil(first))
        case "round":
            return rounded(*values)
        case "least" | "min":
            return min(widened(value, kind) for value in values)
        case "greatest" | "max":
            return max(widened(value, kind) for value in values)
        case "lower":
            return first.lower()
        case "upper":
            return first.upper()
        case "length":
            return len(first)
        case "starts_with":
            return first.startswith(values[1])
        case "contains":
            return values[1] in first
    raise AssertionError(op)


def rounded(value: Any, decimals: int | None = None) -> Any:
    if decimals is None:
        return held(half_up(value))
    if isinstance(value, int):
        step = 10 ** max(-decimals, 0)
        sign = -1 if value < 0 else 1
        return held(sign * ((abs(value) + step // 2) // step * step)) if step > 1 else value
    if decimals < 0:
        return held(half_up(value / 10.0**-decimals) * 10.0**-decimals)
    scaled = value * 10.0**decimals
    return value if abs(scaled) >= 2**52 else half_up(scaled) / 10.0**decimals


# ---- trees at random

FLOATS = st.one_of(
    st.floats(allow_nan=False, allow_infinity=False),
    st.sampled_from([0.0, -0.0, 0.5, -0.5, 1.5, 2.5, 1e308, -1e308, 5e-324, 2.0**53, 2.0**63, 0.49999999999999994]),
    st.integers(-4, 4).map(float),
)
INTS = st.one_of(
    st.integers(-4, 4),
    st.integers(INT_MIN, INT_MAX),
    st.sampled_from([INT_MIN, INT_MIN + 1, INT_MAX, 2**53 + 1, -(2**53) - 1, 2**31, 2**32]),
)
TEXTS = st.text("aAbß'\"\\\n éİ`", max_size=3)
TIMES = st.integers(-(10**15), 4 * 10**15)
SCALARS = {"float": FLOATS, "int": INTS, "bool": st.booleans(), "text": TEXTS, "time": TIMES}
NULL = Tree("literal", "null", (None,))


def names_of(kind: str) -> st.SearchStrategy[Tree]:
    return st.sampled_from([name for name, its in TYPES.items() if its == kind]).map(lambda n: Tree("name", kind, (n,)))


def literals_of(kind: str) -> st.SearchStrategy[Tree]:
    return SCALARS[kind].map(lambda value: Tree("literal", kind, (value,)))


@st.composite
def trees(draw: st.DrawFn, kind: str, depth: int) -> Tree:
    if depth == 0 or draw(st.integers(0, 5)) == 0:
        # Text that is written out is a time only beside one: a time on its own is a field.
        return draw(names_of(kind) if kind == "time" else st.one_of(names_of(kind), literals_of(kind)))
    below = depth - 1

    def sub(wanted: str) -> Tree:
        return draw(trees(wanted, below))

    def number() -> Tree:
        return sub(draw(st.sampled_from(["int", "float"])))

    def fitting(wanted: str) -> Tree:
        """Something that fits beside ``wanted``: for a float an int does, for a time what is written out."""
        if wanted == "time" and draw(st.booleans()):
            return draw(literals_of("time"))
        return number() if wanted == "float" else sub(wanted)

    def maybe_null(wanted: str) -> Tree:
        return NULL if draw(st.integers(0, 4)) == 0 else fitting(wanted)

    forms = ["coalesce", "case"] + {
        "float": ["+", "-", "*", "/", "%", "negate", "abs", "sqrt", "round2", "least", "seconds"],
        "int": ["+", "-", "*", "%", "negate", "abs", "round", "floor", "ceil", "round2", "length", "least"],
        "bool": ["and", "or", "not", "compare", "compare", "in", "between", "is null", "starts_with", "contains"],
        "text": ["lower", "upper", "least"],
        "time": ["least"],
    }[kind]
    form = draw(st.sampled_from(forms))
    match form:
        case "coalesce":
            return Tree(form, kind, (sub(kind), *[maybe_null(kind) for _ in range(draw(st.integers(0, 2)))]))
        case "case":
            parts = [sub("bool"), sub(kind)]
            for _ in range(draw(st.integers(0, 1))):
                parts += [maybe_null("bool"), maybe_null(kind)]
            return Tree(form, kind, (*parts, draw(st.sampled_from([None, maybe_null(kind)]))))
        case "+" | "-" | "*" | "%" | "/":
            if kind == "int":
                return Tree(form, kind, (sub("int"), sub("int")))
            pair = (number(), number()) if form == "/" else draw(st.permutations([sub("float"), number()]))
            return Tree(form, kind, tuple(pair))
        case "seconds":
            return Tree("-", kind, (sub("time"), fitting("time")))
        case "negate" | "abs" | "lower" | "upper":
            return Tree(form, kind, (sub(kind),))
        case "sqrt" | "round" | "floor" | "ceil":
            return Tree(form, kind, (number(),))
        case "round2":
            places = st.integers(-18, 18) if kind == "int" else st.integers(-4, 18)
            return Tree("round", kind, (sub(kind), Tree("literal", "int", (draw(places),))))
        case "length":
            return Tree(form, kind, (sub("text"),))
        case "least":
            name = draw(st.sampled_from(["least", "greatest", "min", "max"]))
            return Tree(name, kind, (sub(kind), *[fitting(kind) for _ in range(draw(st.integers(1, 2)))]))
        case "and" | "or":
            return Tree(form, kind, tuple(maybe_null("bool") for _ in range(draw(st.integers(2, 3)))))
        case "not":
            return Tree(form, kind, (maybe_null("bool"),))
        case "starts_with" | "contains":
            return Tree(form, kind, (sub("text"), sub("text")))
    wanted = draw(st.sampled_from(["float", "int", "text", "time", *(["bool"] if form != "between" else [])]))
    operand = sub(wanted)
    match form:
        case "compare":
            signs = ["=", "==", "!=", "<>"] if wanted == "bool" else list(ORDERS)
            return Tree(draw(st.sampled_from(signs)), kind, (operand, fitting(wanted)))
        case "in":
            items = [maybe_null(wanted) for _ in range(draw(st.integers(1, 4)))]
            return Tree(draw(st.sampled_from(["in", "not in"])), kind, (operand, *items))
        case "between":
            return Tree(
                draw(st.sampled_from(["between", "not between"])), kind, (operand, fitting(wanted), fitting(wanted))
            )
    return Tree(draw(st.sampled_from(["is null", "is not null"])), kind, (operand,))


def named(tree: Any) -> set[str]:
    if not isinstance(tree, Tree):
        return set()
    return {tree.parts[0]} if tree.op == "name" else set().union(*map(named, tree.parts))


@st.composite
def columns(draw: st.DrawFn) -> dict[str, list[Any]]:
    count = draw(st.integers(0, 8))

    def column(kind: str) -> list[Any]:
        values = SCALARS[kind] if draw(st.booleans()) else st.one_of(st.none(), SCALARS[kind])
        return draw(st.lists(values, min_size=count, max_size=count))

    return {name: column(kind) for name, kind in TYPES.items()}


# Shallow ones meet every operator often, deep ones how they nest.
KINDS = st.sampled_from([*SCALARS, "bool", "bool", "int", "float"])
ANY_TREE = st.tuples(KINDS, st.sampled_from([1, 1, 2, 4])).flatmap(lambda choice: trees(*choice))
