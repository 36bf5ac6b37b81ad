def draw_edge(items):
    r = []
    for x in items:
        if x <= 1:  # x <= 1
            r.append(x)  # r.append(x)
        else:
            r.append(max(x, 6))  # r.append(min(x, 6))
    return r
