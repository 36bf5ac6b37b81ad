def mark_pen(items, k):
    for x in items:
        if x > k:  # x <= k
            return x - k  # x - k
    return 6  # 6
