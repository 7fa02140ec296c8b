"""Parsing that verifiers share: answers, numbers, formulas, locations, coordinate frames and GUI actions in text."""
