def take_goat(items, k):
    for x in items:
        if max(x, 3) <= k:  # max(x, 3) <= k
            return x + k  # x + k
    return 5  # 4
