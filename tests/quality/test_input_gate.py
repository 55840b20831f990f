"""The gate: distances against slow oracles, limits by patients, verdicts and words."""

import numpy as np
import pytest

from segfw.quality.image_fingerprint import Fingerprint
from segfw.quality.input_gate import FEWEST_PATIENTS, Gate, fit_gate

NAMES = (
    *(f"percentile {percent}/0" for percent in ("0.5", "5", "25", "50", "75", "95", "99.5")),
    "centre/0",
    "gradient head-foot/0",
    "noise/0",
    "roughness/0",
    "spacing head-foot",
    "extent head-foot",
)
MEANS = dict(zip(NAMES, (-2.0, -1.5, -0.7, 0, 0.7, 1.5, 2.0, 0.3, -1.0, -0.5, -0.2, 0.0, 4.0)))


def image(rng, changes=None, thumbnail=None):
    """A drawn image's fingerprint; ``changes`` are added to its entries."""
    shared = rng.normal()  # noise, roughness and gradients go together
    values = {name: mean + 0.1 * rng.normal() for name, mean in MEANS.items()}
    for name in ("gradient head-foot/0", "noise/0", "roughness/0"):
        values[name] += 0.2 * shared
    values["spacing head-foot"] = 0.0
    for name, change in (changes or {}).items():
        values[name] += change
    pattern = np.arange(64) / 64 if thumbnail is None else thumbnail
    return Fingerprint(
        names=NAMES, values=tuple(values.values()), thumbnails=(tuple(pattern + 0.1 * rng.normal(size=64)),)
    )


def trained(number=60, seed=0):
    rng = np.random.default_rng(seed)
    return fit_gate([image(rng) for _ in range(number)], [str(index) for index in range(number)]), rng


def slow_score(gate, fingerprint):
    """The score of an image, with loops and a solver."""
    rows = np.array(gate.rows)
    template = np.array(gate.template[0])
    row = np.array([*fingerprint.values, np.corrcoef(fingerprint.thumbnails[0], template)[0, 1]])
    number, width = rows.shape
    deviations = []
    for index, name in enumerate(gate.names):
        least = 0.05
        if name.startswith(("percentile", "centre")):
            least = 0.01 * np.median(rows[:, 6] - rows[:, 0])
        if name.startswith("likeness"):
            least = 0.01
        deviations.append(max(np.std(rows[:, index], ddof=1), least))
    z = (row - rows.mean(0)) / deviations
    z_rows = (rows - rows.mean(0)) / deviations
    shrunk = np.zeros((width, width))
    for first in range(width):
        for second in range(width):
            covariance = sum(z_rows[n, first] * z_rows[n, second] for n in range(number)) / (number - 1)
            shrunk[first, second] = 0.9 * covariance
            if first == second:
                shrunk[first, second] += 0.1 * max(covariance, 0.1)
    mahalanobis = np.sqrt(z @ np.linalg.solve(shrunk, z))
    nearest = sorted(np.sqrt(sum((z - other) ** 2)) for other in z_rows)[:3]
    return max(mahalanobis / gate.scale_mahalanobis, np.mean(nearest) / gate.scale_neighbours) / gate.limit


@pytest.mark.parametrize("changes", [{}, {"noise/0": 1.0}, {"percentile 50/0": -0.6, "spacing head-foot": 0.4}])
def test_the_score_is_that_of_a_slow_oracle(changes):
    gate, rng = trained()
    one = image(rng, changes)
    assert gate.look(one).score == pytest.approx(slow_score(gate, one), rel=1e-6)


