"""The gate: what a page may ask, by bytes and by the engine's own client over a real connection."""

from __future__ import annotations

import re
from collections.abc import Awaitable, Callable, Iterator
from pathlib import Path
from typing import Any

import perspective
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from viewer_line import START_US, Line, Viewer, viewing, wait_for
from viewer_page import Page, with_page

from headrace.errors import ExpressionError
from viewer import expressions
from viewer.gate import MAX_FOLLOWED, READING, Gate, error
from viewer.protobuf import Malformed, bytes_field, fields, number_field
from viewer.views import MOST, TooMuch, check

SERIES, LAST = "meters series 5000", "meters last 5000"
MAKE_PORT = 5


@pytest.fixture(scope="module")
def shared(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Viewer]:
    """A viewer with two rows, for tests that only look."""
    line = Line(tmp_path_factory.mktemp("gate"))
    line.put("meters", ["a", "b"], [START_US, START_US], current=[1.5, 2.5], room=["hall", "attic"])
    with viewing(line) as viewer:
        wait_for(lambda: viewer.rows("meters") == 2)
        yield viewer
    line.close()


# The gate, by its bytes


def request(field: int, *, number: int = 7, entity: bytes = b"t", value: bytes = b"") -> bytes:
    """A request as the engine's clients write it."""
    tag = field << 3 | 2
    varint = bytes([tag]) if tag < 128 else bytes([tag & 127 | 128, tag >> 7])
    return bytes([8, number, 18, len(entity)]) + entity + varint + bytes([len(value)]) + value


@pytest.mark.parametrize("field", sorted({27, 28, 31, 32, 33, 38, 9, 42, 50, 99} - READING))
def test_gate_refuses_what_changes_a_table_and_what_it_does_not_know(field: int) -> None:
    refused = Gate().answer(request(field))
    assert refused is not None
    answer = dict(fields(refused))
    assert (answer[1], answer[2]) == (7, b"t")
    assert b"read-only" in dict(fields(answer[50]))[1]


@pytest.mark.parametrize("field", sorted(READING - {MAKE_PORT}))
def test_gate_lets_reading_through(field: int) -> None:
    assert Gate().answer(request(field)) is None


@pytest.mark.parametrize(
    "message",
    [
        b"",
        request(5) + request(33),
        request(33) + request(5),
        request(5)[:-1] + b"\x05",
        b"\xff" * 12,
        bytes([8, 7, 5 << 3 | 3]),
        bytes([8, 7, 5 << 3 | 0, 1]),
    ],
    ids=["empty", "two-requests", "two-requests-turned", "cut-short", "no-varint", "group", "wrong-wire-type"],
)
def test_gate_refuses_malformed_requests(message: bytes) -> None:
    assert Gate().answer(message) is not None


def test_gate_caps_views_and_counts_those_that_were_deleted_or_refused() -> None:
    gate = Gate(max_views=2)
    view = lambda name: b"\x0a" + bytes([len(name)]) + name  # noqa: E731
    assert gate.answer(request(6, number=1, value=view(b"v1"))) is None
    assert gate.answer(request(6, number=2, value=view(b"v2"))) is None
    assert b"2 views" in (gate.answer(request(6, number=3, value=view(b"v3"))) or b"")
    gate.answer(request(11, number=4, entity=b"v1"))
    assert gate.views == 1
    gate.answered(error(2, b"t", "no such column"))
    assert gate.views == 0


def test_protobuf_cut_short_is_named() -> None:
    with pytest.raises(Malformed, match="cut short"):
        list(fields(b"\x08"))


# The gate over a real connection, with the engine's own client


Change = Callable[[Any, Any], Awaitable[Any]]
CHANGES: dict[str, Change] = {
    "make_table": lambda client, _: client.table({"a": [1]}, name="mine"),
    "update": lambda _, table: table.update({"#row": [0], "current (A)": [9.0]}),
    "replace": lambda _, table: table.replace({"#row": [0], "current (A)": [9.0]}),
    "clear": lambda _, table: table.clear(),
    "remove": lambda _, table: table.remove([0]),
    "delete": lambda _, table: table.delete(),
    "join": lambda client, _: client.join(SERIES, SERIES, "device", name="joined"),
}


@pytest.mark.parametrize("change", CHANGES)
def test_page_cannot_change_a_table(shared: Viewer, change: str) -> None:
    async def use(page: Page) -> None:
        table = await page.client.open_table(SERIES)
        before = await (await table.view()).to_json()
        with pytest.raises(perspective.PerspectiveError, match="read-only"):
            await CHANGES[change](page.client, table)
        assert await (await table.view()).to_json() == before

    with_page(shared, use)


def test_views_of_a_page_are_capped(shared: Viewer) -> None:
    async def use(page: Page) -> None:
        table = await page.client.open_table(SERIES)
        views = [await table.view() for _ in range(100)]
        with pytest.raises(perspective.PerspectiveError, match="100 views"):
            await table.view()
        await views[0].delete()
        assert await (await table.view()).num_rows() == 2

    with_page(shared, use)


