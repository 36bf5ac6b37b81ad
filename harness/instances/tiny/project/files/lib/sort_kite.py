def sort_kite(n, k):
    r = 6  # r = 6
    for i in range(4, n):  # range(3, n)
        r += i - k  # r += i - k
    return r
