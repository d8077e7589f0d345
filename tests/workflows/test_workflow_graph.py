"""The workflows: their structure, description and execution."""

from __future__ import annotations

import contextlib
import os
import subprocess
import sys
import time
from dataclasses import replace
from pathlib import Path
from typing import Any

import pytest
from nipype.interfaces.base import BaseInterfaceInputSpec, SimpleInterface, TraitedSpec, isdefined, traits
from nipype.pipeline import engine as pe
from planned_images import make_image
from posepipe.workflows.base import init_posepipe_wf, planned_citation
from posepipe.workflows.engine import execution_config
from posepipe.workflows.image import image_wf_name, init_image_wf
from posepipe.workflows.memory import IDLE_GB, NEEDS, memory_gb
from posepipe.workflows.plugin import ImageByImagePlugin, SafeMultiProcPlugin, quiet_nipype

from posepipe.atlas import VolumeRange
from posepipe.bids import Age
from posepipe.interfaces.base import DigestInputSpec
from posepipe.models.listing import LISTING
from posepipe.models.weights import PACKAGED
from posepipe.plan import Plan, SessionPlan
from posepipe.settings import Settings


@pytest.fixture(autouse=True, scope="module")
def _quiet() -> None:
    quiet_nipype("CRITICAL")


def edges_of(workflow: Any) -> list[tuple[str, str, str, str]]:
    """Node, its output, input, node: with what goes through ``foundnode`` as Nipype runs it, from one stage to the next."""
    edges = [(here.name, *one, there.name) for here, there, edge in workflow._graph.edges(data=True) for one in edge["connect"]]
    known = {into: (here, out) for here, out, into, there in edges if there == "foundnode"}
    direct = [(*known[out], into, there) if here == "foundnode" else (here, out, into, there) for here, out, into, there in edges]
    return [edge for edge in direct if edge[3] != "foundnode"]


def test_image_workflow_is_one_chain(tmp_path: Path, settings: Settings) -> None:
    plan, of_ants = make_image(tmp_path, "01", masked=True), replace(settings, refine="ants")
    workflow = init_image_wf(plan=plan, settings=of_ants)
    names = {name.rsplit(".", 1)[-1] for name in workflow.list_node_names()}
    stages = {"mask", "initial_pose", "refinement", "quality", "resampling", "figure", "outputs"}
    assert names == stages | {"inputnode", "foundnode", "outputnode"}
    assert workflow.get_node("inputnode").inputs.mask == str(tmp_path / "mask.nii.gz")
    assert workflow.get_node("refinement").n_procs == workflow.get_node("initial_pose").n_procs == 1
    assert workflow.get_node("outputs").inputs.known["Age"] == 29.1


def test_the_verdict_knows_the_sizes_of_brains_and_the_doubt_of_an_age(tmp_path: Path, settings: Settings) -> None:
    sizes = VolumeRange(90.0, "CRL+21", 518.0, "Serag+44")
    known = replace(make_image(tmp_path, "01"), volumes=sizes)
    inputs = init_image_wf(plan=known, settings=settings).get_node("quality").inputs
    assert VolumeRange(**inputs.volumes) == sizes and not inputs.estimated and list(inputs.doubts) == []
    guessed = replace(known, age=Age(29.1, "estimated", error=1.0), doubts=("the age cannot be determined",))
    inputs = init_image_wf(plan=guessed, settings=settings).get_node("quality").inputs
    assert inputs.estimated and list(inputs.doubts) == ["the age cannot be determined"]


