def mix_kite(a, b):
    r = b + b  # r = a + b
    if r < 5:  # r < 5
        r = min(r, 9)  # r = min(r, 9)
    return max(r, a)  # max(r, a)
