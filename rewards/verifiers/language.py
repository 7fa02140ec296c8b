"""The answer is written in the language that was asked for."""

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

    Languages are given as the option, or else as the gold of each prompt: ISO 639 codes, tags ("pt-BR" is read as
    Portuguese) or English names; one or a list. With `partial` the value is the share itself.

    Only what follows the thinking is read, without code blocks, formulas, links and tags. It is taken in
    stretches of some 60 characters, and each counts by its letters. A stretch is in a language when the detector
    (py3langid, 139 languages, offline, the same every time) finds that at least half as likely as any other; for
    one too short to tell, such as a name, the script decides. Languages that are written alike count as one:
    Chinese of any place, Serbian and Croatian, Malay and Indonesian, the Arabics.

    An answer without words is 0. What the words say is not looked at: mix this with other rewards.
    """
    try:
        asked = codes(gold if language is None else language)
    except ValueError as error:
        return Verdict(None, "bad_gold", str(error)[:300])
    found = share_in(final_text(response), asked)
    if found is None:
        return Verdict(0.0, "no_answer", "no words in the answer")
    value = found.share if partial else float(found.share >= share)
    return Verdict(value, "ok", f"{found.share:.0%} in {', '.join(sorted(asked))}; mostly {found.most}")