@pytest.mark.parametrize("converted", [False, True])
def test_converted_image_is_aligned_by_its_conversion_and_written_as_it_is(tmp_path: Path, settings: Settings, converted: bool) -> None:
    plan = replace(make_image(tmp_path, "01", suffix="T1w"), converted=converted)
    workflow = init_image_wf(plan=plan, settings=settings)
    sources = {
        (there, into): here
        for here, _, into, there in edges_of(workflow)
        if into in {"in_file", "in_synth", "convert_record"}
    }
    as_it_is = ("mask", "quality", "resampling", "figure")
    own = dict.fromkeys(((stage, "in_file") for stage in as_it_is), "inputnode")
    for stage in ("initial_pose", "refinement"):
        own[stage, "in_file"] = "conversion" if converted else "inputnode"
    new = {("figure", "in_synth"), ("outputs", "in_synth"), ("outputs", "convert_record")}
    added = {("conversion", "in_file"): "inputnode", **dict.fromkeys(new, "conversion")}
    assert sources == {**own, **(added if converted else {})}
    assert ("synth" in workflow.get_node("outputs").inputs.out_files) is converted
    assert ("converted to T2-like contrast" in workflow.__desc__) is converted
    assert workflow.get_node("quality").inputs.contrast == "T1w"


@pytest.mark.parametrize("stack", [False, True])
def test_of_a_stack_the_slices_have_the_last_word(tmp_path: Path, settings: Settings, stack: bool) -> None:
    timing = {"SliceTiming": [0.0, 1.0], "SliceThickness": 3.0}
    plan = replace(make_image(tmp_path, "01", suffix="T1w", masked=True), converted=True, timing=timing if stack else None)
    workflow = init_image_wf(plan=plan, settings=settings)
    edges = edges_of(workflow)
    final = "slices" if stack else "refinement"
    takers = {there for here, out, _, there in edges if (here, out) == (final, "out_pose")}
    assert takers == {"quality", "resampling", "figure", "outputs"}
    assert {there for here, out, _, there in edges if (here, out) == (final, "out_record")} == {"quality", "outputs"}
    assert ("slices" in workflow.get_node("outputs").inputs.out_files) is stack
    assert ("pose of each slice" in workflow.__desc__) is stack
    if stack:
        into = {(here, out, name) for here, out, name, there in edges if there == "slices"}
        assert into == {
            ("conversion", "out_file", "in_file"), ("mask", "out_mask", "in_mask"), ("refinement", "out_pose", "in_pose"),
            ("refinement", "out_record", "in_record"),
        }  # fmt: skip
        assert workflow.get_node("slices").inputs.timing == timing


def test_what_the_network_masks_comes_with_its_pose(tmp_path: Path, settings: Settings) -> None:
    plan, chosen = make_image(tmp_path, "01"), replace(settings, init="search", random_seed=7, omp_nthreads=2)
    workflow = init_image_wf(plan=plan, settings=chosen)
    edges = edges_of(workflow)
    takers = {there for here, out, _, there in edges if (here, out) == ("mask", "out_mask")}
    assert takers == {"initial_pose", "refinement", "quality", "figure", "outputs"}
    assert ("mask", "out_record", "mask_record", "initial_pose") in edges
    mask, initial, quality = (workflow.get_node(name) for name in ("mask", "initial_pose", "quality"))
    assert initial.inputs.method == "search" and mask.inputs.weights == initial.inputs.weights == quality.inputs.weights
    for node in workflow._get_all_nodes():  # all that have torch, the verdict and the picture too
        assert "torch_threads" not in node.inputs.traits() or node.inputs.torch_threads == 2
    assert "torch_threads" in quality.inputs.traits()
    stages = [node for node in workflow._get_all_nodes() if isinstance(node.inputs, DigestInputSpec)]
    assert len(stages) == 7 and {node.n_procs for node in stages} == {2}  # linear algebra has threads in all of them


def test_nodes_ask_for_the_memory_that_images_of_their_size_took(tmp_path: Path, settings: Settings) -> None:
    timing = {"SliceThickness": 3.0}
    plan = replace(make_image(tmp_path, "01", suffix="T1w"), converted=True, timing=timing)
    small, large = (init_image_wf(plan=replace(plan, voxels=voxels), settings=settings) for voxels in (2_000_000, 32_768_000))
    for name in NEEDS:
        asked = [graph.get_node(name).mem_gb for graph in (small, large)]
        assert asked == [memory_gb(name, 2_000_000), memory_gb(name, 32_768_000)]
        assert asked[0] < asked[1] or name == "outputs"  # which copies files
    assert large.get_node("mask").mem_gb == pytest.approx(2.09, abs=0.01)  # of the 1.9 GB that it took
    assert {node.name for node in small._get_all_nodes() if isinstance(node.inputs, DigestInputSpec)} == set(NEEDS)


