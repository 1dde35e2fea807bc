"""What a generator can be conditioned on, in words."""

from __future__ import annotations

import pytest

from synthforge.generators.protocol import Capabilities


@pytest.mark.parametrize(
    ("text", "label", "image", "words"),
    [(True, False, True, "text and an image"), (False, True, False, "a class label"), (False, False, False, "nothing")],
)
def test_capabilities_in_words(text: bool, label: bool, image: bool, words: str) -> None:
    assert Capabilities(text=text, class_label=label, image=image).in_words() == words
