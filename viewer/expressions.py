"""Which expressions a page may have computed: a grammar without loops, variables and vectors.

The engine's language (ExprTK) can loop for ever and ask for any memory, for each row, in the one thread that
all pages share. What passes here costs time and memory in proportion to its length: numbers, texts, columns,
operators, conditionals and the functions of a list.

The engine replaces column names and texts by patterns before it parses, so only such quoting passes as both
understand alike: no escaped quotes, no double quote in a text, no empty text.

>>> check('bucket("current (A)", 5) * 2')
>>> check("for (var i := 0; i < 9; i += 1) { i }")
Traceback (most recent call last):
...
headrace.errors.ExpressionError: 'for' is nothing that a page may use in an expression (write numbers, ...
"""

from __future__ import annotations

import re
from typing import NamedTuple, NoReturn

from headrace.errors import ExpressionError

MAX_LENGTH = 2_000
"""Characters of an expression."""
MAX_DEPTH = 32
"""Parentheses, calls and conditionals within each other."""

_FUNCTIONS = """
    abs acos acosh asin asinh atan atanh avg bucket ceil clamp cos cosh cot deg2grad deg2rad equal erf erfc exp
    expm1 floor frac grad2deg iclamp inrange log log10 log1p log2 logn max min mod mul not not_equal percent_of
    pow rad2deg root round sgn sin sinc sinh sqrt sum tan tanh trunc
    boolean date datetime float integer string
    day_of_week hour_of_day month_of_year now today
    coalesce concat contains is_not_null is_null length lower match match_all order replace search substring upper
"""
FUNCTIONS = frozenset(_FUNCTIONS.split())
CONSTANTS = frozenset({"true", "false", "True", "False", "pi", "epsilon", "inf"})
_WORDS = frozenset({"and", "or", "xor", "nand", "nor", "xnor"})
OPERATORS = frozenset({"+", "-", "*", "/", "%", "^", "=", "==", "!=", "<>", "<", "<=", ">", ">=", *_WORDS})
HINT = "write numbers, 'texts', \"columns\", operators, if/else, and functions that docs/viewer.md lists"

_TOKEN = re.compile(
    r"""
    (?P<space>[ \t\r\n]+ | //[^\n\r"']*)
  | (?P<number>(?:\d+(?:\.\d*)? | \.\d+)(?:[eE][+-]?\d+)?)
  | (?P<name>[A-Za-z_]\w*)
  | (?P<column>"[^"\\\x00-\x1f]+")
  | (?P<text>'(?:[^'"\\\x00-\x1f] | \\[^'"\x00-\x1f])*(?:[^'"\\\x00-\x1f] | \\[^'"\\\x00-\x1f])')
  | (?P<sign><= | >= | == | != | <> | [-+*/%^=<>(){},;?:])
    """,
    re.VERBOSE | re.ASCII,
)


class _Token(NamedTuple):
    kind: str
    text: str
    position: int


def check(text: str) -> None:
    """Return if a page may have this computed. Raises ExpressionError, which says where and why not."""
    if len(text) > MAX_LENGTH:
        raise ExpressionError(
            f"the expression has {len(text)} characters",
            text=text,
            position=MAX_LENGTH,
            hint=f"{MAX_LENGTH} is the most",
        )
    _Parser(text).whole()


class _Parser:
    """Recursive descent over one expression; what an operator binds to is the engine's affair."""

    def __init__(self, text: str) -> None:
        self._text = text
        self._tokens = self._split()
        self._at = 0
        self._depth = 0

    def whole(self) -> None:
        self._expression()
        self._may(";")
        if self._now.kind != "end":
            self._refuse()

    def _split(self) -> list[_Token]:
        tokens: list[_Token] = []
        at = 0
        while at < len(self._text):
            found = _TOKEN.match(self._text, at)
            if found is None:
                # What stands before it may be the better reason to refuse.
                return [*tokens, _Token("unknown", self._text[at], at)]
            if found.lastgroup != "space":
                tokens.append(_Token(str(found.lastgroup), found[0], at))
            at = found.end()
        return [*tokens, _Token("end", "", len(self._text))]

    @property
    def _now(self) -> _Token:
        return self._tokens[self._at]

    def _may(self, *texts: str) -> bool:
        """Go on if the next token is one of these signs or names."""
        if self._now.kind in ("sign", "name") and self._now.text in texts:
            self._at += 1
            return True
        return False

    def _must(self, text: str) -> None:
        if not self._may(text):
            self._refuse(wanted=text)

    def _expression(self) -> None:
        self._depth += 1
        if self._depth > MAX_DEPTH:
            raise ExpressionError(
                f"the expression is nested more than {MAX_DEPTH} deep",
                text=self._text,
                position=self._now.position,
                hint="make a column of its own of a part of it",
            )
        self._operand()
        while self._may(*OPERATORS):
            self._operand()
        if self._may("?"):
            self._expression()
            self._must(":")
            self._expression()
        self._depth -= 1

    def _operand(self) -> None:
        while self._may("+", "-"):
            pass
        token = self._now
        if self._may("("):
            self._expression()
            self._must(")")
        elif self._may("if"):
            self._conditional()
        elif token.kind == "name" and token.text in FUNCTIONS:
            self._at += 1
            self._must("(")
            self._arguments()
        elif token.kind in ("number", "text", "column") or (token.kind == "name" and token.text in CONSTANTS):
            self._at += 1
        else:
            self._refuse()

    def _arguments(self) -> None:
        if self._may(")"):
            return
        self._expression()
        while self._may(","):
            self._expression()
        self._must(")")

    def _conditional(self) -> None:
        """``(a, b, c)``, or ``(a) b else c`` with ``b`` and ``c`` in braces or not; ``if`` is read already."""
        while True:
            self._must("(")
            self._expression()
            if self._may(","):
                self._expression()
                self._must(",")
                self._expression()
                self._must(")")
                return
            self._must(")")
            self._branch()
            self._must("else")
            if not self._may("if"):
                self._branch()
                return

    def _branch(self) -> None:
        if self._may("{"):
            self._expression()
            self._may(";")
            self._must("}")
        else:
            self._expression()
            if self._now.text == ";" and self._tokens[self._at + 1].text == "else":
                self._at += 1

    def _refuse(self, *, wanted: str = "") -> NoReturn:
        token = self._now
        if token.kind == "end":
            problem = f"the expression ends where {repr(wanted) if wanted else 'something'} is missing"
        elif token.text in ("'", '"'):
            problem = "a quoted text or column is empty, does not end, or has quotes or a final backslash in it"
        elif wanted:
            problem = f"{wanted!r} is missing before {token.text!r}"
        elif token.kind == "name":
            problem = f"{token.text!r} is nothing that a page may use in an expression"
        else:
            problem = f"{token.text!r} cannot stand here in an expression of a page"
        raise ExpressionError(problem, text=self._text, position=token.position, hint=HINT)
