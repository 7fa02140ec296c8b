"""Languages are told apart, and what is no language is left out."""

from __future__ import annotations

from typing import Any

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from morl.registry import ValidationError, check_options
from morl.rewards.checks import check_examples
from morl.rewards.parsing.language_detection import LANGUAGES, codes, share_in
from morl.rewards.pool.runner import Runner
from morl.rewards.verifiers import language as module
from morl.rewards.verifiers.language import language

SENTENCES = {
    "en": "The weather is nice today, and we will go to the park after lunch.",
    "de": "Das Wetter ist heute schön, und wir gehen nach dem Essen in den Park.",
    "fr": "Il fait beau aujourd'hui, et nous irons au parc après le déjeuner.",
    "es": "Hoy hace buen tiempo y vamos a ir al parque después de comer.",
    "pt": "O tempo está bom hoje e vamos ao parque depois do almoço.",
    "it": "Oggi fa bel tempo e dopo pranzo andremo al parco.",
    "nl": "Het weer is mooi vandaag en we gaan na de lunch naar het park.",
    "pl": "Dzisiaj jest ładna pogoda i po obiedzie pójdziemy do parku.",
    "fi": "Tänään on kaunis sää, ja menemme puistoon lounaan jälkeen.",
    "tr": "Bugün hava güzel ve öğle yemeğinden sonra parka gideceğiz.",
    "vi": "Hôm nay trời đẹp và chúng tôi sẽ đi công viên sau bữa trưa.",
    "sw": "Hali ya hewa ni nzuri leo na tutaenda bustanini baada ya chakula cha mchana.",
    "ru": "Сегодня хорошая погода, и после обеда мы пойдём в парк.",
    "uk": "Сьогодні гарна погода, і після обіду ми підемо в парк.",
    "bg": "Днес времето е хубаво и след обяд ще отидем в парка.",
    "ar": "الطقس جميل اليوم وسنذهب إلى الحديقة بعد الغداء.",
    "fa": "امروز هوا خوب است و بعد از ناهار به پارک می‌رویم.",
    "ur": "آج موسم اچھا ہے اور ہم دوپہر کے کھانے کے بعد پارک جائیں گے۔",
    "hi": "आज मौसम अच्छा है और हम दोपहर के खाने के बाद पार्क जाएंगे।",
    "mr": "आज हवामान छान आहे आणि आपण जेवणानंतर उद्यानात जाऊ.",
    "th": "วันนี้อากาศดี เราจะไปสวนหลังอาหารกลางวัน",
    "ko": "오늘은 날씨가 좋아서 점심을 먹고 공원에 갈 거예요.",
    "ja": "今日は天気がいいので、昼ご飯の後で公園に行きます。",
    "zh": "今天天气很好，午饭后我们去公园。",
}


def test_examples_hold(runner: Runner) -> None:
    assert check_examples("language", runner) == []


@pytest.mark.parametrize("written", SENTENCES)
def test_a_sentence_is_in_its_language_and_in_no_other(written: str) -> None:
    for asked in SENTENCES:
        assert language(SENTENCES[written], asked).value == float(asked == written)
    shouted = SENTENCES[written].upper()
    assert language(shouted, written).value == 1.0


def test_the_languages_are_those_of_the_detector() -> None:
    assert set(module._detector().labels) - {"zxx"} == set(LANGUAGES)
    assert set(module._SCRIPTS_OF) | set(module._KIN_OF) | set(module._CODES.values()) <= set(LANGUAGES)


@settings(max_examples=200, deadline=None)
@given(
    st.text(max_size=80), st.none() | st.booleans() | st.floats() | st.text(max_size=5) | st.lists(st.text(max_size=3))
)
def test_any_response_and_any_gold_get_a_verdict(response: str, gold: Any) -> None:
    assert language(response, "en").value in (0.0, 1.0)
    assert 0.0 <= (language(response, "ja", partial=True).value or 0.0) <= 1.0
    verdict = language(response, gold)
    assert verdict.value in (0.0, 1.0) or verdict.status == "bad_gold"
    assert language(response, gold) == verdict


