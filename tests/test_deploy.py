"""cluster.yaml and deploy/: Ray accepts them, their flags exist and their versions agree."""

import copy
import json
import os
import re
import shlex
import subprocess
import tomllib
from contextlib import contextmanager
from pathlib import Path

import pytest
import ray
import yaml
from ray.autoscaler._private.kuberay.autoscaling_config import (
    _derive_autoscaling_config_from_ray_cr as derive_from_ray_cluster,
)
from ray.autoscaler._private.util import prepare_config, validate_config

from jobs.command import parse
from ser_core.labeling.config import LabelConfig

ROOT = Path(__file__).parents[1]
DEPLOY = ROOT / "deploy"
MANIFESTS = sorted(DEPLOY.glob("*.yaml"))
GPU_POOL = "gpu_pool"  # the resource that says how many GPUs the autoscaler may start


def documents(path: Path) -> list[dict]:
    return list(yaml.safe_load_all(path.read_text()))


def resource(kind: str, name: str | None = None) -> dict:
    found = [
        document
        for path in MANIFESTS
        for document in documents(path)
        if document["kind"] == kind and name in (None, document["metadata"].get("name"))
    ]
    assert len(found) == 1, f"{len(found)} × {kind} {name or ''}"
    return found[0]


@pytest.fixture
def cluster(monkeypatch) -> dict:
    """cluster.yaml as `ray up` completes it, without asking AWS."""
    monkeypatch.chdir(ROOT)  # file_mounts are relative to where `ray up` runs
    (config,) = documents(ROOT / "cluster.yaml")
    return prepare_config(config)


@pytest.fixture
def kuberay() -> dict:
    """The RayJob's cluster as Ray's autoscaler reads it from Kubernetes."""
    spec = copy.deepcopy(resource("RayJob")["spec"]["rayClusterSpec"])
    return derive_from_ray_cluster(
        {"metadata": {"name": "ser-label-x", "namespace": "default"}, "spec": spec}
    )


# ---- grafana.json --------------------------------------------------------------------------------


def test_the_dashboard_can_be_imported():
    dashboard = json.loads((DEPLOY / "grafana.json").read_text())
    panels = dashboard["panels"]
    assert len({panel["id"] for panel in panels}) == len(panels)
    (datasource,) = dashboard["templating"]["list"]
    assert (datasource["type"], datasource["query"]) == ("datasource", "prometheus")
    for panel in panels:
        assert panel["datasource"]["uid"] == f"${{{datasource['name']}}}"
        assert panel["title"]
        assert panel["description"]
        assert all(target["expr"] for target in panel["targets"])
    cells = [
        (x, y)
        for grid in (panel["gridPos"] for panel in panels)
        for x in range(grid["x"], grid["x"] + grid["w"])
        for y in range(grid["y"], grid["y"] + grid["h"])
    ]
    assert len(cells) == len(set(cells)), "panels overlap"
    assert max(x for x, _ in cells) < 24  # the width of a dashboard


# ---- cluster.yaml --------------------------------------------------------------------------------


def test_ray_accepts_the_cluster(cluster):
    validate_config(cluster)
    limits = (cluster["available_node_types"][name]["max_workers"] for name in pools(cluster))
    assert sum(limits) <= cluster["max_workers"]
    assert cluster["idle_timeout_minutes"] > 0


def pools(cluster: dict) -> dict[str, dict]:
    """The worker node types by name."""
    types = cluster["available_node_types"]
    workers = {name: node for name, node in types.items() if name != cluster["head_node_type"]}
    assert len(workers) == 2
    return workers


def gpus(node_type: dict) -> int:
    return node_type["resources"].get("GPU", 0)


def test_the_head_runs_no_tasks(cluster):
    head = cluster["available_node_types"][cluster["head_node_type"]]
    assert head["resources"]["CPU"] == 0
    assert "InstanceMarketOptions" not in head["node_config"]


def test_both_pools_start_empty_and_the_gpus_are_spot(cluster):
    on_gpu = {gpus(pool) > 0: pool for pool in pools(cluster).values()}
    assert set(on_gpu) == {True, False}
    assert all(pool["min_workers"] == 0 < pool["max_workers"] for pool in on_gpu.values())
    assert on_gpu[True]["node_config"]["InstanceMarketOptions"]["MarketType"] == "spot"
    assert "--gpus=all" in on_gpu[True]["docker"]["worker_run_options"]


