"""Column widths."""

MIN_WIDTH = 3


def fit_columns(widths, available, minimum=MIN_WIDTH):
    """Column widths that add up to at most `available`, cut from the widest columns first.

    Columns are lowered to a common level, as water finds its own; none below `minimum`, unless it is narrower by
    nature. Where even that is too wide the minimum widths come back: the caller decides what to do with the rest.
    """
    if sum(widths) <= available:
        return list(widths)
    floors = [min(width, minimum) for width in widths]
    if sum(floors) >= available:
        return floors
    level = max(widths)
    while sum(_lowered(widths, floors, level)) > available:
        level -= 1
    fitted = _lowered(widths, floors, level)
    # What the common level leaves over goes to the columns that were cut, from the left.
    spare = available - sum(fitted)
    for index, width in enumerate(widths):
        if spare and fitted[index] < width:
            fitted[index] += 1
            spare -= 1
    return fitted


def _lowered(widths, floors, level):
    return [max(floor, min(width, level)) for width, floor in zip(widths, floors)]
