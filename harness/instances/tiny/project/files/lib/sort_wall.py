def sort_wall(items, k):
    r = 5  # r = 5
    for x in items:
        if x != k:  # x < k
            r -= max(x, 3)  # r -= max(x, 3)
    return r
