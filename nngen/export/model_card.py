"""Model cards in Markdown (experts, results, hyperparameters, environment, use), and the configuration of weights."""

from __future__ import annotations

import json
from collections.abc import Sequence

from nngen.export.selection import LOADERS, Export, Repetition
from nngen.jinja import render_template
from nngen.lemur.layout import SOURCES, nn_id
from nngen.text import one_line


def config(repetition: Repetition) -> str:
    """Write ``config.json`` of a training: all that is needed to build the network and to classify an image file."""
    export = repetition.export
    trial, spec = export.trial, export.trial.spec
    assert spec is not None
    content = {
        "model": export.candidate.id,
        "source": f"{SOURCES}/{export.candidate.id}.py",
        "experts": list(export.candidate.experts),
        "prm": dict(export.score.prm),
        **export.preprocessing.to_dict(),
        "dataset": export.results.dataset,
        "data_fingerprint": trial.data_fingerprint,
        "trial": {
            "campaign": trial.campaign,
            "epochs": spec.epochs,
            "batch": spec.batch if trial.batch is None else trial.batch,
            "lr": spec.lr,
            "seed": spec.seed,
            "validation_accuracy": trial.validation_accuracy,
            "test_accuracy": export.score.accuracy,
        },
        "test_accuracy": repetition.test_accuracy,
        "same_predictions_as_trial": repetition.same,
    }
    return json.dumps(content, indent=2, ensure_ascii=False) + "\n"


def card(exports: Sequence[Export], repetitions: Sequence[Repetition] = ()) -> str:
    """Write the card of one model from ``templates/model_card.md.j2``.

    Args:
        exports: Exported trials of the model; at least one.
        repetitions: Repetitions that the exported weights come from, if any, one for each data set.
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
        source=f"{SOURCES}/{first.candidate.id}.py",
        shape=spec.shape,
        classes=len(first.preprocessing.class_names),
        repetitions=repetitions,
    )
    return f"{text}\n"
