"""Expressions: against a row-at-a-time interpreter by property, and every refusal at its character."""

from __future__ import annotations

from typing import Any

import numpy as np
import pytest
from expression_reference import ANY_TREE, INT_MIN, TYPES, Tree, batch_of, columns, meaning, named, written
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st

from headrace.errors import ExpressionError
from headrace.expression import MAX_DEPTH, MAX_LENGTH, parse, parse_condition
from headrace.expression.tokens import KEYWORDS


def evaluated(text: str, **columns: list[Any]) -> list[Any]:
    return parse(text, TYPES).evaluate(batch_of(**columns)).tolist()


def constant(text: str) -> Any:
    return evaluated(text, f=[0.0])[0]


@pytest.mark.slow
@settings(max_examples=800, deadline=None, suppress_health_check=list(HealthCheck))
@given(ANY_TREE, columns())
def test_any_expression_gives_what_the_row_interpreter_gives(tree: Tree, data: dict[str, list[Any]]) -> None:
    batch = batch_of(**data)
    text = written(tree)
    expression = parse(text, TYPES)
    rows = [dict(zip(data, values, strict=True)) for values in zip(*data.values(), strict=True)]
    expected = [meaning(tree, row) for row in rows]

    assert expression.type == tree.kind
    assert expression.names == named(tree)
    values = expression.evaluate(batch)
    assert values.tolist() == expected
    missing = [False] * len(expected) if values.valid is None else (~values.valid).tolist()
    assert missing == [value is None for value in expected]
    python = {"float": float, "int": int, "bool": bool, "text": str, "time": int}[tree.kind]
    assert all(value is None or type(value) is python for value in values.tolist())
    assert values.values.dtype == {"float": "f8", "int": "i8", "bool": "?", "text": "O", "time": "i8"}[tree.kind]
    if tree.kind == "bool":
        assert expression.mask(batch).tolist() == [value is True for value in expected]
    assert {name: batch.column(name).tolist() for name in data} == data


WORDS = st.sampled_from(
    [
        *"fibsw+-*/%=<(),`'&é",
        *sorted(KEYWORDS),
        ">=",
        "<>",
        "1",
        "2.5",
        "'x'",
        "abs(",
        "least(",
        "`end`",
        "nope",
        "1e9",
        "\\",
        '"',
    ]
)


@pytest.mark.slow
@settings(max_examples=500, deadline=None)
@given(st.one_of(st.text(max_size=30), st.lists(WORDS, max_size=14).map(" ".join)))
def test_any_text_is_understood_or_refused_at_a_character_with_a_hint(text: str) -> None:
    try:
        expression = parse(text, TYPES)
    except ExpressionError as error:
        assert 0 <= error.position <= len(text)
        assert error.text == text
        assert error.message
        assert error.hint
        assert "^" in error.pointer()
    else:
        batch = batch_of(**{name: [None] * 3 for name in TYPES})
        assert len(expression.evaluate(batch).tolist()) == 3


# ---- what the issue names, by example


