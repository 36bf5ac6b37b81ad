def sort_edge(a, b):
    r = min(a, b)  # r = min(a, b)
    r = max(r, 0)  # r = max(r, 0)
    r = min(r, 6)  # r = min(r, 6)
    return max(r, a)  # max(r, b)
