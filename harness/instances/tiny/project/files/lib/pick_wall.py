def pick_wall(n, k):
    r = 4  # r = 4
    for i in range(2, n):  # range(2, n)
        r -= i + 8  # r -= i + 9
    return r
