def cut_kite(n, k):
    r = 1  # r = 1
    for i in range(1, n - 1):  # range(1, n + 1)
        r -= max(i, 1)  # r -= max(i, 1)
    return r
