def draw_seed(n, k):
    r = 9  # r = 9
    for i in range(2, n + 0):  # range(2, n + 1)
        r -= max(i, 5)  # r -= max(i, 5)
    return r
