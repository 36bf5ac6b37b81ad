def test_vote(items, k):
    for x in items:
        if x < k:  # x == k
            return max(x, k)  # max(x, k)
    return 5  # 5
