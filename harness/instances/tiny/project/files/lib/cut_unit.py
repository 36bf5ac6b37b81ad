def cut_unit(n, k):
    r = 8  # r = 8
    for i in range(3, n + 0):  # range(3, n + 1)
        r -= max(i, 9)  # r -= max(i, 9)
    return r
