from __future__ import annotations

import hashlib
import json
import os
import subprocess
import sys
from dataclasses import replace

import nibabel as nib
import numpy as np
import pytest
from atlas_helpers import (
    COMMIT,
    REPOSITORY,
    file_server,
    own_caches,  # noqa: F401 - acts by being here
    served_manifest,
    write_image,
    write_template,
)

from posepipe.atlas import AtlasLibrary, CanonicalRotation, fetch
from posepipe.atlas.download import download
from posepipe.atlas.fetch import _convert
from posepipe.errors import AtlasError, UsageError
from posepipe.imaging.volume import load_volume


@pytest.fixture()
def server(tmp_path):
    with file_server(tmp_path / "served") as running:
        yield running


def get(manifest, server, dest, **options):
    options = {"base_url": server.url, "progress": False, "retries": 0, "show": lambda text: None} | options
    return fetch(manifest.name, dest, manifest=manifest, **options)


def test_fetch_lays_the_atlas_out(server, tmp_path):
    manifest = served_manifest(server.root)
    images = get(manifest, server, tmp_path / "lib")
    assert [i.name for i in images] == ["tpl-Tiny_cohort-25_T2w.nii.gz", "tpl-Tiny_cohort-26_T2w.nii.gz"]
    template = AtlasLibrary([tmp_path / "lib"]).template("Tiny", "26", "T2w")
    assert template.age == 26
    assert template.mask is not None
    assert template.tissues is not None
    image, mask, tissues = (load_volume(p) for p in (template.image, template.mask, template.tissues))
    np.testing.assert_array_equal(mask.data > 0, tissues.data > 0)
    assert not image.data[mask.data == 0].any()
    original = load_volume(server.root / REPOSITORY / COMMIT / "data" / "week26" / "T2w.nii.gz")
    np.testing.assert_array_equal(image.data[mask.data > 0], original.data[mask.data > 0])
    assert (tmp_path / "lib" / "tpl-Tiny" / "LICENSE").read_text() == manifest.terms
    described = json.loads((tmp_path / "lib" / "tpl-Tiny" / "template_description.json").read_text())
    assert described["cohort"]["25"] == {"age": [25.0], "units": "weeks"}


def test_what_was_fetched_has_the_known_rotation_until_it_is_replaced(server, tmp_path, monkeypatch):
    manifest = served_manifest(server.root)
    get(manifest, server, tmp_path)
    known = {("Tiny", cohort): CanonicalRotation(np.eye(3)[[1, 2, 0]], frozenset({"0a"})) for cohort in ("25", "26")}
    monkeypatch.setattr("posepipe.atlas.library.load_canonical", lambda: known)
    first, second = AtlasLibrary([tmp_path]).templates("Tiny", "T2w")
    assert first.to_canonical is not None and second.to_canonical is not None
    write_image(second.image, seed=9)
    first, second = AtlasLibrary([tmp_path]).templates("Tiny", "T2w")
    assert first.to_canonical is not None and second.to_canonical is None
    get(manifest, server, tmp_path)  # makes it again of the original
    assert AtlasLibrary([tmp_path]).templates("Tiny", "T2w")[1].to_canonical is not None


def test_what_is_there_is_not_downloaded_again(server, tmp_path):
    manifest = served_manifest(server.root)
    image = get(manifest, server, tmp_path)[0]
    asked, written = len(server.requests), image.stat().st_mtime_ns
    assert asked == 4
    get(manifest, server, tmp_path)
    assert len(server.requests) == asked
    assert image.stat().st_mtime_ns == written
    image.unlink()
    get(manifest, server, tmp_path)
    assert image.is_file()  # made again from the original
    assert len(server.requests) == asked


def test_a_damaged_original_is_downloaded_again(server, tmp_path):
    manifest = served_manifest(server.root)
    get(manifest, server, tmp_path)
    damaged = next((tmp_path / ".downloads" / "Tiny").iterdir())
    damaged.write_bytes(b"damaged")
    get(manifest, server, tmp_path)
    assert len(server.requests) == 5
    assert damaged.read_bytes() != b"damaged"


