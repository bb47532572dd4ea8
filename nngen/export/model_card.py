"""Model cards in Markdown: experts, results, hyperparameters, environment and use of an exported model."""

from __future__ import annotations

from collections.abc import Sequence

from nngen.export.selection import Export, Repetition
from nngen.jinja import render_template
from nngen.lemur.layout import nn_id
from nngen.text import one_line

LOADERS = frozenset({"celeba-gender", "cifar-10", "cifar-100", "imagenette", "mnist", "places365", "svhn"})
"""Image classification data sets that nn-dataset 2.1.2 can load."""


def card(exports: Sequence[Export], repetition: Repetition | None = None) -> str:
    """Write the card of one model from ``templates/model_card.md.j2``.

    Args:
        exports: Exported trials of the model; at least one.
        repetition: Repetition that the exported weights come from, if any.
    """
    first = exports[0]
    trial, spec = first.trial, first.trial.spec
    assert spec is not None
    measured = {
        "batch": trial.batch,
        "batches_tried": ", ".join(map(str, trial.batches_tried)),
        "energy_j": trial.energy_j,
        "isolation": trial.isolation,
        "predicted_mib": None if trial.predicted_mib is None else round(trial.predicted_mib),
    }
    text = render_template(
        "model_card.md.j2",
        candidate=first.candidate,
        nn_id=nn_id(first.candidate.source),
        trial=trial,
        exports=exports,
        suspects=[
            (one.trial.spec.seed, one_line(one.trial.suspect))
            for one in exports
            if one.trial.spec and one.trial.suspect
        ],
        dataset=first.results.dataset,
        loaders=LOADERS,
        transform=first.transform.name,
        prm=first.score.prm,
        prm_text="{" + ", ".join(f'"{key}": {value!r}' for key, value in first.score.prm.items()) + "}",
        environment={
            name: one_line(str(value))
            for name, value in {**trial.environment, **measured}.items()
            if value not in (None, "")
        },
        shape=spec.shape,
        classes=first.classes,
        repetition=repetition,
    )
    return f"{text}\n"
