import json
from contextlib import nullcontext
from types import SimpleNamespace

import pytest

from tad_ext.data.sandbox.run import Protection, SandboxError
from tad_ext.jobs.doctor import run as doctor_module
from tad_ext.jobs.doctor.config import DoctorConfig
from tad_ext.jobs.doctor.run import (
    Finding,
    doctor,
    examine,
    kernel_findings,
    launch_plan_findings,
    runs_on,
    sandbox_findings,
)
from tad_ext.ops.launch_plans import LaunchPlan, launch_plans

COMPILED = {
    "compiled": True,
    "cpu_capability": "avx2",
    "cuda_built": True,
    "cuda_reason": "",
    "cuda_architectures": "sm_80, sm_90a",
    "error": None,
}


def states(findings):
    return [one.state for one in findings]


def test_it_reports_this_machine_and_works(capsys):
    assert doctor(DoctorConfig()) == 0
    text = capsys.readouterr().out
    for heading in ("versions", "core", "kernels", "cpu", "gpu", "sandbox"):
        assert heading in text
    assert "torch" in text
    assert "tad_ext works" in text


def test_versions_are_the_installed_ones():
    import torch

    found = {one.item: one for one in examine()["versions"]}
    assert found["torch"].value.partition("+")[0] == torch.__version__.partition("+")[0]
    assert found["torch"].state == "ok"


def test_json_is_one_object(capsys):
    assert doctor(DoctorConfig(json=True)) == 0
    report = json.loads(capsys.readouterr().out)
    assert set(report) == {"versions", "core", "kernels", "launch plans", "cpu", "gpu", "sandbox"}
    assert set(report["versions"][0]) == {"item", "value", "state", "note"}


def test_compiled_kernels():
    cpu, cuda = kernel_findings(COMPILED)
    assert states([cpu, cuda]) == ["ok", "ok"]
    assert "avx2" in cpu.value


def test_kernels_that_are_not_used_say_why():
    for capability, error, state in (("reference", "TAD_EXT_REFERENCE is set", "missing"), ("none", "no _C", "broken")):
        cpu, _ = kernel_findings(COMPILED | {"compiled": False, "cpu_capability": capability, "error": error})
        assert cpu.state == state
        assert cpu.note == error


def test_missing_cuda_kernels_say_why():
    _, cuda = kernel_findings(COMPILED | {"cuda_built": False, "cuda_reason": "no nvcc found"})
    assert cuda.state == "missing"
    assert "no nvcc found" in cuda.note


def test_cuda_kernels_say_what_they_were_compiled_for():
    _, cuda = kernel_findings(COMPILED, [(9, 0), (8, 6)])
    assert (cuda.state, cuda.value, cuda.note) == ("ok", "compiled for sm_80, sm_90a", "")


def test_a_gpu_that_the_cuda_kernels_do_not_run_on_is_named():
    _, cuda = kernel_findings(COMPILED, [(9, 0), (7, 5), (10, 0)])
    assert cuda.state == "missing"
    assert "compute capability 7.5, 10.0" in cuda.note


@pytest.mark.parametrize(
    ("most", "capability", "state"),
    [(8, (9, 0), "ok"), (1, (8, 0), "ok"), (4, (9, 0), "missing"), (1, (12, 0), "missing")],
)
def test_clusters_that_a_gpu_should_have_are_missed(most, capability, state):
    plans = [LaunchPlan(126_464, "bfloat16", False, 1, 0, 2), LaunchPlan(152_064, "float32", True, most, 152_064, 1)]
    clusters, *rows = launch_plan_findings(plans, capability)
    assert (clusters.state, clusters.value) == (state, f"up to {most}")
    assert ("MPS" in clusters.note) == (state == "missing")
    assert rows[0] == Finding(
        "126,464 columns of bfloat16", "one block, the row is read twice, 2 at a time on a multiprocessor"
    )
    assert rows[1].item == "152,064 columns of float32, with a teacher"
    assert "152,064 bytes kept by each, 1 at a time" in rows[1].value
    assert ("cluster of" in rows[1].value) == (most > 1)


