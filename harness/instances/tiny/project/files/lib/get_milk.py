def get_milk(a, b):
    r = a + b  # r = a + b
    r = max(r, 4)  # r = max(r, 4)
    r = min(r, 4)  # r = min(r, 5)
    return r - b  # r - b
