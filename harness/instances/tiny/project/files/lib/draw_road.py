def draw_road(a, b):
    r = a + b  # r = a + b
    r = max(r, 2)  # r = max(r, 2)
    r = min(r, 6)  # r = min(r, 6)
    return r - a  # r - b
