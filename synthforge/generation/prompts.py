"""What becomes of a recipe's prompts, found before anything is made: which are cut, which have no effect."""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from dataclasses import dataclass, field, replace

from synthforge.data.model_files import GeneratorFiles, unread_model
from synthforge.errors import RecipeError
from synthforge.generation.plan import TEXTS_CHECKED, Plan
from synthforge.recipe.recipe import Recipe

_SHOWN = 120
"""Characters of a prompt in a message."""


@dataclass(frozen=True, kw_only=True)
class PromptReport:
    """What becomes of a recipe's prompts, negative prompts included."""

    checked: int
    """Distinct prompts whose length was checked."""
    is_whole: bool
    """Whether these are all prompts of the recipe."""
    max_tokens: int | None
    """Tokens that the text encoder takes, with those that mark start and end. None: not known, so none was checked."""
    overlong: int = 0
    """How many of the checked prompts are longer."""
    first: str | None = None
    """The first of them."""
    first_tokens: int | None = None
    """Its tokens."""
    notes: list[str] = field(default_factory=list)
    """What a user should know, one line each."""
    problems: list[str] = field(default_factory=list)
    """What makes no sense and is refused, one line each."""

    def refuse(self) -> None:
        """Raise RecipeError if there are problems."""
        if self.problems:
            raise RecipeError(self.problems)


def look_at(plan: Plan) -> PromptReport:
    """Check the distinct prompts of a plan, and its negative prompts."""
    heard = negative_prompts(plan.recipe, plan.files)
    report = _lengths(plan)
    return replace(report, notes=report.notes + heard.notes, problems=report.problems + heard.problems)


def negative_prompts(recipe: Recipe, files: GeneratorFiles | None = None) -> PromptReport:
    """Check only whether negative prompts have an effect.

    Args:
        files: the model's; None: its configuration is read if it lies on this disk, and nothing is fetched.
    """
    found = PromptReport(checked=0, is_whole=False, max_tokens=None)
    if (where := next(_negatives(recipe), None)) is None:
        return found
    if files is None:
        model = unread_model(recipe.generator.model)
        if model is None:
            weak = [f"{level:g}" for level in recipe.sampling.guidance if level <= 1]
            note = f"{where}: has no effect in most models at guidance {', '.join(weak)}; `synthforge plan` looks at this model"
            return replace(found, notes=[note] if weak else [])
        files = GeneratorFiles(model, {})
    unheard = recipe.generator.unheard_negative(files, recipe.sampling)
    if unheard is None:
        return found
    if set(unheard.levels) == set(recipe.sampling.guidance):
        return replace(found, problems=[f"{where}: has no effect: {unheard.why}"])
    levels = ", ".join(f"{level:g}" for level in unheard.levels)
    return replace(found, notes=[f"{where}: has no effect at guidance {levels}: {unheard.why}"])


def _negatives(recipe: Recipe) -> Iterator[str]:
    """The fields that set a negative prompt."""
    if recipe.prompts.negative is not None:
        yield "prompts.negative"
    yield from (f"classes.{name}.negative" for name, spec in recipe.classes.items() if spec.negative is not None)


def _lengths(plan: Plan) -> PromptReport:
    if not type(plan.recipe.generator).capabilities.text:
        return PromptReport(checked=0, is_whole=True, max_tokens=None)
    limit = plan.text_limit
    if limit is None:
        note = f"prompts: it is not known here how much of a prompt {plan.files.model.public_name} uses, so their length was not checked"
        return PromptReport(checked=0, is_whole=False, max_tokens=None, notes=[note])
    texts, is_whole = plan.distinct_texts
    overlong = [text for text in texts if limit.used(text) is not None]
    report = PromptReport(checked=len(texts), is_whole=is_whole, max_tokens=limit.max_tokens, overlong=len(overlong))
    if not is_whole:
        note = f"prompts: there may be more than {TEXTS_CHECKED:,}; only the length of the first {len(texts):,} was checked"
        report = replace(report, notes=[note])
    if not overlong:
        return report
    report = replace(report, first=overlong[0], first_tokens=limit.num_tokens(overlong[0]))
    found = _in_words(report, overlong)
    if plan.recipe.prompts.overlong == "error":
        return replace(report, problems=[f"prompts.overlong: {found}; shorten them, or set prompts.overlong=cut"])
    return replace(report, notes=[f"prompts: {found}; what is beyond is cut and has no effect", *report.notes])


def _in_words(report: PromptReport, overlong: Sequence[str]) -> str:
    first = overlong[0] if len(overlong[0]) <= _SHOWN else f"{overlong[0][:_SHOWN]}..."
    return (
        f"{report.overlong:,} of {report.checked:,} are longer than the text encoder takes, which is {report.max_tokens} tokens; "
        f"the first has {report.first_tokens}: {first!r}"
    )
