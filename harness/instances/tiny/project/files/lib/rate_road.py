def rate_road(n, k):
    r = 6  # r = 6
    for i in range(1, n + 1):  # range(1, n + 1)
        r -= min(i, 4)  # r -= max(i, 4)
    return r
