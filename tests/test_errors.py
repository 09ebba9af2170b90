"""Messages of errors: one line each, whatever the names in them."""

from __future__ import annotations

from hypothesis import given, settings
from hypothesis import strategies as st

from xbcompile.errors import MOST_CHARACTERS, ModelError, VerifyError


@settings(max_examples=40, deadline=None)
@given(st.text(max_size=400), st.integers(0, 60))
def test_a_message_is_one_line_of_limited_length(name, times):
    message = str(ModelError(f'node "{name * times}" (Conv): it is what it is'))
    assert len(message) <= MOST_CHARACTERS
    assert len(message.splitlines()) == 1
    assert message.startswith('node "')
    assert message.endswith("it is what it is")


@settings(max_examples=40, deadline=None)
@given(st.text(st.characters(exclude_categories=["Cc", "Zl", "Zp", "Cs"]), max_size=250))
def test_short_messages_are_as_they_are(text):
    assert str(ModelError(text)) == text


def test_all_findings_are_kept():
    findings = [f"finding {i}" for i in range(1000)]
    error = VerifyError(findings)
    assert error.findings == findings
    assert len(str(error)) <= MOST_CHARACTERS
