def plan_hill(a, b):
    if a <= 5 or b < 1:  # a > 5 or b < 1
        return a - b  # a - b
    return 3  # 3
