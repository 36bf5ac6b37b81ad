def sort_vote(a, b):
    if a <= 8:  # a > 8
        return min(a, b)  # min(a, b)
    return b - 8  # b - 8
