"""A trained model as one file that can be handed on: weights, plan and a card, and nothing that names a patient."""

from __future__ import annotations

import hashlib
import json
import re
import zipfile
from collections.abc import Iterable, Iterator, Mapping, Sequence
from dataclasses import dataclass
from importlib.metadata import PackageNotFoundError, version
from pathlib import Path

import torch
import torch.nn.functional as F
from torch import Tensor

from segfw.base.records import UserError, count, whole_file
from segfw.grid.store import open_case
from segfw.model.card import CARD_FILE, SELECTION_FILE, Card, FoldFacts, HalfRounding, Packed, fold_facts
from segfw.model.load import (
    default_configuration,
    fold_folder,
    header_of,
    is_packed,
    load_plan,
    load_tensors,
    postprocessing_file,
    read_model_file,
    weight_files,
)
from segfw.networks import BuildNetwork, build_network
from segfw.planning.plan import PLAN_FILE, Configuration, Plan
from segfw.verbs.plan_and_preprocess import FINGERPRINT_FILE, MANIFEST_FILE

KEPT_METADATA = ("epoch", "mirror_axes")
EARLIEST = (1980, 1, 1, 0, 0, 0)  # the first time that a zip can hold: a file's time is none of the model's
SHORTEST_NAME = 4  # characters from which a case's id is looked for in what is packed


def export_model(
    model: Path,
    output: Path,
    *,
    configurations: Sequence[str] | None = None,
    folds: tuple[str, ...] | None = None,
    best: bool = False,
    half: bool = False,
    licence: str | None = None,
    overwrite: bool = False,
    build: BuildNetwork = build_network,
) -> Card:
    """Packs a model into the file ``output``, which ``predict`` and all that take a model take, and returns its card.

    By default what selection.json says, which then comes along, else the only trained configuration with all its
    trained folds; ``best`` takes the weights of the best epoch. The first stage of a cascade is packed with all its
    folds, and so is the postprocessing that came with an imported configuration. ``half`` stores float16 and measures
    what that changes. ``licence`` is a name, such as CC-BY-4.0, or a text file. One model gives the same bytes whenever
    and wherever one version of segfw packs it; but with ``half`` the card holds what was measured, whose last digits
    are of the processor. Raises UserError if there is nothing to pack, a file in the way, or a case or folder named.
    """
    model, output = Path(model), Path(output)
    if output.suffix != ".zip":
        raise UserError(f"{output}: a model file ends in .zip; give another name, or --onnx for a folder of ONNX files")
    if output.exists() and (output.is_dir() or not overwrite):
        raise UserError(f"{output}: exists; give another name, or --overwrite")
    source = _Source(
        path=model, plan=load_plan(model), card=Packed.open(model).card if is_packed(model) else None, build=build
    )
    chosen, files, selection = _what(source, configurations, folds, best)
    half = half or (source.card is not None and source.card.precision == "float16")
    digests: dict[str, str] = {}
    facts, said = [], []
    with whole_file(output) as partial, zipfile.ZipFile(partial, "w", zipfile.ZIP_STORED) as archive:

        def add(name: str, content: bytes) -> None:
            digests[name] = hashlib.sha256(content).hexdigest()
            said.append(json.loads(content) if name.endswith(".json") else None)
            _write(archive, name, content)

        add(PLAN_FILE, _json(_without_machine(source.plan, files)))
        if selection:
            add(SELECTION_FILE, selection)
        for name, paths in files.items():
            if steps := read_model_file(postprocessing_file(model, name)):
                add(postprocessing_file(Path(), name).as_posix(), steps)
            for fold, path in paths.items():  # one after the other in memory
                content, fact = _packed_fold(source, name, fold, path, half)
                add(f"runs/{name}/fold_{fold}/weights.safetensors", content)
                facts.append(fact)
        card = _card(source, chosen, facts, digests, licence, best=best, half=half)
        _refuse_names(model, [*said, card.model_dump(mode="json")])
        _write(archive, CARD_FILE, _json(card))
    return card


