"""Pages of the dashboard, asked for without a browser."""

from __future__ import annotations

import csv
import io
import json
import re
import shutil
import threading
import time
from collections import Counter
from dataclasses import replace
from html.parser import HTMLParser
from urllib.parse import urldefrag, urljoin

import numpy as np
import pytest
from dashboard_archives import HOSTILE, TOKEN
from optional import needs

from nngen.analysis.leaderboard import leaderboard
from nngen.analysis.loop_report import loops
from nngen.archive import Archive
from nngen.assembly.plan_toml import to_toml
from nngen.testing.fakes import FakeEngine, fake_campaign
from nngen.types import EpochResult

pytestmark = needs("dashboard", "starlette", "uvicorn", "httpx")

VOID = frozenset({"meta", "link", "br", "img", "input", "hr"})


class Page(HTMLParser):
    """Parser that collects links and figures, and checks that every element is closed."""

    def __init__(self, text):
        super().__init__()
        self.open, self.links, self.plots, self.data, self.words = [], [], [], {}, []
        self.feed(text)
        assert self.open == []

    def handle_starttag(self, tag, attrs):
        found = dict(attrs)
        assert not any(name.startswith("on") for name in found), found
        if tag not in VOID:
            self.open.append((tag, found))
        self.links += [found[name] for name in ("href", "src") if name in found]
        if "data-figure" in found:
            self.plots.append(found["data-figure"])

    def handle_endtag(self, tag):
        assert self.open.pop()[0] == tag

    def handle_data(self, data):
        tag, attrs = self.open[-1] if self.open else ("", {})
        if tag == "script":
            assert attrs.get("type") == "application/json"
            self.data[attrs["id"].removeprefix("figure-")] = json.loads(data)
        else:
            self.words.append(data)

    @property
    def text(self):
        return " ".join(" ".join(self.words).split())


def crawl(client):
    """Follow the links from the first page, of each kind of page 20; returns the pages by address."""
    found, waiting, kinds = {}, ["./"], Counter()
    base = str(client.base_url)
    while waiting:
        address = waiting.pop(0)
        kind = address.partition("?")[0]
        if address in found or address.startswith("data:") or kinds[kind] == 20:
            continue
        kinds[kind] += 1
        answer = client.get(urljoin(base, address))
        assert answer.status_code == 200, (address, answer.text[:500])
        found[address] = answer
        if answer.headers["content-type"].startswith("text/html"):
            page = Page(answer.text)
            assert set(page.plots) == set(page.data), address
            for link in page.links:
                assert not re.match(r"\w+:(?!,)", link), link
                waiting.append(urldefrag(link)[0])
    return found


@pytest.mark.long
@pytest.mark.parametrize("name", ["filled", "old"])
def test_every_link_leads_to_an_escaped_page_and_nothing_is_changed(client, request, name):
    path = request.getfixturevalue(name)
    asked = client(path)
    asked.get("")  # migrates the old one
    before = path.read_bytes()
    pages = crawl(asked)
    wanted = {"./", "campaign", "leaderboard", "pareto", "parallel", "lineage", "compare", "candidate", "source"}
    kinds = {address.partition("?")[0] for address in pages}
    assert wanted <= kinds
    assert ("loop" in kinds) == (name == "old")
    for address, answer in pages.items():
        if answer.headers["content-type"].startswith("text/html"):
            assert "default-src 'none'" in answer.headers["content-security-policy"]
            assert answer.headers["referrer-policy"] == "no-referrer"
            assert answer.headers["cache-control"] == "no-store"
            assert not any(text in answer.text for text in ("<script>alert", "<b>Y", "<b>X")), address
    for method in ("POST", "PUT", "DELETE", "PATCH"):
        assert asked.request(method, "campaign?campaign=full").status_code == 405
    assert path.read_bytes() == before


def test_an_address_without_the_token_gets_one_line(client, filled):
    asked = client(filled)
    for path in ("/", "/wrong/", "/wrong/campaign?campaign=full", "/static/x", f"/{TOKEN}x/", f"/{TOKEN[:-1]}/state"):
        answer = asked.get(asked.base_url.join(path))
        assert answer.status_code == 403
        assert answer.text.count("\n") == 1
        assert "open the one that nngen dashboard printed" in answer.text
    assert asked.get(asked.base_url.join(f"/{TOKEN}")).headers["location"] == f"/{TOKEN}/"


