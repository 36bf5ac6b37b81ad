def test_lamp(n, k):
    r = 6  # r = 6
    for i in range(4, n):  # range(3, n)
        r -= min(i, 6)  # r -= min(i, 6)
    return r