def test_workers_have_access_to_the_bucket(cluster):
    assert all("IamInstanceProfile" in pool["node_config"] for pool in pools(cluster).values())


def test_the_head_announces_how_many_gpus_may_start(cluster, kuberay):
    for config in (cluster, kuberay):
        head = config["available_node_types"][config["head_node_type"]]
        total = sum(pool["max_workers"] * gpus(pool) for pool in pools(config).values())
        assert head["resources"][GPU_POOL] == total > 0


def test_setup_installs_what_is_mounted(cluster, tmp_path):
    """Runs the first command; of the second, only the arguments of pip are checked."""
    for mounted in cluster["file_mounts"].values():
        assert (ROOT / mounted).is_file()
    copies, install = cluster["setup_commands"]
    for remote, local in cluster["file_mounts"].items():
        target = tmp_path / "node" / remote.lstrip("/")
        target.parent.mkdir(parents=True, exist_ok=True)
        target.write_bytes((ROOT / local).read_bytes())
    home = tmp_path / "home"
    home.mkdir()
    copies = copies.replace(" /ser-batch", f" {tmp_path}/node/ser-batch")
    pip = "pip() { printf '%s\\n' \"$@\"; }; "
    printed = subprocess.run(
        ["bash", "-ec", f"{copies}; {pip}{install}; cat constraints.txt pyproject.toml README.md"],
        env={"PATH": os.environ["PATH"], "HOME": str(home)},
        capture_output=True,
        text=True,
        check=True,
    ).stdout.splitlines()
    assert printed[printed.index("-c") + 1] == "constraints.txt"
    assert ".[s3,train]" in printed  # for every job, on S3
    assert 'name = "ser-batch"' in printed


# ---- deploy/ -------------------------------------------------------------------------------------


@pytest.mark.parametrize("path", MANIFESTS, ids=lambda path: path.name)
def test_every_manifest_parses(path):
    for document in documents(path):
        assert {"apiVersion", "kind", "metadata"} <= set(document)
        assert {"name", "generateName"} & set(document["metadata"])


def test_the_cluster_of_a_rayjob_starts_empty_and_is_deleted_afterwards(kuberay):
    spec = resource("RayJob")["spec"]
    assert spec["shutdownAfterJobFinishes"] is True
    assert spec["rayClusterSpec"]["enableInTreeAutoscaling"] is True
    head = kuberay["available_node_types"][kuberay["head_node_type"]]
    assert head["resources"]["CPU"] == 0
    assert {gpus(pool) > 0 for pool in pools(kuberay).values()} == {True, False}
    assert all(pool["min_workers"] == 0 < pool["max_workers"] for pool in pools(kuberay).values())


def test_the_entrypoint_is_a_night_with_all_that_it_needs():
    env, *settings, bash, script = shlex.split(resource("RayJob")["spec"]["entrypoint"])
    assert (env, bash) == ("env", "bash")
    names = [setting.partition("=")[0] for setting in settings]
    (needed,) = re.findall(r"for place in (.*);", (DEPLOY / "nightly.sh").read_text())
    assert names == needed.split()
    image = (DEPLOY / "Containerfile").read_text()
    assert "COPY --chown=ray deploy/again.sh deploy/nightly.sh deploy/" in image
    assert f"WORKDIR {script.removesuffix('/deploy/nightly.sh')}\n" in image


def test_only_the_script_that_knows_exit_codes_repeats_a_run():
    assert resource("RayJob")["spec"]["backoffLimit"] == 0


def again(tmp_path, *codes: int) -> tuple[int, int]:
    """Runs again.sh with a command that ends with these codes; its own code, and the attempts."""
    (tmp_path / "codes").write_text("\n".join(map(str, codes)))
    fake = f"cd {tmp_path}; echo >> runs; exit $(sed -n $(wc -l < runs)p codes)"
    command = ["bash", DEPLOY / "again.sh", "bash", "-c", fake]
    environment = os.environ | {"PAUSE": "0.01"}
    done = subprocess.run(command, env=environment, capture_output=True, check=False, timeout=60)
    return done.returncode, (tmp_path / "runs").read_text().count("\n")


