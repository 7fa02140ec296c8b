"""The language of a text, by script and by letter statistics."""

from __future__ import annotations

import functools
import re
import unicodedata
from collections.abc import Iterable, Iterator
from dataclasses import dataclass
from typing import Any

from morl.error_messages import did_you_mean
from morl.rewards.parsing.answer import formulas

_NAMES = """
    ace Achinese, af Afrikaans, am Amharic, an Aragonese, ar Arabic, ary Moroccan Arabic, arz Egyptian Arabic,
    as Assamese, az Azerbaijani, ba Bashkir, bcl Central Bikol, be Belarusian, bg Bulgarian, bn Bengali, br Breton,
    bs Bosnian, ca Catalan, crh Crimean Tatar, cs Czech, cy Welsh, da Danish, de German, dz Dzongkha, el Greek,
    en English, eo Esperanto, es Spanish, et Estonian, eu Basque, ext Extremaduran, fa Persian, fi Finnish, fo Faroese,
    fr French, fuv Fulfulde, fy Frisian, ga Irish, gcf Guadeloupean Creole, gcr Guianese Creole, gd Scottish Gaelic,
    gl Galician, gom Konkani, grc Ancient Greek, gu Gujarati, gug Guarani, guw Gun, ha Hausa, hbo Ancient Hebrew,
    he Hebrew, hi Hindi, hr Croatian, ht Haitian Creole, hu Hungarian, hy Armenian, id Indonesian, ig Igbo,
    is Icelandic, it Italian, ja Japanese, jv Javanese, ka Georgian, kab Kabyle, kik Kikuyu, kk Kazakh, km Khmer,
    kn Kannada, ko Korean, ku Kurdish, ky Kyrgyz, la Latin, lb Luxembourgish, lg Ganda, lij Ligurian, ln Lingala,
    lo Lao, lt Lithuanian, ltg Latgalian, lv Latvian, mg Malagasy, mk Macedonian, ml Malayalam, mn Mongolian,
    mr Marathi, ms Malay, mt Maltese, my Burmese, ne Nepali, nl Dutch, nn Nynorsk, no Norwegian, nso Pedi, oc Occitan,
    om Oromo, or Odia, pa Punjabi, pcm Nigerian Pidgin, pl Polish, ps Pashto, pt Portuguese, qu Quechua, ro Romanian,
    ru Russian, rw Kinyarwanda, sa Sanskrit, sdh Southern Kurdish, se Northern Sami, si Sinhala, sk Slovak,
    sl Slovenian, sn Shona, so Somali, sq Albanian, sr Serbian, st Sotho, sv Swedish, sw Swahili, ta Tamil, te Telugu,
    tg Tajik, th Thai, tk Turkmen, tl Tagalog, tr Turkish, tt Tatar, ug Uyghur, uk Ukrainian, ur Urdu, uz Uzbek,
    uzs Southern Uzbek, vec Venetian, vi Vietnamese, vo Volapük, wa Walloon, wuu Wu, xh Xhosa, yo Yoruba,
    yue Cantonese, zh Chinese, zu Zulu
"""
LANGUAGES = dict(entry.split(maxsplit=1) for entry in " ".join(_NAMES.split()).split(", "))
"""The supported languages: ISO 639 code to English name."""
_OTHER_NAMES = """
    nb no, iw he, in id, fil tl, filipino tl, cmn zh, mandarin zh, arb ar, farsi fa, pes fa, zsm ms, swh sw, npi ne,
    panjabi pa, oriya or, eng en, deu de, ger de, fra fr, fre fr, spa es, por pt, ita it, nld nl, dut nl, rus ru,
    ukr uk, pol pl, ces cs, ron ro, hun hu, ell el, tur tr, ara ar, heb he, hin hi, ben bn, urd ur, tam ta, tel te,
    mar mr, jpn ja, zho zh, chi zh, kor ko, vie vi, tha th, ind id, swe sv, nob no, dan da, fin fi, deutsch de,
    français fr, español es, português pt, italiano it, nederlands nl, polski pl, русский ru, українська uk, 中文 zh,
    日本語 ja, 한국어 ko
"""
_CODES = {
    **{name.casefold(): code for code, name in LANGUAGES.items()},
    **dict(entry.split() for entry in " ".join(_OTHER_NAMES.split()).split(", ")),
    **{code: code for code in LANGUAGES},
}

# Languages that are written alike, or contain each other: a text in one of a set counts as any of the set.
_KIN = ["zh wuu yue", "ar ary arz", "no nn", "sr hr bs", "id ms", "ku sdh", "he hbo", "el grc", "en pcm", "uz uzs"]
_SCRIPTS = {
    "LATIN CYRILLIC": "az crh mn sr tk tt uz",
    "LATIN ARABIC": "ku",
    "CYRILLIC": "ba be bg kk ky mk ru tg uk",
    "GREEK": "el grc",
    "ARABIC": "ar ary arz fa ps sdh ug ur uzs",
    "HEBREW": "he hbo",
    "DEVANAGARI": "hi mr ne sa gom",
    "BENGALI": "bn as",
    "ETHIOPIC": "am",
    "TIBETAN": "dz",
    "CJK": "zh wuu yue",
    "CJK HIRAGANA KATAKANA": "ja",
    "HANGUL": "ko",
    **{"GURMUKHI": "pa", "GUJARATI": "gu", "ORIYA": "or", "TAMIL": "ta", "TELUGU": "te", "KANNADA": "kn"},
    **{"MALAYALAM": "ml", "SINHALA": "si", "THAI": "th", "LAO": "lo", "KHMER": "km", "MYANMAR": "my"},
    **{"GEORGIAN": "ka", "ARMENIAN": "hy"},
}
_SCRIPTS_OF = {code: frozenset(scripts.split()) for scripts, codes in _SCRIPTS.items() for code in codes.split()}
_KIN_OF = {code: frozenset(kin.split()) for kin in _KIN for code in kin.split()}

