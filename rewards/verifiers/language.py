"""The answer is written in the requested language."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Annotated, Any

from pydantic import AfterValidator, Field

from morl.rewards.parsing.answer import final_text
from morl.rewards.parsing.language_detection import codes, share_in
from morl.rewards.reward import Example, Verdict, reward


def _checked(languages: str | Sequence[str]) -> list[str]:
    return sorted(codes(languages))


@reward(
    "language",
    examples=[
        Example("<think>Let me see.</think>Das ist eine sehr gute Frage.", "de", 1.0),
        Example("<think>Mal sehen.</think>That is a very good question.", "de", 0.0),
        Example("これは良い質問です。", None, 1.0, {"language": "Japanese"}),
        Example("Это хороший вопрос.", ["en", "ru"], 1.0),
        Example("Voici le code :\n```python\nreturn the_answer\n```", "fr", 1.0),
        Example("42", "en", 0.0),
        Example("A good question.", "Elvish", None),
    ],
)
def language(
    response: str,
    gold: Any = None,
    *,
    language: Annotated[str | list[str], AfterValidator(_checked)] | None = None,
    share: Annotated[float, Field(gt=0, le=1)] = 0.9,
    partial: bool = False,
) -> Verdict:
    """1 when at least `share` of the answer is in the language, or in one of the languages, else 0.

    The languages are the option, or else the gold of each prompt: ISO 639 codes, tags ("pt-BR" is read as
    Portuguese) or English names; one or a list. With `partial` the value is the share itself.

    Only the text after the thinking is read, without code blocks, formulas, links and tags. It is split into stretches
    of about 60 characters, weighted by their letters. A stretch is in a language if the detector (py3langid,
    139 languages, offline, deterministic) gives that language at least half the probability of the likeliest one;
    where a stretch is too short to tell, such as a name, its script decides. Languages that are written alike count
    as one: varieties of Chinese, Serbian and Croatian, Malay and Indonesian, varieties of Arabic.

    An answer without words scores 0. Content is not checked: mix this with other rewards.
    """
    try:
        wanted = codes(gold if language is None else language)
    except ValueError as error:
        return Verdict(None, "bad_gold", str(error)[:300])
    detected = share_in(final_text(response), wanted)
    if detected is None:
        return Verdict(0.0, "no_answer", "no words in the answer")
    value = detected.share if partial else float(detected.share >= share)
    return Verdict(value, "ok", f"{detected.share:.0%} in {', '.join(sorted(wanted))}; mostly {detected.likeliest}")
