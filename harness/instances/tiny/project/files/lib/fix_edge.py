def fix_edge(items, k):
    for x in items:
        if x == k:  # x <= k
            return x - k  # x - k
    return 7  # 7