WINDOW = 60
"""The characters that a stretch of text needs for its language to be detected."""
MAX_WINDOWS = 200
"""The most stretches that are examined, spread over the text."""
NO_OPINION = 0.1
"""If the likeliest language is less probable than this, the script decides."""
MIN_LETTERS = 8
"""With fewer letters the script decides: a few Chinese characters may as well be Japanese."""


def codes(languages: Any) -> frozenset[str]:
    """The codes of one language or several, each an ISO 639 code, a tag such as "pt-BR", or an English name.

    Raises: ValueError for an unknown language, with the nearest known one.
    """
    names = [languages] if isinstance(languages, str) else languages
    if not isinstance(names, Iterable) or isinstance(names, dict):
        raise ValueError("a language is a code or a name, or a list of such")
    result = set()
    for name in names:
        if not isinstance(name, str):
            raise ValueError("a language is a code or a name, or a list of such")
        known = " ".join(name.casefold().split())
        if not known:
            raise ValueError("no language is named")
        code = _CODES.get(known) or _CODES.get(re.split("[-_]", known)[0])
        if code is None:
            raise ValueError(f"unknown language {name[:40]!r}{did_you_mean(known[:40], _CODES)}")
        result.add(code)
    if not result:
        raise ValueError("no language is named")
    return frozenset(result)


@dataclass(frozen=True, slots=True)
class LanguageShare:
    """How much of a text is in the wanted languages."""

    share: float
    """The share of its letters, in [0, 1]."""
    likeliest: str
    """The code of the language that most of it seems to be in."""


def share_in(text: str, wanted: frozenset[str]) -> LanguageShare | None:
    """How much of a text is in one of the languages. None when it has no words."""
    stretches = list(_stretches(_prose(text)))
    step = max(1, -(-len(stretches) // MAX_WINDOWS))
    inside = total = 0
    letters_in: dict[str, int] = {}
    for stretch in stretches[::step]:
        letters = sum(character.isalpha() for character in stretch)
        if letters == 0:
            continue
        is_inside, likeliest = _judge(stretch, wanted)
        inside, total = inside + letters * is_inside, total + letters
        letters_in[likeliest] = letters_in.get(likeliest, 0) + letters
    return LanguageShare(inside / total, max(letters_in, key=lambda code: letters_in[code])) if total else None


def _judge(stretch: str, wanted: frozenset[str]) -> tuple[bool, str]:
    """Whether a stretch of text is in a wanted language, and which language it seems to be in."""
    ranked = _detector().rank(stretch)
    likeliest, highest = ranked[0]
    scripts = [_script(character) for character in stretch if character.isalpha()]
    if highest < NO_OPINION or (len(scripts) < MIN_LETTERS and "LATIN" not in scripts):
        fitting = frozenset().union(*(_SCRIPTS_OF.get(code, {"LATIN"}) for code in wanted))
        return 2 * sum(script in fitting for script in scripts) > len(scripts), "?"
    kin = frozenset().union(*(_KIN_OF.get(code, {code}) for code in wanted))
    likely = sum(probability for code, probability in ranked if code in kin)
    return likeliest in kin or likely >= highest / 2, likeliest


@functools.lru_cache(maxsize=4096)
def _script(letter: str) -> str:
    return unicodedata.name(letter, "?").split()[0].removesuffix("-")


@functools.cache
def _detector() -> Any:
    # Imported on demand: it takes 120 MB and half a second.
    from py3langid.langid import MODEL_FILE, LanguageIdentifier

    return LanguageIdentifier.from_model_file(MODEL_FILE, norm_probs=True)


_LEFT_OUT = re.compile(
    r"""
    `[^`\n]*` | (?:https?://|www\.)\S+ | (?<![\w.+-])[\w.+-]{1,64}@[\w.-]+ | <[^<>\n]{1,200}>
    | \\[A-Za-z]+ | [{}\d_*#|~^=\\]+
    """,
    re.VERBOSE,
)


def _prose(text: str) -> str:
    """The text without code, formulas, links, tags and digits."""
    blocks = text.split("```")
    text = "\n".join(blocks[::2])  # an unclosed block extends to the end
    kept: list[str] = []
    at = 0
    for formula in formulas(text):
        kept.append(text[at : formula.start])
        at = formula.end
    text = " ".join([*kept, text[at:]])
    return _LEFT_OUT.sub(" ", unicodedata.normalize("NFKC", text))


_SENTENCE = re.compile(r"[^.!?。！？।\n]{1,400}[.!?。！？।\s]*|[.!?。！？।\s]+")


def _stretches(text: str) -> Iterator[str]:
    """Sentences, joined until they are long enough."""
    held = ""
    for match in _SENTENCE.finditer(text):
        held += " ".join(match.group().split()) + " "
        if len(held) >= WINDOW:
            yield held
            held = ""
    if held.strip():
        yield held
