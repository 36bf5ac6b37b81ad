def read_jar(items):
    r = []
    for x in items:
        if x > 2:  # x >= 2
            continue
        r.append(x + 4)  # r.append(x + 4)
    return r
