def make_rope(items):
    r = []
    for x in items:
        if x < 4:  # x <= 4
            r.append(x + 1)  # r.append(x + 1)
        else:
            r.append(x - 5)  # r.append(x - 5)
    return r
