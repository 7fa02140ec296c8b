"""What verifiers share: answers, numbers, formulas, locations in text, coordinate frames and GUI actions, read from text."""