def test_mask_that_is_not_wanted_is_not_used(tmp_path: Path, settings: Settings) -> None:
    plan = make_image(tmp_path, "01", masked=True)
    workflow = init_image_wf(plan=plan, settings=replace(settings, mask="nonzero"))
    assert not workflow.get_node("inputnode").inputs.mask
    assert "nonzero voxels" in workflow.__desc__


@pytest.mark.parametrize(
    ("mode", "masked", "asked", "words"),
    [
        ("auto", True, False, "masks that came with the images"),
        ("auto", False, True, "In brain-extracted images"),
        ("network", True, True, "masked by three convolutional networks"),
        ("network", False, True, "masked by three convolutional networks"),
        ("nonzero", False, False, "nonzero voxels"),
    ],
)
def test_networks_for_masks_are_named_where_they_may_be_asked(
    tmp_path: Path, settings: Settings, mode: str, masked: bool, asked: bool, words: str
) -> None:
    plan, own = make_image(tmp_path, "01", masked=masked), tmp_path / "weights"
    own.mkdir()
    (own / LISTING).touch()
    workflow = init_image_wf(plan=plan, settings=replace(settings, mask=mode, weights=own, device="cpu"))
    node = workflow.get_node("mask")
    assert node.inputs.mode == mode
    assert bool(isdefined(node.inputs.weights)) is asked
    assert not asked or (node.inputs.weights, node.inputs.device) == (str(own / LISTING), "cpu")
    assert bool(workflow.get_node("inputnode").inputs.mask) is (mode == "auto" and masked)
    assert words in workflow.__desc__
    assert any(reference.key == "hoopes2022" for reference in workflow.references) is asked
    of_package = init_image_wf(plan=plan, settings=replace(settings, mask=mode)).get_node("initial_pose")
    assert of_package.inputs.weights == str(PACKAGED / LISTING)


def test_nipype_takes_for_outdated_what_posepipe_does(tmp_path: Path, settings: Settings) -> None:
    """Every node that computes something has the digest that the image is recorded as done with, and no other is taken from the cache."""
    plan = replace(make_image(tmp_path, "01", suffix="T1w"), converted=True, timing={"SliceTiming": [0.0, 1.0]}, parameters_hash="one")
    stages = {"mask", "conversion", "initial_pose", "refinement", "slices", "quality", "resampling", "figure", "outputs"}
    hashes = []
    for digest in ("one", "other"):
        workflow = init_image_wf(plan=replace(plan, parameters_hash=digest), settings=settings)
        nodes = {node.name: node for node in workflow._get_all_nodes()}
        assert nodes.keys() == stages | {"inputnode", "foundnode", "outputnode"}
        assert {nodes[name].inputs.digest for name in stages} == {digest}
        hashes.append({name: nodes[name].inputs.get_hashval()[1] for name in stages})
    assert all(hashes[0][name] != hashes[1][name] for name in stages)


def test_names_of_image_workflows_differ(tmp_path: Path) -> None:
    images = [make_image(tmp_path, "01"), make_image(tmp_path, "01", suffix="T1w"), make_image(tmp_path, "011")]
    assert len({image_wf_name(image) for image in images}) == 3


def test_run_workflow_holds_what_is_to_do(tmp_path: Path, settings: Settings) -> None:
    pending, done = make_image(tmp_path, "01"), make_image(tmp_path, "02", done=True)
    plan = Plan((SessionPlan("01", None, (pending,)), SessionPlan("02", None, (done,))))
    workflow = init_posepipe_wf(plan=plan, settings=settings)
    names = workflow.list_node_names()
    assert all(name.startswith("sub_01_wf.sub_01_T2w_wf.") for name in names)
    node = workflow.get_node("sub_01_wf.sub_01_T2w_wf.mask")
    assert node.config["execution"]["crashdump_dir"] == str(tmp_path / "out/sub-01/log/run1")
    assert node.config["execution"]["hash_method"] == "content"
    assert workflow.base_dir == str(tmp_path / "work")


