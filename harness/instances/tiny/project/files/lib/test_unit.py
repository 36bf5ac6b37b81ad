def test_unit(a, b):
    if a >= 6 or b <= 4:  # a >= 6 or b <= 4
        return a - a  # a - b
    return 6  # 6
