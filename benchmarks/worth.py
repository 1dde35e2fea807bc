"""What synthetic images are worth to a classifier: the digits and Fashion-MNIST, for each amount of real data, with 5
draws of 2 seeds.

Each draw has other real images (nearly the same where 79 digits of a class are taken: the scarcest has no more), a
generator fitted on these alone, a pool, and what curation chose of it; classifiers are tested on images that served
nothing else. Beside the arms of every evaluation stand the other ways of mixing real and curated images, and `matched`,
real with images chosen as for training without real ones; whether these beat the default is asked of their mean over
all amounts. A second run has four synthetic images for each real one; a third with twice the steps, of the digits the
scarcest amount and higher rates, of Fashion-MNIST 100 of a class and the arms of every evaluation; a fourth, of the
digits, a generator that has seen all 800. Digits are trained on for four times the demo's steps, since with 5 of a
class those leave some accuracy behind, with the choice of rates that their tables have had from the first.
Fashion-MNIST is shrunk to 16 px and its generators are MLPs, whose images teach more than a U-Net's of the same time on
one core (73.9 against 70.1 % of the test images, after 3 and 6 minutes of fitting on 100 of a class). Everything lies
in the folder that the environment variable WORTH names (runs/worth), and a killed run goes on where it was. SET=digits
or fashion measures one of the two; some three hours each on two cores. WORKERS=8 has so many processes.
"""

from __future__ import annotations

import os
from pathlib import Path
from typing import Any

from benchmarks import fashion
from benchmarks.harness import keep
from synthforge.evaluation.request import evaluation_of
from synthforge.evaluation.results.types import EvaluateResult, SettingResult, TableResult
from synthforge.evaluation.results.words import percent, points
from synthforge.evaluation.run import evaluate
from synthforge.generation.run import generate
from synthforge.recipe.evaluation import DEFAULT_ARMS
from synthforge.recipe.load import load_recipe

PLACE = Path(os.environ.get("WORTH", "runs/worth"))
WORKERS = os.environ.get("WORKERS")
CLAIM = "accuracy of each arm at each amount of real data, what curation wins back, and what one more real image is worth"
POLICIES = {"digits": ("pooled", "split-norm", "synthetic-then-real"), "fashion": ("pooled", "synthetic-then-real")}
SIDE = 16
"""Pixels of Fashion-MNIST's images."""
SAID = {
    "real_per_class",
    "synthetic_per_real",
    "budget",
    "arms",
    "comparisons",
    "worth",
    "steps_check",
    "steps_check_mean",
    "sentence",
    "missing",
}


def main() -> None:
    wanted = os.environ.get("SET", "digits fashion").split()
    if "digits" in wanted:
        recipe = "recipes/digits.yaml"
        common = [
            "evaluation.generators=null",
            "evaluation.trainer.steps=600",
            "evaluation.tuning.learning_rates=[0.003, 0.01]",
            "evaluation.curve=[2, 5, 10, 20, 50, 79]",
        ]
        own = [*common, "evaluation.fit={}", "evaluation.elsewhere=false"]
        measure("digits", recipe, [*own, "evaluation.real_per_class=[5, 10, 20, 50, 79]"], 1)
        measure("digits", recipe, [*own, "evaluation.real_per_class=[5, 20]"], 4)
        longer = ["evaluation.real_per_class=[5]", "evaluation.trainer.steps=1200", "evaluation.tuning.learning_rates=[0.01, 0.02]"]
        measure("digits", recipe, [*own, *longer], 1, "-longer")
        generate(load_recipe(recipe, [f"output.path={PLACE.resolve() / 'digits'}"]))
        measure("digits", recipe, [*common, "evaluation.elsewhere=true", "evaluation.real_per_class=[5, 20, 50]"], 1, "-elsewhere")
    if "fashion" in wanted and not fashion.is_there():
        print(f"Fashion-MNIST is not measured: {fashion.PLACE} is not there; apt-get install dataset-fashion-mnist")
    elif "fashion" in wanted:
        recipe = str(_fashion_recipe())
        for ratio, amounts in ((1, "[20, 100]"), (4, "[100]")):
            own = ["evaluation.elsewhere=false", f"evaluation.real_per_class={amounts}", "evaluation.curve=[20, 50, 100, 200]"]
            measure("fashion", recipe, own, ratio)
        longer = ["evaluation.real_per_class=[100]", "evaluation.curve=[100, 200]", "evaluation.trainer.steps=2400"]
        measure("fashion", recipe, ["evaluation.elsewhere=false", *longer], 1, "-longer", mixed=False)


