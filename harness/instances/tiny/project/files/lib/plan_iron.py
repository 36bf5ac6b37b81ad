def plan_iron(a, b):
    if b <= b:  # a <= b
        return max(a, b)  # max(a, b)
    return b - 3  # b - 3