def test_subscriptions_of_a_page_are_capped_and_those_that_ended_do_not_count() -> None:
    gate = Gate()
    for number in range(2 * MAX_FOLLOWED):
        assert gate.answer(request(21, number=number % 128)) is None
        assert gate.answer(request(22, number=1, value=number_field(1, number % 128))) is None
    subscribe = lambda number: number_field(1, number) + bytes_field(2, b"v") + bytes_field(21, b"")  # noqa: E731
    assert [gate.answer(subscribe(number)) for number in range(MAX_FOLLOWED)] == [None] * MAX_FOLLOWED
    assert f"follow {MAX_FOLLOWED} changes".encode() in (gate.answer(subscribe(MAX_FOLLOWED)) or b"")
    assert gate.answer(request(11, entity=b"v")) is None
    assert gate.answer(subscribe(1)) is None


def test_page_may_follow_and_leave_as_often_as_it_likes(shared: Viewer) -> None:
    async def use(page: Page) -> None:
        view = await (await page.client.open_table(SERIES)).view()
        for _ in range(MAX_FOLLOWED + 10):
            await view.remove_update(await view.on_update(lambda *_: None))

    with_page(shared, use)


def test_page_is_given_a_port_that_the_engine_knows_nothing_of(shared: Viewer) -> None:
    async def use(page: Page) -> None:
        table = await page.client.open_table(SERIES)
        assert await table.make_port() == await table.make_port() > 2**16

    with_page(shared, use)


# Expressions

ALLOWED = [
    '"current (A)" * 2 + 1.5e-3',
    "if (\"current (A)\" > 2) { 'high' } else { 'low' }",
    "if (\"current (A)\" > 2) 'high'; else if (\"current (A)\" > 1) 'middle'; else 'low';",
    'if("current (A)" > 2, 1, 0) + 1',
    '"current (A)" > 2 and not(is_null("energy (Wh)")) ? 1 : 0',
    "bucket(\"ts\", '1m')",
    'concat("device", \', \', upper("room"))',
    "match(\"room\", '[a-z]+\\d')",
    '// its twice\n-("current (A)" ^ 2) % 7 <> 3;',
]
REFUSED = {
    "for (var i := 0; i < 1000000; i += 1) { i }": "'for' is nothing",
    "while (true) { 1 }": "'while' is nothing",
    "repeat 1 until (false)": "'repeat' is nothing",
    "var v[100000000] := [0]; v[0]": "'var' is nothing",
    "~{1; 2}": "'~' cannot stand here",
    "1; 2": "'2' cannot stand here",
    "x := 1": "'x' is nothing",
    '"current (A)" := 1': "':' cannot stand here",
    "FOR(1)": "'FOR' is nothing",
    "vlookup('ts', 1)": "'vlookup' is nothing",
    "replace_all(\"room\", '', 'xxxxxxxx')": "'replace_all' is nothing",
    "concat('', 'x')": "is empty, does not end, or has quotes",
    "indexof('a', 'b', 1)": "'indexof' is nothing",
    "intern('a')": "'intern' is nothing",
    "string(random())": "'random' is nothing",
    "abs(1": "')' is missing",
    "abs": "ends where '(' is missing",
    "1 +": "ends where something is missing",
    "'a\\' + for (;;) {1} + '": "quoted text or column is empty, does not end",
    "'a\"b' + '\"'": "quoted text or column is empty, does not end",
    '"" + for + ""': "quoted text or column is empty, does not end",
    "1 // it's\n+ 1": "quoted text or column",
    "1 // c\r for (;;) {}": "'for' is nothing",
    "1 # 2": "'#' cannot stand here",
    "1 /* 2 */": "'*' cannot stand here",
    '"a"[0]': "'[' cannot stand here",
    "1 & 2": "'&' cannot stand here",
    "\u0000": "cannot stand here",
    "(" * 40 + "1" + ")" * 40: "nested more than 32 deep",
    "1" + "+1" * 1_000: "2001 characters",
}


@pytest.mark.parametrize("text", ALLOWED)
def test_expression_that_is_allowed_is_computed(shared: Viewer, text: str) -> None:
    async def use(page: Page) -> None:
        table = await page.client.open_table(LAST)
        described = await table.validate_expressions({"it": text})
        assert (list(described["expression_schema"]), described["errors"]) == (["it"], {})
        view = await table.view(columns=["it"], expressions={"it": text})
        assert len(await view.to_json()) == 2

    with_page(shared, use)


def test_functions_that_are_listed_are_the_engines(shared: Viewer) -> None:
    """The engine has other words for a function that it does not know than for arguments that do not suit it."""

    async def use(page: Page) -> None:
        table = await page.client.open_table(LAST)
        unknown = []
        for name in sorted(expressions.FUNCTIONS):
            told = (await table.validate_expressions({"it": f"{name}(1)"}))["errors"]
            if "ndefined symbol" in told.get("it", {}).get("error_message", ""):
                unknown.append(name)
        assert unknown == []

    with_page(shared, use)


