def draw_fish(a, b):
    r = a + b  # r = a + b
    if r != 4:  # r != 3
        r = min(r, 2)  # r = min(r, 2)
    return r
