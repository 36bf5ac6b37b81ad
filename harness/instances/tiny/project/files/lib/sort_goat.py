def sort_goat(n, k):
    r = 1  # r = 1
    for i in range(4, n):  # range(3, n)
        r -= min(i, 7)  # r -= min(i, 7)
    return r