def test_only_the_cohorts_requested(server, tmp_path):
    manifest = served_manifest(server.root)
    assert len(get(manifest, server, tmp_path, cohorts=["26"])) == 1
    assert all("week26" in path for path, _, _ in server.requests)
    with pytest.raises(UsageError, match="no cohort 27; it has 25, 26"):
        get(manifest, server, tmp_path, cohorts=["27"])


def test_wrong_checksum_leaves_nothing(server, tmp_path):
    manifest = served_manifest(server.root)
    bad = replace(manifest, sources=(replace(manifest.sources[0], sha256="0" * 64), *manifest.sources[1:]))
    with pytest.raises(AtlasError, match=r"T2w\.nii\.gz: .*not the file expected"):
        get(bad, server, tmp_path / "lib")
    assert [p for p in (tmp_path / "lib").rglob("*") if p.is_file()] == []


def test_missing_file_and_dead_server(server, tmp_path):
    manifest = served_manifest(server.root)
    gone = replace(manifest, sources=(replace(manifest.sources[0], path="gone.nii.gz"),))
    with pytest.raises(AtlasError, match="404"):
        get(gone, server, tmp_path)
    with pytest.raises(AtlasError, match="run the same command again"):
        get(manifest, server, tmp_path, base_url="http://127.0.0.1:9")
    with pytest.raises(AtlasError, match="download failed"):
        get(manifest, server, tmp_path, base_url="not a url")


def test_a_download_that_breaks_off_continues_where_it_stopped(server, tmp_path):
    content = np.random.default_rng(0).bytes(60_000)
    (server.root / "big").parent.mkdir(parents=True, exist_ok=True)
    (server.root / "big").write_bytes(content)
    digest = hashlib.sha256(content).hexdigest()
    target, part = tmp_path / "big", tmp_path / "big.part"
    server.cut_after = 40_000
    with pytest.raises(AtlasError, match="continues where this one stopped"):
        download(f"{server.url}/big", target, digest, retries=0)
    assert not target.exists()
    have = part.stat().st_size
    assert 0 < have <= 40_000
    server.cut_after = None
    came: list[int] = []
    assert download(f"{server.url}/big", target, digest, retries=0, advance=came.append)
    assert server.requests[-1][1:] == (f"bytes={have}-", 206)
    assert sum(came) == 60_000
    assert target.read_bytes() == content
    assert not part.exists()


def test_a_server_without_ranges_sends_it_all_again(server, tmp_path):
    row = served_manifest(server.root).sources[0]
    target = tmp_path / "file.nii.gz"
    (tmp_path / "file.nii.gz.part").write_bytes(b"old bytes")
    server.ranges = False
    assert download(row.url(server.url), target, row.sha256, retries=0)
    assert server.requests[-1][1:] == ("bytes=9-", 200)
    assert target.stat().st_size == row.size


def test_a_wrong_part_is_thrown_away_on_the_second_try(server, tmp_path):
    row = served_manifest(server.root).sources[0]
    target = tmp_path / "file.nii.gz"
    (tmp_path / "file.nii.gz.part").write_bytes(b"x" * (row.size + 5))
    assert download(row.url(server.url), target, row.sha256, retries=1)
    assert [status for _, _, status in server.requests] == [416, 200]


def test_terms_are_shown_and_must_be_accepted(server, tmp_path):
    manifest = served_manifest(server.root, requires_acceptance=True)
    shown: list[str] = []
    with pytest.raises(UsageError, match="--accept-license"):
        get(manifest, server, tmp_path, show=shown.append)
    assert manifest.terms in shown[0]
    assert server.requests == []
    assert len(get(manifest, server, tmp_path, show=shown.append, accept_license=True)) == 2
    assert manifest.terms in shown[1]


def test_crl_itself_is_refused_without_acceptance(tmp_path, capsys):
    with pytest.raises(UsageError, match="--accept-license"):
        fetch("CRL", tmp_path)
    assert "non-commercial" in capsys.readouterr().err
    assert list(tmp_path.iterdir()) == []


@pytest.mark.parametrize("name", ["Serag", "BCP"])
def test_atlases_without_a_source_say_where_to_get_them(name, tmp_path, capsys):
    with pytest.raises(AtlasError, match=rf"https://\S+, then .*atlas add {name}"):
        fetch(name, tmp_path)
    with pytest.raises(AtlasError, match=r"known: .*CRL"):
        fetch("Nope", tmp_path)


