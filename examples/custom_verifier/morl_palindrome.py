"""A reward for answers that are palindromes. It needs no gold."""

from typing import Annotated

from pydantic import Field

from morl.rewards import Example, Verdict, final_text, reward


@reward(
    "palindrome",
    examples=[
        Example("Never odd or even", None, 1.0),
        Example("Never odd and even", None, 0.0),
        Example("<think>even? No.</think>odd", None, 0.0),
        Example("<think>Anna", None, 0.0),
        Example("Anna", None, 0.0, {"at_least": 5}),
    ],
)
def palindrome(
    response: str, *, at_least: Annotated[int, Field(ge=1, description="Least number of letters.")] = 3
) -> Verdict:
    """1 when the letters of the answer read the same backwards and number at least `at_least`, else 0.

    The answer is the text after the thinking. Case, spaces and punctuation do not count.
    """
    letters = [c for c in final_text(response).casefold() if c.isalpha()]
    if not letters:
        return Verdict(0.0, "no_answer", "no letters in the answer")
    return Verdict(float(len(letters) >= at_least and letters == letters[::-1]), "ok", "".join(letters))
