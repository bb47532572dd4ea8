"""Model cards in Markdown (experts, results, hyperparameters, environment, use), and the configuration of weights."""

from __future__ import annotations

import ast
import json
import sys
from collections.abc import Sequence

from nngen.analysis.statistics import share_interval
from nngen.assembly.provenance import source_level
from nngen.export.selection import LOADERS, Export, TrainedFiles
from nngen.isolation import Isolation
from nngen.jinja import render_template
from nngen.lemur.layout import SOURCES, nn_id
from nngen.seeds import derive
from nngen.text import listed, one_line, parse_python
from nngen.training.orders import EVAL_FACTOR

_OWN_PACKAGES = ("torch", "safetensors", "numpy", "pillow")  # packages that ``classify.py`` needs

_PIP = {"PIL": "pillow", "ab": "nn-dataset", "cv2": "opencv-python", "sklearn": "scikit-learn", "yaml": "pyyaml"}
"""Names under which pip knows packages whose modules are called otherwise."""


def requirements(source: str) -> tuple[str, ...]:
    """Return the packages that a model's source and ``classify.py`` import, by their names for pip."""
    modules: set[str] = set()
    for node in ast.walk(parse_python(source)):
        if isinstance(node, ast.Import):
            modules |= {alias.name.partition(".")[0] for alias in node.names}
        elif isinstance(node, ast.ImportFrom) and node.module and not node.level:
            modules.add(node.module.partition(".")[0])
    others = {_PIP.get(name, name) for name in modules - sys.stdlib_module_names}
    return (*_OWN_PACKAGES, *sorted(others.difference(_OWN_PACKAGES)))


def config(files: TrainedFiles, source: str) -> str:
    """Write ``config.json``, enough to build the network and classify an image; the source's path is relative to it."""
    export = files.export
    trial, spec = export.trial, export.trial.spec
    assert spec is not None
    batch = spec.batch if trial.batch is None else trial.batch
    content = {
        "model": export.candidate.id,
        "source": source,
        "experts": list(export.candidate.experts),
        "prm": {**export.score.prm, **trial.prm},
        "seeds": {name: derive(spec.seed, name) for name in ("python", "numpy", "torch")},
        "batch": EVAL_FACTOR * batch,
        **export.preprocessing.to_dict(),
        "dataset": export.results.dataset,
        "data_fingerprint": trial.data_fingerprint,
        "trial": {
            "campaign": trial.campaign,
            "epochs": spec.epochs,
            "batch": batch,
            "lr": spec.lr,
            "seed": spec.seed,
            "validation_accuracy": trial.validation_accuracy,
            "test_accuracy": export.score.accuracy,
        },
        "test_accuracy": files.test_accuracy,
        "same_predictions_as_trial": files.same,
    }
    return json.dumps(content, indent=2, ensure_ascii=False) + "\n"


def card(exports: Sequence[Export], trained: Sequence[TrainedFiles] = (), *, hub: bool = False) -> str:
    """Write the card of a model's exports from ``templates/model_card.md.j2``; with ``hub``, that of a hub's folder."""
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
        hub=hub,
        packages=listed(requirements(first.candidate.source)),
        own=hub and source_level(first.candidate.source).level is Isolation.PROCESS,
        class_names=[one_line(name, 60) for name in first.preprocessing.class_names],
        results=[_result(export) for export in exports],
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
        trained=trained,
    )
    return f"{text}\n"


def _result(export: Export) -> dict[str, str]:
    """Return the accuracies of a trial with their intervals, as the number of images allows them."""
    _, validation, test = export.images
    pairs = {"validation": (export.trial.validation_accuracy or 0.0, validation), "test": (export.score.accuracy, test)}
    spans = {name: (share, *share_interval(share, images)) for name, (share, images) in pairs.items()}
    return {name: f"{share:.4f} ({low:.4f} to {high:.4f})" for name, (share, low, high) in spans.items()}
