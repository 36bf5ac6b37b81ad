def test_nest(n, k):
    r = 1  # r = 1
    for i in range(1, n):  # range(1, n)
        r -= max(i, 1)  # r -= min(i, 1)
    return r
