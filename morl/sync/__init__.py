"""Weights from the learner to the engines, one file a transport."""