@pytest.mark.parametrize("text", REFUSED)
def test_expression_that_is_refused_is_told_why_where_it_is_written(shared: Viewer, text: str) -> None:
    async def use(page: Page) -> None:
        table = await page.client.open_table(LAST)
        told = (await table.validate_expressions({"it": text, "other": "1 + 1"}))["errors"]
        assert list(told) == ["it"]
        assert REFUSED[text] in told["it"]["error_message"]
        with pytest.raises(perspective.PerspectiveError, match=re.escape(REFUSED[text])):
            await table.view(expressions={"it": text})
        assert await table.size() == 2

    with_page(shared, use)


def test_refused_expression_is_marked_at_its_place(shared: Viewer) -> None:
    async def use(page: Page) -> None:
        table = await page.client.open_table(LAST)
        told = (await table.validate_expressions({"it": '1 +\n  while ("door") { 1 }'}))["errors"]["it"]
        assert (told["line"], told["column"]) == (1, 2)

    with_page(shared, use)


PIECES = [
    *"'\"\\()[]{}:=,;?+~ \n1a",
    '"a"',
    "'b'",
    "''",
    '""',
    "for",
    "var",
    "true",
    "abs(",
    "if(",
    "else",
    "//",
    "match(",
    "and",
]


def rewritten(text: str) -> str:
    """What the engine makes of an expression before it parses it: the same patterns, one after the other."""
    text = text.replace("true", "True").replace("false", "False")
    text = re.sub(r'"(.*?[^\\])"', "COLUMN0", text)
    text = re.sub(r"('.*?[^\\]')", r"intern(\1)", text)
    return re.sub(r"((?:match|match_all|search|replace|contains)\((?:.*?,\s*))intern\(('.*?')\)", r"\1\2", text)


@given(st.lists(st.sampled_from(PIECES), max_size=12).map("".join))
@settings(max_examples=1_000, deadline=None)
def test_what_passes_is_the_same_to_the_engine(text: str) -> None:
    try:
        expressions.check(text)
    except ExpressionError:
        return
    code = re.sub(r"//[^\n]*", "", re.sub(r"'[^']*'", "1", rewritten(text)))
    words = set(re.findall(r"[A-Za-z_]\w*", code))
    assert words <= {"COLUMN0", "intern", "True", "abs", "match", "if", "else", "and"}
    assert not re.search(r"['\"\\~\[\]]|:=", code)


# Views


def view_config(**wanted: Any) -> bytes:
    """A configuration with so many of each: names are fields of the message."""
    made = b""
    for field, count in wanted.items():
        number = int(field.removeprefix("f"))
        value = bytes_field(1, b"a") + bytes_field(2, b"")
        if number == 3:
            made += bytes_field(3, bytes_field(2, bytes_field(1, b"a") * count))
        else:
            made += bytes_field(number, value if number in (6, 7, 11) else b"a") * count
    return made


@pytest.mark.parametrize("field", [number for number in MOST if number < 12 and number not in (4, 5, 6)])
def test_each_part_of_a_view_has_a_bound(field: int) -> None:
    most, what = MOST[field]
    assert check(view_config(**{f"f{field}": most})) == {}
    with pytest.raises(TooMuch, match=f"{most} {what}, and this one has {most + 1}"):
        check(view_config(**{f"f{field}": most + 1}))


TOO_MUCH: dict[str, dict[str, Any]] = {
    "4 columns to group by": {"group_by": ["device", "room", "ts", "note", "door"]},
    "2 columns to split by": {"split_by": ["device", "room", "ts"]},
    "50 filters": {"filter": [["device", "==", "a"]] * 51},
    "1000 values to filter by": {"filter": [["device", "in", ["a"] * 1_001]]},
    "20 columns to sort by": {"sort": [["device", "asc"]] * 21},
    "20 expressions": {"expressions": {f"e{n}": "1" for n in range(21)}},
    "4000 characters": {"expressions": {f"e{n}": "1" + "+1" * 900 for n in range(3)}},
}


@pytest.mark.parametrize("said", TOO_MUCH)
def test_view_that_asks_for_too_much_is_refused(shared: Viewer, said: str) -> None:
    async def use(page: Page) -> None:
        table = await page.client.open_table(LAST)
        with pytest.raises(perspective.PerspectiveError, match=said):
            await table.view(**TOO_MUCH[said])
        view = await table.view(group_by=["room"], split_by=["device"], expressions={"twice": '"current (A)" * 2'})
        assert await view.num_rows() == 3

    with_page(shared, use)


def test_view_that_asks_for_what_is_not_known_is_refused() -> None:
    with pytest.raises(TooMuch, match="does not know"):
        check(bytes_field(13, b""))


def test_documentation_lists_the_functions() -> None:
    page = (Path(__file__).parent.parent / "docs" / "viewer.md").read_text(encoding="utf-8")
    listed = page.partition("## Expressions")[2].partition("\n## ")[0].partition("comments;")[2]
    assert set(" ".join(re.findall(r"`([^`]+)`", listed)).split()) == expressions.FUNCTIONS