def test_hostile_names_are_shown_as_they_are(client, filled):
    asked = client(filled)
    page = asked.get("campaign", params={"campaign": HOSTILE})
    assert HOSTILE in Page(page.text).text
    text = asked.get("leaderboard.csv", params={"campaign": HOSTILE}).text
    rows = list(csv.DictReader(io.StringIO(text)))
    assert len(rows) > 10
    assert not any(cell.startswith("=") for row in rows for cell in row.values())


@pytest.mark.long
@pytest.mark.parametrize(
    ("address", "words"),
    [
        ("campaign?campaign=ful", "did you mean full?"),
        ("campaign", "no campaign ''"),
        ("candidate?id=MoE4-zzz", "no candidate 'MoE4-zzz'"),
        ("leaderboard?campaign=nothing", "no campaign 'nothing'"),
        ("leaderboard?sort=experts", "sort must be one of"),
        ("leaderboard?page=two", "page must be a number, not 'two'"),
        ("leaderboard?page=nan", "page must be a number"),
        ("leaderboard?least=1e999", "least must be a number"),
        ("pareto?fidelity=99", "fidelity must be a number from 0 to"),
        ("weights?trial=1", "no weights of trial 1 are kept"),
        ("compare?a=full&b=x", "no campaign 'x'"),
        ("loop?name=x", "no closed loop 'x'"),
        (f"page?{'x' * 3000}", "no page is called 'page'"),
        ("%2e%2e/%2e%2e/etc/passwd", "no page is called"),
    ],
)
def test_a_bad_request_is_answered_in_one_line(client, filled, address, words):
    answer = client(filled).get(address)
    assert answer.status_code == 404
    assert words.casefold() in Page(answer.text).text.casefold()


def test_the_leaderboard_is_filtered_sorted_and_cut_into_pages(client, filled):
    asked = client(filled)
    with Archive.open(filled, readonly=True) as archive:
        rows = leaderboard(archive.scores(HOSTILE))
    ids = lambda text: re.findall(r'class="id" href="candidate\?id=([\w%-]+)"', text)  # noqa: E731
    assert len(rows) > 50
    first = asked.get("leaderboard", params={"campaign": HOSTILE})
    second = asked.get("leaderboard", params={"campaign": HOSTILE, "page": 2})
    assert ids(first.text) + ids(second.text) == [row.id for row in rows]
    assert f"1 to 50 of {len(rows)}" in Page(first.text).text
    assert asked.get("leaderboard", params={"campaign": HOSTILE, "page": 99}).text == second.text
    falling = asked.get("leaderboard", params={"campaign": HOSTILE, "sort": "-seconds", "words": "c, D", "least": 0.5})
    wanted = [row for row in rows if {"C", "D"} <= set(row.experts) and row.validation_accuracy >= 0.5]
    assert set(ids(falling.text)) <= {row.id for row in rows if row.validation_accuracy >= 0.5}
    assert {row.id for row in wanted if ", ".join(row.experts).find("C, D") >= 0} <= set(ids(falling.text))
    assert "No candidate" not in falling.text
    assert ids(asked.get("leaderboard?words=nothing-has-this").text) == []
    text = asked.get("leaderboard.csv", params={"campaign": HOSTILE, "least": 0.5}).text
    table = list(csv.DictReader(io.StringIO(text)))
    assert [row["id"] for row in table] == [row.id for row in rows if row.validation_accuracy >= 0.5]


def test_a_rung_and_a_fidelity_are_listed_apart(client, filled):
    asked = client(filled)
    text = Page(asked.get("campaign?campaign=ladder").text).text
    assert re.search(r"1 2 9 0 9 9 0\.\d{4} 2 6 3 0 3 3 0\.\d{4}", text)
    page = asked.get("leaderboard?campaign=ladder")
    assert "6 epochs" in page.text and "2 epochs" in page.text
    assert Page(asked.get("leaderboard?campaign=ladder&fidelity=1").text).text.count("MoE4-") == 9


