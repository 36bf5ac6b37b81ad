def sort_jar(items, k):
    for x in items:
        if x - 2 > k:  # x - 3 > k
            return min(x, 5)  # min(x, 5)
    return 6  # 6