@pytest.mark.parametrize(
    ("codes", "expected"),
    [
        ([0, 9], (0, 1)),
        ([2, 0], (2, 1)),
        ([3, 0], (3, 1)),
        ([127, 0], (127, 1)),
        ([1, 0, 9], (0, 2)),
        ([1, 3, 0], (3, 2)),
        ([137, 1, 1, 0], (1, 3)),
    ],
)
def test_only_what_a_repetition_continues_is_repeated(codes, expected, tmp_path):
    assert again(tmp_path, *codes) == expected


@contextmanager
def stopped(fake):
    """The script, stopped while it runs a command of bash that says "started"."""
    command = ["bash", DEPLOY / "again.sh", "bash", "-c", fake]
    with subprocess.Popen(command, stdout=subprocess.PIPE, text=True) as process:
        assert process.stdout.readline() == "started\n"
        process.terminate()
        yield process


def test_stopping_the_script_stops_its_command():
    with stopped(
        "trap 'sleep 0.2; echo stopped; exit 1' TERM; echo started; sleep 60 & wait"
    ) as script:
        assert script.stdout.readline() == "stopped\n"
        assert script.wait(60) != 0


def test_a_command_that_is_stopped_decides_the_exit_code():
    with stopped("trap 'sleep 0.2; exit 7' TERM; echo started; sleep 60 & wait") as script:
        assert script.wait(60) == 7


def test_the_job_accepts_the_flags_that_cluster_yaml_shows():
    text = (ROOT / "cluster.yaml").read_text()
    (shown,) = re.findall(r"^#\s+python -m jobs\.label (.*)$", text, re.M)
    parse(LabelConfig, shlex.split(shown))


def pod_specs() -> list[dict]:
    spec = resource("RayJob")["spec"]["rayClusterSpec"]
    groups = [spec["headGroupSpec"], *spec["workerGroupSpecs"]]
    return [group["template"]["spec"] for group in groups]


def test_every_pod_has_the_same_image_and_a_service_account():
    images = {container["image"] for pod in pod_specs() for container in pod["containers"]}
    assert len(images) == 1
    for pod in pod_specs():
        resource("ServiceAccount", pod["serviceAccountName"])


def test_no_credentials_in_any_file():
    for pod in pod_specs():
        for container in pod["containers"]:
            assert "env" not in container
            assert all("secretRef" in source for source in container["envFrom"])
    for path in [ROOT / "cluster.yaml", *DEPLOY.iterdir()]:
        assert not re.search(r"AKIA[A-Z0-9]{16}|SECRET_ACCESS_KEY: ", path.read_text()), path


# ---- nightly.yaml --------------------------------------------------------------------------------


def nightly_pod() -> dict:
    return resource("CronJob")["spec"]["jobTemplate"]["spec"]["template"]["spec"]


@pytest.fixture
def night(tmp_path):
    """Runs the script of the CronJob with a fake `kubectl`; returns its exit code and calls."""
    kubectl = tmp_path / "kubectl"
    kubectl.write_text(
        f'#!/bin/sh\necho "$@" | head -1 >> {tmp_path}/calls\n'
        f'case "$*" in *status.message*) cat {tmp_path}/messages; exit;; esac\n'
        f"if [ $1 = get ]; then cat {tmp_path}/runs; exit $(cat {tmp_path}/rc); fi\n"
    )
    kubectl.chmod(0o755)

    def run(runs: str, rc: int = 0, messages: str = "") -> tuple[int, list[list[str]]]:
        (tmp_path / "runs").write_text(runs)
        (tmp_path / "messages").write_text(messages)
        (tmp_path / "rc").write_text(str(rc))
        (container,) = nightly_pod()["containers"]
        path = f"{tmp_path}{os.pathsep}{os.environ['PATH']}"
        command = [*container["command"], *container["args"]]
        done = subprocess.run(command, env={"PATH": path}, capture_output=True, check=False)
        calls = (tmp_path / "calls").read_text().splitlines()
        return done.returncode, [call.split() for call in calls]

    return run


@pytest.mark.parametrize("runs", ["", "a=Complete\n", "a=Failed\nb=ValidationFailed\n"])
def test_a_night_starts_a_run_when_none_is_active(night, runs):
    code, calls = night(runs)
    assert code == 0
    assert [call[0] for call in calls] == ["get", "get", "delete", "create"]