def test_a_candidate_has_plan_gate_memory_classes_and_commands(client, filled):
    with Archive.open(filled, readonly=True) as archive:
        best = leaderboard(archive.scores("again"))[0]
        stored = archive.candidate(best.id)
    answer = client(filled, place=["--archive", "my archive.db"]).get("candidate", params={"id": best.id})
    page = Page(answer.text)
    assert to_toml(stored.plan).split("\n")[0] in page.text
    assert {"accuracy", "loss", "gates"} == set(page.plots)
    solid, dotted = page.data["accuracy"]["data"][0], page.data["loss"]["data"][0]
    assert len(solid["x"]) == len(dotted["x"]) >= 2
    assert "100 MiB" in page.text and "12,288 MiB" in page.text
    assert "Confusion matrix" in page.text and "balanced accuracy" in page.text
    assert f"nngen export --id {best.id[:13]} --out generated/lemur --archive 'my archive.db'" in page.text
    source = client(filled).get("source", params={"id": best.id})
    assert source.text == stored.source
    assert source.headers["content-disposition"] == f'attachment; filename="{best.id}.py"'
    curves = client(filled).get("curves", params={"id": best.id}).text
    with Archive.open(filled, readonly=True) as archive:
        points = sum(len(trial.curve) for trial in archive.trials(candidate_id=best.id))
    assert len(list(csv.DictReader(io.StringIO(curves)))) == points > 1


def test_a_proposal_shows_its_parents_and_what_it_changed(client, filled):
    asked = client(filled)
    with Archive.open(filled, readonly=True) as archive:
        parents = archive.parents()
    *_, last = parents
    page = Page(asked.get("candidate", params={"id": last}).text)
    assert "gate.width 48 → 64" in page.text
    first = next(iter(parents.values()))
    assert sum(f"id={one}" in link for link in page.links for one in (*list(parents)[:-1], first)) == 3
    assert (
        f"Proposals made from it: {last[:13]}" in Page(asked.get("candidate", params={"id": parents[last]}).text).text
    )
    lineage = Page(asked.get("lineage").text)
    assert "3 proposals with a parent" in lineage.text
    assert lineage.text.count("gate.width") == 3
    edges, better, worse = lineage.data["lineage"]["data"]
    assert len(better["x"]) + len(worse["x"]) == 3
    assert edges["x"][:2] == [0, 1]
    assert "No candidate of full was proposed" in Page(asked.get("lineage?campaign=full").text).text


def test_parallel_coordinates_have_the_fields_that_differ(client, filled):
    asked = client(filled)
    page = Page(asked.get("parallel?campaign=proposed").text)
    names = page.data["parallel"]["layout"]["xaxis"]["ticktext"]
    assert names == ["gate<br>width", "gate<br>noise", "accuracy"]
    lines = page.data["parallel"]["data"]
    places = [y for line in lines for y in line["y"] if y is not None]
    with Archive.open(filled, readonly=True) as archive:
        assert len(places) == 3 * len(leaderboard(archive.scores("proposed")))
    assert min(places) == 0 and max(places) == 1
    assert "differ in nothing but their experts" in Page(asked.get("parallel?campaign=full").text).text


def test_two_campaigns_are_compared_on_what_they_share(client, filled):
    page = Page(client(filled).get("compare?a=full&b=again").text)
    assert "size" in page.text and "35" in page.text and "seed" in page.text
    assert {"comparison"} == set(page.plots)
    with Archive.open(filled, readonly=True) as archive:
        sides = [{row.id: row.validation_accuracy for row in leaderboard(archive.scores(n))} for n in ("full", "again")]
    gap = 100 * (np.mean(list(sides[1].values())) - np.mean(list(sides[0].values())))
    assert f"{gap:+.2f}".replace("-", "\N{MINUS SIGN}") in page.text
    assert "cannot be compared" in Page(client(filled).get("compare?a=full&b=long").text).text


def test_loops_are_shown_by_cycle(client, old):
    asked = client(old)
    page = Page(asked.get("loop?name=loop").text)
    with Archive.open(old, readonly=True) as archive:
        found = loops(archive, "loop-0")
    judged = [cycle.judged for cycle in found.cycles if cycle.judged is not None]
    assert judged
    for accuracy in judged:
        assert f"{accuracy:.4f}" in page.text
    assert "loop" in page.data


