"""A trained model as one file that can be handed on: weights, plan and a card, and nothing that names a patient."""

from __future__ import annotations

import hashlib
import json
import zipfile
from collections.abc import Iterator, Mapping, Sequence
from datetime import UTC, datetime
from importlib.metadata import PackageNotFoundError, version
from pathlib import Path

import torch
import torch.nn.functional as F
from torch import Tensor

from segfw.data.store import open_case
from segfw.model import (
    default_configuration,
    fold_folder,
    header_of,
    is_packed,
    load_plan,
    load_tensors,
    read_model_file,
    weight_files,
)
from segfw.networks import BuildNetwork, build_network
from segfw.packed import CARD_FILE, SELECTION_FILE, Card, FoldFacts, HalfRounding, Packed
from segfw.planning.plan import PLAN_FILE, Configuration, Plan
from segfw.planning.prepare import FINGERPRINT_FILE, MANIFEST_FILE
from segfw.records import UserError, count, whole_file

KEPT_METADATA = ("epoch", "mirror_axes")
EARLIEST = (1980, 1, 1, 0, 0, 0)  # the first time that a zip can hold: a file's time is none of the model's
SHORTEST_NAME = 4  # characters from which a case's id is looked for in what is packed


def export(
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

    By default the configurations of selection.json, else the only trained one; all its trained folds; ``best`` those
    weights of the best epoch. The first stage of a cascade is packed with all its folds. ``half`` stores float16 and
    measures what that changes. ``licence`` is a name, such as CC-BY-4.0, or a text file. One model gives the same
    bytes whenever and wherever it is packed. Raises UserError if there is nothing to pack, or a file in the way.
    """
    model, output = Path(model), Path(output)
    if output.suffix != ".zip":
        raise UserError(f"{output}: a model file ends in .zip; give another name, or --onnx for a folder of ONNX files")
    if output.exists() and (output.is_dir() or not overwrite):
        raise UserError(f"{output}: exists; give another name, or --overwrite")
    plan = load_plan(model)
    chosen = _chosen(model, plan, configurations)
    before = Packed.open(model).card if is_packed(model) else None
    stages = dict.fromkeys([*chosen, *filter(None, (plan.configurations[name].previous_stage for name in chosen))])
    licence_name, licence_text = _licence(licence, before)
    digests: dict[str, str] = {}
    facts: list[FoldFacts] = []
    with whole_file(output) as partial, zipfile.ZipFile(partial, "w", zipfile.ZIP_STORED) as archive:

        def add(name: str, content: bytes) -> None:
            digests[name] = hashlib.sha256(content).hexdigest()
            _write(archive, name, content)

        add(PLAN_FILE, _json(_without_machine(plan, stages)))
        selection = read_model_file(model / SELECTION_FILE)
        if selection is not None:
            add(SELECTION_FILE, selection)
        for name in stages:
            is_first_stage = name not in chosen  # which predict takes all folds of, with the last weights
            files = weight_files(model, name, None if is_first_stage else folds, best=best and not is_first_stage)
            for fold, path in files.items():
                tensors, metadata = load_tensors(path)
                rounding = None
                if half:
                    tensors, full = _halved(tensors, path), tensors
                    rounding = _half_rounding(model, plan, name, full, tensors, build)
                add(f"runs/{name}/fold_{fold}/weights.safetensors", _safetensors(tensors, metadata))
                described = _described(before, name, fold) if before else fold_facts(model, name, fold, path)
                facts.append(described.model_copy(update={"half_rounding": rounding or described.half_rounding}))
        days = [fact.trained for fact in facts if fact.trained]
        card = Card(
            segfw=_version(),
            created=max(days) if days else "an unknown day",
            dataset=plan.dataset,
            licence=licence_name,
            licence_text=licence_text,
            data_digest=before.data_digest if before else _file_digest(model / FINGERPRINT_FILE),
            configurations=tuple(chosen),
            weights="best" if best or (before and before.weights == "best") else "last",
            precision="float16" if half or (before and before.precision == "float16") else "float32",
            folds=tuple(facts),
            members=digests,
        )
        _refuse_names(model, [card.model_dump(mode="json"), json.loads(selection or b"null")])
        _write(archive, CARD_FILE, _json(card))
    return card


def summary(card: Card, output: Path) -> str:
    """What was packed, in words."""
    size_mb = Path(output).stat().st_size / 1e6
    missing = "" if card.licence else "\nno licence is stated: others may not use it; say one with --licence"
    return f"{card.text()}\nwritten: {output} ({size_mb:.1f} MB, {count(len(card.folds), 'fold')}){missing}"


def _chosen(model: Path, plan: Plan, configurations: Sequence[str] | None) -> list[str]:
    if configurations:
        return [plan.configuration(name).name for name in configurations]
    selection = json.loads(read_model_file(model / SELECTION_FILE) or b"{}")
    selected = [name for name in selection.get("configurations", ()) if name in plan.configurations]
    return selected or [default_configuration(model, plan)]


def _without_machine(plan: Plan, names: Mapping[str, None]) -> Plan:
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
    model: Path, plan: Plan, name: str, full: Mapping[str, Tensor], halved: Mapping[str, Tensor], build: BuildNetwork
) -> HalfRounding:
    """Both weights on one patch in float32: the middle of the first preprocessed case, or noise without any."""
    configuration = plan.configurations[name]
    patch, whose = _patch(model, configuration)
    network, logits = build(configuration.network).eval(), []
    for weights in (full, halved):
        network.load_state_dict(weights)
        logits.append(network(patch))
    classes = [part > 0 if plan.labels.regions else part.argmax(1) for part in logits]
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


def _described(card: Card, configuration: str, fold: str) -> FoldFacts:
    found = [facts for facts in card.folds if (facts.configuration, facts.fold) == (configuration, fold)]
    return found[0] if found else FoldFacts(configuration=configuration, fold=fold)


def fold_facts(model: Path, configuration: str, fold: str, weights: Path) -> FoldFacts:
    """What a fold's folder says of its training; what it does not say, or says in another way, is left out."""
    folder = fold_folder(model, configuration, fold)
    sessions = _loaded(folder / "run.json").get("sessions") or [{}]
    last, scores = sessions[-1], _loaded(folder / "validation" / "scores.json")
    rows = list(_lines(folder / "metrics.jsonl"))
    trained = last.get("started") or datetime.fromtimestamp(weights.stat().st_mtime, UTC).isoformat()
    return FoldFacts(
        configuration=configuration,
        fold=fold,
        epochs=len(rows) or None,
        steps=sum(row.get("steps", 0) for row in rows) or None,
        seconds=rows[-1].get("elapsed_s") if rows else None,
        validation_dice=scores.get("foreground_mean", {}).get("dice"),
        validation_dice_per_label={name: score.get("dice") for name, score in scores.get("labels", {}).items()},
        precision=last.get("precision"),
        trained=trained[:10],
        versions={name: text for name, text in last.get("versions", {}).items() if name in ("segfw", "torch", "cuda")},
        data_digest=last.get("data_digest"),
    )


def _loaded(path: Path) -> dict:
    return json.loads(path.read_text(encoding="utf-8")) if path.is_file() else {}


def _lines(path: Path) -> Iterator[dict]:
    for line in path.read_text(encoding="utf-8").splitlines() if path.is_file() else []:
        try:
            yield json.loads(line)
        except ValueError:  # cut off by a kill
            return


def _file_digest(path: Path) -> str | None:
    return hashlib.sha256(path.read_bytes()).hexdigest() if path.is_file() else None


def _refuse_names(model: Path, packed: list) -> None:
    """Raises UserError if a case of the data set, or a folder of its author, is named in what is packed."""
    manifest = _loaded(model / MANIFEST_FILE) if model.is_dir() else {}
    cases = {case["id"] for case in manifest.get("cases", ())}
    cases = {case for case in cases if len(case) >= SHORTEST_NAME and not case.isdecimal()}
    folders = [str(Path(model).resolve()), *filter(None, [manifest.get("root")])]
    for text in _texts(packed):
        named = text if text in cases else next((folder for folder in folders if folder in text), None)
        if named:
            raise UserError(f"{model}: what would be packed names {named!r}, which is private; nothing was written")


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
