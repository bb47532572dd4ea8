"""A campaign: begun, resumed or grown from its archive, previewed, and summarised; its driver runs the trials.

All suggestions are stored before the first of them runs, and each result is one transaction, so the driver holds no
state that could be lost: a campaign killed at any instant continues from its archive.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass, field, fields, replace

from nngen import __version__
from nngen.analysis.ranking.fidelity import fidelity_note
from nngen.analysis.results import template_note
from nngen.archive.records import CampaignRecord, LoopRole, TrialLine
from nngen.archive.store import Archive
from nngen.assembly.assemble import Assembler
from nngen.campaign.budget import Budget, last_budget, read_usage
from nngen.campaign.commands import interrupts
from nngen.campaign.driver import Driver, StopReason, new_trials
from nngen.campaign.estimate import Work, work_to_come
from nngen.campaign.protocols import (
    Assemble,
    CampaignInputs,
    CandidateSource,
    GivenCandidates,
    StopRule,
    Watcher,
)
from nngen.campaign.selection import FamiliesAlone, effects_note, narrow, source_of
from nngen.campaign.successive_halving import is_over
from nngen.campaign.summary import Summary, summarise
from nngen.campaign_spec import CampaignSpec, shown
from nngen.datasets.preprocessing import pooled_features
from nngen.errors import DataError, LemurError, UsageError
from nngen.families.trust import AUTO, check_level
from nngen.ranges import flag_of
from nngen.space import coverage
from nngen.training.engine import Engine


@dataclass(frozen=True, slots=True, kw_only=True)
class Campaign:
    """A campaign with all that runs it; ``run`` begins it, or resumes the one of the same name.

    Attributes:
        spec: Specification; of a campaign that is resumed, the stored one or one that it may grow to.
        archive: Archive that holds the campaign.
        inputs: Families and data set.
        engine: Engine that checks and trains.
        source: Source of candidates; None for the sampler that the specification names.
        assemble: Assembler of plans.
        watcher: Watcher of the progress.
        budget: Budget of the campaign as a whole; None for the one that was set last.
        stop_rules: Further rules that end it early.
        reveal: Whether the test accuracy of the best candidate is revealed when all is done; never in a closed loop.
        loop: Name of the closed loop that the campaign is a stage of.
        cycle: Number of the loop's cycle.
        role: Purpose of the campaign within the cycle.
        isolation: ``auto``, or the level that the user asked for in this run; it is not stored.
        timed: Whether families without a measurement of their time are measured before the first training, so that the
            time left is known from the beginning.
    """

    spec: CampaignSpec
    archive: Archive
    inputs: CampaignInputs
    engine: Engine
    source: CandidateSource | None = None
    assemble: Assemble = field(default_factory=lambda: Assembler().assemble)
    watcher: Watcher = field(default_factory=Watcher)
    budget: Budget | None = None
    stop_rules: Sequence[StopRule] = ()
    reveal: bool = True
    loop: str | None = None
    cycle: int | None = None
    role: LoopRole | None = None
    isolation: str = AUTO
    timed: bool = False

    def run(self) -> Summary:
        """Run until every trial is done and none is to come, or until a budget or a command ends it before.

        Returns:
            The summary; the best candidate's test accuracy is revealed in it when all is done, and not before.

        Raises:
            ArchiveError: If another live driver runs the campaign, or the archive cannot be written.
            DataError: If the data set has changed since the campaign began.
            LemurError: If the source of one of its families has.
            KeyboardInterrupt: After Ctrl-C. Running trainings are finished first; a second Ctrl-C requeues them.
            UsageError: If the campaign cannot begin like this, or began with other candidates.
        """
        name = self.spec.name
        check_level(self.isolation)
        with self.archive.lock(name):
            stored, source = self._begun()
            record = self._create(source) if stored is None else self._resume(stored, source)
            self._add_images(record)
            driver = Driver(self, record, source)
            try:
                with interrupts(driver.listener):
                    reason = driver.drive()
            except KeyboardInterrupt:
                reason = driver.leave(StopReason.INTERRUPTED)
            finally:
                driver.executor.close()
            if reason is StopReason.INTERRUPTED:
                raise KeyboardInterrupt
            finished = reason is StopReason.FINISHED and self.reveal and record.loop is None
            labels = self.inputs.dataset.test_labels.astype("<u2").tobytes() if finished else None
            summary = summarise(self.archive, name, test_labels=labels)
            if reason is StopReason.FINISHED and summary.best is not None:
                driver.weights.settle(summary.best.id)
            return summary

    def baselines(self) -> Campaign | None:
        """Return the campaign of this one's families alone, with what is left of its budget; None where nothing is.

        Raises:
            UsageError: If this campaign has not begun.
        """
        record = self.archive.campaign(self.spec.name)
        families = {name: self.inputs.families[name] for name in record.pool}
        budget = self.budget or last_budget(self.archive.events(record.name, kinds=("budget.set",)))
        left = budget.less(read_usage(self.archive, record.name))
        if left is None:
            return None
        return replace(
            self,
            spec=record.spec.baselines(families),
            inputs=replace(self.inputs, families=families, left_out={}),
            source=FamiliesAlone(),
            budget=left,
            reveal=False,
        )

    def preview(self) -> tuple[CampaignRecord, list[Work]]:
        """Return the campaign as ``run`` would begin or resume it, and its trainings to come; nothing is stored.

        Raises:
            DataError, LemurError, UsageError: As ``run``.
        """
        stored, source = self._begun()
        if stored is None:
            record, _ = narrow(self._new_record(source), self.archive)
            lines: Sequence[TrialLine] = ()
        else:
            self._check_unchanged(stored, source)
            record, lines = replace(stored, spec=self._grown(stored)), self.archive.lines(stored.name)
        if lines and is_over(record.spec, lines):
            return record, []
        return record, work_to_come(
            record.spec, lines, (item.plan.experts for item in source.suggest(record, lines, self.archive))
        )

    def _begun(self) -> tuple[CampaignRecord | None, CandidateSource]:
        """Return the stored campaign of this name, and the source of its candidates."""
        stored = next((record for record in self.archive.campaigns() if record.name == self.spec.name), None)
        if self.source is not None:
            return stored, self.source
        # Where all candidates were given ready-made, they are stored and nothing more is suggested.
        given = stored is not None and stored.candidates
        return stored, GivenCandidates(stored=given) if given else source_of(self.spec)

    def _resume(self, stored: CampaignRecord, source: CandidateSource) -> CampaignRecord:
        """Check that a stored campaign can be resumed, and make its interrupted trials ready again."""
        self._check_unchanged(stored, source)
        if self.spec != stored.spec:
            stored = self._extend(stored, source)
        self.archive.requeue(stored.name)
        if not is_over(stored.spec, self.archive.lines(stored.name)):
            self.archive.log("campaign.resumed", campaign=stored.name)
            if note := template_note(self.archive.template_versions(stored.name), over=bool(stored.candidates)):
                self.watcher.note(note)
        return stored

    def _extend(self, stored: CampaignRecord, source: CandidateSource) -> CampaignRecord:
        """Store what a campaign grows to; what it cannot grow to is refused before."""
        spec = self._grown(stored)
        if spec == stored.spec:
            return stored
        grown = replace(stored, spec=spec)
        source.suggest(grown, self.archive.lines(stored.name), self.archive)
        was = {item.name: getattr(stored.spec, item.name) for item in fields(spec)}
        changed = {name: getattr(spec, name) for name, value in was.items() if getattr(spec, name) != value}
        self.archive.change_campaign(grown, **changed)
        steps = (
            f"{flag_of(name)} {f'{shown(was[name])} ' if was[name] else ''}becomes {shown(value)}"
            for name, value in changed.items()
        )
        self.watcher.note(f"extended: {', '.join(steps)}")
        return grown

    def _add_images(self, record: CampaignRecord) -> None:
        """Store the labels of the validation images, with which results are compared when they are read.

        For families alone pooled features of the images too, by which mixtures of them are compared.
        """
        data, fingerprint = self.inputs.dataset, record.data_fingerprint
        if record.spec.replayed:
            return  # a table has no images
        self.archive.add_labels(fingerprint, data.validation_labels.astype("<u2").tobytes(), data.class_names)
        if record.spec.alone:
            self.archive.add_image_features(fingerprint, pooled_features(data.validation_images).tobytes())

    def _grown(self, stored: CampaignRecord) -> CampaignSpec:
        """Return the specification that a stored campaign grows to."""
        # A specification without rungs leaves open how a campaign that got some goes on.
        open_ = [] if self.spec.rungs else ["rungs", "reduction_factor", "scheduler"]
        open_ += [] if self.spec.note else ["note"]
        names = [item.name for item in fields(stored.spec) if item.name not in open_]
        was, now = ({name: getattr(spec, name) for name in names} for spec in (stored.spec, self.spec))
        spec = stored.spec.extended(**{name: now[name] for name in names if now[name] != was[name]})
        if stored.candidates and spec.size != stored.spec.size:
            raise UsageError(f"campaign {stored.name} is of {len(stored.candidates)} given candidates: no --size")
        return spec

    def _new_record(self, source: CandidateSource) -> CampaignRecord:
        return CampaignRecord(
            spec=self.spec,
            pool=self.inputs.fingerprints,
            left_out=dict(self.inputs.left_out),
            data_fingerprint=self.inputs.dataset.fingerprint,
            classes=self.inputs.dataset.classes,
            candidates=source.candidates,
            nngen=__version__,
            loop=self.loop,
            cycle=self.cycle,
            role=self.role,
        )

    def _create(self, source: CandidateSource) -> CampaignRecord:
        """Store the campaign with its first trials."""
        record, notes = narrow(self._new_record(source), self.archive)
        suggestions = source.suggest(record, (), self.archive)
        for family, _ in self.inputs.families.values():
            self.archive.add_family(family)
        self.archive.add_campaign(
            record, new_trials(self.archive, self.inputs, suggestions), explored=[item.explored for item in suggestions]
        )
        if not source.candidates and not record.spec.alone:
            quartets = [tuple(item.plan.experts) for item in suggestions]
            audit = coverage(sorted(record.pool), quartets)
            notes += (f"biased: {audit.verdict}",) if audit.biased else ()
            notes += (effects_note(record, quartets),)
            if record.spec.rungs and (ranks := fidelity_note(record.spec.dataset, record.spec.rungs[0])):
                notes += (f"the first rung decides which candidates go on, and {ranks}",)
        for line in notes:
            self.watcher.note(line)
        return self.archive.campaign(record.name)

    def _check_unchanged(self, stored: CampaignRecord, source: CandidateSource) -> None:
        if stored.candidates != source.candidates:
            raise UsageError(f"campaign {stored.name} began with other candidates: choose another name")
        if stored.data_fingerprint != self.inputs.dataset.fingerprint:
            raise DataError(
                f"data set {self.spec.dataset} has changed since campaign {stored.name} began: choose another name"
            )
        for family, fingerprint in stored.pool.items():
            if self.inputs.fingerprints.get(family) != fingerprint:
                raise LemurError(
                    f"family {family} has changed since campaign {stored.name} began: "
                    "use the LEMUR it began with, or choose another name"
                )