def test_a_running_campaign_is_followed(client, tmp_path):
    path = tmp_path / "a.db"
    with Archive.open(path) as archive:
        fake_campaign(archive, size=2).run()
        archive.add_trials("one", [archive.trials("one")[0].plan])
        ready = archive.trials("one")[-1]
        asked = client(path)
        version = lambda: asked.get("state?campaign=one").json()["version"]  # noqa: E731
        first = version()
        text = asked.get("campaign?campaign=one").text
        assert f'data-version="{first}" data-watch="one"' in text
        assert "Running now" not in text
        archive.start_trial(ready.id)
        point = {"validation_accuracy": 0.25, "train_accuracy": 0.5, "train_loss": 1.75}
        archive.log("trial.epoch", campaign="one", trial_id=ready.id, epoch=1, **point)
        assert version() > first
        page = Page(asked.get("campaign?campaign=one").text)
        assert "Running now" in page.text and "0.2500" in page.text
        validation, train = page.data["live_accuracy"]["data"]
        assert (validation["y"], train["y"], page.data["live_loss"]["data"][0]["y"]) == ([0.25], [0.5], [1.75])
        assert asked.get("state?campaign=other").json() == {"version": 0}


def test_a_driver_stores_loss_and_both_splits_of_an_epoch(monkeypatch):
    class Engine(FakeEngine):
        def train(self, job, on_epoch=None):
            trial = super().train(job)
            on_epoch(EpochResult(epoch=1, validation_accuracy=0.5, train_accuracy=0.75, train_loss=1.5))
            return trial

    with Archive.in_memory() as archive:
        fake_campaign(archive, size=1, engine=Engine()).run()
        (event,) = archive.events("one", kinds=("trial.epoch",))
        assert event.detail == {"epoch": 1, "validation_accuracy": 0.5, "train_accuracy": 0.75, "train_loss": 1.5}
        assert list(archive.epochs("one")) == [event]


def test_an_archive_that_goes_and_comes_back(client, filled, tmp_path):
    path = tmp_path / "a.db"
    asked = client(path)
    answer = asked.get("")
    assert answer.status_code == 503
    assert f"No archive at {path}" in Page(answer.text).text
    shutil.copy(filled, path)
    assert asked.get("").status_code == 200
    path.unlink()
    path.write_bytes(b"no database" * 1000)
    assert "is not an archive" in Page(asked.get("").text).text


def test_values_are_computed_once_for_all_readers():
    from nngen.dashboard.snapshot import Shared

    shared, calls = Shared(), []

    def compute():
        calls.append(1)
        time.sleep(0.05)
        return len(calls)

    threads = [threading.Thread(target=shared.get, args=("key", 1, compute)) for _ in range(20)]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    assert len(calls) == 1
    # It took 0.05 s at least, so an older value is served for 0.2 s after a change.
    assert shared.get("key", 2, compute) == (1, False)
    started = time.monotonic()
    while shared.get("key", 2, compute) != (2, True):
        assert time.monotonic() - started < 60
        time.sleep(0.05)
    assert len(calls) == 2
    assert shared.get("key", 1, compute) == (2, True)


@pytest.mark.long
def test_a_reader_gets_the_earlier_value_while_a_new_one_takes_long():
    from nngen.dashboard.snapshot import Shared

    shared, begun, release = Shared(), threading.Event(), threading.Event()

    def slow():
        begun.set()
        release.wait(60)
        return "new"

    assert shared.get("key", 1, lambda: "old") == ("old", True)
    assert shared.get("key", 2, slow) == ("old", False)
    assert shared.get("key", 2, slow) == ("old", False)  # and no second thread is begun
    assert begun.wait(60)
    release.set()
    started = time.monotonic()
    while shared.get("key", 2, slow) != ("new", True):
        assert time.monotonic() - started < 60
        time.sleep(0.05)


