"""From words to the shape of an expression: precedence climbing, with PostgreSQL's precedence.

From the loosest to the tightest: or; and; not; is; comparisons; in and between; + -; * / %; a sign before.
"""

from __future__ import annotations

from typing import TypeVar

from headrace.errors import ExpressionError
from headrace.expression import syntax
from headrace.expression.syntax import Node
from headrace.expression.tokens import Token, tokenize

MAX_DEPTH = 64
"""How many parts may lie one inside the other: a limit on what one expression can cost."""

_OR, _AND, _NOT, _IS, _COMPARE, _RANGE, _ADD, _MULTIPLY, _SIGN = range(1, 10)
_COMPARISONS = frozenset(("=", "==", "!=", "<>", "<", "<=", ">", ">="))
_POWERS = {
    "or": _OR,
    "and": _AND,
    "is": _IS,
    **dict.fromkeys(_COMPARISONS, _COMPARE),
    "in": _RANGE,
    "between": _RANGE,
    "+": _ADD,
    "-": _ADD,
    "*": _MULTIPLY,
    "/": _MULTIPLY,
    "%": _MULTIPLY,
}
_ONE_SPELLING = {"==": "=", "<>": "!="}
_INT_MAX = 2**63 - 1
_CONSTANTS = {"true": True, "false": False, "null": None}
_FOREIGN = {
    "like": "write contains(name, 'part') or starts_with(name, 'part')",
    "ilike": "write contains(lower(name), 'part')",
}
_NodeT = TypeVar("_NodeT", bound=Node)


def parse_syntax(text: str) -> Node:
    """The shape of ``text``. Raises ExpressionError at the first character that does not fit."""
    parser = _Parser(text)
    node = parser.expression(_OR)
    parser.finish()
    return node


