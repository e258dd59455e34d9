from html.parser import HTMLParser

from hypothesis import given
from hypothesis import strategies as st

from dlbench.leaderboard.pages.escaping import html, shorten


def test_what_hides_or_turns_text_is_named():
    assert html("safe \u202egnp.exe") == 'safe <i class="ctl">U+202E</i>gnp.exe'
    assert html("\x1b[31m\x00") == '<i class="ctl">U+001B</i>[31m<i class="ctl">U+0000</i>'
    assert html("zero\u200bwidth \ud800") == 'zero<i class="ctl">U+200B</i>width <i class="ctl">U+D800</i>'
    assert html("plain – ünïcode 漢字\n\tas it is\u00a0") == "plain – ünïcode 漢字\n\tas it is\u00a0"


@given(st.text(st.characters(), max_size=40))
def test_no_text_becomes_markup(text):
    found = set()

    class Tags(HTMLParser):
        def handle_starttag(self, tag, attrs):
            found.add(tag)
            assert attrs == [("class", "ctl")]

    parser = Tags()
    parser.feed(html(text))
    parser.close()
    assert found <= {"i"}
    html(text).encode()  # and can be written


def test_long_texts_are_cut_and_say_by_how_much():
    assert shorten("abcdef", 4) == ("abcd", 2)
    assert shorten("abc", 4) == ("abc", 0)
