"""Which cases a start has seen: by bytes, by voxels in whatever file, and by what they show; also of old records."""

from types import SimpleNamespace

import nibabel
import numpy as np
import pytest

from builders.data import blocks_case, write_nifti
from segfw.base.array_files import save_array
from segfw.checkup.signature import signature
from segfw.dataset.cases import Case
from segfw.images.formats import read_volume
from segfw.images.image_hash import image_sha256, voxels_sha256
from segfw.model.pretraining_record import SeenImage
from segfw.pretraining.seen_images import read_signatures, save_signatures, seen_cases


@pytest.fixture
def image(tmp_path):
    path = tmp_path / "image.nii.gz"
    write_nifti(path, blocks_case(3)[0])
    return path


def stored_otherwise(image, folder):
    """The same voxels: without compression, as NRRD, with another order and direction of axes, in a wider type."""
    SimpleITK = pytest.importorskip("SimpleITK")
    loaded = nibabel.load(image)
    nibabel.save(loaded, folder / "plain.nii")
    SimpleITK.WriteImage(SimpleITK.ReadImage(str(image)), str(folder / "other.nrrd"))
    turned = loaded.as_reoriented(np.array([[2, 1], [0, -1], [1, -1]]))
    nibabel.save(turned, folder / "turned.nii.gz")
    wide = nibabel.Nifti1Image(np.asarray(loaded.dataobj, dtype=np.float64), loaded.affine)
    nibabel.save(wide, folder / "wide.nii.gz")
    return [folder / name for name in ("plain.nii", "other.nrrd", "turned.nii.gz", "wide.nii.gz")]


def test_voxels_have_one_hash_however_they_are_stored(image, tmp_path):
    own = voxels_sha256(read_volume(image))
    for path in stored_otherwise(image, tmp_path):
        assert image_sha256([path]) != image_sha256([image])
        assert voxels_sha256(read_volume(path)) == own, path.name
    loaded = nibabel.load(image)
    voxels = np.asarray(loaded.dataobj).copy()
    voxels[1, 2, 3] += 1
    write_nifti(tmp_path / "changed.nii.gz", voxels)
    assert voxels_sha256(read_volume(tmp_path / "changed.nii.gz")) != own
    write_nifti(tmp_path / "mirrored.nii.gz", voxels[::-1])  # of another patient, for all that is known
    assert voxels_sha256(read_volume(tmp_path / "mirrored.nii.gz")) != own


def seen(image, **changes):
    found = SeenImage(
        id="theirs", sha256=image_sha256([image]), source=image, voxels_sha256=voxels_sha256(read_volume(image))
    )
    return SimpleNamespace(seen=(found.model_copy(update=changes),))


def test_cases_are_known_again_in_every_format(image, tmp_path):
    paths = [image, *stored_otherwise(image, tmp_path)]
    write_nifti(tmp_path / "new.nii.gz", blocks_case(50)[0])
    cases = [Case(id=path.name, images=(path,)) for path in (*paths, tmp_path / "new.nii.gz")]
    found = seen_cases(tmp_path / "start", seen(image), cases, tmp_path / "none")
    assert found == {path.name: "by its bytes" if path == image else "as theirs, by its voxels" for path in paths}


def preprocess(folder, name, image_czyx):
    folder.mkdir(exist_ok=True)
    save_array(folder / f"{name}.image.b2nd", image_czyx.astype(np.float32))


def test_a_copy_in_other_numbers_is_known_by_what_it_shows(image, tmp_path, capsys):
    """By what is kept, and of an old record by its images; without either only bytes are known, which is said."""
    shown = read_volume(image).array.astype(np.float32)
    write_nifti(tmp_path / "rescaled.nii.gz", blocks_case(3)[0] * 3 + 7)
    case = Case(id="mine", images=(tmp_path / "rescaled.nii.gz",))
    preprocess(tmp_path / "preprocessed", "mine", 3 * shown + 7)
    start = tmp_path / "start"
    start.mkdir()
    old = seen(image, voxels_sha256=None)
    assert seen_cases(start, old, [case], tmp_path / "preprocessed") == {}
    assert "knows images by their bytes alone" in capsys.readouterr().out

    preprocess(start / "images", "theirs", shown)
    assert seen_cases(start, old, [case], tmp_path / "preprocessed") == {"mine": "as theirs, which shows the same scan"}
    assert "bytes alone" not in capsys.readouterr().out

    (start / "images" / "theirs.image.b2nd").unlink()
    save_signatures(start, {"theirs": signature(shown)})
    assert seen_cases(start, old, [case], tmp_path / "preprocessed") == {"mine": "as theirs, which shows the same scan"}
    np.testing.assert_allclose(read_signatures(start, old)["theirs"], signature(shown), atol=1e-3)


def test_another_scan_passes(image, tmp_path):
    other = blocks_case(50)[0]
    write_nifti(tmp_path / "new.nii.gz", other)
    preprocess(tmp_path / "preprocessed", "mine", np.random.default_rng(1).normal(size=(1, 10, 18, 20)))
    (tmp_path / "start").mkdir()
    save_signatures(tmp_path / "start", {"theirs": signature(read_volume(image).array.astype(np.float32))})
    case = Case(id="mine", images=(tmp_path / "new.nii.gz",))
    assert seen_cases(tmp_path / "start", seen(image), [case], tmp_path / "preprocessed") == {}