def test_datasets_do_not_share_a_work_folder(tmp_path: Path, settings: Settings) -> None:
    plan = Plan((SessionPlan("01", None, (make_image(tmp_path, "01"),)),))
    other = replace(settings, bids_dir=tmp_path / "other")
    assert init_posepipe_wf(plan=plan, settings=settings).name != init_posepipe_wf(plan=plan, settings=other).name


@pytest.mark.parametrize("done", [False, True])
def test_citation_tells_what_ran_once(tmp_path: Path, settings: Settings, done: bool) -> None:
    images = tuple(make_image(tmp_path, name, done=done) for name in ("01", "02"))
    plan = Plan((SessionPlan("01", None, images[:1]), SessionPlan("02", None, images[1:])))
    text = planned_citation(init_posepipe_wf(plan=plan, settings=settings), settings).markdown
    assert text.count("in PyTorch.") == 1 and "Gholipour" in text and text.count("doi:10.1109/TMI.2018.2866442") == 1
    assert "Avants" not in text
    ants = replace(settings, refine="ants")
    with_ants = planned_citation(init_posepipe_wf(plan=plan, settings=ants), ants).markdown
    assert "doi:10.1016/j.neuroimage.2010.09.025" in with_ants


class _TaskInputSpec(BaseInterfaceInputSpec):
    die = traits.Bool(False, usedefault=True, desc="end the process")
    number = traits.Int(desc="something that tells tasks apart")
    other = traits.Int(desc="and something more")


class _TaskOutputSpec(TraitedSpec):
    pid = traits.Int(desc="process that did it")


class Task(SimpleInterface):
    """Does nothing, or dies as a process that is out of memory does."""

    input_spec = _TaskInputSpec
    output_spec = _TaskOutputSpec

    def _run_interface(self, runtime: Any) -> Any:
        if self.inputs.die:
            os._exit(137)
        self._results["pid"] = os.getpid()
        return runtime


def run_tasks(folder: Path, dying: set[int], count: int = 3) -> tuple[dict[str, str], list[str]]:
    """How each task ended, and the errors that the callback received."""
    ended: dict[str, str] = {}
    messages: list[str] = []

    def callback(node: Any, status: str) -> None:
        if status != "start":
            ended[node.name] = status
        if status == "exception":
            messages.append("".join(node._traceback))

    workflow = pe.Workflow(name="tasks", base_dir=str(folder))
    workflow.config = execution_config(crashdump_dir=folder / "crash")
    workflow.add_nodes([pe.Node(Task(number=i, die=i in dying), name=f"task{i}", n_procs=2) for i in range(count)])
    args = {"n_procs": 2, "status_callback": callback, "raise_insufficient": False}
    try:
        workflow.run(plugin=SafeMultiProcPlugin(args))
    except RuntimeError:
        assert dying
    return ended, messages


@pytest.mark.slow
def test_dead_worker_fails_its_task_only(tmp_path: Path) -> None:
    ended, messages = run_tasks(tmp_path, dying={0})
    assert ended == {"task0": "exception", "task1": "end", "task2": "end"}
    assert len(messages) == 1 and "a worker process ended" in messages[0] and "--mem-gb" in messages[0]
    assert len(list((tmp_path / "crash").glob("crash-*.txt"))) == 1


def test_workers_are_other_processes(tmp_path: Path) -> None:
    ended, _ = run_tasks(tmp_path, dying=set(), count=1)
    assert ended == {"task0": "end"}
    (result,) = tmp_path.rglob("result_task0.pklz")
    from nipype.utils.filemanip import loadpkl

    assert loadpkl(result).outputs.pid != os.getpid()


