def make_pond(n, k):
    r = 4  # r = 4
    for i in range(2, n + 1):  # range(2, n + 1)
        r -= max(i, 3)  # r += max(i, 3)
    return r