@pytest.mark.parametrize(
    ("text", "value"),
    [
        ("1 + 2 * 3", 7),
        ("(1 + 2) * 3", 9),
        ("2 - 3 - 4", -5),
        ("-2 * -3", 6),
        ("- - 2", 2),
        ("7 / 2", 3.5),
        ("6 / 2", 3.0),
        ("-7 % 3", -1),
        ("7.5 % -2", 1.5),
        ("1 / 0", None),
        ("1.0 % 0", None),
        ("1 % 0", None),
        ("1e308 * 10", None),
        ("9223372036854775807 + 1", None),
        ("9223372036854775807 + 1.0", 2.0**63),
        ("-9223372036854775808", INT_MIN),
        ("-(-9223372036854775808)", None),
        ("-9223372036854775808 % -1", 0),
        ("-9223372036854775808 * -1", None),
        ("4294967296 * 2147483648", None),
        ("4294967296 * -2147483648", INT_MIN),
        ("9007199254740993 = 9007199254740992", False),
        ("9007199254740993 - 9007199254740992", 1),
        ("1 < 2 and 2 < 3 or false", True),
        ("true or true and false", True),
        ("not false and false", False),
        ("not 1 = 2", True),
        ("1 = 2 is null", False),
        ("1 + 1 between 2 and 3 and true", True),
        ("true = 2 in (1, 2)", True),
        ("2 in (1, 2) = true", True),
        ("null and false", False),
        ("null and true", None),
        ("null or true", True),
        ("null or false", None),
        ("not null", None),
        ("2 in (1, null)", None),
        ("1 in (1, null)", True),
        ("2 not in (1, null)", None),
        ("'b' not in ('a', null)", None),
        ("round(2.5)", 3),
        ("round(-2.5)", -3),
        ("round(0.49999999999999994)", 0),
        ("round(1e300)", None),
        ("round(2.345, 1)", 2.3),
        ("round(1250.0, -2)", 1300.0),
        ("round(-1250, -2)", -1300),
        ("round(9223372036854775807, -1)", None),
        ("floor(-0.5)", -1),
        ("ceil(0.5)", 1),
        ("sqrt(9)", 3.0),
        ("sqrt(-1)", None),
        ("abs(-9223372036854775808)", None),
        ("ABS(-3)", 3),
        ("least(1, 2.5)", 1.0),
        ("max('a', 'b')", "b"),
        ("coalesce(null, 3)", 3),
        ("CASE WHEN 1 > 2 THEN 'a' WHEN true THEN 'b' ELSE 'c' END", "b"),
        ("case when false then 1 end", None),
        ("'it''s' = \"it's\"", True),
        (r"'\u00e9\t\\\'' ", "é\t\\'"),
        ('"say ""so"""', 'say "so"'),
        ("upper('aß')", "ASS"),
        ("length('')", 0),
        ("starts_with('Paris', 'Pa')", True),
        ("contains('Paris', 'x')", False),
        (".5 + 1. + 1e1", 11.5),
        ("+3", 3),
    ],
)
def test_constants_are_computed_as_documented(text: str, value: Any) -> None:
    result = constant(text)
    assert result == value
    assert type(result) is type(value)


@pytest.mark.parametrize("condition", ["false", "true", "starts_with('', '')"])
def test_a_case_of_constants_has_no_value_where_there_is_no_reading(condition: str) -> None:
    none = batch_of(**{name: [] for name in TYPES})
    for text in (f"case when {condition} then b end", f"case when b then {condition} else null end"):
        assert parse(text, TYPES).evaluate(none).tolist() == []


def test_a_missing_value_is_null_and_a_null_condition_selects_nothing() -> None:
    batch = batch_of(f=[219.0, None, 231.0])
    assert parse("f > 220", TYPES).evaluate(batch).tolist() == [False, None, True]
    assert parse("f > 220", TYPES).mask(batch).tolist() == [False, False, True]
    assert parse("not f > 220", TYPES).mask(batch).tolist() == [True, False, False]
    assert parse("f != 219", TYPES).mask(batch).tolist() == [False, False, True]
    assert parse("f is null", TYPES).mask(batch).tolist() == [False, True, False]


def test_ints_beyond_2_to_the_53_stay_exact_with_and_without_nulls() -> None:
    large = 2**53 + 1
    assert evaluated("i + 1", i=[large, large + 1]) == [large + 1, large + 2]
    assert evaluated("i + 1", i=[large, None]) == [large + 1, None]
    assert evaluated("i = 9007199254740993", i=[large, large - 1, None]) == [True, False, None]


def test_times_are_compared_with_written_ones_and_subtracted_in_seconds() -> None:
    noon_us = 1_795_176_000_000_000
    assert evaluated("w >= '2026-11-20T12:00:00Z'", w=[noon_us, None]) == [True, None]
    assert evaluated("w >= '2026-11-20T13:00:00+01:00'", w=[noon_us, None]) == [True, None]
    assert evaluated("w - '2026-11-20T11:59:58.5Z'", w=[noon_us, None]) == [1.5, None]
    assert evaluated("w", w=[noon_us, None]) == [noon_us, None]
    assert evaluated("`end` - w", end=[3_000_000], w=[1_000_000]) == [2.0]


def test_odd_names_stand_in_backticks() -> None:
    types: Any = {"a b": "int", "it`s": "int", "Größe": "int"}
    batch = batch_of(**{"a b": [1], "it`s": [2], "Größe": [3]})
    expression = parse("`a b` + `it``s` + Größe", types)
    assert expression.evaluate(batch).tolist() == [6]
    assert expression.names == {"a b", "it`s", "Größe"}


def test_a_function_name_may_be_a_field_too() -> None:
    types: Any = {"min": "int", "length": "int"}
    assert parse("min(min, length)", types).evaluate(batch_of(min=[3], length=[2])).tolist() == [2]


