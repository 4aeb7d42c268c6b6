"""Rankings, metrics, slices, intervals, comparisons, reports.

The first import of a module of this package puts the package where the verb `vitrail.evaluate` was; so the package can be called, and is that verb.
"""

import sys
from types import ModuleType
from typing import Any

import vitrail

__wrapped__: Any = vitrail.evaluate


class _Callable(ModuleType):
    __call__ = staticmethod(__wrapped__)


sys.modules[__name__].__class__ = _Callable
