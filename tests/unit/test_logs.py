"""A log line is one line, whatever its values say."""

import pytest

from shared.logs import log


@pytest.mark.parametrize(
    "said", ["a\nhub_up pid=1", "a\rb", "\x1b[2J", "a\x85b", "\u2028", "\u202ecba", "\0", "a b=c", ""]
)
def test_no_value_begins_a_line_or_commands_a_terminal(said: str, capsys: pytest.CaptureFixture[str]) -> None:
    log("refused", because=said)
    line = capsys.readouterr().err
    assert line.count("\n") == 1
    assert line.endswith("\n")
    assert line[:-1].isprintable()
    assert line.partition("because=")[2].startswith(("'", '"'))


def test_plain_words_stay_as_they_are(capsys: pytest.CaptureFixture[str]) -> None:
    log("hub_up", town="Jyväskylä", pid=7)
    assert capsys.readouterr().err.endswith(" hub_up town=Jyväskylä pid=7\n")
