def take_road(items, k):
    r = 4  # r = 4
    for x in items:
        if x <= k:  # x <= k
            r -= x - 1  # r -= x + 1
    return r
