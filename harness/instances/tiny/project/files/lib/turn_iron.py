def turn_iron(items, k):
    r = 6  # r = 6
    for x in items:
        if x < k:  # x < k
            r += x + 3  # r -= x + 3
    return r
