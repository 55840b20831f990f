"""Writes a model as one file: JSON and safetensors, stored uncompressed in a zip, and nothing that names a patient.

One model gives the same bytes whenever and wherever one version of segfw packs it; but in half precision the card holds
what was measured, whose last digits are of the processor.
"""

from __future__ import annotations

import hashlib
import json
import zipfile
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass, field
from pathlib import Path

from torch import Tensor

from segfw.base.files import whole_file
from segfw.base.own_version import own_version
from segfw.base.records import UserError
from segfw.base.written_by_people import parse_json, read_text
from segfw.model.calibration_facts import CalibrationFacts, read_calibration, with_digests
from segfw.model.card import CARD_FILE, Card, FoldFacts, fold_facts
from segfw.model.default_configuration import default_configuration
from segfw.model.export_options import ExportOptions
from segfw.model.half_precision import halved, measure_rounding
from segfw.model.load import require_predicting
from segfw.model.private_names import PrivateNames
from segfw.model.selection import read_selection
from segfw.model.source import QUALITY_FILE, SELECTION_FILE, ModelSource, fold_folder, postprocessing_name, weights_name
from segfw.model.weights import read_tensors, require_usable, safetensors_header, tensors_digest
from segfw.networks import BuildNetwork
from segfw.planning.plan import PLAN_FILE, REFINE, Plan

KEPT_METADATA = ("epoch", "mirror_axes", "patch_size")  # of a file of weights
EARLIEST = (1980, 1, 1, 0, 0, 0)  # the first time that a zip can hold: a file's time is none of the model's


@dataclass(frozen=True, kw_only=True)
class Contents:
    """What of a model is packed: ``configurations`` are to predict, ``weights`` theirs, of first stages and a refiner.

    ``weights`` are names inside the model, by configuration and fold.
    """

    configurations: tuple[str, ...]
    weights: Mapping[str, Mapping[str, str]]
    with_selection: bool


def choose_contents(source: ModelSource, plan: Plan, options: ExportOptions) -> Contents:
    """What was asked for, or what was selected, or the only trained configuration, with all its trained folds.

    What was selected for other configurations, folds or weights says nothing about these, and stays behind.
    """
    selection = read_selection(source)
    if options.configurations:
        wanted = options.configurations
    elif selection is not None:
        wanted = selection.configurations
    else:
        wanted = (default_configuration(source, plan),)
    chosen = tuple(plan.configuration(name).name for name in dict.fromkeys(wanted))
    for name in chosen:
        require_predicting(plan.configurations[name], source.path)
    is_selected = (
        selection is not None and selection.configurations == chosen and options.folds is None and not options.best
    )
    weights = {}
    for name in chosen:
        folds = selection.folds.get(name) if selection is not None and is_selected else options.folds
        weights[name] = source.weight_names(name, folds or None, best=options.best)
    for name in chosen:
        first_stage = plan.configurations[name].previous_stage
        if first_stage and first_stage not in weights:  # as predict takes it: all folds, the last weights
            weights[first_stage] = source.weight_names(first_stage)
    if REFINE in plan.configurations and source.trained_folds(REFINE):  # corrects the masks of whatever predicts
        weights[REFINE] = source.weight_names(REFINE)
    return Contents(configurations=chosen, weights=weights, with_selection=is_selected)


@dataclass(kw_only=True)
class _Archive:
    """A model file that is being written: the digest of every member, and what can be read in it as text."""

    file: zipfile.ZipFile
    digests: dict[str, str] = field(default_factory=dict)
    texts: list[object] = field(default_factory=list)

    def add(self, name: str, content: bytes) -> None:
        self.digests[name] = hashlib.sha256(content).hexdigest()
        if name.endswith(".json"):
            self.texts.append(parse_json(content, name))
        self.write(name, content)

    def write(self, name: str, content: bytes) -> None:
        member = zipfile.ZipInfo(name, EARLIEST)
        member.create_system = 3  # as by Unix, with its permissions: the same on every system
        member.external_attr = 0o644 << 16
        self.file.writestr(member, content)


