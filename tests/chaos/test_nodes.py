"""Nodes of a cluster that die while a run works on them."""

import os
import shutil
import subprocess
import sys
import time
from collections.abc import Iterator
from contextlib import ExitStack
from pathlib import Path

import psutil
import pytest
from harness import Command, Job, Output, until_done
from processes import command_line
from ray.cluster_utils import Cluster

pytestmark = [pytest.mark.chaos, pytest.mark.timeout(1200)]
RAY = Path(sys.executable).with_name("ray")
# Otherwise nodes ask for a token if an earlier Ray on this machine has made one.
NO_TOKEN = {"RAY_AUTH_MODE": "disabled"}
HEAD = "10.213.0.1:6379"
START_SECONDS = 240.0  # ten on two idle cores
COUNT_NODES = """
import ray, sys
ray.init(sys.argv[1], log_to_driver=False)
sys.exit(sum(node["Alive"] for node in ray.nodes()) != int(sys.argv[2]))
"""


@pytest.fixture
def job(command, make_corpus, tmp_path):
    paths = make_corpus(tmp_path / "corpus", 400)
    flags = {"part_seconds": 0.5, "batch_size": 1}
    return command(tmp_path / "corpus", tmp_path / "labels", **flags), paths


def classifiers() -> list[str]:
    """The classifiers below this process."""
    lines = map(command_line, psutil.Process().children(recursive=True))
    return [line for line in lines if "ray::" in line and "lassif" in line]


# ---- three nodes on this machine -----------------------------------------------------------------


@pytest.fixture
def cluster() -> Iterator[Cluster]:
    cluster = Cluster(initialize_head=True, head_node_args={"num_cpus": 1})
    for _ in range(2):
        cluster.add_node(num_cpus=1)
    yield cluster
    cluster.shutdown()


@pytest.mark.parametrize("deaths", [1, 2])
def test_raylets_that_are_killed_cost_no_row(job, cluster, tmp_path, deaths):
    command, paths = job
    command = Command(command.flags, {"RAY_ADDRESS": cluster.address})
    output = Output(tmp_path / "labels")
    with Job(command) as running:
        for node in list(cluster.worker_nodes)[:deaths]:
            parts = set(output.parts())
            running.until(lambda parts=parts: set(output.parts()) - parts, "the next part")
            cluster.remove_node(node, allow_graceful=False)
        ended = running.wait(600)
    assert ended.code == 0, ended.stderr
    until_done(command, rounds=2)
    assert set(output.check(paths)["status"]) == {"ok"}
    deadline = time.monotonic() + 30
    while (left := classifiers()) and time.monotonic() < deadline:
        time.sleep(0.5)
    assert not left


# ---- three machines, as far as a network namespace is one ----------------------------------------


def ip(*arguments: str) -> None:
    subprocess.run(["ip", *arguments], check=True, capture_output=True)


@pytest.fixture
def namespaces() -> Iterator[list[str]]:
    """Three network namespaces on one bridge, with the addresses 10.213.0.1 to .3."""
    if os.geteuid():
        pytest.skip("only root may make network namespaces")
    tag = os.getpid()  # others may run this test, too; names of devices have at most 15 bytes
    bridge, names = f"br-{tag}", [f"chaos-{tag}-{number}" for number in (1, 2, 3)]
    with ExitStack() as stack:
        try:
            ip("link", "add", bridge, "type", "bridge")
        except (OSError, subprocess.CalledProcessError) as error:
            pytest.skip(f"network namespaces do not work here: {error}")
        stack.callback(ip, "link", "del", bridge)
        ip("link", "set", bridge, "up")
        for number, name in enumerate(names, 1):
            ip("netns", "add", name)
            stack.callback(ip, "netns", "del", name)
            pair = (f"v{number}-{tag}", "eth0")
            ip("link", "add", pair[0], "type", "veth", "peer", "name", pair[1], "netns", name)
            ip("link", "set", pair[0], "master", bridge, "up")
            ip("-n", name, "addr", "add", f"10.213.0.{number}/24", "dev", "eth0")
            for device in ("lo", "eth0"):
                ip("-n", name, "link", "set", device, "up")
        yield names


def ray_start(namespace: str, number: int, folder: Path) -> subprocess.Popen:
    """Starts a node; it ends with the process."""
    arguments = ["--num-cpus=1", f"--node-ip-address=10.213.0.{number}", "--block"]
    arguments += [f"--temp-dir={folder}", "--disable-usage-stats"]
    if number == 1:
        arguments += ["--head", "--port=6379", "--include-dashboard=false"]
    else:
        arguments += [f"--address={HEAD}"]
    log = (folder.parent / f"{namespace}.log").open("wb")
    command = ["ip", "netns", "exec", namespace, str(RAY), "start", *arguments]
    return subprocess.Popen(command, env=os.environ | NO_TOKEN, stdout=log, stderr=log)


def wait_for(namespace: str, *question: object) -> None:
    """Waits until a command says yes."""
    command = ["ip", "netns", "exec", namespace, *map(str, question)]
    environment = os.environ | NO_TOKEN
    deadline = time.monotonic() + START_SECONDS
    while subprocess.run(command, env=environment, capture_output=True, check=False).returncode:
        assert time.monotonic() < deadline
        time.sleep(0.5)


def kill_with_children(process: subprocess.Popen) -> None:
    if process.poll() is not None:
        return  # the test has killed it
    family = psutil.Process(process.pid).children(recursive=True)
    for member in family:
        if member.is_running():
            member.kill()
    process.kill()
    process.wait()


@pytest.fixture
def machines(namespaces) -> Iterator[list[subprocess.Popen]]:
    processes = []
    with ExitStack() as stack:
        for number, namespace in enumerate(namespaces, 1):
            # Sockets have paths of at most 107 bytes.
            folder = Path(f"/tmp/chaos-ray-{os.getpid()}-{number}")
            folder.mkdir()
            stack.callback(shutil.rmtree, folder, ignore_errors=True)
            processes.append(ray_start(namespace, number, folder))
            stack.callback(kill_with_children, processes[-1])
            if number == 1:
                wait_for(namespace, RAY, "health-check", f"--address={HEAD}")
        wait_for(namespaces[0], sys.executable, "-c", COUNT_NODES, HEAD, len(namespaces))
        yield processes


@pytest.mark.parametrize("death", ["process", "network"])
def test_a_machine_that_is_gone_costs_no_row(job, machines, namespaces, tmp_path, death):
    command, paths = job
    environment = NO_TOKEN | {"RAY_ADDRESS": HEAD}
    command = Command(command.flags, environment, ("ip", "netns", "exec", namespaces[0]))
    output = Output(tmp_path / "labels")
    with Job(command) as running:
        running.until(output.parts, "the first part")
        if death == "network":
            ip("-n", namespaces[2], "link", "set", "eth0", "down")
        else:
            kill_with_children(machines[2])
        ended = running.wait(600)
    assert ended.code == 0, ended.stderr
    until_done(command, rounds=2)
    assert set(output.check(paths)["status"]) == {"ok"}