def summary(card: Card, output: Path) -> str:
    """What was packed, in words."""
    size_mb = Path(output).stat().st_size / 1e6
    missing = "" if card.licence else "\nno licence is stated: others may not use it; say one with --licence"
    return f"{card.text()}\nwritten: {output} ({size_mb:.1f} MB, {count(len(card.folds), 'fold')}){missing}"


@dataclass(frozen=True, kw_only=True)
class _Source:
    """The model that is packed; ``card`` where it is a file already."""

    path: Path
    plan: Plan
    card: Card | None
    build: BuildNetwork


def _what(
    source: _Source, configurations: Sequence[str] | None, folds: tuple[str, ...] | None, best: bool
) -> tuple[list[str], dict[str, dict[str, Path]], bytes | None]:
    """Configurations that are to predict, the weights of these and their first stages, and selection.json if it fits.

    What was selected for other configurations, folds or weights says nothing about these, and stays behind.
    """
    content, plan = read_model_file(source.path / SELECTION_FILE), source.plan
    selection = json.loads(content or b"{}")
    wanted = configurations or selection.get("configurations") or [default_configuration(source.path, plan)]
    chosen = [plan.configuration(name).name for name in dict.fromkeys(wanted)]
    fits = selection.get("configurations") == chosen and folds is None and not best
    asked = selection.get("folds", {}) if fits else dict.fromkeys(chosen, folds)
    files = {name: weight_files(source.path, name, tuple(asked.get(name) or ()), best=best) for name in chosen}
    for first in filter(None, (plan.configurations[name].previous_stage for name in chosen)):
        files.setdefault(first, weight_files(source.path, first))  # as predict takes it: all folds, the last weights
    return chosen, files, content if fits else None


def _packed_fold(source: _Source, name: str, fold: str, path: Path, half: bool) -> tuple[bytes, FoldFacts]:
    """Content of a fold's file of weights, and what the card says of it."""
    tensors, metadata = load_tensors(path)
    known = (
        [fact for fact in source.card.folds if (fact.configuration, fact.fold) == (name, fold)] if source.card else []
    )
    fact = known[0] if known else fold_facts(fold_folder(source.path, name, fold), name, fold, path)
    if half:
        full, tensors = tensors, _halved(tensors, path)
        if fact.half_rounding is None:
            fact = fact.model_copy(update={"half_rounding": _half_rounding(source, name, full, tensors)})
    return _safetensors(tensors, metadata), fact


def _card(
    source: _Source,
    chosen: Sequence[str],
    facts: Sequence[FoldFacts],
    digests: Mapping[str, str],
    licence: str | None,
    *,
    best: bool,
    half: bool,
) -> Card:
    before = source.card
    name, text = _licence(licence, before)
    return Card(
        segfw=_version(),
        created=max((fact.trained for fact in facts if fact.trained), default="an unknown day"),
        dataset=source.plan.dataset,
        licence=name,
        licence_text=text,
        data_digest=before.data_digest if before else _file_digest(source.path / FINGERPRINT_FILE),
        configurations=tuple(chosen),
        weights="best" if best or (before and before.weights == "best") else "last",
        precision="float16" if half else "float32",
        folds=tuple(facts),
        members=dict(digests),
    )


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


def _write(archive: zipfile.ZipFile, name: str, content: bytes) -> None:
    member = zipfile.ZipInfo(name, EARLIEST)
    member.create_system, member.external_attr = 3, 0o644 << 16  # the same on every system
    archive.writestr(member, content)


def _safetensors(tensors: Mapping[str, Tensor], metadata: Mapping[str, str]) -> bytes:
    """The same bytes for the same tensors: the library writes metadata in an order that changes from call to call."""
    from safetensors.torch import save

    kept = {name: metadata[name] for name in KEPT_METADATA if name in metadata}
    content = save({name: tensor.contiguous() for name, tensor in sorted(tensors.items())})
    header = json.dumps({"__metadata__": kept} | header_of(content), separators=(",", ":")).encode()
    header += b" " * (-len(header) % 8)  # tensors begin at a multiple of 8, as the format asks
    start = 8 + int.from_bytes(content[:8], "little")
    return len(header).to_bytes(8, "little") + header + content[start:]


