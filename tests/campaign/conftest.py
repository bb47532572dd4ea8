from dataclasses import replace

import numpy as np
import pytest

from nngen.archive import Archive
from nngen.campaign import Bench, Campaign, CampaignSpec
from nngen.campaign.fake import FakeData, FakeEngine, fake_assemble, fake_families
from nngen.types import Shape

DATA = FakeData()


def bench(names="ABCDEFG", **changes):
    made = Bench(
        families=fake_families(names),
        dataset=DATA,
        data_fingerprint="d1",
        classes=10,
        test_labels=np.array(DATA.test, dtype="<u2").tobytes(),
    )
    return replace(made, **changes)


def campaign(archive, *, engine=None, ground=None, assemble=fake_assemble, **arguments):
    spec = CampaignSpec(**{"name": "one", "size": 6, "shape": Shape(1, 8, 8), "epochs": 2} | arguments)
    return Campaign(
        spec=spec, archive=archive, bench=ground or bench(), engine=engine or FakeEngine(), assemble=assemble
    )


@pytest.fixture
def archive(tmp_path):
    with Archive.open(tmp_path / "a.db") as archive:
        yield archive
