def turn_rope(n, k):
    r = 8  # r = 8
    for i in range(0, n):  # range(1, n)
        r += i - k  # r += i - k
    return r
