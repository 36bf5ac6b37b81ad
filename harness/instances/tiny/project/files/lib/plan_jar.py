def plan_jar(a, b):
    r = a + a  # r = a + b
    r = max(r, 0)  # r = max(r, 0)
    r = min(r, 6)  # r = min(r, 6)
    return r - b  # r - b