def test_launch_plans_are_asked_for_on_a_gpu_alone(monkeypatch):
    asked = []

    def tad_loss_plan(*row):
        asked.append(row)
        return 8, 63_232, 3

    module = SimpleNamespace(cuda_built=True, tad_loss_plan=tad_loss_plan)
    monkeypatch.setattr("tad_ext.ops.launch_plans._module", module)
    monkeypatch.setattr("torch.cuda.device", lambda device: nullcontext())
    assert launch_plans("cpu") == asked == []
    assert len(launch_plans("cuda")) == len(set(asked)) == 8
    monkeypatch.setattr(module, "cuda_built", False)
    assert launch_plans("cuda") == []


def test_a_gpu_that_does_not_answer_is_no_broken_core(monkeypatch):
    def fail(device):
        raise RuntimeError("no kernel image is available")

    monkeypatch.setattr("tad_ext.ops.launch_plans.launch_plans", fail)
    (found,) = doctor_module._launch_plans((7, 5))
    assert found.state == "missing"
    assert "no kernel image" in found.note


@pytest.mark.parametrize(
    ("missing", "expected"),
    [
        ({}, [("ok", "run"), ("ok", "files, system calls, namespaces")]),
        ({"namespaces": "no"}, [("ok", "run"), ("missing", "files, system calls")]),
        ({"files": "no Landlock"}, [("missing", "not run"), ("missing", "system calls, namespaces")]),
    ],
)
def test_which_protections_of_programs_hold(missing, expected):
    walls = [
        Protection(name, "something", missing.get(name, ""), needed=name != "namespaces")
        for name in ("files", "system calls", "namespaces")
    ]
    found = sandbox_findings(walls)
    assert [(one.state, one.value) for one in found] == expected
    for name, why in missing.items():
        assert f"not by {name} (something): {why}" in found[1].note


def test_a_sandbox_that_does_not_start_is_no_broken_core(monkeypatch):
    def fail():
        raise SandboxError("no server")

    monkeypatch.setattr("tad_ext.data.sandbox.run.protections", fail)
    (found,) = doctor_module._sandbox()
    assert (found.state, found.note) == ("missing", "SandboxError: no server")


@pytest.mark.parametrize(
    ("architectures", "capability", "expected"),
    [
        ("sm_80", (8, 0), True),
        ("sm_80", (8, 9), True),
        ("sm_86", (8, 0), False),
        ("sm_80", (9, 0), False),
        ("sm_90a", (9, 0), True),
        ("sm_100a", (10, 3), False),
        ("sm_100f", (10, 3), True),
        ("sm_80, sm_120", (12, 1), True),
        ("sm_80, compute_90", (12, 0), True),
        ("compute_90a", (12, 0), False),
        ("compute_90", (8, 9), False),
        ("", (9, 0), False),
    ],
)
def test_which_gpus_an_architecture_stands_for(architectures, capability, expected):
    assert runs_on(architectures, capability) == expected


def test_a_missing_package_says_what_it_is_for(monkeypatch, capsys):
    monkeypatch.setitem(doctor_module.BUILD, "no-such-package", "flying")
    assert doctor(DoctorConfig()) == 0
    found = {one.item: one for one in examine()["versions"]}["no-such-package"]
    assert found.state == "missing"
    assert "flying" in found.note
    assert "pip install no-such-package" in found.note


def test_a_missing_requirement_or_a_layer_that_does_not_import_is_broken(monkeypatch, capsys):
    monkeypatch.setitem(doctor_module.REQUIRED, "no-such-package", "everything")
    assert doctor(DoctorConfig()) == 1
    assert "broken" in capsys.readouterr().out
    monkeypatch.undo()
    found = doctor_module._imports("tad_ext.no_such_layer")
    assert found.state == "broken"
    assert "ModuleNotFoundError" in found.note


def test_the_verdict_follows_the_worst_finding():
    ok, missing, broken = Finding("a", "1"), Finding("b", "2", "missing"), Finding("c", "3", "broken")
    assert "nothing is missing" in doctor_module._verdict([ok])
    assert "optional" in doctor_module._verdict([ok, missing])
    assert "broken" in doctor_module._verdict([broken, missing, ok])