def test_scores_of_training_are_those_of_gates_without_the_patient():
    rng = np.random.default_rng(3)
    images = [image(rng) for _ in range(24)]
    patients = [str(index // 2) for index in range(24)]
    gate = fit_gate(images, patients)
    # The image of patient 4 with the larger score, by a gate of the others whose two scales are those of all.
    others = [index for index in range(24) if patients[index] != "4"]
    without = fit_gate([images[index] for index in others], [patients[index] for index in others])
    scaled = without.model_copy(
        update={"scale_mahalanobis": gate.scale_mahalanobis, "scale_neighbours": gate.scale_neighbours}
    )
    expected = slow_score(scaled.model_copy(update={"limit": gate.limit}), images[8])
    assert min(abs(np.array(gate.scores) - expected)) < 1e-5
    assert gate.patients == 12
    assert sum(gate.weights) == pytest.approx(12)


def test_false_alarms_are_one_in_twenty():
    alarms = []
    for seed in range(40):
        gate, rng = trained(40, seed)
        alarms += [gate.look(image(rng)).verdict != "usual" for _ in range(25)]
    assert 0.02 < np.mean(alarms) < 0.08
    assert trained(40)[0].false_alarms == 0.05


def test_with_few_patients_the_limit_is_the_largest_score_and_the_share_of_false_alarms_is_said():
    gate, _ = trained(12)
    assert max(gate.scores) == 1
    assert gate.false_alarms == pytest.approx(1 / 13)
    rng = np.random.default_rng(0)
    patients = [str(index % (FEWEST_PATIENTS - 1)) for index in range(40)]
    assert fit_gate([image(rng) for _ in range(40)], patients) is None


def test_what_grows_is_odd_and_then_far():
    gate, rng = trained()
    verdicts = [gate.look(image(np.random.default_rng(5), {"noise/0": size})).verdict for size in (0, 1, 8)]
    assert verdicts == ["usual", "odd", "far"]


@pytest.mark.parametrize(
    ("changes", "reason"),
    [
        ({"noise/0": 2.0}, "noisier than any training image"),
        ({"noise/0": -2.0}, "smoother than any training image"),
        ({"gradient head-foot/0": -2.0}, "less sharp along head-foot than any training image"),
        ({"percentile 95/0": 3.0}, "its bright parts are brighter than those of any training image"),
        ({"percentile 0.5/0": -3.0}, "its dark parts are darker than those of any training image"),
        (
            {"spacing head-foot": np.log(5)},
            "its voxels are larger along head-foot (5 mm) than in any training image (these: 1 mm)",
        ),
    ],
)
def test_reasons_name_the_worst_entry_first(changes, reason):
    gate, rng = trained()
    assert gate.look(image(rng, changes)).reasons[0] == reason


def test_what_noise_makes_sharper_and_rougher_is_called_noise():
    gate, rng = trained()
    changes = {"gradient head-foot/0": 3.0, "roughness/0": 2.0, "noise/0": 1.0, "percentile 95/0": 0.5}
    reasons = gate.look(image(rng, changes)).reasons
    assert reasons[0] == "noisier than any training image"
    assert reasons[1].startswith("its bright parts are brighter than those of")
    sharper = gate.look(image(rng, {"gradient head-foot/0": 3.0})).reasons
    assert sharper[0] == "sharper along head-foot than any training image"


def test_an_inverted_image_is_seen_by_its_thumbnail():
    gate, rng = trained()
    verdict = gate.look(image(rng, thumbnail=1 - np.arange(64) / 64))
    assert verdict.verdict != "usual"
    assert verdict.reasons[0].startswith("bright and dark parts lie otherwise than in any training image")


def test_a_usual_image_has_no_reasons_and_a_percentile():
    gate, rng = trained()
    verdict = gate.look(image(rng))
    assert verdict.verdict == "usual"
    assert verdict.reasons == ()
    below = [score < verdict.score for score in gate.scores]
    assert verdict.percentile == pytest.approx(100 * np.mean(below))


def test_the_order_of_training_images_does_not_matter():
    rng = np.random.default_rng(7)
    images = [image(rng) for _ in range(30)]
    patients = [str(index // 2) for index in range(30)]
    one = image(rng, {"noise/0": 0.5})
    first = fit_gate(images, patients).look(one)
    second = fit_gate(images[::-1], patients[::-1]).look(one)
    assert first.score == pytest.approx(second.score, rel=1e-9)


def test_a_gate_is_kept_and_read_as_it_was(tmp_path):
    gate, rng = trained()
    gate.save(tmp_path / "gate.json")
    one = image(rng)
    assert Gate.load(tmp_path / "gate.json").look(one) == gate.look(one)


def test_images_of_other_entries_are_refused():
    gate, rng = trained()
    one = image(rng)
    with pytest.raises(ValueError, match="the image's entries are"):
        gate.look(one.model_copy(update={"names": one.names[1:], "values": one.values[1:]}))
    with pytest.raises(ValueError, match="1 fingerprints of 2 patients"):
        fit_gate([one], ["a", "b"])


def test_channels_are_named_where_there_are_several():
    rng = np.random.default_rng(0)

    def two_channels(change=0.0):
        one = image(rng)
        other = image(rng, {"noise/0": change})
        renamed = tuple(name.replace("/0", "/1") for name in NAMES if "/0" in name)
        of_channel = [value for name, value in zip(NAMES, other.values) if "/0" in name]
        return Fingerprint(
            names=(*NAMES, *renamed, "correlation/0/1"),
            values=(*one.values, *of_channel, 0.5 + 0.02 * rng.normal()),
            thumbnails=(*one.thumbnails, *other.thumbnails),
        )

    gate = fit_gate([two_channels() for _ in range(60)], [str(index) for index in range(60)])
    assert gate.look(two_channels(2.0)).reasons[0] == "channel 1: noisier than any training image"
