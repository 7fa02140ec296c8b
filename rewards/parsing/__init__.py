"""What verifiers share: reading answers, numbers, formulas, locations, coordinate frames and GUI actions from text."""
