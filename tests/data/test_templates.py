"""Templates: what a row becomes, and what is said of a row that does not fit."""

from __future__ import annotations

import pytest
from hypothesis import given
from hypothesis import strategies as st
from PIL import Image

from morl.data.templates import PromptTemplate
from morl.errors import DataError


def render(prompt, gold, row):
    return PromptTemplate(prompt, gold).render(row, "o/3", "o", "rows.jsonl:4")


def test_text_is_one_message_of_the_user():
    prompt = render("{{ a }} + {{ b }}?\n", "{{ a + b }}", {"a": 1, "b": 2})
    assert (prompt.id, prompt.objective) == ("o/3", "o")
    assert prompt.messages == ({"role": "user", "content": "1 + 2?\n"},)
    assert prompt.gold == 3
    assert prompt.meta == {"a": 1, "b": 2}
    assert prompt.media == ()


@given(
    st.recursive(
        st.booleans() | st.integers() | st.floats(allow_nan=False) | st.text(),
        lambda inner: st.lists(inner) | st.dictionaries(st.text(), inner),
        max_leaves=5,
    )
)
def test_a_gold_that_is_one_field_is_the_fields_own_value(value):
    for template in ("{{ gold }}", "{{gold}}", " {{- gold -}}\n", "{{ row['gold'] }}"):
        gold = render("q", template, {"gold": value}).gold
        assert gold == value
        assert type(gold) is type(value)


@pytest.mark.parametrize(
    ("template", "gold"),
    [
        (None, None),
        (12, 12),
        ("yes", "yes"),
        ("{{ n }}!", "7!"),
        ("{{ n }}{{ n }}", "77"),
        ("{% if n %}{{ n }}{% endif %}", "7"),
        (["{{ n }}", {"label": "{{ s }}", "k": 1}], [7, {"label": "12", "k": 1}]),
        ("{{ s }}", "12"),
        ("{{ s.split('1')[1] | int }}", 2),
        ('{{ row["final answer"] }}', 5),
    ],
)
def test_golds(template, gold):
    assert render("q", template, {"n": 7, "s": "12", "final answer": 5}).gold == gold


def test_parts_name_their_media_in_order(tmp_path):
    for name in ("a.png", "b.png", "c.png"):
        Image.new("RGB", (40, 30)).save(tmp_path / name)
    row = {"image": "a.png", "clip": ["b.png", "c.png"], "what": "cat"}
    template = PromptTemplate(
        [{"image": "{{ image }}"}, "Find the {{ what }} in ", {"video": "{{ clip }}"}], None, tmp_path
    )
    prompt = template.render(row, "o/3", "o", "rows.jsonl:4")
    image, clip = prompt.media
    assert (image.source, image.width, image.height) == (tmp_path / "a.png", 40, 30)
    assert [frame.source for frame in clip.source] == [tmp_path / "b.png", tmp_path / "c.png"]
    assert prompt.messages[0]["content"] == [
        {"type": "image"},
        {"type": "text", "text": "Find the cat in "},
        {"type": "video"},
    ]
    assert render(["a{{ what }}", "b"], None, row).messages[0]["content"] == "acatb"


def test_messages_keep_their_roles():
    chat = [{"role": "system", "content": "Be {{ how }}."}, {"role": "user", "content": ["{{ q }}"]}]
    prompt = render(chat, None, {"how": "brief", "q": "Why?"})
    assert prompt.messages == (
        {"role": "system", "content": "Be brief."},
        {"role": "user", "content": "Why?"},
    )


@pytest.mark.parametrize(
    ("template", "gold", "told"),
    [
        ("{{ qestion }}", None, "the row has no field 'qestion'; did you mean 'question'?"),
        ("q", "{{ anwer }}", "the row has no field 'anwer'; did you mean 'answer'?"),
        ("q", "{{ anwer + 1 }}", "the row has no field 'anwer'; did you mean 'answer'?"),
        ("{{ zzz }}", None, "the row has no field 'zzz'; known: answer, nothing, question"),
        ("{{ question.part }}", None, "the template reads 'part' of a value that has none"),
        ("{{ nothing }}", None, "the field 'nothing' is null; give it a value, or write {{ nothing or '' }}"),
        ("q", "{{ nothing }}", "the field 'nothing' is null; give it a value, or write {{ nothing or '' }}"),
        ("{{ answer / 0 }}", None, "the template fails: division by zero"),
        (" {{ '' }}\n", None, "the prompt is empty"),
        ([{"image": "gone.png"}], None, "no such image: gone.png; paths are relative to "),
        ("{{ question.__class__.__mro__ }}", None, "the template fails: access to attribute '__class__' of 'str'"),
    ],
)
def test_what_does_not_fit_names_the_row(template, gold, told):
    with pytest.raises(DataError) as raised:
        render(template, gold, {"question": "Why?", "answer": 4, "nothing": None})
    assert str(raised.value).startswith(f"rows.jsonl:4: {told}")
