"""The methods text: its sentences on methods that ran, known and unknown."""

from __future__ import annotations

from collections.abc import Iterable

from posepipe.workflows.methods import Methods, citation_of, image_methods

from posepipe.atlas import load_manifests

VERSIONS = {
    "posepipe": "0.1.0", "nipype": "1.8.6", "numpy": "1.24", "scipy": "1.11", "nibabel": "5.1", "nitransforms": "24.0", "torch": "2.4",
    "antspyx": "0.5.4",
}  # fmt: skip
RAN = Methods("T2w", "CRL", "T2w", "given", "search", "ants")


def markdown(methods: Iterable[Methods], versions: Iterable[str] = ("0.1.0",)) -> str:
    return citation_of(methods, [{**VERSIONS, "posepipe": version} for version in versions]).markdown


def test_each_atlas_is_cited_as_its_manifest_says():
    for name, manifest in load_manifests().items():
        text, references = image_methods(Methods("T2w", name, "T2w", "given", "search", "torch"))
        assert f"{manifest.title} ({name})" in text
        assert manifest.reference in references and f"[@{manifest.reference.key}]" in text


def test_sentences_and_references_come_once_however_many_images():
    text = markdown([RAN, RAN, Methods("T1w", "CRL", "T2w", "nonzero", "search", "torch"), RAN], ["0.1.0", "0.2.0", "0.1.0"])
    assert text.count("T2w images were aligned") == 1 and text.count("T1w images were aligned") == 1
    assert text.count("doi:10.1016/j.neuroimage.2010.09.025") == 1 and text.count("- *gholipour2017*: Gholipour A, Rollins CK") == 1
    assert "*posepipe* 0.1.0 and 0.2.0" in text and text.startswith("# Methods\n\n") and "\n\n# References\n\n- " in text


def test_what_ran_is_read_from_the_sidecars():
    methods = {"Mask": "given", "InitMethod": "search", "RefineMethod": "ants", "Weights": {"b": "2", "a": "1"}}
    found = Methods.ran({"Contrast": "T1w", "Atlas": "CRL", **methods}, {"TemplateContrast": "T2w"})
    assert found == Methods("T1w", "CRL", "T2w", "given", "search", "ants", (("a", "1"), ("b", "2")))
    assert "Weights of the networks: a (SHA-256 1…), b (SHA-256 2…)." in image_methods(found)[0]


def test_masks_by_network_are_reported_and_cited():
    text = markdown([RAN, Methods("T2w", "CRL", "T2w", "network", "search", "torch")])
    assert "masked by three convolutional networks" in text and text.count("doi:10.1016/j.neuroimage.2022.119474") == 1
    assert "SynthStrip" not in markdown([RAN])


def test_conversion_is_reported_and_cited():
    sidecar = {"Contrast": "T1w", "Atlas": "Serag", "ContrastConversion": "contrast"}
    text, references = image_methods(Methods.ran(sidecar, {"TemplateContrast": "T2w"}))
    assert "converted to T2-like contrast" in text and any(reference.key == "isola2017" for reference in references)
    assert "converted" not in image_methods(RAN)[0] and not any(reference.key == "isola2017" for reference in image_methods(RAN)[1])


def test_estimated_ages_are_reported():
    sidecar = {"Contrast": "T2w", "Atlas": "CRL", "AgeStandardError": 1.1}
    assert "ages were not recorded, and were estimated" in image_methods(Methods.ran(sidecar, {}))[0]
    assert "estimated" not in image_methods(RAN)[0]


def test_a_template_without_extra_axial_csf_is_described():
    sidecar = {"Contrast": "T2w", "Atlas": "CRL", "RefineMethod": "torch", "RefineTemplate": "without extra-axial CSF"}
    assert "extra-axial CSF of the template was excluded" in image_methods(Methods.ran(sidecar, {}))[0]
    earlier = {**sidecar, "RefineTemplate": "without outer fluid"}  # the value that versions before this one wrote
    assert "extra-axial CSF of the template was excluded" in image_methods(Methods.ran(earlier, {}))[0]
    assert "CSF" not in image_methods(Methods.ran({**sidecar, "RefineTemplate": "whole"}, {}))[0]


def test_a_method_without_a_sentence_of_its_own_is_named():
    text, _ = image_methods(Methods("T2w", "Mine", "T2w", "drawn", "guess", "prayer"))
    assert "source 'drawn'" in text and "by the method 'guess', and refined by the method 'prayer'." in text
    assert Methods.ran({"Weights": "x"}, {}) == Methods("", "", "", "", "", "")


def test_libraries_and_cohorts_that_were_used_are_named():
    newer = {**VERSIONS, "torch": "2.5"}
    text = citation_of([RAN], [VERSIONS, newer], [("CRL", "29"), ("CRL", "9"), ("CRL", "29")]).markdown
    assert "PyTorch 2.4 and 2.5 [@paszke2019] and ANTs by ANTsPy 0.5.4 [@avants2011]." in text
    assert "Cohorts that images were aligned to: CRL 9, 29." in text and "*Nipype* 1.8.6 [@gorgolewski2011]" in text
    without = markdown([Methods("T2w", "CRL", "T2w", "given", "search", "torch")])
    assert "ANTsPy" not in without and "avants2011" not in without
    assert "of unknown version" in citation_of([RAN], [{}]).markdown  # sidecars of other hands
