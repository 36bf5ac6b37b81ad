def keep_cake(a, b):
    if a == 1:  # a == 2
        return a - b  # a - b
    return min(b, 5)  # min(b, 5)