def test_progress_in_plain_lines(server, tmp_path, capsys):
    get(served_manifest(server.root), server, tmp_path, progress=True)
    lines = capsys.readouterr().err.strip().split("\n")
    assert lines[-1].startswith("Tiny: ")
    assert len(lines) <= 10


def test_conversion_turns_storage_to_ras_and_brings_labels_to_the_grid(tmp_path):
    manifest = served_manifest(tmp_path / "served", mask_from_tissues=False)
    las = np.diag([-0.8, 0.8, 0.8, 1.0])
    las[0, 3] = 6.4
    image = write_image(tmp_path / "in" / "image.nii.gz", affine=las)
    shifted = np.diag([0.8, 0.8, 0.8, 1.0])
    shifted[:3, 3] = 0.8  # the same world, one voxel off
    mask = write_image(tmp_path / "in" / "mask.nii.gz", labels=True, affine=shifted)
    targets = {f: tmp_path / "out" / f"{f}.nii.gz" for f in ("T2w", "desc-brain_mask")}
    _convert(manifest, {"T2w": image, "desc-brain_mask": mask}, targets)
    out, brain = nib.load(targets["T2w"]), nib.load(targets["desc-brain_mask"])
    assert nib.aff2axcodes(out.affine) == ("R", "A", "S")
    np.testing.assert_allclose(out.affine, brain.affine, atol=1e-6)
    before = load_volume(image)
    np.testing.assert_array_equal(brain.dataobj[1:, 1:, 1:], load_volume(mask).data[:-1, :-1, :-1])
    inside = np.asarray(brain.dataobj) > 0
    np.testing.assert_array_equal(np.asarray(out.dataobj)[inside], before.data[::-1][inside])
    assert not np.asarray(out.dataobj)[~inside].any()


def test_labels_far_from_their_image_are_refused(tmp_path):
    manifest = served_manifest(tmp_path / "served", mask_from_tissues=False)
    far = np.diag([0.8, 0.8, 0.8, 1.0])
    far[0, 3] = 500
    originals = {
        "T2w": write_image(tmp_path / "a.nii.gz"),
        "desc-brain_mask": write_image(tmp_path / "b.nii.gz", labels=True, affine=far),
    }
    with pytest.raises(AtlasError, match=r"b\.nii\.gz: these labels are outside"):
        _convert(manifest, originals, {f: tmp_path / "out" / f"{f}.nii.gz" for f in originals})
    assert not (tmp_path / "out").exists()


def test_mask_from_labels_agrees_with_the_mask_at_hand(data_dir):
    """CHN publishes no mask: the one made from its labels must be the brain."""
    from scipy import ndimage

    library = AtlasLibrary([data_dir / "atlases"])
    for cohort in ("23", "38"):
        template = library.template("CHN", cohort, "T2w")
        assert template.mask is not None
        assert template.tissues is not None
        mask = load_volume(template.mask).data > 0
        made = ndimage.binary_fill_holes(load_volume(template.tissues).data > 0)
        assert 2 * (mask & made).sum() / (mask.sum() + made.sum()) > 0.99


def test_dhcpvol_comes_through_templateflow(tmp_path):
    """The client finds what its home already holds; in a process of its own, as it reads its home at import."""
    home = tmp_path / "flow"
    write_template(home, "dhcpVol", "36", "T1w", "T2w", mask=True, tissues=True)
    code = (
        "from posepipe.atlas import fetch\n"
        f"print(*fetch('dhcpVol', cohorts=['36'], show=lambda t: None), sep='\\n')\n"
        f"print(*fetch('dhcpVol', {str(tmp_path / 'lib')!r}, cohorts=['36'], show=lambda t: None), sep='\\n')"
    )
    env = os.environ | {"TEMPLATEFLOW_HOME": str(home)}
    done = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, env=env, check=False)
    assert done.returncode == 0, done.stderr
    there, copied = done.stdout.split()
    assert there == str(home / "tpl-dhcpVol" / "cohort-36" / "tpl-dhcpVol_cohort-36_T2w.nii.gz")
    assert copied.startswith(str(tmp_path / "lib"))
    template = AtlasLibrary([tmp_path / "lib"]).template("dhcpVol", "36", "T1w")
    assert template.mask is not None
    assert template.tissues is not None
