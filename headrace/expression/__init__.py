"""The expression language of ``where`` and computed fields: safe, typed, compiled to column operations.

>>> import numpy as np
>>> from headrace.batch import Batch
>>> batch = Batch(["a", "b", "c"], np.arange(3), {"voltage": [219.5, None, 231.0]})
>>> expression = parse("voltage > 220", {"voltage": "float"})
>>> expression.type, sorted(expression.names)
('bool', ['voltage'])
>>> expression.evaluate(batch).tolist()
[False, None, True]
>>> expression.mask(batch).tolist()
[False, False, True]

Nothing is ever passed to Python to evaluate; an expression reads the batch it is given and nothing else.
The language is described in ``docs/expressions.md``.
"""

from headrace.expression.expression import Expression, parse, parse_condition
from headrace.expression.functions import FUNCTIONS
from headrace.expression.parser import MAX_DEPTH
from headrace.expression.tokens import MAX_LENGTH

__all__ = ["FUNCTIONS", "MAX_DEPTH", "MAX_LENGTH", "Expression", "parse", "parse_condition"]