def test_what_an_expression_gives_cannot_be_changed() -> None:
    for text in ("1 + 1", "i + 1", "i"):
        for count in (1, 3):
            batch = batch_of(i=[1] * count)
            values = parse(text, TYPES).evaluate(batch)
            with pytest.raises(ValueError, match="read-only"):
                values.values[:] = 9
            assert values.tolist() == ([1] if text == "i" else [2]) * count


def test_floats_of_a_result_carry_nan_for_null() -> None:
    floats = parse("i + 1", TYPES).evaluate(batch_of(i=[1, None])).floats()
    assert floats.dtype == np.float64
    assert floats[0] == 2.0
    assert np.isnan(floats[1])
    with pytest.raises(TypeError):
        parse("s", TYPES).evaluate(batch_of(s=["a"])).floats()


def test_a_batch_without_the_field_is_a_key_error() -> None:
    with pytest.raises(KeyError):
        parse("f > 1", TYPES).mask(batch_of(g=[1.0]))


def test_a_mask_of_what_is_no_condition_is_a_type_error() -> None:
    with pytest.raises(TypeError, match="float"):
        parse("f", TYPES).mask(batch_of(f=[1.0]))


def test_a_long_chain_of_and_is_not_deep() -> None:
    text = " or ".join(f"i = {n}" for n in range(300))
    assert evaluated(text, i=[299, 300, None]) == [True, False, None]


# ---- refusals, each at its character


def refused(text: str) -> ExpressionError:
    with pytest.raises(ExpressionError) as caught:
        parse(text, TYPES)
    assert caught.value.text == text
    return caught.value


@pytest.mark.parametrize(
    ("text", "pointer", "message", "hint"),
    [
        ("", "^", "found the end", "write a field"),
        ("f >", "   ^", "found the end", "write a field"),
        ("f > ) ", "    ^", "found `)`", "write a field"),
        ("(f > 1", "      ^", "expected `)`", "at character 1"),
        ("f > 1)", "     ^", "closes nothing", "leave it out"),
        ("f 1", "  ^", "expected an operator", "join"),
        ("s like 'a%'", "  ^", "expected an operator", "starts_with"),
        ("b && c", "  ^", "no meaning", "write `and`"),
        ("!b", "^", "no meaning", "write `not`"),
        ("s = “x”", "    ^", "no meaning", "straight quotes"),
        ("f > 220V", "       ^", "cannot follow the number", "plain number"),
        ("f > 1.2.3", "       ^", "cannot follow the number", "plain number"),
        ("f > 1e999", "    ^", "beyond what a float holds", "1.7e308"),
        ("i > 9223372036854775808", "    ^", "does not fit 64 bits", "9223372036854775808.0"),
        ("i > -9223372036854775809", "     ^", "does not fit 64 bits", "-9223372036854775809.0"),
        ("s = 'open", "    ^", "has no end", "close it with another '"),
        ("s = `open", "    ^", "has no end", "close it with another `"),
        (r"s = 'a\q'", "      ^", "no escape", "\\n"),
        (r"s = '\ud800'", "     ^", "no escape", "\\n"),
        ("1 < i < 3", "      ^", "cannot be chained", "a < b and b < c"),
        ("i = j = 3", "      ^", "cannot be chained", "a < b and b < c"),
        ("i in (1, 2) + 1", "            ^", "cannot follow", "parentheses"),
        ("b is null = c", "          ^", "cannot follow", "parentheses"),
        ("b = not c", "    ^", "cannot stand here", "parentheses"),
        ("i in ()", "      ^", "no value", "at least one"),
        ("i in 1", "     ^", "expected `(`", "parentheses"),
        ("i between 1, 2", "           ^", "expected `and`", "between low and high"),
        ("b is true", "     ^", "expected `null`", "is not null"),
        ("case i when 1 then 2 end", "     ^", "expected `when`", "case when"),
        ("case when b then 1", "                  ^", "expected `end`", "at character 1"),
        ("f + end", "    ^", "found `end`", "is written `end`"),
        ("volts > 1", "^", "no field or tag `volts`", "there are f, g, `odd-name`"),
        ("s = Paris", "    ^", "no field or tag `Paris`", "'Paris'"),
        ("f + F1", "    ^", "no field or tag `F1`", "did you mean f?"),
        ("`odd_name` > 1", "^", "no field or tag", "did you mean `odd-name`?"),
        ("f > rond(g)", "    ^", "no function `rond`", "did you mean round(x)"),
        ("abs(f, g)", "^", "does not take 2 arguments", "abs(x)"),
        ("least(f)", "^", "does not take 1 argument", "least(a, b)"),
        ("f > 'x'", "  ^", "cannot compare float with text", "number without quotes"),
        ("s = 3", "  ^", "cannot compare text with int", "number without quotes"),
        ('"f" > 3', "    ^", "cannot compare text with int", "for the field write f"),
        ("'f' + 3", "    ^", "text and int", "for the field write f"),
        ("b = 'true'", "  ^", "cannot compare bool with text", "without quotes"),
        ("b = 1", "  ^", "cannot compare bool with int", "stands alone"),
        ("b < c", "  ^", "cannot order bool and bool", "= or !="),
        ("w > 5", "  ^", "cannot compare time with int", "in quotes with its zone"),
        ("w > s", "  ^", "cannot compare time with text", "in quotes with its zone"),
        ("w > 'noon'", "    ^", "'noon' is no time", "with its zone"),
        ("w > '2026-11-20T12:00:00'", "    ^", "has no zone", "with its zone"),
        ("w + 5", "  ^", "time and int", "a difference is taken"),
        ("f + s", "  ^", "float and text", "numbers"),
        ("1 + -s", "    ^", "cannot be applied to text", "numbers"),
        ("b and f", "      ^", "`and` needs bool (true or false), but this is float", "compare it"),
        ("not i", "    ^", "`not` needs bool", "compare it"),
        ("case when i then 1 end", "          ^", "`when` needs bool", "compare it"),
        ("case when b then 1 else 'x' end", "                        ^", "mixes int and text", "one type"),
        ("coalesce(f, s)", "            ^", "coalesce mixes float and text", "one type"),
        ("i in (1, 'x')", "         ^", "cannot compare int with text", "number without quotes"),
        ("i between 1 and 'x'", "                ^", "cannot compare int with text", "number without quotes"),
        ("b between b and c", "          ^", "cannot order", "= or !="),
        ("f = null", "    ^", "always null", "is null"),
        ("null in (1)", "^", "always null", "is null"),
        ("f + null", "    ^", "makes all of it null", "leave it out"),
        ("null", "^", "always null", "give it"),
        ("coalesce(null)", "^", "always null", "give it"),
        ("abs(s)", "    ^", "abs takes a number (float or int), not text", "abs(x)"),
        ("abs(null)", "    ^", "not null", "abs(x)"),
        ("lower(f)", "      ^", "lower takes text, not float", "lower(text)"),
        ("least(b, c)", "      ^", "not bool", "least(a, b)"),
        ("round(f, i)", "         ^", "written out", "round(x, 2)"),
        ("round(f, 99)", "         ^", "out of range", "-18 to 18"),
    ],
)
def test_a_mistake_is_refused_at_its_character(text: str, pointer: str, message: str, hint: str) -> None:
    error = refused(text)
    assert error.pointer() == f"{text}\n{pointer}"
    assert message in error.message
    assert hint in error.hint


