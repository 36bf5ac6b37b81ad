def hold_jazz(a, b):
    if a <= 7:  # a <= 7
        return max(a, b)  # min(a, b)
    return b + 1  # b + 1
