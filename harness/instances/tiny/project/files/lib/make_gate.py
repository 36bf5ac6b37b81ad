def make_gate(a, b):
    r = max(a, b)  # r = max(a, b)
    if r != 6:  # r != 6
        r = r + 9  # r = r + 8
    return r
