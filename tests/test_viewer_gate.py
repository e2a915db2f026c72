"""The gate: what a page may ask, by bytes and by the engine's own client over a real connection."""

from __future__ import annotations

import importlib.metadata
import re
import subprocess
import sys
from collections.abc import Awaitable, Callable, Iterator
from pathlib import Path
from typing import Any

import perspective
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from protobuf_bytes import bytes_field, fields, number_field
from viewer_line import START_US, Line, Viewer, viewing, wait_for
from viewer_page import Page, with_page

from headrace.errors import ExpressionError
from viewer import expressions
from viewer.gate import MAX_FOLLOWED, READING, Gate, error
from viewer.perspective_pb2 import Request, ViewConfig
from viewer.views import TooMuch, check

pytestmark = pytest.mark.slow

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


# Written out by hand, from the protocol of Perspective 5.6.1: neither is taken from what it tests.
ALLOWED_REQUESTS = {
    3: "get_features_req",
    4: "get_hosted_tables_req",
    5: "table_make_port_req",
    6: "table_make_view_req",
    7: "table_schema_req",
    8: "table_size_req",
    10: "view_column_paths_req",
    11: "view_delete_req",
    12: "view_dimensions_req",
    13: "view_expression_schema_req",
    14: "view_get_config_req",
    15: "view_schema_req",
    16: "view_to_arrow_req",
    17: "server_system_info_req",
    18: "view_collapse_req",
    19: "view_expand_req",
    20: "view_get_min_max_req",
    21: "view_on_update_req",
    22: "view_remove_on_update_req",
    23: "view_set_depth_req",
    24: "view_to_columns_string_req",
    25: "view_to_csv_req",
    26: "view_to_rows_string_req",
    29: "table_on_delete_req",
    30: "table_remove_delete_req",
    34: "view_on_delete_req",
    35: "view_remove_delete_req",
    36: "view_to_ndjson_string_req",
    37: "remove_hosted_tables_update_req",
    39: "view_on_remove_req",
    40: "view_remove_on_remove_req",
    41: "table_describe_req",
}
FORBIDDEN_REQUESTS = {
    27: "make_table_req",
    28: "table_delete_req",
    31: "table_remove_req",
    32: "table_replace_req",
    33: "table_update_req",
    38: "make_join_table_req",
}
UNKNOWN_REQUESTS = (9, 42, 43, 50, 99, 1_000, 2**29 - 1)


def told(refused: bytes) -> bytes:
    """What a response says of why it refuses."""
    why = dict(fields(refused))[50]
    assert isinstance(why, bytes)
    text = dict(fields(why))[1]
    assert isinstance(text, bytes)
    return text


@pytest.mark.parametrize("field", [*FORBIDDEN_REQUESTS, *UNKNOWN_REQUESTS])
def test_gate_refuses_what_changes_a_table_and_what_it_does_not_know(field: int) -> None:
    for value in (b"", number_field(1, 5), bytes_field(1, b"a" * 1_000)):
        refused = Gate().answer(number_field(1, 7) + bytes_field(2, b"t") + bytes_field(field, value))
        assert refused is not None
        answer = dict(fields(refused))
        assert (answer[1], answer[2]) == (7, b"t")
        assert b"read-only" in told(refused)


@pytest.mark.parametrize("field", [number for number in ALLOWED_REQUESTS if number != MAKE_PORT])
def test_gate_lets_reading_through(field: int) -> None:
    assert Gate().answer(request(field)) is None


def test_every_request_is_allowed_or_forbidden_by_name_and_number() -> None:
    known = {field.number: field.name for field in Request.DESCRIPTOR.fields}
    assert known == {1: "msg_id", 2: "entity_id", **ALLOWED_REQUESTS, **FORBIDDEN_REQUESTS}
    assert set(ALLOWED_REQUESTS.values()) == READING


@pytest.mark.parametrize(
    "message",
    [
        b"",
        request(5) + request(33),
        request(33) + request(5),
        request(5)[:-1] + b"\x05",
        b"\xff" * 12,
        bytes([8, 7, 5 << 3 | 3]),
        bytes([8, 7, 5 << 3 | 3, 5 << 3 | 4]),
        bytes([8, 7, 5 << 3 | 0, 1]),
        request(7) + request(8),
        request(7) + request(7),
        request(7) + number_field(99, 1),
        b"\x08",
        request(6, value=bytes_field(1, b"v\xff")),
        request(6, value=bytes_field(2, b"\x0a\x05a")),
        request(6, value=bytes_field(2, bytes_field(6, bytes_field(1, b"a") + bytes_field(2, b"\xff")))),
    ],
    ids=[
        "empty",
        "two-requests",
        "two-requests-turned",
        "cut-short",
        "no-varint",
        "group",
        "whole-group",
        "wrong-wire-type",
        "two-allowed-requests",
        "one-request-twice",
        "request-and-unknown",
        "number-cut-short",
        "no-utf-8",
        "configuration-cut-short",
        "expression-no-utf-8",
    ],
)
def test_gate_refuses_malformed_requests(message: bytes) -> None:
    refused = Gate().answer(message)
    assert refused is not None
    assert told(refused)


@given(st.binary(max_size=64))
@settings(max_examples=500)
def test_whatever_bytes_come_the_gate_answers_or_lets_them_through(message: bytes) -> None:
    for sent in (message, request(6, value=message), request(41, value=message)):
        answer = Gate().answer(sent)
        assert answer is None or {50, 41, MAKE_PORT} & dict(fields(answer)).keys()


