def take_seed(items, k):
    for x in items:
        if x - 3 < k:  # x - 2 < k
            return x - 8  # x - 8
    return 4  # 4
