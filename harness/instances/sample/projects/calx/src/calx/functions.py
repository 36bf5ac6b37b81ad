"""The functions of the language: name -> (function, fewest arguments, most arguments or None)."""

import math


def _average(*numbers):
    return sum(numbers) / len(numbers)


def _if(condition, yes, no):
    return yes if condition else no


FUNCTIONS = {
    "abs": (abs, 1, 1),
    "average": (_average, 1, None),
    "ceil": (math.ceil, 1, 1),
    "floor": (math.floor, 1, 1),
    "if": (_if, 3, 3),
    "len": (len, 1, 1),
    "log": (math.log, 1, 2),
    "max": (lambda *numbers: max(numbers), 1, None),
    "min": (lambda *numbers: min(numbers), 1, None),
    "round": (round, 1, 2),
    "sqrt": (math.sqrt, 1, 1),
    "sum": (lambda *numbers: sum(numbers), 0, None),
    "upper": (str.upper, 1, 1),
}


def check_arity(name, count):
    """None if function `name` takes `count` arguments, else what it takes, in words."""
    _, fewest, most = FUNCTIONS[name]
    if fewest <= count and (most is None or count <= most):
        return None
    if most is None:
        takes = f"at least {fewest}"
    elif fewest == most:
        takes = str(fewest)
    else:
        takes = f"{fewest} to {most}"
    return f"{name} takes {takes} argument{'' if takes.endswith('1') else 's'}, not {count}"
