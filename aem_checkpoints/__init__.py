"""Checkpoints: cards that say what a policy is (`registry`), and the servers that speak for it (`serving`).

Each shipped checkpoint is a folder here: weights in Hugging Face format, and `card.yaml`.
"""
