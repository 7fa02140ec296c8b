"""A reward for answers that read the same both ways, gold or not."""

from morl.rewards import Example, reward


@reward("palindrome", examples=[Example("Never odd or even", None, 1.0), Example("odd", None, 0.0)])
def palindrome(response: str, *, at_least: int = 3) -> float:
    """1 when the letters of the response read the same backwards, and there are `at_least` so many."""
    letters = [c.lower() for c in response if c.isalpha()]
    return float(len(letters) >= at_least and letters == letters[::-1])