# As Ray's job supervisor words it; KubeRay copies it into the status.
ENDED = "\nJob entrypoint command failed with exit code {}, last available logs (…):\n1 of 9\n"


def test_no_night_begins_after_a_failed_check_until_somebody_has_looked(night):
    ended, calls = night("a=Failed\n", messages=ENDED.format(3))
    assert ended == 3
    assert [call[0] for call in calls] == ["get", "get"]
    # and the CronJob's own pod is not repeated, either
    job = resource("CronJob")["spec"]["jobTemplate"]["spec"]
    (rule,) = job["podFailurePolicy"]["rules"]
    assert rule["action"] == "FailJob"
    assert rule["onExitCodes"] == {"operator": "In", "values": [3]}
    assert job["template"]["spec"]["restartPolicy"] == "Never"  # which the policy needs


@pytest.mark.parametrize("code", [1, 2, 137, 31])
def test_a_night_follows_one_that_ended_in_another_way(night, code):
    ended, calls = night("a=Failed\n", messages=ENDED.format(code))
    assert (ended, calls[-1][0]) == (0, "create")


def test_the_message_of_a_failed_job_is_that_of_ray():
    (source,) = Path(ray.__file__).parent.glob("dashboard/modules/job/job_supervisor.py")
    said = re.sub(r'"\s*f?"', "", source.read_text())
    assert "command failed with exit code {return_code}" in said


@pytest.mark.parametrize("runs", ["a=Running\n", "a=Complete\nb=Retrying\n", "a=\n"])
def test_a_night_leaves_an_active_run_alone(night, runs):
    code, calls = night(runs)
    assert code == 0
    assert [call[0] for call in calls] == ["get"]


def test_a_night_that_cannot_list_the_runs_starts_none(night):
    code, calls = night("", rc=1)
    assert code != 0
    assert [call[0] for call in calls] == ["get"]


def test_the_night_creates_the_rayjob_and_has_permission(night):
    _, calls = night("")
    *_, file = calls[-1]
    (mount,) = nightly_pod()["containers"][0]["volumeMounts"]
    (volume,) = nightly_pod()["volumes"]
    assert mount["name"] == volume["name"]
    assert Path(file).parent == Path(mount["mountPath"])
    readme = (DEPLOY / "README.md").read_text()
    source = f"--from-file=deploy/{Path(file).name}"
    assert f"create configmap {volume['configMap']['name']} {source}" in readme

    labels = {argument for call in calls for argument in call if "=ser" in argument}
    ((key, value),) = resource("RayJob")["metadata"]["labels"].items()
    assert labels == {f"{key}={value}"}
    assert "generateName" in resource("RayJob")["metadata"]

    binding = resource("RoleBinding")
    account = nightly_pod()["serviceAccountName"]
    assert [subject["name"] for subject in binding["subjects"]] == [account]
    resource("ServiceAccount", account)
    (rule,) = resource("Role", binding["roleRef"]["name"])["rules"]
    assert (rule["apiGroups"], rule["resources"]) == (["ray.io"], ["rayjobs"])
    needed = {"list" if call[0] == "get" else call[0] for call in calls}
    assert needed <= set(rule["verbs"])


# ---- versions ------------------------------------------------------------------------------------


def test_versions_agree():
    pins = dict(re.findall(r"^([\w.-]+)==(\S+)$", (ROOT / "constraints.txt").read_text(), re.M))
    versions = {"rayjob.yaml": resource("RayJob")["spec"]["rayClusterSpec"]["rayVersion"]}
    pythons = set()
    for path in (ROOT / "cluster.yaml", DEPLOY / "Containerfile"):
        ((ray, python),) = re.findall(r"rayproject/ray:([\d.]+)-py(\d+)", path.read_text())
        versions[path.name] = ray
        pythons.add(python)
    assert versions == dict.fromkeys(versions, pins["ray"])

    project = tomllib.loads((ROOT / "pyproject.toml").read_text())["project"]
    assert pythons == {project["requires-python"].removeprefix(">=").replace(".", "")}
    assert pod_specs()[0]["containers"][0]["image"].endswith(f":{project['version']}")
    assert f"/ser-batch:{project['version']}" in (DEPLOY / "README.md").read_text()
