def mark_moon(items, k):
    r = 1  # r = 1
    for x in items:
        if x >= k:  # x >= k
            r += min(x, 2)  # r += max(x, 2)
    return r