def _halved(tensors: Mapping[str, Tensor], path: Path) -> dict[str, Tensor]:
    halved = {name: tensor.half() if tensor.dtype == torch.float32 else tensor for name, tensor in tensors.items()}
    for name, tensor in halved.items():
        if tensor.is_floating_point() and not tensor.isfinite().all():
            raise UserError(f"{path}: {name} exceeds float16; export without --half")
    return halved


@torch.inference_mode()
def _half_rounding(
    source: _Source, name: str, full: Mapping[str, Tensor], halved: Mapping[str, Tensor]
) -> HalfRounding:
    """Both weights on one patch in float32: the middle of the first preprocessed case, or noise without any."""
    configuration = source.plan.configurations[name]
    patch, whose = _patch(source.path, configuration)
    network, logits = source.build(configuration.network).eval(), []
    for weights in (full, halved):
        network.load_state_dict(weights)
        logits.append(network(patch))
    classes = [part > 0 if source.plan.labels.regions else part.argmax(1) for part in logits]
    return HalfRounding(
        patch=whose,
        largest_logit_change=float((logits[0] - logits[1]).abs().max()),
        changed_classes=float((classes[0] != classes[1]).float().mean()),
    )


def _patch(model: Path, configuration: Configuration) -> tuple[Tensor, str]:
    shape, channels = configuration.patch_size, configuration.network.in_channels
    folder = model / "preprocessed" / configuration.data_name
    cases = sorted(path.stem for path in folder.glob("*.json"))
    if not cases:
        return torch.randn(1, channels, *shape, generator=torch.Generator().manual_seed(0)), "noise"
    image = open_case(folder, cases[0]).image
    places = [slice(max(0, (size - edge) // 2), (size + edge + 1) // 2) for size, edge in zip(image.shape[1:], shape)]
    part = torch.from_numpy(image[(slice(None), *places)]).float()
    part = part[:, : shape[0], : shape[1], : shape[2]]
    missing = [side for size, edge in zip(part.shape[:0:-1], shape[::-1]) for side in (0, edge - size)]
    # What the first stage of a cascade would have found stays empty.
    return F.pad(part, (*missing, 0, channels - len(part)))[None], "a training case's middle"


def _licence(given: str | None, before: Card | None) -> tuple[str | None, str | None]:
    """Name and text; the name is the text's first line where a file is given."""
    if given is None:
        return (before.licence, before.licence_text) if before else (None, None)
    if not Path(given).is_file():
        return given, None
    text = Path(given).read_text(encoding="utf-8")
    lines = [line.strip() for line in text.splitlines() if line.strip()]
    if not lines:
        raise UserError(f"{given}: is empty; give the licence's name or its text")
    return lines[0], text


def _file_digest(path: Path) -> str | None:
    return hashlib.sha256(path.read_bytes()).hexdigest() if path.is_file() else None


def _refuse_names(model: Path, packed: list) -> None:
    """Raises UserError if a case of the data set, or a folder of its author, is named in what is packed."""
    path = model / MANIFEST_FILE
    manifest = json.loads(path.read_text(encoding="utf-8")) if path.is_file() else {}
    cases = {case["id"] for case in manifest.get("cases", ())}
    cases = {case for case in cases if len(case) >= SHORTEST_NAME and not case.isdecimal()}
    folders = [str(Path(model).resolve()), *filter(None, [manifest.get("root")])]
    for text in _texts(packed):
        named = [case for case in cases if case in text and _is_named(case, text)]
        named += [folder for folder in folders if folder in text]
        if named:
            raise UserError(f"{model}: what would be packed names {named[0]!r}, which is private; nothing was written")


def _is_named(case: str, text: str) -> bool:
    """As a word of the text; one of letters alone, which may be any word, such as 'image', only as the whole text."""
    return case == text or (not case.isalpha() and bool(re.search(rf"(?<!\w){re.escape(case)}(?!\w)", text)))


def _texts(value: object) -> Iterator[str]:
    if isinstance(value, str):
        yield value
    elif isinstance(value, Mapping):
        for key, part in value.items():
            yield key
            yield from _texts(part)
    elif isinstance(value, list):
        for part in value:
            yield from _texts(part)


def _version() -> str:
    try:
        return version("segfw")
    except PackageNotFoundError:  # run from its sources
        return "unknown"