class _Parser:
    def __init__(self, text: str) -> None:
        self._text = text
        self._tokens = tokenize(text)
        self._place = 0
        self._level = 0

    @property
    def _next(self) -> Token:
        return self._tokens[self._place]

    def _advance(self) -> Token:
        token = self._next
        self._place += 1
        return token

    def _is(self, value: str, ahead: int = 0) -> bool:
        """Whether the next word is this keyword or sign."""
        token = self._tokens[min(self._place + ahead, len(self._tokens) - 1)]
        return token.kind in ("keyword", "sign") and token.value == value

    def _accept(self, value: str) -> bool:
        found = self._is(value)
        self._place += found
        return found

    def _expect(self, value: str, hint: str) -> None:
        if not self._accept(value):
            raise self._error(f"expected `{value}`, found {self._next.shown()}", hint)

    def _error(self, message: str, hint: str, at: int | None = None) -> ExpressionError:
        """The error to raise about the next word, or about the character ``at``."""
        return ExpressionError(message, text=self._text, position=self._next.at if at is None else at, hint=hint)

    def _checked(self, node: _NodeT) -> _NodeT:
        if node.depth > MAX_DEPTH:
            raise self._too_deep(node.at)
        return node

    def _too_deep(self, at: int) -> ExpressionError:
        message = f"more than {MAX_DEPTH} parts lie one inside the other"
        return self._error(message, "compute parts of it as fields of their own", at)

    def finish(self) -> None:
        """Refuse whatever follows the expression."""
        token = self._next
        if token.kind == "end":
            return
        if token.value == ")" and token.kind == "sign":
            raise self._error("this `)` closes nothing", "leave it out, or open it with `(`")
        word = str(token.value).lower()
        hint = _FOREIGN.get(word) if token.kind == "name" else None
        raise self._error(
            f"expected an operator, found {token.shown()}", hint or "join values with and, or, + or a comparison"
        )

    def expression(self, loosest: int) -> Node:
        """What stands here, as far as operators at least as tight as ``loosest`` join it."""
        self._level += 1
        if self._level > MAX_DEPTH:
            raise self._too_deep(self._next.at)
        left = self._first(loosest)
        # What follows a comparison, `in`, `between` or `is` must be looser: these have no natural chain.
        tightest, last = _SIGN, 0
        while (power := self._power()) >= loosest:
            if power > tightest:
                raise self._chained(power, last)
            left, last = self._checked(self._join(left, power)), power
            if power in (_COMPARE, _RANGE):
                tightest = power - 1
            elif power == _IS:
                tightest = power
        self._level -= 1
        return left

    def _power(self) -> int:
        """How tightly the next word joins what is left and right of it; 0 if it is no operator."""
        token = self._next
        if token.kind not in ("keyword", "sign"):
            return 0
        if token.value == "not":
            return _RANGE if self._is("in", 1) or self._is("between", 1) else 0
        return _POWERS.get(str(token.value), 0)

    def _chained(self, power: int, last: int) -> ExpressionError:
        if power == last == _COMPARE:
            return self._error("comparisons cannot be chained", "write `a < b and b < c`")
        return self._error(f"{self._next.shown()} cannot follow here", "put parentheses around what belongs together")

    def _join(self, left: Node, power: int) -> Node:
        """``left`` with the operator that follows it and what that takes to its right."""
        token = self._next
        if power in (_OR, _AND):
            return self._logic(left, power)
        if power == _IS:
            return self._is_null(left)
        if power == _RANGE:
            negated = self._accept("not")
            node = self._within(left) if self._is("in") else self._between(left)
            return syntax.Not(left.at, node.depth + 1, self._checked(node)) if negated else node
        self._advance()
        right = self.expression(power + 1)
        sign = _ONE_SPELLING.get(str(token.value), str(token.value))
        return syntax.Binary(left.at, _over(left, right), sign, token.at, left, right)

    def _logic(self, left: Node, power: int) -> Node:
        word = "and" if power == _AND else "or"
        operands = [left]
        while self._accept(word):
            operands.append(self.expression(power + 1))
        return syntax.Logic(left.at, _over(*operands), "and" if power == _AND else "or", tuple(operands))

    def _is_null(self, left: Node) -> Node:
        self._advance()
        negated = self._accept("not")
        self._expect("null", "write `is null` or `is not null`; compare other values with =")
        node = syntax.IsNull(left.at, left.depth + 1, left)
        return syntax.Not(left.at, node.depth + 1, node) if negated else node

    def _within(self, left: Node) -> Node:
        self._advance()
        opened = self._next.at
        self._expect("(", "write the values in parentheses, as in (1, 2, 3)")
        if self._is(")"):
            raise self._error("there is no value in this list", "write at least one, as in (1, 2, 3)")
        items = self._list(opened)
        return syntax.Within(left.at, _over(left, *items), left, items)

    def _between(self, left: Node) -> Node:
        self._advance()
        low = self.expression(_RANGE + 1)
        self._expect("and", "write `between low and high`")
        high = self.expression(_RANGE + 1)
        return syntax.Between(left.at, _over(left, low, high), left, low, high)

    def _list(self, opened: int) -> tuple[Node, ...]:
        """One or more expressions up to the closing parenthesis, which is taken too."""
        items = [self.expression(_OR)]
        while self._accept(","):
            items.append(self.expression(_OR))
        self._close(opened)
        return tuple(items)

    def _close(self, opened: int) -> None:
        self._expect(")", f"close the `(` at character {opened + 1}")

    def _first(self, loosest: int) -> Node:
        """A value, or what stands before one: a sign, `not`, `case`, a parenthesis."""
        token = self._next
        if token.kind == "int":
            return self._int(token.at, negative=False)
        if token.kind in ("float", "text"):
            self._advance()
            return syntax.Literal(token.at, 1, token.value)
        if token.kind == "name":
            return self._name()
        if token.kind == "keyword":
            return self._keyword(loosest)
        if self._is("-") or self._is("+"):
            return self._sign()
        if self._accept("("):
            node = self.expression(_OR)
            self._close(token.at)
            return node
        if token.kind == "end":
            raise self._error("expected a value, found the end", "write a field, a number or 'text' here")
        raise self._error(f"expected a value, found {token.shown()}", "write a field, a number or 'text' before it")

    def _int(self, at: int, *, negative: bool) -> Node:
        token = self._next
        value = -int(token.value) if negative else int(token.value)
        if not -_INT_MAX - 1 <= value <= _INT_MAX:
            raise self._error(f"{value} does not fit 64 bits", f"write it as a float: {value}.0")
        self._advance()
        return syntax.Literal(at, 1, value)

    def _sign(self) -> Node:
        token = self._advance()
        # Taken together, for the least int has no positive twin.
        if token.value == "-" and self._next.kind == "int":
            return self._int(token.at, negative=True)
        operand = self.expression(_SIGN)
        return self._checked(syntax.Sign(token.at, operand.depth + 1, str(token.value), operand))

    def _name(self) -> Node:
        token = self._advance()
        opened = self._next.at
        if token.quoted or not self._accept("("):
            return syntax.Name(token.at, 1, str(token.value))
        arguments = () if self._accept(")") else self._list(opened)
        return self._checked(syntax.Call(token.at, _over(*arguments), str(token.value).lower(), arguments))

    def _keyword(self, loosest: int) -> Node:
        token = self._next
        word = str(token.value)
        if word in _CONSTANTS:
            self._advance()
            return syntax.Literal(token.at, 1, _CONSTANTS[word])
        if word == "case":
            return self._case()
        if word == "not":
            if loosest > _NOT:
                raise self._error("`not` cannot stand here", "put `(not ...)` into parentheses")
            self._advance()
            operand = self.expression(_NOT)
            return self._checked(syntax.Not(token.at, operand.depth + 1, operand))
        raise self._error(
            f"expected a value, found `{word}`",
            f"write a field, a number or 'text' before it; a field named {word} is written `{word}`",
        )

    def _case(self) -> Node:
        at = self._advance().at
        if not self._is("when"):
            raise self._error(
                f"expected `when`, found {self._next.shown()}", "write `case when field = 1 then ... end`"
            )
        conditions, results = [], []
        while self._accept("when"):
            conditions.append(self.expression(_OR))
            self._expect("then", "write `when condition then result`")
            results.append(self.expression(_OR))
        otherwise = self.expression(_OR) if self._accept("else") else None
        self._expect("end", f"close the `case` at character {at + 1} with `end`")
        parts = [*conditions, *results, *([] if otherwise is None else [otherwise])]
        return self._checked(syntax.Case(at, _over(*parts), tuple(conditions), tuple(results), otherwise))


def _over(*parts: Node) -> int:
    """The depth of a node over these."""
    return 1 + max((part.depth for part in parts), default=0)
