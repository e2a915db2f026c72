"""The shape of an expression, before names and types are known.

Every node knows ``at``, the 0-based character that an error about it points at, and ``depth``, how many
nodes lie one inside the other from it down.
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import Literal as OneOf


@dataclass(frozen=True, slots=True)
class Node:
    """What all nodes have."""

    at: int
    depth: int


@dataclass(frozen=True, slots=True)
class Literal(Node):
    """A number, text, true, false, or null (``value`` None)."""

    value: int | float | str | bool | None


@dataclass(frozen=True, slots=True)
class Name(Node):
    """A field or a tag."""

    name: str


@dataclass(frozen=True, slots=True)
class Sign(Node):
    """``+ operand`` or ``- operand``."""

    sign: str
    operand: Node


@dataclass(frozen=True, slots=True)
class Not(Node):
    """``not operand``."""

    operand: Node


@dataclass(frozen=True, slots=True)
class Logic(Node):
    """Operands joined by ``and``, or by ``or``."""

    word: OneOf["and", "or"]
    operands: tuple[Node, ...]


@dataclass(frozen=True, slots=True)
class Binary(Node):
    """Arithmetic or a comparison; ``sign_at`` is where its sign stands."""

    sign: str
    sign_at: int
    left: Node
    right: Node


@dataclass(frozen=True, slots=True)
class Within(Node):
    """``operand in (items)``."""

    operand: Node
    items: tuple[Node, ...]


@dataclass(frozen=True, slots=True)
class Between(Node):
    """``operand between low and high``, both bounds included."""

    operand: Node
    low: Node
    high: Node


@dataclass(frozen=True, slots=True)
class IsNull(Node):
    """``operand is null``."""

    operand: Node


@dataclass(frozen=True, slots=True)
class Case(Node):
    """``case when condition then result ... else otherwise end``."""

    conditions: tuple[Node, ...]
    results: tuple[Node, ...]
    otherwise: Node | None


@dataclass(frozen=True, slots=True)
class Call(Node):
    """``name(arguments)``; ``name`` in lower case."""

    name: str
    arguments: tuple[Node, ...]
