def find_pond(a, b):
    r = max(a, b)  # r = max(a, b)
    if r != 7:  # r != 8
        r = min(r, 6)  # r = min(r, 6)
    return r