def test_the_largest_campaigns_are_computed_before_a_reader_asks(filled, monkeypatch):
    from nngen.dashboard.server import Dashboard
    from nngen.dashboard.snapshot import Shared

    asked, get = [], Shared.get

    def watched(self, key, *rest):
        asked.append(key[1:])
        return get(self, key, *rest)

    monkeypatch.setattr(Shared, "get", watched)
    Dashboard(filled, TOKEN).prepare()
    with Archive.open(filled, readonly=True) as archive:
        sizes = Counter({name: len(archive.lines(name)) for name in (one.name for one in archive.campaigns())})
    assert next(campaign for name, campaign in asked if name == "lines") == sizes.most_common(1)[0][0]
    assert {name for name, campaign in asked if campaign == sizes.most_common(1)[0][0]} >= {"rows", "outcomes"}
    assert asked[-1] == ("rows", None)
    Dashboard(filled.parent / "missing.db", TOKEN).prepare()  # readers get the error


def test_an_error_of_a_new_value_reaches_the_next_reader():
    from nngen.dashboard.snapshot import Shared

    def gone():
        raise OSError("gone")

    shared = Shared()
    assert shared.get("key", 1, lambda: "old") == ("old", True)
    shared.get("key", 2, gone)
    with pytest.raises(OSError, match="gone"):
        shared.get("key", 2, gone)


def merit(row):
    return row.validation_accuracy, -row.parameters, -row.seconds


def dominates(one, other):
    return one != other and all(x >= y for x, y in zip(one, other, strict=True))


def test_the_pareto_front_is_that_of_a_comparison_of_all_pairs():
    from nngen.dashboard.selection import front

    with Archive.in_memory() as archive:
        fake_campaign(archive, size=1).run()
        (row,) = leaderboard(archive.scores())
    random = np.random.default_rng(0)
    for _ in range(20):
        rows = [
            replace(row, id=str(n), validation_accuracy=float(a) / 8, parameters=int(p), seconds=float(s))
            for n, (a, p, s) in enumerate(random.integers(1, 8, (40, 3)))
        ]
        wanted = {merit(one) for one in rows if not any(dominates(merit(other), merit(one)) for other in rows)}
        found = [merit(one) for one in front(rows)]
        assert set(found) == wanted
        assert len(found) == len(wanted)


def test_weights_are_offered_and_a_link_in_their_place_is_not(client, filled, tmp_path):
    shutil.copy(filled, tmp_path / "a.db")
    with Archive.open(tmp_path / "a.db", readonly=True) as archive:
        trial = next(trial for trial in archive.trials("again") if trial.trained)
    folder = tmp_path / "a.db.weights" / f"trial-{trial.id}"
    folder.mkdir(parents=True)
    (folder / "weights.safetensors").write_bytes(b"weights")
    asked = client(tmp_path / "a.db")
    answer = asked.get(f"weights?trial={trial.id}")
    assert (answer.content, answer.headers["content-type"]) == (b"weights", "application/octet-stream")
    assert f"nngen predict {trial.candidate_id[:13]} photos" in asked.get(f"candidate?id={trial.candidate_id}").text
    (folder / "weights.safetensors").rename(tmp_path / "secret")
    (folder / "weights.safetensors").symlink_to(tmp_path / "secret")
    assert asked.get(f"weights?trial={trial.id}").status_code == 404
    assert "nngen predict" not in asked.get(f"candidate?id={trial.candidate_id}").text


def test_queries_for_pages_agree_with_the_whole(filled):
    with Archive.open(filled, readonly=True) as archive:
        for campaign in archive.campaigns():
            trials = archive.trials(campaign.name)
            tallies = archive.tallies(campaign.name)
            assert sum(one.trials for one in tallies) == len(trials)
            assert sum(one.trained for one in tallies) == sum(trial.trained for trial in trials)
            assert sum(one.failed for one in tallies) == sum(not trial.verdict.valid for trial in trials)
            assert max(one.best or 0 for one in tallies) == max(trial.validation_accuracy or 0 for trial in trials)
        assert sum(one.trials for one in archive.tallies()) == len(archive.trials())
        candidates = archive.candidates()
        assert archive.plans(one.id for one in candidates) == {one.id: one.plan for one in candidates}
        assert archive.last_event_id() == archive.events()[-1].id
        assert archive.last_event_id("full") == archive.events("full")[-1].id