def measure(name: str, recipe: str, sets: list[str], ratio: int, origin: str = "", *, mixed: bool = True) -> None:
    """Evaluate one table and keep it; with the other ways of mixing if asked."""
    policies = POLICIES[name] if mixed else ()
    others = [f"{{name: {policy}, of: [real, curated], mixing: {{policy: {policy}}}}}" for policy in policies]
    others += ["{name: matched, of: [real, curated], selection: mmd}"] * mixed
    asked = [
        f"output.path={PLACE.resolve() / name}",
        "evaluation.draws=5",
        "evaluation.seeds=2",
        f"evaluation.synthetic_per_real=[{ratio}]",
        f"evaluation.arms=[{', '.join([*DEFAULT_ARMS, *others])}]",
        *([f"evaluation.workers={WORKERS}"] if WORKERS else []),
        *sets,
    ]
    better = [f"real+curated > {policy}" for policy in policies] + ["real+curated > matched"] * mixed
    result = evaluate(evaluation_of(load_recipe(recipe, asked), out=str(PLACE.resolve() / f"{name}-{ratio}{origin}.json"), require=better))
    keep("worth", CLAIM, _said(result), part=f"{name}-{ratio}{origin}")
    for table in result.tables:
        print(f"\n{name}, {table.origin}: {result.verdict}\n\n{in_rows(table)}")


def in_rows(table: TableResult) -> str:
    """For the guide: accuracy of arms without real images, and what those with real ones have over real only."""
    policies = {policy for found in POLICIES.values() for policy in found}
    of = list(dict.fromkeys(name for setting in table.settings for name in setting.arms))
    alone, both = ([name for name in of if ("+" in name or name in {*policies, "matched"}) is has_real] for has_real in (False, True))
    rows = [["real per class", *alone, *(f"{name} less real" for name in both), "curated less random"]]
    rows.append(["---"] * len(rows[0]))
    for setting in table.settings:
        by_pair = {(one.arm, one.against): f"{points(one.difference)}, {one.verdict}" for one in setting.comparisons}
        rows.append(
            [f"{setting.real_per_class:g}"]
            + [percent(setting.arms[name].accuracy) if name in setting.arms else "" for name in alone]
            + [by_pair.get((name, "real"), "") for name in both]
            + [by_pair.get(("curated", "random"), "")]
        )
    return "\n".join(f"| {' | '.join(row)} |" for row in rows)


def _said(result: EvaluateResult) -> dict[str, Any]:
    """All but what can be read elsewhere."""
    return {
        "verdict": result.verdict,
        "claims": {
            table.origin: [claim.model_dump() for claim in [*table.claims, *(one.claim for one in table.required)]]
            for table in result.tables
        },
        "tables": {table.origin: [_setting(setting) for setting in table.settings] for table in result.tables},
        "real learning curve": [point.model_dump() for point in result.curve],
        "holdout images": result.holdout_images,
        "tuned": [one.model_dump() for one in result.tuned],
        "trainer": result.trainer,
        "copies removed": result.copies_removed,
        "notes": result.notes,
        "trainings": result.trainings,
        "seconds of training": result.seconds,
        "device": result.device,
    }


def _setting(setting: SettingResult) -> dict[str, Any]:
    found = {name: value for name, value in setting.model_dump().items() if name in SAID}
    for name, arm in setting.arms.items():  # figures of classes are many: a line each
        found["arms"][name]["recall"] = {label: percent(one) for label, one in arm.recall.items()}
    for number, comparison in enumerate(setting.comparisons):
        found["comparisons"][number]["by_class"] = {label: points(one) for label, one in comparison.by_class.items()}
    return found


def _fashion_recipe() -> Path:
    reference = fashion.write_reference(PLACE / f"reference-{SIDE}", 300, 0, SIDE)
    holdout = fashion.write_holdout(PLACE / f"holdout-{SIDE}", SIDE)
    path = PLACE / "fashion.yaml"
    path.write_text(
        "name: fashion\n"
        f"generator: {{kind: pixel, model: {PLACE.resolve() / 'none'}}}\n"
        f"classes: {fashion.CLASSES}\n"
        'prompts: {templates: ["{class}"]}\n'
        "sampling: {seed: 0, steps: 10}\n"
        "count: {per_class: 500}\n"
        f"reference: {reference.resolve()}\n"
        "evaluation:\n"
        f"  holdout: {holdout.resolve()}\n"
        "  fit: {body: mlp, width: 512, depth: 3, loop: {images: 1000000, checks: 8}}\n"
        "  trainer: {steps: 1200, batch: 32, width: 16}\n"
        "  tuning: {folds: 2, augmentations: [shift, strong], flip: [true], learning_rates: [0.01]}\n"
    )
    return path


if __name__ == "__main__":
    main()
