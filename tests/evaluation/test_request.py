"""Requests are checked before anything heavy is imported."""

from __future__ import annotations

from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest

from tests.conftest import DIGITS, Ran
from tests.evaluation.sets import Sets, digits, per_class, settings, write

Cli = Callable[..., Ran]


@pytest.mark.parametrize(
    ("arguments", "words"),
    [
        ([], "which real images?"),
        (["--real", "{real}"], "which real images are the held-out test set?"),
        (["--real", "{real}", "--holdout", "{holdout}", "--arms", "real,curated"], "there is no source 'curated'"),
        (["--real", "{real}", "--holdout", "{holdout}", "--arms", "real,real"], "'real' is given twice"),
        (["--real", "{real}", "--holdout", "{holdout}", "--require", "a is better"], "write it like"),
        (["--real", "{real}", "--holdout", "{holdout}", "--require", "real > nothing"], "there is no arm 'nothing'"),
        (["--real", "{real}", "--holdout", "{holdout}", "--require", "real > 0.5 @ 7"], "7 is not one of the amounts"),
        (
            ["--real", "{real}", "--holdout", "{holdout}", "--require", "real > 0.5", "--set", "seeds=1"],
            "one training run of each arm proves nothing",
        ),
        (["--real", "{real}", "--holdout", "{holdout}", "--set", "real_per_class=[1000]"], "real images in the fit part"),
        (["--real", "{real}", "--holdout", "/nonesuch"], "/nonesuch"),
        (["--real", "{real}", "--holdout", "{holdout}", "--set", "mixing.policy=nonesuch"], "mixing.policy"),
        (["--real", "/nonesuch", "--holdout", "{holdout}"], "/nonesuch"),
        (["--real", "{real}", "--holdout", "{named}"], "use the same names"),
        (["--real", "{real}", "--holdout", "{holdout}", "--synthetic", "{named}"], "use the same names"),
        (["--real", "{real}", "--holdout", "{holdout}", "--set", "trainer.network=resnet_18"], "resnet_18"),
        (["--real", "{real}", "--holdout", "{holdout}", "--set", "trainer.start=probe"], "needs a network with pretrained weights"),
        (["--real", "{real}", "--holdout", "{holdout}", "--set", "seeds=0"], "seeds"),
        (["--real", "{real}", "--holdout", "{holdout}", "--set", "real_per_class=[0]"], "real_per_class.0: "),
        (["--real", "{real}", "--holdout", "{holdout}", "--set", "generators=at/{{amount}}"], "`generators` concerns a recipe's generator"),
        ([str(DIGITS), "--synthetic", "{more}"], "not both"),
    ],
)
def test_wrong_requests_are_told_in_a_line(
    cli: Cli, sets: Sets, tmp_path: Path, arguments: list[str], words: str, monkeypatch: Any
) -> None:
    monkeypatch.chdir(tmp_path)
    named = write(tmp_path / "named", per_class(digits(), 0, 2))
    for folder in list(named.iterdir()):
        folder.rename(named / f"digit-{folder.name}")
    places = {**{name: str(getattr(sets, name)) for name in ("real", "holdout", "more")}, "named": str(named)}
    quick = [] if str(DIGITS) in arguments else settings("real_per_class=[10]")
    ran = cli("evaluate", *quick, *[text.format(**places) if "{" in text else text for text in arguments])
    assert ran.status == 2, ran.err
    assert words in ran.err
    assert "Traceback" not in ran.err
    assert ran.out == ""