@pytest.mark.parametrize(
    ("response", "asked", "value"),
    [
        ("Paris", "fr", 1.0),
        ("Paris", "ru", 0.0),
        ("Париж", "ru", 1.0),
        ("Yes.", "zh", 0.0),
        ("好的", "zh", 1.0),
        ("東京", "ja", 1.0),
        ("東京", "ko", 0.0),
        ("नमस्ते दुनिया", "hi", 1.0),
        ("नमस्ते", "ja", 0.0),
        ("Hello, how are you?", "es", 0.0),
        ("Bonjour", "en", 0.0),
        ("The answer is 42.", "de", 0.0),
        ("42", "en", 0.0),
        ("", "en", 0.0),
        ("...", "en", 0.0),
        ("$x^2$", "en", 0.0),
        ("<|image_pad|><|image_pad|>", "en", 0.0),
        ("https://example.com/this/is/english", "en", 0.0),
        ("<think>Das ist gut.", "de", 0.0),
        ("<think>Das ist eine gute Frage.</think>This is a good answer.", "de", 0.0),
        (r"\boxed{\text{Die Antwort ist nein}}", "de", 1.0),
        ("Wir nutzen `the_best_function` und $this is math$, siehe https://example.com/english", "de", 1.0),
        ("使用 Python 的 pandas 库来读取 CSV 文件。", "zh", 1.0),
        ("asdf qwer zxcv uiop hjkl " * 10, "en", 0.0),
        ("Das\u200b ist\u200b eine gute Frage", "de", 1.0),
        ("Ｔｈｉｓ ｉｓ ａ ｇｏｏｄ ｑｕｅｓｔｉｏｎ", "en", 1.0),
    ],
)
def test_short_and_mixed_answers(response: str, asked: str, value: float) -> None:
    assert language(response, asked).value == value


def test_a_part_in_another_language_costs() -> None:
    german, english = SENTENCES["de"], SENTENCES["en"]
    mixed = f"{german}\n{english}"
    assert language(mixed, "de").value == language(mixed, "en").value == 0.0
    assert language(mixed, "de", partial=True).value == pytest.approx(0.5, abs=0.1)
    assert language(mixed, "de", share=0.4).value == 1.0
    assert language(mixed, ["de", "en"]).value == 1.0
    assert language((german + " ") * 15 + english, "de").value == 1.0
    assert language(german + " " + (english + " ") * 15, "de").value == 0.0


def test_code_is_left_out_and_does_not_swallow_what_follows() -> None:
    german, english = SENTENCES["de"], SENTENCES["en"]
    assert language(f"{german}\n```python\nprint('{english * 5}')\n```\n{german}", "de").value == 1.0
    assert language(f"{german}\n```\nx\n```\n{english * 5}", "de").value == 0.0
    assert language(f"```\n{german}\n```", "de").status == "no_answer"


@pytest.mark.parametrize(
    ("named", "code"),
    [
        ("en", "en"),
        ("EN", "en"),
        ("German", "de"),
        ("deutsch", "de"),
        ("pt-BR", "pt"),
        ("zh_Hans_CN", "zh"),
        ("eng", "en"),
        ("nb", "no"),
        ("moroccan  arabic", "ary"),
    ],
)
def test_languages_have_several_names(named: str, code: str) -> None:
    assert codes(named) == codes([named, code]) == {code}


@pytest.mark.parametrize(
    "gold", [None, "", " ", [], ["en", None], ["en", "xx"], {"en": 1}, 5, True, "Elvish", float("nan")]
)
def test_a_gold_that_is_no_language_is_bad(gold: Any) -> None:
    assert language("This is a good question.", gold).status == "bad_gold"


def test_kin_count_as_one() -> None:
    assert language("Danas je lijepo vrijeme i nakon ručka idemo u park.", "sr").value == 1.0
    assert share_in(SENTENCES["zh"], codes("yue")).share == 1.0  # type: ignore[union-attr]


def test_the_option_is_checked_at_load_and_goes_before_the_gold() -> None:
    assert check_options(language, {"language": "German"})["language"] == ["de"]
    assert language(SENTENCES["de"], "en", language=["de"]).value == 1.0
    for wrong in ({"language": "Elvish"}, {"language": []}, {"share": 0}, {"share": float("nan")}, {"is": "de"}):
        with pytest.raises(ValidationError):
            check_options(language, wrong)


PUMPS = ["9", "a ", "[", '{"a":', "中", "`", "```", "<a", "$x", "\\a", "a@", ".", "\u200b", "a" * 63, "www."]


@pytest.mark.parametrize("pump", PUMPS, ids=range(len(PUMPS)))
@pytest.mark.timeout(30)
def test_a_megabyte_gets_a_verdict(pump: str) -> None:
    assert language(pump * ((1 << 20) // len(pump)), "th").value == 0.0