@pytest.mark.slow
def test_workers_start_whatever_the_temporary_folder_is_called(tmp_path: Path) -> None:
    """A path of 107 characters and more is too long for a socket."""
    long = tmp_path / "job.1234567890" / ("x" * 120)
    long.mkdir(parents=True)
    code = "import sys; from pathlib import Path; from test_workflow_graph import run_tasks; print(run_tasks(Path(sys.argv[1]), set()))"
    paths = os.pathsep.join([str(Path(__file__).parent), os.environ.get("PYTHONPATH", "")])
    done = subprocess.run(
        [sys.executable, "-c", code, str(tmp_path)], env={**os.environ, "TMPDIR": str(long), "PYTHONPATH": paths},
        capture_output=True, text=True, timeout=300, check=False,
    )  # fmt: skip
    assert done.returncode == 0 and done.stdout.count("'end'") == 3, done.stdout + done.stderr


def ended_in_order(folder: Path, plugin: Any) -> list[str]:
    """The order in which nodes of two chains end."""
    order: list[str] = []

    def callback(node: Any, status: str) -> None:
        if status == "end":
            order.append(node.fullname.removeprefix("all."))

    whole = pe.Workflow(name="all", base_dir=str(folder))
    whole.config = execution_config()
    for name in ("a", "b"):
        chain = pe.Workflow(name=name)
        first, second = (pe.Node(Task(), name=f"task{i}") for i in range(2))
        chain.connect(first, "pid", second, "number")
        whole.add_nodes([chain])
    whole.run(plugin=plugin({"n_procs": 1, "status_callback": callback, "raise_insufficient": False}))
    return order


@pytest.mark.slow
@pytest.mark.parametrize("plugin", [ImageByImagePlugin, SafeMultiProcPlugin])
def test_images_are_finished_one_after_the_other(tmp_path: Path, plugin: Any) -> None:
    assert ended_in_order(tmp_path, plugin) == ["a.task0", "a.task1", "b.task0", "b.task1"]


def test_linear_continues_after_an_error(tmp_path: Path) -> None:
    workflow = pe.Workflow(name="tasks", base_dir=str(tmp_path))
    workflow.config = execution_config(crashdump_dir=tmp_path / "crash")
    ended: dict[str, str] = {}
    bad, good = pe.Node(Fails(), name="bad"), pe.Node(Task(), name="good")
    workflow.add_nodes([bad, good])
    args = {"status_callback": lambda node, status: ended.update({node.name: status})}
    with pytest.raises(RuntimeError, match="on purpose"):
        workflow.run(plugin=ImageByImagePlugin(args))
    assert ended == {"bad": "exception", "good": "end"}


class Fails(Task):
    """Raises an error."""

    def _run_interface(self, runtime: Any) -> Any:
        msg = "on purpose"
        raise RuntimeError(msg)


class Counts(Task):
    """How many workers there are now."""

    def _run_interface(self, runtime: Any) -> Any:
        time.sleep(1)  # long enough that another starts meanwhile
        workers = 0
        for process in Path("/proc").glob("[0-9]*"):
            with contextlib.suppress(OSError, IndexError):
                parent = int((process / "stat").read_text().rsplit(")", 1)[1].split()[1])
                workers += parent == os.getppid() and b"spawn_main" in (process / "cmdline").read_bytes()
        self._results["pid"] = workers
        return runtime


def test_memory_that_idle_workers_keep_is_counted(tmp_path: Path) -> None:
    if not Path("/proc/self/stat").is_file():
        pytest.skip("processes are counted in /proc (Linux), which is not here")
    limit = 3 * IDLE_GB
    workflow = pe.Workflow(name="tasks", base_dir=str(tmp_path))
    workflow.config = execution_config(crashdump_dir=tmp_path / "crash")
    small = [pe.Node(Counts(), name=f"small{i}", mem_gb=limit / 2) for i in range(2)]
    large = pe.Node(Counts(), name="large", mem_gb=limit)
    workflow.connect([(small[0], large, [("pid", "number")]), (small[1], large, [("pid", "other")])])
    done = workflow.run(plugin=SafeMultiProcPlugin({"n_procs": 2, "memory_gb": limit, "raise_insufficient": False}))
    seen = {node.name: node.result.outputs.pid for node in done.nodes()}
    assert max(seen["small0"], seen["small1"]) == 2 and seen["large"] == 1
