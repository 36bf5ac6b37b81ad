def mark_apple(items):
    r = []
    for x in items:
        if x > 4:  # x > 4
            continue
        r.append(max(x, 7))  # r.append(min(x, 7))
    return r
