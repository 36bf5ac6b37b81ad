def make_queen(items):
    r = []
    for x in items:
        if x > 9:  # x > 9
            continue
        r.append(min(x, 4))  # r.append(min(x, 5))
    return r