def pack_model(
    source: ModelSource,
    output: Path,
    options: ExportOptions,
    *,
    data_digest: str | None,
    private_names: PrivateNames,
    build: BuildNetwork,
) -> Card:
    """Writes the model file ``output``, whole or not at all, and returns its card.

    ``data_digest`` is that of the data set's fingerprint. Raises UserError if there is nothing to pack, or if one of
    the ``private_names`` would be packed.
    """
    plan = source.plan()
    contents = choose_contents(source, plan, options)
    half = options.half or (source.card is not None and source.card.precision == "float16")
    with (
        whole_file(output, overwrite=options.overwrite) as partial,
        zipfile.ZipFile(partial, "w", zipfile.ZIP_STORED) as file,
    ):
        archive = _Archive(file=file)
        archive.add(PLAN_FILE, _json(_without_machine(plan, contents.weights)))
        if contents.with_selection:
            archive.add(SELECTION_FILE, source.read(SELECTION_FILE))
        facts = []
        calibration = _calibration_of(source, contents, options)
        digests: dict[str, str] = {}
        for configuration, names in contents.weights.items():
            postprocessing = postprocessing_name(configuration)
            if source.has(postprocessing):
                archive.add(postprocessing, source.read(postprocessing))
            for fold, name in names.items():  # one after the other in memory
                of_fold = _facts(source, configuration, fold, name)
                tensors, metadata = read_tensors(source, name)
                require_usable(tensors, source.path / name)
                if half:
                    whole = tensors
                    tensors = halved(whole, source.path / name)
                    if of_fold.half_rounding is None:
                        rounding = measure_rounding(source.path, plan, configuration, whole, tensors, build)
                        of_fold = of_fold.model_copy(update={"half_rounding": rounding})
                    if calibration is not None and configuration == calibration.identity.configuration:
                        digests |= _digest_of_rounded(calibration, fold, whole, tensors)
                archive.add(weights_name(configuration, fold), _safetensors(tensors, metadata))
                facts.append(of_fold)
        if calibration is not None:
            archive.add(QUALITY_FILE, with_digests(source.read(QUALITY_FILE), digests))
        card = _card(source, plan, contents, options, facts, archive.digests, data_digest)
        private_names.refuse_in([*archive.texts, card.model_dump(mode="json")], source.path)
        archive.write(CARD_FILE, _json(card))
    return card


def _calibration_of(source: ModelSource, contents: Contents, options: ExportOptions) -> CalibrationFacts | None:
    """Of the configuration that is packed; None where there is none, or where it is of other weights."""
    calibration = read_calibration(source)
    if calibration is None or options.best or contents.configurations != (calibration.identity.configuration,):
        return None
    return calibration


def _digest_of_rounded(
    calibration: CalibrationFacts, fold: str, whole: Mapping[str, Tensor], rounded: Mapping[str, Tensor]
) -> dict[str, str]:
    """By which the calibration knows a fold that is stored in half precision; nothing of one that it is not of."""
    if calibration.identity.folds.get(fold) != tensors_digest(whole):
        return {}
    return {fold: tensors_digest({name: tensor.float() for name, tensor in rounded.items()})}


def _card(
    source: ModelSource,
    plan: Plan,
    contents: Contents,
    options: ExportOptions,
    facts: Sequence[FoldFacts],
    digests: Mapping[str, str],
    data_digest: str | None,
) -> Card:
    """The card of what is packed; what it does not say anew is as in the card of a file that is packed again."""
    before = source.card
    licence, licence_text = _licence(options.licence, before)
    half = options.half or (before is not None and before.precision == "float16")
    return Card(
        segfw=own_version(),
        created=max((of_fold.trained for of_fold in facts if of_fold.trained), default="an unknown day"),
        dataset=plan.dataset,
        licence=licence,
        licence_text=licence_text,
        data_digest=before.data_digest if before else data_digest,
        configurations=contents.configurations,
        weights="best" if options.best or (before and before.weights == "best") else "last",
        precision="float16" if half else "float32",
        folds=tuple(facts),
        members=dict(digests),
    )


def _facts(source: ModelSource, configuration: str, fold: str, name: str) -> FoldFacts:
    """What the card says of a fold: as in the card of a file that is packed again, else what its folder says."""
    for fact in source.card.folds if source.card else ():
        if (fact.configuration, fact.fold) == (configuration, fold):
            return fact
    return fold_facts(fold_folder(source.path, configuration, fold), configuration, fold, source.path / name)


def _without_machine(plan: Plan, names: Iterable[str]) -> Plan:
    """The plan of some configurations, without what was measured on the author's machine or digests their request."""
    kept = {}
    for name in names:
        configuration = plan.configurations[name]
        estimate = configuration.estimate.model_copy(update={"measured": None, "device": "", "hours_per_fold": None})
        kept[name] = configuration.model_copy(update={"estimate": estimate})
    return plan.model_copy(update={"configurations": kept, "request": ""})


def _json(record: Plan | Card) -> bytes:
    return (record.model_dump_json(indent=1) + "\n").encode()


def _safetensors(tensors: Mapping[str, Tensor], metadata: Mapping[str, str]) -> bytes:
    """The same bytes for the same tensors: the library writes metadata in an order that changes from call to call."""
    from safetensors.torch import save

    kept = {name: metadata[name] for name in KEPT_METADATA if name in metadata}
    content = save({name: tensor.contiguous() for name, tensor in sorted(tensors.items())})
    header = json.dumps({"__metadata__": kept} | safetensors_header(content), separators=(",", ":")).encode()
    header += b" " * (-len(header) % 8)  # tensors begin at a multiple of 8, as the format asks
    start = 8 + int.from_bytes(content[:8], "little")
    return len(header).to_bytes(8, "little") + header + content[start:]


def _licence(name_or_file: str | None, before: Card | None) -> tuple[str | None, str | None]:
    """Name and text; the name is the text's first line where a file is given, and without any what it was before."""
    if name_or_file is None:
        return (before.licence, before.licence_text) if before else (None, None)
    if not Path(name_or_file).is_file():
        return name_or_file, None
    text = read_text(Path(name_or_file), latin=True)
    lines = [line.strip() for line in text.splitlines() if line.strip()]
    if not lines:
        raise UserError(f"{name_or_file}: is empty; give the licence's name or its text")
    return lines[0], text