def expression(*texts: bytes) -> bytes:
    """An entry of a view's expressions."""
    return bytes_field(6, bytes_field(1, b"e") + b"".join(bytes_field(2, text) for text in texts))


TWICE: dict[str, Callable[[int, bytes, bytes], bytes]] = {
    "configurations": lambda at, one, other: bytes_field(at, expression(one)) + bytes_field(at, expression(other)),
    "columns": lambda at, one, other: bytes_field(at, expression(one) + expression(other)),
    "expressions": lambda at, one, other: bytes_field(at, expression(one, other)),
}


@pytest.mark.parametrize("what", TWICE)
def test_what_comes_twice_is_judged_twice(what: str) -> None:
    """Whichever of them counts for the engine: the first, the last, or both."""
    for one, other in ((b"while (true) {}", b"1"), (b"1", b"while (true) {}")):
        refused = Gate().answer(request(6, value=TWICE[what](2, one, other)))
        assert refused is not None
        assert b"'while' is nothing" in told(refused)
        described = Gate().answer(request(41, value=TWICE[what](1, one, other)))
        assert described is not None
        assert b"'while' is nothing" in described


def test_gate_caps_views_and_counts_those_that_were_deleted_or_refused() -> None:
    gate = Gate(max_views=2)
    view = lambda name: b"\x0a" + bytes([len(name)]) + name  # noqa: E731
    assert gate.answer(request(6, number=1, value=view(b"v1"))) is None
    assert gate.answer(request(6, number=2, value=view(b"v2"))) is None
    assert b"2 views" in (gate.answer(request(6, number=3, value=view(b"v3"))) or b"")
    gate.answer(request(11, number=4, entity=b"v1"))
    assert gate.views == 1
    gate.answered(error(2, "t", "no such column"))
    assert gate.views == 0


# The protocol that it reads them by

ROOT = Path(__file__).parent.parent


def test_generated_code_is_what_protoc_makes_of_the_protocol(tmp_path: Path) -> None:
    made = [sys.executable, "-m", "grpc_tools.protoc", "-I.", f"--python_out={tmp_path}", f"--pyi_out={tmp_path}"]
    subprocess.run([*made, "viewer/perspective.proto"], cwd=ROOT, check=True)
    for name in ("perspective_pb2.py", "perspective_pb2.pyi"):
        again = (tmp_path / "viewer" / name).read_text(encoding="utf-8")
        assert again == (ROOT / "viewer" / name).read_text(encoding="utf-8"), "run `make proto`"


def test_protocol_is_that_of_the_version_that_is_pinned() -> None:
    text = (ROOT / "viewer" / "perspective.proto").read_text(encoding="utf-8")
    assert re.findall(r"Perspective (\d+\.\d+\.\d+)", text) == [importlib.metadata.version("perspective-python")], (
        "compare the new version's protocol with viewer/perspective.proto, and with the lists of this file"
    )


# The gate over a real connection, with the engine's own client


Change = Callable[[Any, Any], Awaitable[Any]]
CHANGES: dict[str, Change] = {
    "make_table_req": lambda client, _: client.table({"a": [1]}, name="mine"),
    "table_update_req": lambda _, table: table.update({"#row": [0], "current (A)": [9.0]}),
    "table_replace_req": lambda _, table: table.replace({"#row": [0], "current (A)": [9.0]}),
    "table_replace_req, clear": lambda _, table: table.clear(),
    "table_remove_req": lambda _, table: table.remove([0]),
    "table_delete_req": lambda _, table: table.delete(),
    "make_join_table_req": lambda client, _: client.join(SERIES, SERIES, "device", name="joined"),
}


def test_every_forbidden_request_is_tried() -> None:
    assert {change.partition(",")[0] for change in CHANGES} == set(FORBIDDEN_REQUESTS.values())


@pytest.mark.parametrize("change", CHANGES)
def test_page_cannot_change_a_table(shared: Viewer, change: str) -> None:
    async def use(page: Page) -> None:
        table = await page.client.open_table(SERIES)
        before = await (await table.view()).to_json()
        with pytest.raises(perspective.PerspectiveError, match="read-only"):
            await CHANGES[change](page.client, table)
        [asked] = [number for number, _ in fields(page.sent[-1]) if number > 2]
        assert FORBIDDEN_REQUESTS[asked] == change.partition(",")[0]
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


BOUNDS = {
    1: (4, "columns to group by"),
    2: (2, "columns to split by"),
    3: (500, "columns"),
    7: (500, "aggregates"),
    11: (5, "window columns"),
}


@pytest.mark.parametrize("field", BOUNDS)
def test_each_part_of_a_view_has_a_bound(field: int) -> None:
    most, what = BOUNDS[field]
    assert check(ViewConfig.FromString(view_config(**{f"f{field}": most}))) == {}
    with pytest.raises(TooMuch, match=f"{most} {what}, and this one has {most + 1}"):
        check(ViewConfig.FromString(view_config(**{f"f{field}": most + 1})))


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
        check(ViewConfig.FromString(bytes_field(13, b"")))


def test_documentation_lists_the_functions() -> None:
    page = (Path(__file__).parent.parent / "docs" / "viewer.md").read_text(encoding="utf-8")
    listed = page.partition("## Expressions")[2].partition("\n## ")[0].partition("comments;")[2]
    assert set(" ".join(re.findall(r"`([^`]+)`", listed)).split()) == expressions.FUNCTIONS
