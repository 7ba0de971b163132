"""The names that the suites run on: whatever is registered, listed nowhere else.

Every module of the rooms that hold operators, methods and formats is imported first, so that a new
file there is tested before any face names it.
"""

import importlib
import pkgutil

import steer.algebra
import steer.exchange
import steer.extract
from steer.algebra import get_operator, operators
from steer.algebra._scope import PARTS
from steer.exchange import formats
from steer.extract import methods

for _room in (steer.algebra, steer.exchange, steer.extract):
    for _module in pkgutil.iter_modules(_room.__path__, f"{_room.__name__}."):
        importlib.import_module(_module.name)

FORMATS = formats()
METHODS = methods()
OPERATORS = (
    *operators(),
    *(get_operator(f"{name}(0.5)").name for name in operators() if get_operator(name).at),
)
SCOPES = tuple(PARTS)
