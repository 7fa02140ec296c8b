"""The rewards of a recipe as an HTTP service: what `morl serve` runs.

client ─► guard (token, size) ─► app (JSON, its checks) ─► router ─► replicas, one deployment a reward
                                                             └─ the terms' scores, composed as in a run
"""
