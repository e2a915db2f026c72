"""The functions of the language: what they take, what they give, and how they compute it."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import dataclass
from functools import partial, reduce

import numpy as np

from headrace.column import Array, Column
from headrace.expression import operands
from headrace.expression.typed import Fitting, Typed, joined

_MOST_DECIMALS = 18
_LARGEST_WITH_FRACTION = 2.0**52


@dataclass(frozen=True)
class Function:
    """A function: how it is written, how many arguments it takes, and what it makes of them."""

    usage: str
    least: int
    most: int | None
    build: Callable[[str, int, Sequence[Typed], Fitting], Typed]


def _numeric(name: str, argument: Typed, fitting: Fitting) -> Typed:
    if argument.kind in ("int", "float"):
        return argument
    raise _unfit(name, "a number (float or int)", argument, fitting)


def _text(name: str, argument: Typed, fitting: Fitting) -> Typed:
    if argument.kind == "text":
        return argument
    raise _unfit(name, "text", argument, fitting)


def _unfit(name: str, wanted: str, argument: Typed, fitting: Fitting) -> Exception:
    return fitting.error(
        f"{name} takes {wanted}, not {argument.kind}",
        argument.at,
        f"write it as {FUNCTIONS[name].usage}, over fields of that type",
    )


# ---- numbers


def _abs(name: str, at: int, arguments: Sequence[Typed], fitting: Fitting) -> Typed:
    number = _numeric(name, arguments[0], fitting)
    return joined(number.kind, at, _abs_floats if number.kind == "float" else _abs_ints, number)


def _abs_floats(operand: Column) -> Column:
    return Column(np.abs(operand.values))


def _abs_ints(operand: Column) -> Column:
    negated = operands.negate_ints(operand)
    return Column(np.where(operand.values < 0, negated.values, operand.values), negated.valid)


def _sqrt(name: str, at: int, arguments: Sequence[Typed], fitting: Fitting) -> Typed:
    return joined("float", at, _sqrt_floats, fitting.fit(_numeric(name, arguments[0], fitting), "float"))


def _sqrt_floats(operand: Column) -> Column:
    return Column(np.sqrt(operand.values))


def _whole(ufunc: Callable[[Array], Array]) -> Callable[[str, int, Sequence[Typed], Fitting], Typed]:
    def kernel(operand: Column) -> Column:
        return operands.to_int(ufunc(operand.values))

    def build(name: str, at: int, arguments: Sequence[Typed], fitting: Fitting) -> Typed:
        number = _numeric(name, arguments[0], fitting)
        return number if number.kind == "int" else joined("int", at, kernel, number)

    return build


def _half_away(values: Array) -> Array:
    """To whole numbers, halves away from zero; exact for every float, as adding 0.5 is not."""
    whole = np.trunc(values)
    return whole + np.where(np.abs(values - whole) >= 0.5, np.sign(values), 0.0)


def _round(name: str, at: int, arguments: Sequence[Typed], fitting: Fitting) -> Typed:
    if len(arguments) == 1:
        return _whole(_half_away)(name, at, arguments, fitting)
    number, places = _numeric(name, arguments[0], fitting), arguments[1]
    if places.folded is None or places.kind != "int" or not places.is_known:
        raise fitting.error(
            f"the decimals of {name} must be a whole number that is written out, not {places.kind}",
            places.at,
            "write it as round(x, 2)",
        )
    decimals = int(places.folded[0])
    if abs(decimals) > _MOST_DECIMALS:
        raise fitting.error(
            f"{decimals} decimals are out of range", places.at, f"write -{_MOST_DECIMALS} to {_MOST_DECIMALS} decimals"
        )
    if number.kind == "float":
        return joined("float", at, partial(_round_floats, decimals), number)
    return number if decimals >= 0 else joined("int", at, partial(_round_ints, 10**-decimals), number)


def _round_floats(decimals: int, operand: Column) -> Column:
    values = operand.values
    scale = 10.0 ** abs(decimals)
    scaled = values * scale if decimals >= 0 else values / scale
    rounded = _half_away(scaled)
    back = rounded / scale if decimals >= 0 else rounded * scale
    # What is so large has no such decimals; scaling it would only lose digits. Adding 0.0 makes -0.0 a plain 0.
    too_large = (np.abs(scaled) >= _LARGEST_WITH_FRACTION) & (decimals >= 0)
    return Column(operands.finite(np.where(too_large, values, back) + 0.0))


def _round_ints(step: int, operand: Column) -> Column:
    values = operand.values
    rest = np.fmod(values, step)
    away = np.where(np.abs(rest) * 2 >= step, np.sign(values) * step, 0)
    return operands.add_ints(Column(values - rest, operand.valid), Column(away))


def _extreme(ufunc: np.ufunc) -> Callable[[str, int, Sequence[Typed], Fitting], Typed]:
    def pair(left: Column, right: Column) -> Column:
        # NaN wins over any number in these ufuncs: a null makes the result null here as elsewhere.
        return Column(ufunc(left.values, right.values), operands.both(left.marked, right.marked))

    def kernel(*operands: Column) -> Column:
        return reduce(pair, operands)

    def build(name: str, at: int, arguments: Sequence[Typed], fitting: Fitting) -> Typed:
        for argument in arguments:
            if argument.kind not in ("int", "float", "text", "time"):
                raise _unfit(name, "numbers, times or text", argument, fitting)
        kind, fitted = fitting.fit_all(arguments, name)
        return joined(kind, at, kernel, *fitted)

    return build


# ---- any type


def _coalesce(name: str, at: int, arguments: Sequence[Typed], fitting: Fitting) -> Typed:
    kind, fitted = fitting.fit_all(arguments, name)
    return joined(kind, at, operands.first_known, *fitted)


# ---- text: row by row, as numpy has nothing that does the same for str


def _changed(change: Callable[[str], str]) -> Callable[[str, int, Sequence[Typed], Fitting], Typed]:
    def kernel(operand: Column) -> Column:
        return Column(np.fromiter(map(change, operand.values), np.object_, len(operand)), operand.valid)

    def build(name: str, at: int, arguments: Sequence[Typed], fitting: Fitting) -> Typed:
        return joined("text", at, kernel, _text(name, arguments[0], fitting))

    return build


def _length(name: str, at: int, arguments: Sequence[Typed], fitting: Fitting) -> Typed:
    return joined("int", at, _lengths, _text(name, arguments[0], fitting))


def _lengths(operand: Column) -> Column:
    return Column(np.fromiter(map(len, operand.values), np.int64, len(operand)), operand.valid)


def _tested(test: Callable[[str, str], bool]) -> Callable[[str, int, Sequence[Typed], Fitting], Typed]:
    def kernel(text: Column, sought: Column) -> Column:
        texts, soughts = np.broadcast_arrays(text.values, sought.values)
        values = np.fromiter(map(test, texts, soughts), np.bool_, len(texts))
        valid = operands.both(text.valid, sought.valid)
        return Column(values if valid is None else values & valid, valid)

    def build(name: str, at: int, arguments: Sequence[Typed], fitting: Fitting) -> Typed:
        text, sought = (_text(name, argument, fitting) for argument in arguments)
        return joined("bool", at, kernel, text, sought)

    return build


def _contains(text: str, sought: str) -> bool:
    return sought in text


FUNCTIONS: dict[str, Function] = {
    "abs": Function("abs(x)", 1, 1, _abs),
    "round": Function("round(x) or round(x, decimals)", 1, 2, _round),
    "floor": Function("floor(x)", 1, 1, _whole(np.floor)),
    "ceil": Function("ceil(x)", 1, 1, _whole(np.ceil)),
    "sqrt": Function("sqrt(x)", 1, 1, _sqrt),
    "least": Function("least(a, b)", 2, None, _extreme(np.minimum)),
    "greatest": Function("greatest(a, b)", 2, None, _extreme(np.maximum)),
    "min": Function("min(a, b)", 2, None, _extreme(np.minimum)),
    "max": Function("max(a, b)", 2, None, _extreme(np.maximum)),
    "coalesce": Function("coalesce(a, b)", 1, None, _coalesce),
    "lower": Function("lower(text)", 1, 1, _changed(str.lower)),
    "upper": Function("upper(text)", 1, 1, _changed(str.upper)),
    "length": Function("length(text)", 1, 1, _length),
    "starts_with": Function("starts_with(text, 'beginning')", 2, 2, _tested(str.startswith)),
    "contains": Function("contains(text, 'part')", 2, 2, _tested(_contains)),
}
