"""The words of an expression: numbers, quoted text, names, keywords and signs, each with its place."""

from __future__ import annotations

import re
from typing import Literal, NamedTuple

from headrace.errors import ExpressionError

MAX_LENGTH = 4_000
"""The most characters that an expression may have."""

KEYWORDS = frozenset(
    ("and", "or", "not", "in", "between", "is", "null", "true", "false", "case", "when", "then", "else", "end")
)

Kind = Literal["int", "float", "text", "name", "keyword", "sign", "end"]

_SPACE = re.compile(r"\s*")
_NUMBER = re.compile(r"(?:[0-9]+(\.[0-9]*)?|(\.[0-9]+))([eE][+-]?[0-9]+)?")
_NAME = re.compile(r"[^\W\d]\w*")
_SIGN = re.compile(r"==|!=|<>|<=|>=|[=<>+\-*/%(),]")
_ESCAPES = {"n": "\n", "t": "\t", "r": "\r", "\\": "\\", "'": "'", '"': '"'}
_HEX = re.compile(r"[0-9a-fA-F]{4}")
_FOREIGN = {
    "&": "write `and`",
    "|": "write `or`",
    "!": "write `not`, or `!=` for unequal",
    "‘": "put text in straight quotes, as 'text'",
    "’": "put text in straight quotes, as 'text'",
    "“": "put text in straight quotes, as 'text'",
    "”": "put text in straight quotes, as 'text'",
}


class Token(NamedTuple):
    """One word: ``value`` is the number, the text without its quotes, the name, or the keyword in lower case."""

    kind: Kind
    value: int | float | str
    at: int
    quoted: bool = False

    def shown(self) -> str:
        """The token as a message names it."""
        if self.kind == "end":
            return "the end"
        if self.kind == "text":
            return f"text {self.value!r}"
        return f"`{self.value}`"


def tokenize(text: str) -> list[Token]:
    """All words of ``text`` and, last, an ``end``. Raises ExpressionError at a character that begins none."""
    if len(text) > MAX_LENGTH:
        raise ExpressionError(
            f"the expression has {len(text)} characters, more than {MAX_LENGTH}",
            text=text,
            position=MAX_LENGTH,
            hint="compute parts of it as fields of their own",
        )
    tokens = []
    at = _skip(text, 0)
    while at < len(text):
        token, at = _token(text, at)
        tokens.append(token)
        at = _skip(text, at)
    tokens.append(Token("end", "", len(text)))
    return tokens


def _skip(text: str, at: int) -> int:
    space = _SPACE.match(text, at)
    return at if space is None else space.end()


def _token(text: str, at: int) -> tuple[Token, int]:
    """The word that begins at ``at``, and where it ends."""
    if number := _NUMBER.match(text, at):
        return _number(text, number), number.end()
    if name := _NAME.match(text, at):
        lower = name[0].lower()
        if lower in KEYWORDS:
            return Token("keyword", lower, at), name.end()
        return Token("name", name[0], at), name.end()
    if sign := _SIGN.match(text, at):
        return Token("sign", sign[0], at), sign.end()
    if text[at] in "'\"":
        return _quoted_text(text, at)
    if text[at] == "`":
        return _quoted_name(text, at)
    raise ExpressionError(
        f"{text[at]!r} has no meaning in an expression",
        text=text,
        position=at,
        hint=_FOREIGN.get(text[at], "leave it out, or put text in 'quotes' and an odd name in `backticks`"),
    )


def _number(text: str, match: re.Match[str]) -> Token:
    end = match.end()
    if end < len(text) and (text[end] in "._" or text[end].isalnum()):
        raise ExpressionError(
            f"{text[end]!r} cannot follow the number {match[0]}",
            text=text,
            position=end,
            hint="write a plain number, as 220, 0.5 or 1e3, and an odd name in `backticks`",
        )
    if not any(match.groups()):
        return Token("int", int(match[0]), match.start())
    value = float(match[0])
    if value == float("inf"):
        raise ExpressionError(
            f"the number {match[0]} is beyond what a float holds",
            text=text,
            position=match.start(),
            hint="write a number up to 1.7e308",
        )
    return Token("float", value, match.start())


def _quoted_text(text: str, at: int) -> tuple[Token, int]:
    quote = text[at]
    parts: list[str] = []
    place = at + 1
    while place < len(text):
        character = text[place]
        if character == quote:
            if text[place + 1 : place + 2] != quote:
                return Token("text", "".join(parts), at, quoted=True), place + 1
            parts.append(quote)
            place += 2
        elif character == "\\":
            value, place = _escape(text, place)
            parts.append(value)
        else:
            parts.append(character)
            place += 1
    raise ExpressionError(
        "the text that begins here has no end", text=text, position=at, hint=f"close it with another {quote}"
    )


def _escape(text: str, at: int) -> tuple[str, int]:
    """The character that the escape at ``at`` stands for, and where the escape ends."""
    letter = text[at + 1 : at + 2]
    if letter in _ESCAPES:
        return _ESCAPES[letter], at + 2
    digits = _HEX.match(text, at + 2) if letter == "u" else None
    # Half of a surrogate pair is no character and could not be written as UTF-8.
    if digits is not None and not 0xD800 <= int(digits[0], 16) <= 0xDFFF:
        return chr(int(digits[0], 16)), at + 6
    raise ExpressionError(
        f"{text[at : at + 2]!r} is no escape that is known here",
        text=text,
        position=at,
        hint=r"write one of \n \t \r \\ \' \" \u00e9, and a backslash itself as \\",
    )


def _quoted_name(text: str, at: int) -> tuple[Token, int]:
    place = at + 1
    while True:
        end = text.find("`", place)
        if end < 0:
            raise ExpressionError(
                "the name that begins here has no end", text=text, position=at, hint="close it with another `"
            )
        if text[end + 1 : end + 2] != "`":
            break
        place = end + 2
    return Token("name", text[at + 1 : end].replace("``", "`"), at, quoted=True), end + 1