def test_the_pointer_stands_below_its_own_line() -> None:
    assert refused("f > 1\n\tand g1 > 2\nand b").pointer() == "f > 1\n\tand g1 > 2\n\t    ^\nand b"


@pytest.mark.parametrize(
    "text",
    [
        "(" * (MAX_DEPTH + 1) + "f" + ")" * (MAX_DEPTH + 1),
        "not " * 900 + "b",
        "- " * 900 + "f",
        "f + " * 900 + "f",
        "abs(" * 700 + "f" + ")" * 700,
        "case when b then " * 200,
        "i" + " is null" * 400,
        "f in (" * 600,
    ],
)
def test_what_is_nested_without_end_is_refused(text: str) -> None:
    assert f"more than {MAX_DEPTH}" in refused(text).message


def test_what_is_nested_to_the_limit_is_understood() -> None:
    assert constant("(" * (MAX_DEPTH - 1) + "1" + ")" * (MAX_DEPTH - 1)) == 1
    assert constant("1" + " + 1" * (MAX_DEPTH - 1)) == MAX_DEPTH


def test_what_is_too_long_is_refused_where_the_limit_is() -> None:
    error = refused("f" + " " * MAX_LENGTH)
    assert error.position == MAX_LENGTH
    assert str(MAX_LENGTH) in error.message


def test_a_condition_that_is_no_bool_is_refused_at_its_beginning() -> None:
    with pytest.raises(ExpressionError) as caught:
        parse_condition("  f + 1", TYPES)
    assert caught.value.position == 2
    assert "float" in caught.value.message
    assert parse_condition("f > 1", TYPES).type == "bool"
